"""Somebody swaps the spool at a running site, and says so."""

from __future__ import annotations

import getpass
import signal
from pathlib import Path
from typing import Any

from edge.cli.client import call
from tests.helpers.site import SHORT, SiteFolder, site_with_printer, until
from tests.helpers.trust import step_document

PETG = [step_document(requires={"material": "PETG", "nozzle_mm": {"min": 0.4, "max": 0.6}})]


def flat(text: str) -> str:
    return " ".join(text.split())


def waits(site: SiteFolder, job_id: str) -> list[dict[str, Any]]:
    """Once it has been looked at, why a job waits."""
    until(lambda: call(site.socket, "GET", f"/v1/jobs/{job_id}")["waits"])
    return list(site.json("why", job_id)["waits"])


def test_an_order_starts_once_somebody_says_that_its_material_is_in(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, printer):
        me = getpass.getuser()
        job_id = site.submit(site.bundle(steps=PETG))["job_id"]
        (wait,) = waits(site, job_id)
        assert wait["text"] == "prn-1: material is PLA (site.toml), needs PETG; say so once it is in"
        assert wait["command"] == "edge machine load prn-1 material=PETG"
        (item,) = site.json("status", code=1)["attention"]
        assert (item["kind"], item["command"]) == ("waiting", wait["command"])

        for words, complaint in (
            (["colour=red"], "prn-1 has no property 'colour'; site.toml names these for it: material, nozzle_mm"),
            (["nozzle_mm=wide"], "nozzle_mm is 'wide', must be a number, such as 0.4"),
            (["PETG"], "'PETG' does not say what is loaded; write NAME=VALUE, as material=PETG"),
        ):
            refused = site.edge("machine", "load", "prn-1", *words)
            assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", f"edge: {complaint}\n")
        assert "there is no machine prn-9; there are: prn-1" in site.edge("machine", "load", "prn-9").stderr
        assert "there is no machine prn-9" in site.edge("machine", "load", "prn-9", "material=PETG").stderr
        assert site.events("machine_loaded") == []

        said = site.edge(*wait["command"].split()[1:])
        assert said.returncode == 0
        assert f"material: PETG (loaded by {me}, " in flat(said.stdout)
        assert "nozzle_mm: 0.4 (as site.toml says)" in flat(said.stdout)
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
        (event,) = site.events("machine_loaded")
        assert event["actor"] == f"user:{me}"
        assert f"material PETG (loaded by {me}), nozzle_mm 0.4" in flat(site.edge("machines").stdout)
        assert f"material PETG (loaded by {me})" in flat(site.edge("machine", "show", "prn-1").stdout)
        assert "material=PETG" in site.edge("events").stdout

        # Another daemon, and none: what was said is still so, and an order that wants PLA waits.
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        dead = site.edge("machine", "load", "prn-1")
        assert (dead.returncode, "material: PETG" in dead.stdout) == (1, True)
        assert "the daemon is not running" in flat(dead.stdout)
        told = site.edge("machine", "load", "prn-1", "material=PLA")
        assert (told.returncode, "the daemon is not running" in told.stderr) == (2, True)
        site.start()
        site.edge("machine", "clear", "prn-1")
        following = site.submit(site.bundle(SHORT))["job_id"]
        (wait,) = waits(site, following)
        assert wait["text"].startswith("prn-1: material is PETG (loaded 20")
        assert wait["text"].endswith(f" by {me}), needs PLA; say so once it is in")

        # Whoever changes it in site.toml has spoken last; and it stays so, though the old value come back there.
        asked = site.config.read_text()
        for material in ("ABS", "PLA"):
            site.config.write_text(asked.replace('material = "PLA"', f'material = "{material}"'))
            site.json("restart")
            found = site.json("machine", "load", "prn-1")["properties"]["material"]
            assert found == {"value": material, "configured": material, "loaded": None}
        (event,) = site.events("load_overtaken")
        assert event["body"] == {"configured": {"material": "ABS"}}
        assert site.wait_event("run_ended", following)["body"]["outcome"] == "SUCCEEDED"
        assert site.json("verify")["ok"]
        assert printer.process.poll() is None


def test_a_swap_in_the_middle_of_a_run_counts_for_what_begins_after_it(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, _):
        job_id = site.begun()
        said = site.edge("machine", "load", "prn-1", "material=PETG", "nozzle_mm=0.6")
        assert f"job {job_id} goes on as it began; this counts for what begins after it" in flat(said.stdout)
        assert site.live()["machines"][0]["run"]["job_id"] == job_id
        following = site.submit(site.bundle())["job_id"]
        (wait,) = waits(site, following)
        assert wait["command"] == "edge machine load prn-1 material=PLA nozzle_mm=0.4"
        site.edge("job", "cancel", job_id)
        assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "STOPPED"
        site.edge("machine", "clear", "prn-1")
        assert site.json("status", code=1)["machines"][0]["properties"]["nozzle_mm"]["value"] == 0.6
        assert [event["job_id"] for event in site.events("run_began")] == [job_id]
