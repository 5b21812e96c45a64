"""`edge make-safe`: with a daemon, without one, and where neither gets through."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.helpers.site import DEADLINE_S, LONG, PRINTER, SiteFolder, site_with_printer, until

BEHIND_OCTOPRINT = """
[[machines]]
id = "oct-1"
driver = "octoprint"
processes = ["fdm"]
connection = {{url = "http://127.0.0.1:1", api_key_file = "{folder}/oct-1.key"}}
limits = {{x_mm = [0, 220], y_mm = [0, 220], z_mm = [0, 250], nozzle_degc = [0, 260], bed_degc = [0, 100]}}
"""

OFF = ["M104 S0", "M140 S0", "M107", "M400"]


def flat(text: str) -> str:
    return " ".join(text.split())


def kill(site: SiteFolder) -> None:
    assert site.daemon is not None
    site.daemon.end(signal.SIGKILL)


def test_the_daemon_stops_the_run_and_holds_its_step_for_a_person(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun()
        done = site.edge("make-safe")
        assert done.returncode == 0
        said = (
            "prn-1: stopped and switched off prn-1 takes no work until somebody says: edge machine maintain prn-1 --end"
        )
        assert flat(done.stdout) == said
        ended = site.wait_event("run_ended", job_id)
        (event,) = site.events("make_safe")
        assert event["actor"].startswith("user:")
        assert event["body"]["confirmed"] == "stopped and switched off"
        assert ended["body"]["outcome"] == "STOPPED"
        assert ended["body"]["reason"] == f"{event['actor']} had the machine made safe"
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        assert set(OFF) <= set(printer.macros())
        assert all(heat["target_degc"] == 0 for heat in site.live()["machines"][0]["temperatures"].values())

        again = site.json("make-safe", "prn-1")
        machine = {"id": "prn-1", "confirmed": "stopped and switched off", "problem": ""}
        assert again == {"daemon": True, "level": 0, "machines": [machine]}
        assert site.json("verify")["ok"]

        site.json("job", "scrap", job_id)
        site.edge("machine", "clear", "prn-1")
        following = site.submit(site.bundle())["job_id"]
        until(lambda: "out of service by" in site.edge("why", following).stdout)
        assert "prn-1 is out of service by" in flat(site.edge("status").stdout)
        assert [item["kind"] for item in site.json("status", code=1)["attention"]] == ["maintenance"]
        assert flat(site.edge("machine", "maintain", "prn-1", "--end").stdout) == "prn-1 is in service again"
        assert site.wait_event("run_ended", following)["body"]["outcome"] == "SUCCEEDED"
        assert site.json("verify")["ok"]


def test_a_stop_that_is_not_confirmed_is_followed_by_an_abort_and_says_so(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun()
        printer.process.send_signal(signal.SIGSTOP)
        done = site.edge("make-safe", "prn-1", "--within", "0.5")
        assert done.returncode == 2
        assert "NOT CONFIRMED: not stopped: " in flat(done.stdout)
        assert "told to abort, and nobody knows whether it has" in flat(done.stdout)
        printer.process.send_signal(signal.SIGCONT)
        body = site.wait_event("run_ended", job_id)["body"]
        assert body["outcome"] == "UNKNOWN"
        assert body["reason"].startswith("user:")
        assert site.events("make_safe")[0]["body"]["problem"].startswith("not stopped: ")
        until(lambda: "halt" in printer.log.read_text())


def test_without_a_daemon_the_driver_does_it_and_the_next_daemon_writes_it_down(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun(on_restart="resume")
        kill(site)
        done = site.edge("make-safe")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("prn-1: heaters and fans off, B at ")
        assert "the daemon is not running" in done.stderr
        assert printer.macros() == OFF, "and nothing is lifted"
        assert site.json("make-safe")["daemon"] is False

        site.start()
        body = site.wait_event("run_ended", job_id)["body"]
        assert body["outcome"] == "UNKNOWN"
        assert "made it safe at 20" in body["reason"]
        assert body["reason"].startswith("user:")
        (event,) = site.events("make_safe")
        assert (event["job_id"], event["actor"] == body["reason"].split(" ")[0]) == (job_id, True)
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"


def test_a_site_that_has_never_run_is_made_safe_too(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, start=False) as (site, printer):
        assert site.json("make-safe", "prn-1")["level"] == 0
        assert printer.macros() == OFF
        site.start()
        (event,) = site.events("make_safe")
        assert (event["job_id"], event["machine"]) == (None, "prn-1")
        (event,) = site.events("maintenance_began")
        assert (event["machine"], event["actor"].startswith("user:")) == ("prn-1", True)
        job_id = site.submit(site.bundle())["job_id"]
        until(lambda: "out of service by" in site.edge("why", job_id).stdout)
        assert site.events("run_began") == []


def test_while_machines_are_made_safe_no_daemon_starts(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, start=False) as (site, printer):
        printer.process.send_signal(signal.SIGSTOP)
        words = site.command("make-safe", "--within", "60")
        with subprocess.Popen(words, cwd=site.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as safe:
            lock = site.state_dir / "journal.sqlite.lock"
            until(lambda: lock.exists() and "making machines safe" in lock.read_text())
            started = site.edge("run")
            assert started.returncode == 2
            assert f"({safe.pid}, making machines safe; try again when it has ended)" in started.stderr
            second = site.edge("make-safe")
            assert (second.returncode, "making machines safe" in second.stderr) == (2, True)
            printer.process.send_signal(signal.SIGCONT)
            out, _ = safe.communicate(timeout=DEADLINE_S)
            assert (safe.returncode, out.startswith(b"prn-1: heaters and fans off")) == (0, True)


def test_a_port_that_another_process_holds_is_named_with_that_process(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, start=False) as (site, printer):
        port = os.open(printer.place, os.O_RDWR | os.O_NOCTTY)
        try:
            dead = site.edge("make-safe")
            assert dead.returncode == 2
            assert dead.stdout.startswith("prn-1: NOT CONFIRMED: the port")
            assert f"(process {os.getpid()})" in flat(dead.stdout)
            assert printer.commands() == []
            site.start(ready="is up")
            alive = site.json("make-safe", code=2)
            assert alive["daemon"]
            assert f"(process {os.getpid()})" in alive["machines"][0]["problem"]
        finally:
            os.close(port)


def test_one_machine_that_is_away_does_not_keep_the_others_from_being_made_safe(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, start=False) as (site, printer):
        away = PRINTER.format(port=tmp_path / "nowhere").replace("prn-1", "prn-0")
        site.config.write_text(site.config.read_text() + away)
        done = site.json("make-safe", code=2)
        assert [(one["id"], bool(one["problem"])) for one in done["machines"]] == [("prn-1", False), ("prn-0", True)]
        assert printer.macros() == OFF
        assert site.json("make-safe", "prn-1")["level"] == 0


def test_a_machine_whose_driver_does_nothing_without_a_daemon_is_not_called_safe(tmp_path: Path) -> None:
    """Its print goes on: OctoPrint needs no daemon for that."""
    with site_with_printer(tmp_path, start=False) as (site, printer):
        site.config.write_text(site.config.read_text() + BEHIND_OCTOPRINT.format(folder=tmp_path))
        done = site.edge("make-safe")
        assert done.returncode == 1
        assert "oct-1: NOT ASKED: its driver does nothing without a daemon; look at the machine" in flat(done.stdout)
        found = site.json("make-safe", code=1)
        assert (found["level"], found["machines"][1]) == (1, {"id": "oct-1", "confirmed": "", "problem": ""})
        assert printer.macros() == OFF * 2


def test_what_cannot_be_asked_is_one_sentence(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        for words, said in (
            (("prn-9",), "there is no machine prn-9; there are: prn-1"),
            (("--within", "0"), "--within"),
        ):
            done = site.edge("make-safe", *words)
            assert (done.returncode, done.stdout, said in done.stderr) == (2, "", True), done.stderr
        kill(site)
        done = site.edge("make-safe", "prn-9")
        assert (done.returncode, "there is no machine prn-9" in done.stderr) == (2, True)


def test_a_daemon_that_hangs_is_named(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, _):
        site.begun(program=LONG)
        assert site.daemon is not None
        site.daemon.process.send_signal(signal.SIGSTOP)
        done = site.edge("make-safe", "--within", "0.1")
        assert done.returncode == 2
        assert f"in use by another process ({site.daemon.process.pid})" in done.stderr
        site.daemon.process.send_signal(signal.SIGCONT)
