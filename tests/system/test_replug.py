"""A printer whose cable is pulled: OFFLINE, then back under the same name, and what became of its run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.analysis import commands
from tests.helpers.killing import kill
from tests.helpers.sim import sim_printer
from tests.helpers.site import LONG, PRINTER, SHORT, SiteFolder, site_with_printer, starts, until

LINK = "usb-Marlin_printer-if00"


@pytest.fixture
def site(tmp_path: Path):
    """A site whose printer has a name as in /dev/serial/by-id; nothing is plugged in yet."""
    made = SiteFolder(tmp_path, PRINTER.format(port=tmp_path / LINK))
    yield made
    if made.daemon is not None:
        made.daemon.end()


def state(site: SiteFolder) -> str:
    return str(site.live()["machines"][0]["state"])


def detail(site: SiteFolder) -> str:
    return str(site.live()["machines"][0]["detail"])


def test_an_idle_printer_is_unplugged_and_comes_back_under_the_same_name(site: SiteFolder, tmp_path: Path) -> None:
    link = tmp_path / LINK
    with sim_printer(tmp_path, speed=2000.0) as first:
        link.symlink_to(Path(first.place))
        site.start()
    link.unlink()
    until(lambda: state(site) == "OFFLINE")
    until(lambda: "does not exist" in detail(site))
    with sim_printer(tmp_path, speed=2000.0) as second:
        link.symlink_to(Path(second.place))
        until(lambda: state(site) == "IDLE")
        site.printed(SHORT)
        assert second.program()[:-1] == list(commands(SHORT.decode().splitlines()))
        assert (len(site.events("machine_online")), len(site.events("machine_offline"))) == (2, 1)


def test_a_cable_that_is_pulled_in_mid_print_leaves_the_run_in_doubt_and_prints_nothing_twice(
    site: SiteFolder, tmp_path: Path
) -> None:
    link = tmp_path / LINK
    with sim_printer(tmp_path, speed=50.0) as first:
        link.symlink_to(Path(first.place))
        site.start()
        job_id = site.begun()
    link.unlink()
    ended = site.wait_event("run_ended", job_id)["body"]
    assert (ended["outcome"], ended["motion"]) == ("UNKNOWN", "possible")
    assert ended["reason"].startswith("the link to the machine broke: ")
    until(lambda: state(site) == "OFFLINE")
    with sim_printer(tmp_path, speed=50.0) as second:
        link.symlink_to(Path(second.place))
        until(lambda: state(site) == "IDLE")
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        assert starts(second) == 1, "the log is of both: nothing was begun again"


def test_a_print_whose_daemon_died_is_judged_when_its_printer_is_plugged_in_again(
    site: SiteFolder, tmp_path: Path
) -> None:
    link = tmp_path / LINK
    with sim_printer(tmp_path, speed=50.0) as printer:
        link.symlink_to(Path(printer.place))
        site.start()
        job_id = site.begun(on_restart="resume")
        kill(site)
        link.unlink()
        site.start(ready="does not exist")
        assert site.events("run_ended") == []
        link.symlink_to(Path(printer.place))
        site.wait_event("run_resumed", job_id)
        assert starts(printer) == 1
        site.json("job", "cancel", job_id)
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "STOPPED"
        done = [text for number, text in printer.commands() if number not in ("-", "0") and int(number) < 10**8]
        assert done == list(commands(LONG.decode().splitlines()))[: len(done)], "each once, and in order"


def test_a_port_that_another_process_holds_is_named_and_taken_when_it_is_free(site: SiteFolder, tmp_path: Path) -> None:
    link = tmp_path / LINK
    code = "import sys; held = open(sys.argv[1], 'rb+', buffering=0); print('held', flush=True); sys.stdin.read()"
    with sim_printer(tmp_path) as printer:
        link.symlink_to(Path(printer.place))
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(link)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            said = site.start(ready="is held by").wait_line("is held by")
            assert f"(process {holder.pid})" in said
        finally:
            holder.send_signal(signal.SIGTERM)
            holder.communicate()
        until(lambda: state(site) == "IDLE")


def test_a_printer_that_resets_in_mid_print_fails_the_run_in_words(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, "--fault", "die-after=60", speed=50.0) as (site, _):
        job_id = site.submit(site.bundle(LONG))["job_id"]
        ended = site.wait_event("run_ended", job_id)["body"]
        assert (ended["outcome"], ended["reason"]) == ("FAILED", "the printer has restarted")
