"""What people and printer do to a print, and how OctoPrint's record of it is understood."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from drivers.octoprint import PLUGIN, profile
from drivers.octoprint.api import Job, Occurred, Prints
from drivers.octoprint.config import Connection
from drivers.octoprint.going import Going, ends_of
from edge.driver import DriverError, NotAcceptableError, OutcomeKind, Step
from tests.helpers.octoprint import machine_at
from tests.helpers.printing import write_program

PATH = "edge/run-1.gcode"


def going() -> Going:
    return Going(PATH, "edge", ends_of([b"; a comment\n", b"G28\r\n", b"\n", b"G1 X1 ; there\n", b"G1 X2"]))


def failed(error: str) -> Occurred:
    return Occurred("PrintFailed", PATH, reason="error", error=error)


def test_progress_counts_commands_by_bytes_and_never_goes_back() -> None:
    run = going()
    assert run.total == 3
    assert [run.came_to(filepos) for filepos in (0, 16, 17, 18, 32, 20, 37, 99)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_who_paused_is_told() -> None:
    run = going()
    assert run.held() == "paused by somebody in OctoPrint"
    assert run.saw(Occurred("PrintPaused", "edge/other.gcode", "ada")) == ""
    assert run.saw(Occurred("PrintPaused", PATH, "ada")) == "paused by ada"
    assert run.held() == "paused by ada in OctoPrint"
    assert run.saw(Occurred("PrintResumed", PATH, "ada")) == "resumed by ada"
    assert run.saw(Occurred("FilamentChange")) == "the printer wants new filament"
    run.saw(Occurred("PrintPaused", PATH))
    assert run.held() == "paused by the printer, for new filament in OctoPrint"
    run.saw(Occurred("PrintResumed", PATH))
    run.pause_asked = True
    assert run.saw(Occurred("PrintPaused", PATH, "edge")) == "paused by this site"
    run.pause_asked = False
    assert run.saw(Occurred("PrintPaused", PATH, "edge")) == "paused by edge", "somebody with this site's key"
    assert run.saw(Occurred("PrintDone", PATH)) == ""


def test_a_record_is_an_outcome_only_if_it_is_of_one_print() -> None:
    assert going().ended(Prints(1, 0, 12.34), None).kind is OutcomeKind.SUCCEEDED
    assert going().ended(Prints(1, 0, 12.34), None).evidence["print_time_s"] == 12.3
    assert going().ended(Prints(1, 1), None).kind is OutcomeKind.UNKNOWN
    assert going().ended(Prints(2, 0), None).kind is OutcomeKind.UNKNOWN
    assert going().ended(Prints(0, 1), None).kind is OutcomeKind.FAILED
    assert "not why" in going().ended(Prints(0, 1), Job("Operational")).reason


def test_a_failure_is_told_with_its_reason() -> None:
    run = going()
    assert not run.explained
    run.saw(Occurred("PrintCancelling", PATH, "ada"))
    run.saw(Occurred("PrintFailed", PATH, "ada", "cancelled"))
    assert run.explained
    outcome = run.ended(Prints(0, 1), None)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.STOPPED, "cancelled by ada in OctoPrint")
    assert outcome.evidence["cancelled_by"] == "ada"

    run = going()
    run.stop_asked = True
    run.saw(Occurred("PrintCancelled", PATH, "edge"))
    assert run.ended(Prints(0, 1), None).reason == "stopped on request"

    for events, words in (
        (
            [Occurred("Error", error="MINTEMP"), Occurred("PrintFailed", PATH, reason="error", error="unknown")],
            "MINTEMP",
        ),
        ([Occurred("PrintFailed", PATH, reason="error", error="MAXTEMP")], "MAXTEMP"),
        ([Occurred("PrintFailed", PATH, reason="error", error="unknown")], "OctoPrint does not say why"),
    ):
        run = going()
        for event in events:
            assert run.saw(event)
        outcome = run.ended(Prints(0, 1), None)
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, f"the print failed: {words}")
    assert going().ended(Prints(0, 1), Job("Offline", error="x")).reason == "the print failed: x"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"url": "octopi.local", "api_key_file": "/k"}, "write it as http://host or https://host"),
        ({"url": "http://a:b@octopi.local", "api_key_file": "/k"}, "the key belongs into api_key_file"),
        ({"url": "http://octopi.local", "api_key_file": "k"}, "write the whole path"),
        ({"url": "http://octopi.local", "api_key_file": "/k", "ca": "c"}, "write the whole path"),
        ({"url": "http://octopi.local", "api_key_file": "/k", "app": "ü"}, "at most 40 ASCII characters"),
        ({"url": "http://octopi.local", "api_key_file": "/k", "key": "x"}, "Extra inputs"),
    ],
)
def test_a_connection_that_cannot_be_is_refused(table: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Connection.model_validate(table)


def test_a_prefix_stays_and_a_slash_at_the_end_goes() -> None:
    assert Connection.model_validate({"url": "https://h:8/octo/", "api_key_file": "/k"}).url == "https://h:8/octo"


def test_programs_are_held_against_the_profiles_of_the_serial_driver(tmp_path: Path) -> None:
    machine = machine_at("http://127.0.0.1:1", tmp_path)
    suits = PLUGIN.check(machine, Step("print", "fdm"), write_program(tmp_path / "good", ["G28", "G1 X1"]))
    assert suits.facts["commands"] == 2
    for wrong, words in (("M112", "never in a program"), ("@pause", "a command such as G1"), ("G1 X900", "0 to 220")):
        with pytest.raises(NotAcceptableError, match=words):
            PLUGIN.check(machine, Step("print", "fdm"), write_program(tmp_path / "bad", ["G28", wrong]))
    assert {"marlin-2.1", "generic"} <= {found.name for found in PLUGIN.profiles(None)}
    assert len(profile.candidates("auto", None)) > 1
    with pytest.raises(DriverError, match="there is no profile 'grblhal'"):
        profile.candidates("grblhal", None)
