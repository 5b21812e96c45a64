"""A print and a daemon that dies: goes on where it stood if everything proves it, and as its order says."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from edge.cli.client import call
from tests.helpers.killing import SPEED, exact, kill, print_through_kills
from tests.helpers.killing import TINY as TINY_PATH
from tests.helpers.sim import sim_printer
from tests.helpers.site import PRINTER, SiteFolder, site_with_printer, starts

TINY = TINY_PATH.read_bytes()
KILLS = 5
SEED = 20261122


def test_a_print_goes_on_where_it_stood_however_often_the_daemon_is_killed(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=SPEED) as (site, printer):
        found = print_through_kills(site, printer, random.Random(SEED), KILLS)
        assert 1 <= found.resumed <= found.kills


def test_edge_restart_leaves_the_print_standing_and_goes_on(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=60) as (site, printer):
        job_id = site.begun(commands=100, program=TINY, on_restart="resume")
        before = site.live()["daemon"]
        after = site.json("restart")
        assert after["pid"] == before["pid"], "whoever supervises the daemon sees no end of it"
        assert after["since"] != before["since"]
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
        assert exact(printer)
        assert "M104 S0" not in [text for number, text in printer.commands()[:-200] if number == "-"]
        assert len(site.events("run_resumed")) == 1


def test_an_order_that_says_hold_is_made_safe_and_held(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun(on_restart="hold")
        kill(site)
        site.start()
        body = site.wait_event("run_ended", job_id)["body"]
        assert (body["outcome"], 'the order says: on_restart = "hold"' in body["reason"]) == ("STOPPED", True)
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        assert {"M104 S0", "M140 S0"} <= {text for _, text in printer.commands()}
        assert starts(printer) == 1


def test_an_order_that_says_abort_is_made_safe_and_aborted(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun(on_restart="abort")
        kill(site)
        site.start()
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "STOPPED"
        assert site.json("job", "show", job_id)["state"] == "ABORTED"
        assert starts(printer) == 1


def test_another_printer_on_the_port_is_never_taken_for_the_one_before(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path, PRINTER.format(port=tmp_path / "printer"))
    try:
        with sim_printer(tmp_path, speed=50):
            site.start()
            job_id = site.begun(on_restart="resume")
            kill(site)
        with sim_printer(tmp_path, "--uuid", "00000000-0000-4000-8000-000000000002", speed=50) as other:
            site.start()
            body = site.wait_event("run_ended", job_id)["body"]
            assert body["outcome"] == "UNKNOWN"
            assert "another printer is there" in body["reason"]
            assert starts(other) == 1, "the log is of both printers: nothing was started on the second"
    finally:
        if site.daemon is not None:
            site.daemon.end()


def test_a_pause_that_is_too_long_ends_the_print(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, _):
        assert site.daemon is not None
        site.daemon.end()
        impatient(site)
        site.start()
        job_id = site.begun(on_restart="resume")
        kill(site)
        site.start()
        body = site.wait_event("run_ended", job_id)["body"]
        assert body["outcome"] == "UNKNOWN"
        assert "the pause was" in body["reason"]


def impatient(site: SiteFolder) -> None:
    """A profile of the site's own that lets no print stand."""
    profiles = site.folder / "profiles"
    profiles.mkdir()
    shipped = Path(__file__).parent.parent.parent / "firmware_profiles" / "marlin-2.1.toml"
    text = shipped.read_text().replace("gap_max_s = 60.0", "gap_max_s = 0.0")
    (profiles / "marlin-2.1.toml").write_text(text)
    config = site.folder / "site.toml"
    config.write_text(config.read_text().replace("[site]\n", '[site]\nprofiles_dir = "profiles"\n', 1))


def test_a_stop_that_was_asked_for_before_the_daemon_could_ask_the_machine_is_carried_out(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun(on_restart="resume")
        printer.process.send_signal(signal.SIGSTOP)  # so that recovery cannot be faster than the request
        kill(site)
        site.start(ready="is up")
        assert site.json("job", "cancel", job_id)["job_id"] == job_id
        printer.process.send_signal(signal.SIGCONT)
        body = site.wait_event("run_ended", job_id)["body"]
        assert (body["outcome"], body["reason"].endswith("a stop was requested")) == ("STOPPED", True)
        assert site.json("job", "show", job_id)["state"] == "ABORTED"
        assert (starts(printer), site.events("run_resumed")) == (1, [])


def test_edge_restart_names_the_job_that_it_would_stop_and_stops_it_only_with_force(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, _):
        job_id = site.begun(on_restart="hold")
        refused = site.edge("restart")
        assert refused.returncode == 2
        assert f"job {job_id} runs on prn-1" in refused.stderr
        assert 'on_restart = "hold"' in refused.stderr
        assert site.json("job", "show", job_id)["state"] == "RUNNING"
        site.json("restart", "--force")
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "STOPPED"


def test_edge_restart_does_nothing_while_the_configuration_is_wrong(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, _):
        before = site.live()["daemon"]["since"]
        good = site.config.read_text()
        site.config.write_text(good + "colour = 'red'\n")
        refused = site.edge("restart")
        assert refused.returncode == 2
        assert "colour" in refused.stderr
        assert site.live()["daemon"]["since"] == before
        site.config.write_text(good)
        site.json("restart")


def test_a_stop_during_a_restart_is_the_last_word(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun(on_restart="resume")
        printer.process.send_signal(signal.SIGSTOP)  # so that the run cannot be let go of at once
        call(site.socket, "POST", "/v1/restart", {})
        assert site.daemon is not None
        site.daemon.wait_line("stopping: machines first")
        site.daemon.process.send_signal(signal.SIGTERM)
        printer.process.send_signal(signal.SIGCONT)
        assert site.daemon.process.wait(30) == 0
        assert [event["body"]["restart"] for event in site.events("site_stopped")] == [False]
        assert site.events("run_ended")[0]["job_id"] == job_id
