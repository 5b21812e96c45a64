"""A printer whose cable is pulled: OFFLINE, then back under the same name, and what became of its run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.analysis import commands
from edge.demo.meaning import as_meant
from tests.helpers.cable import Cable, cable
from tests.helpers.killing import TINY as TINY_PATH
from tests.helpers.killing import exact, kill
from tests.helpers.proxy import network
from tests.helpers.sim import sim_printer
from tests.helpers.site import LONG, PRINTER, SHORT, SiteFolder, site_with_printer, starts, until

LINK = "usb-Marlin_printer-if00"
TINY = TINY_PATH.read_bytes()


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
        assert second.program()[:-1] == [as_meant(command) for command in commands(SHORT.decode().splitlines())]
        assert (len(site.events("machine_online")), len(site.events("machine_offline"))) == (2, 1)


def pulled(site: SiteFolder, wire: Cable) -> None:
    """The cable is pulled, and the site says what that means."""
    wire.pull()
    until(lambda: state(site) == "OFFLINE")
    found = site.json("status", code=2)
    (unwatched,) = [item for item in found["attention"] if item["kind"] == "unwatched_run"]
    assert "cannot be reached" in unwatched["text"]
    assert site.events("run_ended") == []


def test_a_print_goes_on_where_it_stood_when_the_cable_is_back(site: SiteFolder, tmp_path: Path) -> None:
    with sim_printer(tmp_path, speed=60.0) as printer, cable(printer.place, tmp_path / LINK) as wire:
        site.start()
        job_id = site.begun(commands=100, program=TINY, on_restart="resume")
        for resumed in (1, 2):
            pulled(site, wire)
            wire.plug_in()
            until(lambda: len(site.events("run_resumed")) == resumed)  # noqa: B023 - asked at once
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
        assert exact(printer)
        assert len(site.events("run_began")) == 1
        texts = [text for number, text in printer.commands() if number == "-"]
        assert "M104 S0" not in texts, "nothing was switched off meanwhile"


def test_a_cancel_while_the_cable_is_out_stops_the_print_when_it_is_back(site: SiteFolder, tmp_path: Path) -> None:
    with sim_printer(tmp_path, speed=50.0) as printer, cable(printer.place, tmp_path / LINK) as wire:
        site.start()
        job_id = site.begun(on_restart="resume")
        pulled(site, wire)
        site.json("job", "cancel", job_id, code=None)
        assert site.events("run_ended") == []
        wire.plug_in()
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "STOPPED"
        assert site.json("job", "show", job_id)["state"] == "ABORTED"
        assert {"M104 S0", "M140 S0"} <= {text for _, text in printer.commands()}
        assert starts(printer) == 1


def test_an_order_that_says_hold_is_made_safe_when_the_cable_is_back(site: SiteFolder, tmp_path: Path) -> None:
    with sim_printer(tmp_path, speed=50.0) as printer, cable(printer.place, tmp_path / LINK) as wire:
        site.start()
        job_id = site.begun(on_restart="hold")
        pulled(site, wire)
        wire.plug_in()
        ended = site.wait_event("run_ended", job_id)["body"]
        assert (ended["outcome"], 'on_restart = "hold"' in ended["reason"]) == ("STOPPED", True)
        assert ended["reason"].startswith("the link to the machine broke: ")
        assert {"M104 S0", "M140 S0"} <= {text for _, text in printer.commands()}


def test_a_printer_that_was_reset_while_the_cable_was_out_is_made_safe(site: SiteFolder, tmp_path: Path) -> None:
    with sim_printer(tmp_path, speed=50.0) as printer, cable(printer.place, tmp_path / LINK) as wire:
        site.start()
        job_id = site.begun(on_restart="resume")
        pulled(site, wire)
        printer.reset()
        until(lambda: "\t!\t" in printer.log.read_text().partition("G1X10")[2])
        wire.plug_in()
        ended = site.wait_event("run_ended", job_id)["body"]
        assert (ended["outcome"], ended["evidence"]) == ("UNKNOWN", {"stop_confirmed": True})
        assert "the print cannot go on" in ended["reason"]
        assert starts(printer) == 1


def test_a_printer_that_waits_for_a_person_when_it_is_plugged_in_again_says_so(
    site: SiteFolder, tmp_path: Path
) -> None:
    site.config.write_text(
        site.config.read_text().replace('driver = "gcode"', 'driver = "gcode"\nprofile = "marlin-2.1"')
    )
    with sim_printer(tmp_path, speed=50.0) as printer, cable(printer.place, tmp_path / LINK) as wire:
        site.start()
        job_id = site.submit(site.bundle(b"G28\nG90\nM0\nG1 X10 F6000\n"))["job_id"]
        until(lambda: state(site) == "HELD")
        pulled(site, wire)
        wire.plug_in()
        until(lambda: "for it is busy: paused for user" in site.live()["machines"][0]["detail"])
        assert state(site) == "OFFLINE", "nobody knows yet who is there"
        assert "a person at it must end that" in " ".join(site.edge("why", job_id).stdout.split())
        printer.reset()
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "UNKNOWN"
        until(lambda: state(site) == "IDLE")


def test_a_daemon_that_ends_while_the_cable_is_out_leaves_the_print_to_its_successor(
    site: SiteFolder, tmp_path: Path
) -> None:
    with sim_printer(tmp_path, speed=60.0) as printer, cable(printer.place, tmp_path / LINK) as wire:
        daemon = site.start()
        job_id = site.begun(commands=100, program=TINY, on_restart="resume")
        pulled(site, wire)
        assert daemon.end() == 0
        assert site.events("run_ended") == []
        wire.plug_in()
        site.start()
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
        assert exact(printer)


def test_a_print_over_tcp_goes_on_after_the_connection_was_dropped(tmp_path: Path) -> None:
    with (
        sim_printer(tmp_path, tcp=True, speed=60.0) as printer,
        network(int(printer.place.rpartition(":")[2])) as between,
    ):
        table = PRINTER.replace('port = "{port}", baud = 250000', 'url = "{url}"')
        site = SiteFolder(tmp_path, table.format(url=f"tcp://127.0.0.1:{between.port}"))
        site.start()
        try:
            job_id = site.begun(commands=100, program=TINY, on_restart="resume")
            between.drop()
            site.wait_event("run_resumed", job_id)
            assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
            assert exact(printer)
            assert len(site.events("machine_offline")) == 1
        finally:
            assert site.daemon is not None
            site.daemon.end()


def test_another_printer_at_the_same_cable_is_left_alone_and_the_run_in_doubt(site: SiteFolder, tmp_path: Path) -> None:
    link = tmp_path / LINK
    with sim_printer(tmp_path, speed=50.0) as first:
        link.symlink_to(Path(first.place))
        site.start()
        job_id = site.begun(on_restart="resume")
    link.unlink()
    until(lambda: state(site) == "OFFLINE")
    with sim_printer(tmp_path, "--uuid", "00000000-0000-4000-8000-000000000002", speed=50.0) as second:
        link.symlink_to(Path(second.place))
        ended = site.wait_event("run_ended", job_id)["body"]
        assert (ended["outcome"], ended["motion"]) == ("UNKNOWN", "possible")
        assert ended["reason"].startswith("the link to the machine broke: ")
        assert "another printer is there" in ended["reason"]
        assert "M104 S0" not in [text for _, text in second.commands()]
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
