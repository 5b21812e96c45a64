"""What goes wrong at a serial printer: how each run ends, in which words, and what was carried out by then."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cable import cable
from tests.helpers.killing import TINY, exact
from tests.helpers.printing import FINAL, impatient_profile
from tests.helpers.sim import SimPrinter, sim_printer
from tests.helpers.site import LONG, PRINTER, SiteFolder, starts, until

MOVES = b"G28\nG90\n" + b"G1 X100 F6000\nG1 X10 F6000\n" * 100
ASKED = ("M115", "M155 S2", "M105", "M114", "M27", "")
"""What the driver sends without a number: it asks, and moves nothing."""


@contextmanager
def site_of(
    folder: Path, *options: str, speed: float = 100.0, busy_s: float = 0.5, silence_s: float = 1.5
) -> Iterator[tuple[SiteFolder, SimPrinter]]:
    """A site with one printer, of which it loses its patience soon."""
    profiles = folder / "profiles"
    profiles.mkdir()
    impatient_profile(profiles, busy_s, silence_s)
    site = SiteFolder(folder, PRINTER.format(port=folder / "printer"))
    site.config.write_text(site.config.read_text().replace("[site]\n", '[site]\nprofiles_dir = "profiles"\n'))
    with sim_printer(folder, *options, speed=speed) as printer:
        site.start()
        try:
            yield site, printer
        finally:
            assert site.daemon is not None
            site.daemon.end()


def said(site: SiteFolder, *words: str) -> str:
    """What a person reads, on one line."""
    return " ".join(site.edge(*words).stdout.split())


def ended(site: SiteFolder, job_id: str) -> dict[str, Any]:
    body: dict[str, Any] = site.wait_event("run_ended", job_id)["body"]
    return body


def is_beginning(printer: SimPrinter, program: list[str]) -> bool:
    """Whether the printer has carried out the program up to some command: nothing left out, nothing twice."""
    done = printer.program()
    return done == [*program, FINAL][: len(done)]


def unchecked(printer: SimPrinter) -> list[str]:
    """What was carried out without a number and is no question of the driver's, nor one with a character changed."""

    def like(text: str, question: str) -> bool:
        return len(text) == len(question) and sum(a != b for a, b in zip(text, question, strict=True)) <= 1

    texts = [text for number, text in printer.commands() if number == "-"]
    return [text for text in texts if not any(like(text, question) for question in ASKED)]


@pytest.mark.parametrize(
    "faults",
    [["corrupt=0.01"], ["corrupt=0.01", "no-ok-after-resend"], ["drop-ok=1000"], ["garble=0.001"]],
    ids=",".join,
)
def test_a_bad_wire_costs_time_and_no_command(tmp_path: Path, faults: list[str]) -> None:
    options = [word for fault in faults for word in ("--fault", fault)]
    with site_of(tmp_path, *options, "--seed", "3", speed=2000.0, busy_s=0.1, silence_s=5.0) as (site, printer):
        job_id = site.printed(TINY.read_bytes())
        assert ended(site, job_id)["outcome"] == "SUCCEEDED"
        assert exact(printer)
        assert unchecked(printer) == []
        assert f"job {job_id} is COMPLETED" in said(site, "why", job_id)


@pytest.mark.parametrize("seed", ["1", "2", "4"])
def test_garbage_from_the_printer_is_never_taken_for_a_success(tmp_path: Path, seed: str) -> None:
    with site_of(tmp_path, "--fault", "garble=0.02", "--seed", seed, speed=2000.0, busy_s=0.1, silence_s=5.0) as (
        site,
        printer,
    ):
        job_id = site.printed(MOVES)
        body = ended(site, job_id)
        assert is_beginning(printer, commands_in_text(MOVES))
        assert unchecked(printer) == []
        assert (body["outcome"] == "SUCCEEDED") == (printer.program() == [*commands_in_text(MOVES), FINAL]), body[
            "reason"
        ]
        if body["outcome"] != "SUCCEEDED":
            assert body["reason"]
            assert body["reason"].split(";")[0] in said(site, "why", job_id)


def test_a_board_that_resets_in_mid_print_has_failed_its_run(tmp_path: Path) -> None:
    with site_of(tmp_path, "--fault", "die-after=60") as (site, printer):
        job_id = site.printed(LONG)
        body = ended(site, job_id)
        assert (body["outcome"], body["motion"], body["reason"]) == ("FAILED", "possible", "the printer has restarted")
        assert is_beginning(printer, commands_in_text(LONG))
        assert "HELD: the printer has restarted" in said(site, "why", job_id)
        assert job_id in said(site, "status")


def test_a_print_that_fails_at_a_printer_that_answers_leaves_no_heater_on(tmp_path: Path) -> None:
    program = b"G28\nG90\nM140 S60\nG1 X10 Z5 F600\nG1 E5\nG1 X20\n"
    with site_of(tmp_path) as (site, printer):
        job_id = site.printed(program)
        body = ended(site, job_id)
        cold = "the firmware did not carry out a command: cold extrusion prevented"
        assert (body["outcome"], body["motion"]) == ("FAILED", "possible")
        assert body["reason"] == f"{cold}; it was switched off, and has confirmed it"
        assert is_beginning(printer, commands_in_text(program))
        assert printer.macros() == ["M104 S0", "M140 S0", "M107", "G91", "G1 Z10 F600", "G90", "M400"]
        until(lambda: site.live()["machines"][0]["state"] == "IDLE")
        assert "heating" not in {item["kind"] for item in site.json("status", code=None)["attention"]}
        assert f"HELD: {cold}; it was switched off" in said(site, "why", job_id)


def test_a_firmware_that_stops_itself_has_failed_its_run_in_its_own_words(tmp_path: Path) -> None:
    with site_of(tmp_path, "--fault", "halt-after=60") as (site, printer):
        job_id = site.printed(LONG)
        body = ended(site, job_id)
        assert (body["outcome"], body["motion"]) == ("FAILED", "possible")
        assert body["reason"].startswith("the printer stopped itself: Thermal Runaway")
        assert is_beginning(printer, commands_in_text(LONG))
        assert "HELD: the printer stopped itself: Thermal Runaway" in said(site, "why", job_id)


def test_a_cut_cable_leaves_the_run_open_and_says_so(tmp_path: Path) -> None:
    link = tmp_path / "usb-Marlin_printer-if00"
    with sim_printer(tmp_path, speed=60.0) as printer, cable(printer.place, link) as wire:
        site = SiteFolder(tmp_path, PRINTER.format(port=link))
        site.start()
        try:
            job_id = site.begun(commands=100, program=TINY.read_bytes(), on_restart="resume")
            wire.pull()
            until(lambda: site.live()["machines"][0]["state"] == "OFFLINE")
            # Whether the port was looked for again by now, or not.
            broke = ".*the link to the machine broke"
            assert re.search(rf"runs job {job_id}, and cannot be reached: {broke}", said(site, "status"))
            assert re.search(rf"prn-1 is OFFLINE: {broke}", said(site, "why", job_id))
            assert site.edge("status").returncode == 2
            wire.plug_in()
            assert ended(site, job_id)["outcome"] == "SUCCEEDED"
            assert exact(printer)
        finally:
            assert site.daemon is not None
            site.daemon.end()


def silent(site: SiteFolder, printer: SimPrinter, job_id: str) -> None:
    """The printer says nothing any more, and the site says so, first while it is asked and then for good."""
    printer.process.send_signal(signal.SIGSTOP)
    until(lambda: "said nothing" in site.live()["machines"][0]["detail"])
    if site.live()["machines"][0]["state"] == "EXECUTE":
        assert re.search(r"it has said nothing for \d+ s; it is asked", said(site, "status"))
    until(lambda: site.live()["machines"][0]["state"] == "OFFLINE")
    words = said(site, "status")
    assert re.search(rf"runs job {job_id}, and cannot be reached: .*the printer has said nothing for \d+ s", words)
    assert re.search(r"prn-1 is OFFLINE: .*the printer has said nothing for \d+ s", said(site, "why", job_id))
    assert site.events("run_ended") == []


def test_a_printer_that_speaks_again_after_a_silence_goes_on_where_it_stood(tmp_path: Path) -> None:
    with site_of(tmp_path, speed=60.0) as (site, printer):
        job_id = site.begun(commands=100, program=TINY.read_bytes(), on_restart="resume")
        silent(site, printer, job_id)
        printer.process.send_signal(signal.SIGCONT)
        site.wait_event("run_resumed", job_id)
        assert ended(site, job_id)["outcome"] == "SUCCEEDED"
        assert exact(printer)
        assert starts(printer) == 1


def test_a_printer_that_was_reset_in_its_silence_is_made_safe_and_its_run_in_doubt(tmp_path: Path) -> None:
    with site_of(tmp_path, "--fault", "silent-after=60") as (site, printer):
        job_id = str(site.submit(site.bundle(LONG, on_restart="resume"))["job_id"])
        until(lambda: site.live()["machines"][0]["state"] == "OFFLINE")
        printer.reset()
        body = ended(site, job_id)
        assert (body["outcome"], body["evidence"]) == ("UNKNOWN", {"stop_confirmed": True})
        assert re.match(r"the printer has said nothing for \d+ s: the print cannot go on: ", body["reason"])
        assert "reset in between" in body["reason"]
        assert is_beginning(printer, commands_in_text(LONG))
        assert "the printer has said nothing" in said(site, "why", job_id)


def test_a_cancel_of_a_silent_printer_is_carried_out_when_it_speaks_again(tmp_path: Path) -> None:
    with site_of(tmp_path) as (site, printer):
        job_id = site.begun(on_restart="resume")
        silent(site, printer, job_id)
        site.json("job", "cancel", job_id, code=None)
        assert site.events("run_ended") == []
        printer.process.send_signal(signal.SIGCONT)
        assert ended(site, job_id)["outcome"] == "STOPPED"
        assert {"M104 S0", "M140 S0"} <= {text for _, text in printer.commands()}
        assert starts(printer) == 1


def commands_in_text(program: bytes) -> list[str]:
    return program.decode().splitlines()
