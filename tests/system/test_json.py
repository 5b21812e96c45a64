"""docs/json.md gives the shape of every ``--json``: the keys there are the keys that come."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from tests.helpers.site import SHORT, SiteFolder, site_with_printer

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
SHAPE = re.compile(r"<!-- shape: ([a-z ]+) -->\n```json\n(.*?)\n```", re.DOTALL)


def documented() -> dict[str, Any]:
    shapes = {name: json.loads(text) for name, text in SHAPE.findall(DOCS.read_text())}
    return shapes | dict.fromkeys(("cancel", "decline", "hold", "release"), shapes["job show"])


def differences(wanted: Any, found: Any, where: str) -> list[str]:
    """Keys that only one of them has. Empty lists and nulls stand for anything."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        odd = [f"{where}.{key}" for key in wanted.keys() ^ found.keys()]
        common = wanted.keys() & found.keys()
        return odd + [more for key in common for more in differences(wanted[key], found[key], f"{where}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list):
        return [more for one in found for more in differences(wanted[0], one, f"{where}[]")] if wanted else []
    odd_one = (
        wanted is not None and found is not None and isinstance(wanted, dict | list) != isinstance(found, dict | list)
    )
    return [where] if odd_one else []


def real(site: SiteFolder) -> dict[str, Any]:
    """What the commands print: of a finished job, a running one, and one that waits."""
    found: dict[str, Any] = {"init": site.json("init", str(site.folder / "new")), "check": site.json("check")}
    found["submit"] = site.submit(site.bundle())
    job_id = found["submit"]["job_id"]
    (site.folder / "stick").mkdir()
    (site.folder / "stick" / "job.mfjob").write_bytes(b"garbage")
    found["import"] = site.json("job", "import", str(site.folder / "stick"), code=2)
    site.wait_event("run_ended", job_id)
    found["identify"] = site.json("machine", "identify", "prn-1")
    found["clear"] = site.json("machine", "clear", "prn-1")
    running = site.begun()
    waiting = site.submit(site.bundle(SHORT + b";\n", files=False), code=1)["job_id"]
    site.submit(site.bundle(site="berlin-2"), code=2)
    found["hold"] = site.json("job", "hold", waiting, "--reason", "the spool looks wrong")
    assert site.json("job", "hold", waiting)["held"] == found["hold"]["held"]
    found["jobs"] = site.json("jobs", "--all")
    assert any(job["held"] for job in found["jobs"])
    found["release"] = site.json("job", "release", waiting)
    found["why"] = site.json("why", waiting)
    found["status"] = site.json("status", code=1)
    found["decline"] = site.json("job", "decline", waiting, "--reason", "no such filament here")
    assert found["decline"]["state"] == "ABORTED"
    found["time"] = site.json("time", "show")
    found["machines"] = site.json("machines")
    found["job show"] = site.json("job", "show", job_id)
    found["cancel"] = site.json("job", "cancel", running)
    found["verify"] = site.json("verify")
    found["profiles"] = site.json("machine", "profiles")
    found["make safe"] = site.json("make-safe")
    found["maintain"] = site.json("machine", "maintain", "prn-1", "--reason", "a new nozzle")
    found["load"] = site.json("machine", "load", "prn-1", "material=PETG")
    assert site.json("machine", "load", "prn-1") == found["load"]
    found["restart"] = site.json("restart", "--force")
    lines = site.edge("events", "-n", "100", "--json").stdout.splitlines()
    found["events"] = [json.loads(line) | {"body": None} for line in lines]
    return found


def test_every_documented_shape_is_the_one_that_comes(tmp_path: Path) -> None:
    shapes = documented()
    del shapes["confirm"]  # of a site whose journal is held: tests/system/test_clock.py
    with site_with_printer(tmp_path, speed=50) as (site, _):
        found = real(site)
        for item in found["status"]["attention"]:
            assert item.keys() >= {"kind", "text", "command"}
        assert found.keys() == shapes.keys()
        for name, document in found.items():
            assert differences(shapes[name], document, name) == []
        # With the daemon dead, the same keys, and one that says why.
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        dead = site.json("status", code=None)  # by now the cancelled run may have ended
        assert dead.pop("daemon_missing").startswith("the daemon is not running")
        assert differences(shapes["status"], dead, "status") == []
        assert differences(shapes["jobs"], site.json("jobs"), "jobs") == []
