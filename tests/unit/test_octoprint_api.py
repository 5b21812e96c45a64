"""What OctoPrint says, read from recorded answers of 1.11.8 and 2.0.0rc7 with their virtual printers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.octoprint import api
from drivers.octoprint.api import Heater, Job, NotUnderstoodError, Occurred, Phase, Prints

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
VERSIONS = ("1.11.8", "2.0.0rc7")


class Recorded:
    """The answers of one version, by the name of what was asked."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._rows = json.loads((TRANSCRIPTS / f"octoprint-{version}.json").read_text())

    def answer(self, name: str) -> Any:
        return next(row["body"] for row in self._rows if row["name"] == name)

    def pushes(self, name: str) -> list[Any]:
        found = [json.dumps(row["push"]) for row in self._rows if row["name"] == f"push {name}"]
        return [said for text in found for said in api.push(text)]

    def everything(self) -> list[Any]:
        return [row.get("body", row.get("push")) for row in self._rows]


@pytest.fixture(params=VERSIONS)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def test_who_is_there_and_whose_key_it_is(recorded: Recorded) -> None:
    assert api.version(recorded.answer("version")) == recorded.version
    assert not api.too_old(recorded.version)
    assert api.safe_mode(recorded.answer("server")) == ""
    who = api.account(recorded.answer("currentuser"))
    assert who.name == "edge"
    assert api.missing_permissions(who) == []
    nobody = api.account(recorded.answer("currentuser, wrong key"))
    assert nobody.name == ""
    assert api.missing_permissions(nobody) == sorted(api.NEEDED)
    assert api.authentication(recorded.answer("login")) == "edge:ssssssss"


def test_a_file_tells_its_run_and_its_prints(recorded: Recorded) -> None:
    fresh = api.stored(recorded.answer("file, fresh"))
    assert (fresh.path, fresh.run, fresh.prints) == ("edge/run-1.gcode", "run-1", Prints())
    assert fresh.date_s > 1_700_000_000
    done = api.stored(recorded.answer("file, done")).prints
    assert (done.success, done.failure, done.total) == (1, 0, 1)
    assert done.print_time_s is not None
    assert api.stored(recorded.answer("file, failed")).prints == Prints(0, 1)
    assert api.stored(recorded.answer("file, twice")).prints == Prints(0, 2)
    assert [file.run for file in api.children(recorded.answer("folder"))] == ["run-1"]


def test_a_job_tells_what_is_printed_by_whom_and_how_far_it_is(recorded: Recorded) -> None:
    idle = api.job(recorded.answer("job, idle"))
    assert (idle.phase, idle.active, idle.path) == (Phase.READY, False, "")
    printing = api.job(recorded.answer("job, printing"))
    assert (printing.phase, printing.active) == (Phase.BUSY, True)
    assert (printing.path, printing.by) == ("edge/run-1.gcode", "edge")
    assert printing.filepos is not None
    assert 0 < printing.filepos < 4004
    paused = api.job(recorded.answer("job, paused"))
    assert (paused.phase, paused.active) == (Phase.HELD, True)
    done = api.job(recorded.answer("job, done"))
    assert (done.phase, done.completion) == (Phase.READY, 100.0)
    broken = api.job(recorded.answer("job, after error"))
    assert (broken.phase, broken.path) == (Phase.OFFLINE, "")
    assert ("Thermal Runaway" in broken.error) == (recorded.version == "1.11.8")


def test_heaters_have_the_names_of_marlin_and_are_switched_off_by_those_of_octoprint(recorded: Recorded) -> None:
    assert {heater.name for heater in api.heaters(recorded.answer("printer, idle"))} == {"T", "B"}
    hot = [Heater("T", 20, 200), Heater("T1", 20, 210), Heater("T2", 20, 0), Heater("B", 20, 60), Heater("C", 20, 40)]
    assert api.cooling(hot) == [
        ("/api/printer/tool", {"command": "target", "targets": {"tool0": 0, "tool1": 0}}),
        ("/api/printer/bed", {"command": "target", "target": 0}),
        ("/api/printer/chamber", {"command": "target", "target": 0}),
    ]
    assert api.cooling([Heater("T", 200, 0)]) == []
    three = api.heaters({"temperature": {"tool1": {"actual": 1}, "chamber": {"actual": 2, "target": 3}, "x": None}})
    assert three == (Heater("T1", 1, 0), Heater("C", 2, 3))


def test_events_name_the_file_and_who_did_it(recorded: Recorded) -> None:
    (paused,) = recorded.pushes("event:PrintPaused")
    assert paused == Occurred("PrintPaused", "edge/run-1.gcode", "admin")
    cancelled = recorded.pushes("event:PrintCancelled")[0]
    assert (cancelled.user, cancelled.path) == ("admin", "edge/run-1.gcode")
    failed = [event for event in recorded.pushes("event:PrintFailed") if event.reason == "error"]
    assert [(event.user, event.error == "unknown") for event in failed] == [("", recorded.version != "1.11.8")]
    (error,) = recorded.pushes("event:Error")
    assert "Thermal Runaway" in error.error
    (gone,) = recorded.pushes("event:Disconnected")
    assert gone == Occurred("Disconnected")


def test_the_push_socket_tells_the_state(recorded: Recorded) -> None:
    assert recorded.pushes("connected") == [api.Greeting("")]
    (current,) = recorded.pushes("current:Printing")
    assert current.job.phase is Phase.BUSY
    assert current.job.path == "edge/run-1.gcode"
    (history,) = recorded.pushes("history")
    assert history.job.phase is Phase.READY
    assert api.push('{"reauthRequired": {"reason": "stale"}}') == [api.Stale()]
    assert api.push('{"timelapse": null, "plugin": {}}') == []
    assert api.push('{"current": {"state": {"text": "Operational"}, "temps": []}}') == [
        api.Current(Job("Operational"), ())
    ]
    assert api.subscription()["subscribe"]["events"] == list(api.EVENTS)


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("Starting", Phase.BUSY),
        ("Printing from SD", Phase.BUSY),
        ("Pausing", Phase.BUSY),
        ("Cancelling", Phase.BUSY),
        ("Opening serial connection", Phase.CONNECTING),
        ("Offline", Phase.OFFLINE),
        ("Error: x", Phase.OFFLINE),
        ("Daydreaming", Phase.UNKNOWN),
    ],
)
def test_states_by_how_they_begin(state: str, phase: Phase) -> None:
    assert Job(state).phase is phase


def test_a_file_on_the_printers_own_card_is_not_ours() -> None:
    shown = {"state": "Printing", "job": {"file": {"path": "edge/run-1.gcode", "origin": "sdcard"}}}
    assert api.job(shown).path == "sd:edge/run-1.gcode"


@pytest.mark.parametrize(
    ("version", "old"), [("1.10.3", True), ("1.11.0", False), ("2.0.0rc7", False), ("2.1rc1", False)]
)
def test_versions(version: str, old: bool) -> None:
    assert api.too_old(version) is old


def test_application_keys(recorded: Recorded) -> None:
    assert api.app_token(recorded.answer("appkeys request")) == "token"
    assert api.granted_key({"api_key": "k"}) == "k"


def test_errors_are_told_in_octoprints_words(recorded: Recorded) -> None:
    said = json.dumps(recorded.answer("start, printing"))
    assert api.error_text(said) == "Printer is already printing, cannot select a new file"
    assert api.error_text("<html>") == api.error_text("[]") == ""


@pytest.mark.parametrize(
    "read",
    [
        lambda: api.version({"server": "latest"}),
        lambda: api.version([]),
        lambda: api.authentication({"name": "edge"}),
        lambda: api.job({}),
        lambda: api.stored({"path": 3}),
        lambda: api.children({}),
        lambda: api.app_token({}),
        lambda: api.granted_key({}),
        lambda: api.heaters({}),
        lambda: api.push("o"),
        lambda: api.push("[]"),
        lambda: api.push('{"event": null}'),
    ],
)
def test_what_no_octoprint_says_is_not_understood(read: Any) -> None:
    with pytest.raises(NotUnderstoodError):
        read()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.data(), st.sampled_from(VERSIONS))
def test_no_answer_whatever_breaks_a_reader(data: st.DataObject, version: str) -> None:
    """A recorded answer with one field of another type, or gone, is read or refused, and nothing else."""
    said = json.loads(json.dumps(data.draw(st.sampled_from(Recorded(version).everything()))))
    table = said
    while isinstance(table, dict) and table:
        name = data.draw(st.sampled_from(sorted(table)))
        if not isinstance(table[name], dict) or data.draw(st.booleans()):
            table[name] = data.draw(JSON)
            break
        table = table[name]
    readers = (api.version, api.safe_mode, api.account, api.authentication, api.job, api.heaters, api.stored)
    for read in (*readers, api.children, lambda value: api.push(json.dumps(value))):
        with contextlib.suppress(NotUnderstoodError):
            read(said)
