"""A daemon that dies in mid-print and does not come back: the guard makes the printer safe, and only then."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.analysis import commands
from edge.cli.client import call
from edge.demo.meaning import as_meant
from edge.journal.schema import FILE_NAME
from edge.journal.store import lock_of
from tests.helpers.sim import SimPrinter
from tests.helpers.site import DEADLINE_S, SiteFolder, site_with_printer, until

TINY = (Path(__file__).parent.parent.parent / "edge" / "demo" / "tiny.gcode").read_bytes()
SOON_S = 0.5
IN_TIME_S = 15.0
"""A daemon is back before."""

NOT_YET_S = 600.0
"""A guard that acts after this long has not acted in a test."""


class Guards:
    """The guards that a test has met; those that are still there at its end are killed, and fail it."""

    def __init__(self) -> None:
        self._watches: dict[int, int] = {}

    def of(self, site: SiteFolder) -> int:
        """The process id of the newest guard of a running daemon."""
        assert site.daemon is not None
        line = site.daemon.wait_line("the guard is process ")
        pid = int(line.partition("process ")[2].partition(";")[0])
        self._watches.setdefault(pid, os.pidfd_open(pid))
        return pid

    def gone(self, pid: int) -> bool:
        """Whether it has ended, at the deadline at the latest."""
        return bool(select.select([self._watches[pid]], [], [], DEADLINE_S)[0])

    def is_there(self, pid: int) -> bool:
        return not select.select([self._watches[pid]], [], [], 0)[0]

    def end(self) -> list[int]:
        left = [pid for pid in self._watches if self.is_there(pid)]
        for pid, watch in self._watches.items():
            if pid in left:
                signal.pidfd_send_signal(watch, signal.SIGKILL)
            os.close(watch)
        return left


@pytest.fixture
def guards() -> Iterator[Guards]:
    found = Guards()
    yield found
    assert found.end() == []


def kill(site: SiteFolder) -> None:
    assert site.daemon is not None
    site.daemon.end(signal.SIGKILL)


def is_free(lock: Path) -> bool:
    """Whether a daemon could have the lock now."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def texts(printer: SimPrinter) -> list[str]:
    return [text for _, text in printer.commands()]


def test_no_daemon_comes_back_and_the_guard_switches_the_heaters_off(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, speed=50, guard_after_s=SOON_S) as (site, printer):
        job_id = site.begun(on_restart="resume")
        (began,) = site.events("run_began")
        guard = guards.of(site)
        kill(site)
        assert guards.gone(guard)
        assert printer.macros() == ["M104 S0", "M140 S0", "M107", "M400"], "and nothing is lifted"
        (note,) = (site.state_dir / "made-safe").iterdir()

        site.start()
        ended = site.wait_event("run_ended", job_id)
        assert ended["body"]["outcome"] == "UNKNOWN"
        assert ended["body"]["reason"].startswith("the guard made it safe at 20")
        (event,) = site.events("make_safe")
        assert (event["actor"], event["machine"], event["run_id"]) == ("guard", "prn-1", began["run_id"])
        assert event["body"]["confirmed"].startswith("heaters and fans off, B at ")
        assert event["body"]["problem"] == ""
        assert not note.exists()
        assert site.events("run_resumed") == []
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        assert "the guard made it safe" in " ".join(site.edge("why", job_id).stdout.split())
        assert site.json("verify")["ok"]
        guard = guards.of(site)
        assert site.daemon is not None
        site.daemon.end()
        assert guards.gone(guard)


def test_a_daemon_that_comes_back_in_time_relieves_the_guard_and_prints_on(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, speed=60, guard_after_s=IN_TIME_S) as (site, printer):
        job_id = site.begun(commands=100, program=TINY, on_restart="resume")
        first = guards.of(site)
        kill(site)
        site.start()
        second = guards.of(site)
        assert second != first
        assert guards.gone(first), "it looks once more when its time has come"
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
        assert printer.program() == [*map(as_meant, commands(TINY.decode().splitlines())), "M400"]
        assert printer.macros() == []
        assert site.events("make_safe") == []
        assert site.daemon is not None
        site.daemon.end()
        assert guards.gone(second), "a daemon that stops in order dismisses it"


def test_a_restart_hands_the_guard_over_and_leaves_no_process_behind(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, speed=60, guard_after_s=NOT_YET_S) as (site, printer):
        job_id = site.begun(commands=100, program=TINY, on_restart="resume")
        first = guards.of(site)
        assert site.daemon is not None
        site.daemon.lines.clear()
        site.json("restart")
        second = guards.of(site)
        assert first != second
        assert guards.gone(first)
        children = Path(f"/proc/{site.daemon.process.pid}/task/{site.daemon.process.pid}/children")
        assert str(first) not in children.read_text().split(), "a zombie"
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
        assert printer.macros() == []
        site.daemon.end()
        assert guards.gone(second)


def test_a_restart_that_fails_leaves_the_print_to_the_guard(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, speed=50, guard_after_s=SOON_S) as (site, printer):
        site.begun(on_restart="resume")
        guard = guards.of(site)
        assert site.daemon is not None
        printer.process.send_signal(signal.SIGSTOP)  # so that the daemon cannot let go before the root is gone
        call(site.socket, "POST", "/v1/restart", {})
        site.daemon.wait_line("stopping: machines first")
        (site.folder / "root.dsse.json").write_bytes(b"no root")
        printer.process.send_signal(signal.SIGCONT)
        assert site.daemon.process.wait(DEADLINE_S) == 2
        assert guards.gone(guard)
        assert printer.macros() == ["M104 S0", "M140 S0", "M107", "M400"]


def test_without_an_open_run_no_port_is_opened(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, guard_after_s=SOON_S) as (site, printer):
        guard = guards.of(site)
        kill(site)
        before = texts(printer)
        assert guards.gone(guard)
        assert texts(printer) == before
        assert not (site.state_dir / "made-safe").exists()


def test_a_guard_that_is_killed_is_replaced(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, guard_after_s=NOT_YET_S) as (site, _):
        first = guards.of(site)
        assert site.daemon is not None
        os.kill(first, signal.SIGKILL)
        site.daemon.wait_line("the guard has ended")
        site.daemon.lines.clear()
        second = guards.of(site)
        assert guards.is_there(second)
        site.daemon.end()
        assert guards.gone(second)


def test_two_guards_of_dead_daemons_do_not_fight(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, speed=50, guard_after_s=IN_TIME_S) as (site, printer):
        site.begun(on_restart="resume")
        first = guards.of(site)
        kill(site)
        site.start()
        second = guards.of(site)
        kill(site)
        assert guards.gone(first)
        assert guards.gone(second)
        assert printer.macros() == ["M104 S0", "M140 S0", "M107", "M400"], "once"


def test_between_two_attempts_a_daemon_may_take_over(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, speed=50, guard_after_s=SOON_S) as (site, printer):
        job_id = site.begun(on_restart="resume")
        guard = guards.of(site)
        (tmp_path / "printer").rename(tmp_path / "unplugged")
        kill(site)
        until(lambda: list((site.state_dir / "made-safe").glob("*.json")))
        until(lambda: is_free(lock_of(site.state_dir / FILE_NAME)))
        assert guards.is_there(guard)
        (tmp_path / "unplugged").rename(tmp_path / "printer")
        site.start()
        (event,) = site.events("make_safe")
        assert "does not exist" in event["body"]["problem"] or printer.macros()  # or its next attempt came first
        site.wait_event("run_ended" if printer.macros() else "run_resumed", job_id)
        assert guards.gone(guard)
        newest = guards.of(site)
        assert site.daemon is not None
        site.daemon.end()
        assert guards.gone(newest)


def test_a_waiting_guard_is_small(tmp_path: Path, guards: Guards) -> None:
    with site_with_printer(tmp_path, guard_after_s=NOT_YET_S) as (site, _):
        status = Path(f"/proc/{guards.of(site)}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) < 20_000
        assert site.daemon is not None
        site.daemon.end()
