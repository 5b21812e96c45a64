"""Killed, stopped and unplugged: what is not known is held, and nothing starts twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.reading.views import open_readonly
from tests.helpers.sim import sim_printer
from tests.helpers.site import DEADLINE_S, LONG, PRINTER, SHORT, SiteFolder, site_with_printer, starts, until

MOMENTS = 4


def test_killed_in_mid_print_the_run_is_unknown_and_held_and_nothing_starts_by_itself(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun()
        assert site.daemon is not None
        assert site.daemon.end(signal.SIGKILL) == -signal.SIGKILL

        dead = site.edge("status")
        assert dead.returncode == 2
        assert "UNSAFE" in dead.stdout
        assert f"prn-1 was running job {job_id} when the daemon ended" in " ".join(dead.stdout.split())
        assert "edge run" in dead.stdout

        printer.reset()  # as a power cut of the printer alone: nothing proves any more where it stands
        site.start()
        site.wait_event("run_ended", job_id)
        status = site.json("status", code=2)
        assert status["attention"][0]["kind"] == "unknown_run"
        assert status["attention"][0]["command"] == f"edge why {job_id}"
        (job,) = status["jobs"]
        assert job["state"] == "INTERRUPTED"
        assert "nobody knows what became of its run on prn-1" in " ".join(site.edge("status").stdout.split())
        assert "HELD" in site.edge("why", job_id).stdout
        (ended,) = site.events("run_ended")
        assert (ended["body"]["outcome"], ended["body"]["motion"]) == ("UNKNOWN", "possible")
        assert "the print cannot go on" in ended["body"]["reason"]

        # Neither does the next job start: the plate is not clear.
        waiting = site.submit(site.bundle())["job_id"]
        until(lambda: [w for w in site.json("why", waiting)["waits"] if w["code"] == "needs_clearing"])
        assert site.json("job", "cancel", job_id)["state"] == "ABORTED"
        site.json("machine", "clear", "prn-1")
        assert site.wait_event("run_ended", waiting)["body"]["outcome"] == "SUCCEEDED"
        assert starts(printer) == 2
        assert site.json("verify")["ok"]


def test_killed_around_run_began_no_job_is_ever_started_twice(tmp_path: Path) -> None:
    moments = random.Random(20261122)
    with site_with_printer(tmp_path, speed=500) as (site, printer):
        for number in range(MOMENTS):
            job_id = str(site.submit(site.bundle(SHORT + b"; %d\n" % number))["job_id"])
            before = starts(printer)
            if number % 2:  # right after the claim, else right after the order was taken
                site.wait_event("run_began", job_id)
            threading.Event().wait(moments.uniform(0.0, 0.06 if number % 2 else 0.5))  # the moment to be tried
            assert site.daemon is not None
            site.daemon.end(signal.SIGKILL)
            with open_readonly(site.state_dir) as snapshot:
                began = any(event["kind"] == "run_began" for event in snapshot.events(job_id=job_id))
            assert began or starts(printer) == before, "the printer was started before the claim was durable"

            site.start()
            until(lambda job_id=job_id: _settled(site, job_id))
            assert len([e for e in site.events("run_began") if e["job_id"] == job_id]) == 1
            assert starts(printer) - before <= 1
            site.edge("job", "cancel", job_id)
            site.edge("machine", "clear", "prn-1")
        assert site.json("verify")["ok"]


def _settled(site: SiteFolder, job_id: str) -> bool:
    with open_readonly(site.state_dir) as snapshot:
        return any(event["kind"] == "run_ended" for event in snapshot.events(job_id=job_id))


def test_sigterm_in_mid_print_stops_the_machine_first_and_closes_the_journal_last(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun()
        assert site.daemon is not None
        assert site.daemon.end() == 0
        assert not (site.state_dir / "journal.sqlite-wal").exists(), "closed cleanly: nothing is left in the log"
        assert "Traceback" not in "\n".join(site.daemon.lines)
        sent = [text for _, text in printer.commands()]
        assert {"M104 S0", "M140 S0"} <= set(sent)
        assert len(printer.program()) < len(LONG.splitlines())

        with open_readonly(site.state_dir) as snapshot:
            assert [event["kind"] for event in snapshot.last_events(2)] == ["run_ended", "site_stopped"]
        assert not site.socket.exists()
        shown = site.json("job", "show", job_id)
        (run,), (step,) = shown["runs"], shown["steps"]
        assert (run["outcome"], step["state"]) == ("STOPPED", "HELD")
        assert site.json("status", code=None)["level"] == 1
        site.start()
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        assert starts(printer) == 1


def test_ctrl_c_stops_an_idle_site_without_a_word_too_many(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        site.printed()  # the worker process that checks programs has started
        assert site.daemon is not None
        assert site.daemon.end(signal.SIGINT) == 0
        assert site.daemon.lines[-2:] == [
            "stopping: machines first, then the journal",
            "site berlin-1 has stopped; its journal is closed",
        ]


def test_a_daemon_stops_at_once_while_a_machine_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        machine = PRINTER.replace('port = "{port}", baud = 250000', f'url = "tcp://127.0.0.1:{port}"')
        site = SiteFolder(tmp_path, machine.replace("{{", "{").replace("}}", "}"))
        daemon = site.start(ready="is up")
        deaf.settimeout(DEADLINE_S)
        connection, _ = deaf.accept()
        with connection:
            assert connection.recv(1) != b"", "it asks who is there"
            assert daemon.end() == 0


def test_two_daemons_on_one_state_directory_are_refused(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        second = site.edge("run")
        assert second.returncode == 2
        assert str(site.daemon.process.pid if site.daemon else "") in second.stderr
        assert "in use by another process" in second.stderr
        assert second.stderr.count("\n") == 1
        assert site.json("status")["level"] == 0, "the first one is none the worse for it"


def test_a_printer_switched_off_in_mid_print_leaves_the_run_in_doubt_when_it_comes_back(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    try:
        with sim_printer(tmp_path, speed=50):
            site.start()
            job_id = site.begun()
        gone = site.wait_event("machine_offline")
        status = site.json("status", code=2)
        told = {item["kind"] for item in status["attention"]}
        assert "unwatched_run" in told
        assert "offline" not in told, "it is told once"
        with sim_printer(tmp_path, speed=2000) as printer:
            ended = site.wait_event("run_ended", job_id, after=gone["seq"])
            assert ended["body"]["outcome"] == "UNKNOWN"
            until(lambda: site.json("machines", code=None)[0]["state"] == "IDLE")
            assert starts(printer) == 1, "nothing went to the printer that came back"
            assert site.json("job", "cancel", job_id)["state"] == "ABORTED"
            site.json("machine", "clear", "prn-1")
            site.printed()
    finally:
        if site.daemon is not None:
            site.daemon.end()


def test_with_the_daemon_dead_everything_recorded_can_be_read(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        job_id = site.printed()
        waiting = site.submit(site.bundle())["job_id"]
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        status = site.edge("status")
        assert status.returncode == 1
        assert "the daemon is not running" in status.stdout
        assert "edge machine clear prn-1" in status.stdout
        assert site.json("status", code=1)["daemon"] is None
        assert [job["job_id"] for job in site.json("jobs")] == [waiting]
        assert {job["job_id"] for job in site.json("jobs", "--all")} == {job_id, waiting}
        assert site.json("why", waiting)["waits"][0]["code"] == "no_daemon"
        assert "edge run" in site.edge("why", waiting).stdout
        assert site.json("job", "show", job_id)["state"] == "COMPLETED"
        assert "run_ended" in site.edge("events").stdout
        assert site.json("machines", code=1)[0]["state"] == "UNKNOWN"
        assert site.json("verify")["ok"]
        for words in (("job", "cancel", waiting), ("machine", "clear", "prn-1"), ("job", "submit", "order-1.mfjob")):
            done = site.edge(*words, cwd=tmp_path)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
            assert "the daemon is not running" in done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody may enter, and all above it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_group_reads_and_asks_and_a_stranger_does_not(open_folder: Path) -> None:
    gid, nobody = 34567, 65534
    site = SiteFolder(open_folder)
    site.state_dir.mkdir()
    os.chown(site.state_dir, -1, gid)
    site.state_dir.chmod(0o2750)
    with sim_printer(open_folder, speed=2000):
        try:
            daemon = site.start()
            site.printed()
            assert site.edge_as(nobody, gid, "status").returncode == 1
            assert site.edge_as(nobody, gid, "events").returncode == 0
            done = site.edge_as(nobody, gid, "machine", "clear", "prn-1")
            assert (done.returncode, done.stdout) == (0, "prn-1 is clear; the journal names user:nobody\n")
            refused = site.edge_as(nobody, nobody, "status")
            assert refused.returncode == 2
            assert "permission" in refused.stderr

            daemon.end(signal.SIGKILL)
            for words in (("status",), ("jobs", "--all"), ("events",), ("verify",)):
                done = site.edge_as(nobody, gid, *words)
                assert done.returncode == (1 if words == ("status",) else 0), done
            assert site.edge_as(nobody, nobody, "status").returncode == 2
        finally:
            daemon.end()
    modes = {path.name: path.stat().st_mode & 0o777 for path in site.state_dir.rglob("*")}
    assert all(mode & 0o007 == 0 for mode in modes.values()), modes
