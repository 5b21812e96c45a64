"""A site that records the wire of its printer: the daemon prints, and what crossed is all in the file."""

from __future__ import annotations

import asyncio
import functools
import operator
import re
import signal
import stat
from importlib import resources
from pathlib import Path

from drivers.analysis import commands
from drivers.gcode import PLUGIN
from edge.demo.meaning import as_meant
from edge.driver import OutcomeKind, Run, Step
from edge.testing import RecordingContext
from edge.transcript import Part, parse
from tests.helpers.printing import write_program
from tests.helpers.routing import bench_router, sim_router
from tests.helpers.sim import MODES_BASE
from tests.helpers.site import DEADLINE_S, SHORT, SiteFolder, site_with_printer, until

TINY = resources.files("edge.demo").joinpath("tiny.gcode").read_bytes()
NUMBERED = re.compile(rb"N(\d+) ?(.+)\*(\d+)\n")


def recording(site: SiteFolder) -> Path:
    site.config.write_text(site.config.read_text() + "record = true\n")
    return site.state_dir / "wire" / "prn-1.txt"


def xor(data: bytes) -> int:
    """The checksum of a numbered line, reckoned without the driver's code."""
    return functools.reduce(operator.xor, data, 0)


def answered(part: Part) -> list[tuple[int, str]]:
    """Every numbered line that was taken, in order, its checksum right, answered by an ok of its own before the next.

    One that asks for the counter is refused (``Resend:``) and not taken.
    """
    done: list[tuple[int, str]] = []
    asked: tuple[int, str] | None = None
    taken = True
    for crossed in part.crossed:
        if crossed.direction == ">" and (found := NUMBERED.fullmatch(crossed.data)):
            assert int(found[3]) == xor(crossed.data.rpartition(b"*")[0])
            assert asked is None, f"{asked} was not answered"
            number, command = int(found[1]), found[2].decode()
            asked = number, as_meant(command) if number < MODES_BASE else command
            taken = True
        elif crossed.data.startswith(b"Resend:"):
            taken = False
        elif asked is not None and crossed.data.startswith(b"ok"):
            done += [asked] if taken else []
            asked = None
    assert asked is None, "the last one was answered, too"
    return done


def test_every_line_and_its_answer_is_in_the_file_in_order(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=5000, start=False) as (site, printer):
        path = recording(site)
        checked = site.edge("check")
        assert checked.returncode == 0
        assert f"prn-1: what crosses its wire is recorded, in\n    {path}\n" in checked.stdout
        assert site.json("check")["machines"] == [{"id": "prn-1", "problem": "", "record": True}]
        daemon = site.start()
        site.printed(TINY)
        assert daemon.end() == 0
        (part,) = parse(path.read_text())
        assert re.fullmatch(rf"2\S+Z prn-1 {tmp_path}/printer, 250000 baud", part.name)
        crossed = answered(part)
        assert crossed == [(int(number), text) for number, text in printer.commands() if number != "-"]
        wanted = [as_meant(command) for command in commands(TINY.decode().splitlines())]
        assert [text for number, text in crossed if 0 < number < MODES_BASE][: len(wanted)] == wanted
        assert b"FIRMWARE_NAME:Marlin" in part.came
        assert sum(crossed.after_s for crossed in part.crossed) > 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o777 == 0o750


def test_a_killed_daemon_leaves_a_file_that_the_next_one_goes_on_with(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50, start=False) as (site, printer):
        path = recording(site)
        daemon = site.start()
        site.begun()
        until(lambda: path.exists() and path.read_text().count("> N") > 20)
        daemon.end(signal.SIGKILL)
        whole = path.read_text()
        with path.open("a") as file:
            file.write("> N9 G")  # as a write that was cut leaves it
        site.start()
        until(lambda: path.read_text().count("\n== ") == 1)
        assert path.read_text().startswith(whole)
        first, second = parse(path.read_text())
        sent = [
            as_meant(found[2].decode()) for found in NUMBERED.finditer(first.sent) if 0 < int(found[1]) < MODES_BASE
        ]
        assert len(sent) > 10
        assert sent == printer.program()[: len(sent)]
        assert second.sent.startswith(b"\n"), "as each connection begins"


def test_a_disk_that_fails_is_told_and_the_print_goes_on(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=5000, start=False) as (site, _):
        path = recording(site)
        path.parent.mkdir(parents=True)
        path.symlink_to("/dev/full")
        daemon = site.start()
        until(lambda: site.live()["attention"])
        said = f"what crosses the wire of prn-1 is not recorded any more: {path}: No space left on device"
        assert site.live()["attention"] == [{"kind": "storage", "text": said, "command": ""}]
        daemon.wait_line(said)
        job = site.printed(SHORT)
        assert site.json("job", "show", job)["state"] == "COMPLETED"
        assert sum(said in line for line in daemon.lines) == 1


async def test_what_acts_at_once_on_a_router_is_shown_by_itself(tmp_path: Path) -> None:
    commands = ["G0 X10 Y10 Z5", "G1 X20 F3000", "G1 X10"]
    context = RecordingContext(tmp_path)
    with sim_router(tmp_path) as router:
        machine = bench_router(router)
        async with asyncio.timeout(DEADLINE_S), PLUGIN.open(machine, context) as driver:
            run = Run("run-1", "job-1", 1, Step("mill", "mill"), 1)
            outcome = await driver.execute(run, write_program(tmp_path / "program.nc", commands))
            assert outcome.kind is OutcomeKind.SUCCEEDED
    (part,) = parse(context.transcript(PLUGIN.wire(machine).at_once))
    sent = [crossed.data for crossed in part.crossed if crossed.direction == ">"]
    assert sent.count(b"?") > 1
    assert [line for line in sent if b"?" in line] == [b"?"] * sent.count(b"?"), "never glued to a line"
    assert [line.decode().rstrip() for line in sent if line.startswith((b"G0 X", b"G1 X"))] == commands
    assert b"".join(sent) == b"".join(data for direction, data in context.wire if direction == ">")
