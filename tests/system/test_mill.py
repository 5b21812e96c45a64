"""A router with grbl on a site: a signed order from submission to its end, and what can happen to it on the way."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.cable import cable
from tests.helpers.routing import SimRouter, sim_router
from tests.helpers.site import SITE, SiteFolder, until
from tests.helpers.trust import step_document

PLATE = (Path(__file__).parent.parent / "programs" / "plate.nc").read_bytes().replace(b"M0 (", b"(")
LONG = b"G0 X10 Y10 Z5\nM3 S1000\n" + b"G1 X100 F3000\nG1 X10\n" * 2000

MILL = """
[[machines]]
id = "mill-1"
driver = "gcode"
profile = "grblhal"
processes = ["mill"]
connection = {{port = "{port}"}}
limits = {{x_mm = [0, 300], y_mm = [0, 200], z_mm = [0, 80]}}
"""
ONLINE = "mill-1 is online"


@contextlib.contextmanager
def site_with_router(
    folder: Path, *options: str, speed: float = 100.0, homed: bool = True
) -> Iterator[tuple[SiteFolder, SimRouter]]:
    site = SiteFolder(folder, MILL.format(port=folder / "router"))
    assert site.config.read_text().startswith(SITE)
    with sim_router(folder, *options, speed=speed, homed=homed) as router:
        try:
            site.start(ready=ONLINE)
            yield site, router
        finally:
            if site.daemon is not None:
                site.daemon.end()


def ordered(site: SiteFolder, program: bytes) -> str:
    """A signed order to mill `program`; its job."""
    steps = [step_document(id="mill", process="mill", requires={})]
    return str(site.submit(site.bundle(program, steps=steps))["job_id"])


def begun(site: SiteFolder, router: SimRouter, program: bytes = LONG) -> str:
    job_id = ordered(site, program)
    site.wait_event("run_began", job_id)
    until(lambda: len(router.program()) > 20)
    return job_id


def ended(site: SiteFolder, job_id: str) -> dict[str, Any]:
    return dict(site.wait_event("run_ended", job_id)["body"])


def machine(site: SiteFolder) -> dict[str, Any]:
    return dict(site.live()["machines"][0])


def test_a_signed_order_is_milled_to_its_end(tmp_path: Path) -> None:
    with site_with_router(tmp_path, "--g54", "20,20,20", speed=500) as (site, router):
        job_id = ordered(site, PLATE)
        end = ended(site, job_id)
        assert (end["outcome"], end["evidence"]["commands"]) == ("SUCCEEDED", 33)
        assert end["evidence"]["position_mm"] == {"X": 50.0, "Y": 40.0, "Z": 35.0}
        assert router.program()[-1] == "M30"
        assert site.json("job", "show", job_id)["state"] == "COMPLETED"
        assert "mill is COMPLETED" in site.edge("job", "show", job_id).stdout
        assert site.json("verify")["ok"]


def test_a_machine_that_is_not_homed_waits_for_somebody_and_why_says_so(tmp_path: Path) -> None:
    with site_with_router(tmp_path, "--locked", homed=False) as (site, router):
        job_id = ordered(site, PLATE)
        until(lambda: site.json("why", job_id)["waits"])
        assert "needs homing ($H)" in " ".join(site.edge("why", job_id).stdout.split())
        assert router.moves() == 0


def test_a_hard_limit_in_mid_program_holds_the_job_in_words(tmp_path: Path) -> None:
    with site_with_router(tmp_path, "--fault", "alarm-after=60") as (site, _):
        job_id = ordered(site, LONG)
        end = ended(site, job_id)
        assert (end["outcome"], end["motion"]) == ("FAILED", "possible")
        assert "ALARM:1 (a limit switch was hit: the position is probably lost)" in end["reason"]
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        until(lambda: machine(site)["state"] == "STOPPED")
        assert "locked by an alarm" in machine(site)["detail"]
        assert site.edge("status").returncode != 0


def test_a_person_holds_the_machine_and_the_site_sees_it(tmp_path: Path) -> None:
    with site_with_router(tmp_path, speed=20) as (site, router):
        job_id = begun(site, router)
        router.press_hold()
        until(lambda: machine(site)["state"] == "HELD")
        assert machine(site)["detail"].startswith("held")
        router.press_hold()
        until(lambda: machine(site)["state"] == "EXECUTE")
        site.json("job", "cancel", job_id)
        end = ended(site, job_id)
        assert end["outcome"] == "STOPPED"
        assert router.blocks()[-2:] == ["M5", "M9"]


def test_a_cable_that_is_pulled_leaves_the_run_unknown_and_the_machine_is_stopped_when_it_is_back(
    tmp_path: Path,
) -> None:
    port = tmp_path / "usb-router"
    site = SiteFolder(tmp_path, MILL.format(port=port))
    with sim_router(tmp_path, speed=20, homed=True) as router, cable(router.place, port) as wire:
        site.start(ready=ONLINE)
        try:
            job_id = begun(site, router)
            wire.pull()
            until(lambda: machine(site)["state"] == "OFFLINE")
            assert site.events("run_ended") == []
            wire.plug_in()
            end = ended(site, job_id)
            assert end["outcome"] == "UNKNOWN"
            assert end["reason"].startswith("the link to the machine broke: ")
            assert "grbl cannot be asked how far it came; it was stopped and made safe" in end["reason"]
            assert router.blocks()[-2:] == ["M5", "M9"]
            assert router.blocks().count("M3 S1000") == 1, "nothing is begun again"
            assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        finally:
            assert site.daemon is not None
            site.daemon.end()


def test_a_reset_in_mid_program_holds_the_job(tmp_path: Path) -> None:
    with site_with_router(tmp_path, speed=20) as (site, router):
        job_id = begun(site, router)
        router.reset()
        end = ended(site, job_id)
        assert (end["outcome"], end["motion"]) == ("FAILED", "possible")
        assert "the controller has restarted" in end["reason"]
        until(lambda: "not homed" in machine(site)["detail"])


def test_a_daemon_that_is_killed_leaves_a_run_that_nobody_can_prove_and_the_machine_is_stopped(tmp_path: Path) -> None:
    with site_with_router(tmp_path, speed=100) as (site, router):
        job_id = begun(site, router)
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        site.start(ready=ONLINE)
        end = ended(site, job_id)
        assert end["outcome"] == "UNKNOWN"
        assert "grbl cannot be asked how far it came" in end["reason"]
        assert "was stopped" in end["reason"]
        assert router.blocks()[-2:] == ["M5", "M9"]
        assert router.blocks().count("M3 S1000") == 1, "nothing is begun again"
        assert site.json("job", "show", job_id)["state"] == "INTERRUPTED"
        until(lambda: machine(site)["state"] == "IDLE")


def test_the_profiles_of_all_dialects_are_listed(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path, MILL.format(port="/dev/null"))
    names = {profile["name"] for profile in site.json("machine", "profiles")}
    assert {"grbl", "grblhal", "marlin-2.1"} <= names
