"""A site with machines behind OPC UA: what its folder says of them, and what a technician does so that both trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from drivers.opcua import JOBCONTROL
from edge.driver import Machine
from tests.helpers.opcua_trust import trusting
from tests.helpers.site import SiteFolder

MACHINE = """
[[machines]]
id = "{id}"
driver = "{driver}"
profile = "{profile}"
processes = ["{process}"]
connection = {{endpoint = "{endpoint}", user = "edge", password_file = "{folder}/password"{more}}}
limits = {{checked_by = "controller"}}
"""


def mill(folder: Path, name: str, endpoint: str, browse_name: str = "") -> str:
    """A machine tool as site.toml has it; `browse_name` where a server has several."""
    return _table(folder, name, "opcua-jobcontrol", "machinery-jobs", "mill", endpoint, browse_name)


def robot(folder: Path, name: str, endpoint: str, browse_name: str = "") -> str:
    """A robot as site.toml has it."""
    return _table(folder, name, "opcua-robotics", "robotics-1.02", "robot.tend", endpoint, browse_name)


def _table(folder: Path, name: str, driver: str, profile: str, process: str, endpoint: str, browse_name: str) -> str:
    more = f', machine = "{browse_name}"' if browse_name else ""
    way = {"driver": driver, "profile": profile, "process": process, "endpoint": endpoint}
    return MACHINE.format(id=name, folder=folder, more=more, **way)


def ceremony(site: SiteFolder, machine: str, trust_there: Callable[[Path], object]) -> None:
    """What a technician does, once, by the commands. `trust_there`: at the machine, with our certificate's file."""
    seen = site.json("machine", "trust", machine, code=1)["trust"]
    assert "not trusted" in seen["here"]
    wrong = site.edge("machine", "trust", machine, "--accept", "AA:BB")
    assert wrong.returncode != 0
    assert "another certificate" in wrong.stderr
    accepted = site.json("machine", "trust", machine, "--accept", seen["server_fingerprint"], code=1)["trust"]
    assert accepted["here"] == "trusted"
    assert "does not trust our certificate" in accepted["there"]
    trust_there(certificate(site.state_dir / "machines" / machine))
    done = site.edge("machine", "trust", machine)
    assert done.returncode == 0, done.stdout
    assert "there: trusted" in done.stdout


def trust_mill(folder: Path, name: str, endpoint: str, trust_there: Callable[[Path], object]) -> None:
    """The same without the commands, for many machines of a site whose folder is `folder`."""
    way = {"endpoint": endpoint, "user": "edge", "password_file": folder / "password"}
    connection = JOBCONTROL.connection.model_validate(way)
    limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})
    machine = Machine(name, "opcua-jobcontrol", "machinery-jobs", ("mill",), connection, limits)
    state_dir = folder / "state" / "machines" / name
    trusting(JOBCONTROL, machine, state_dir, lambda: trust_there(certificate(state_dir)))


def certificate(state_dir: Path) -> Path:
    """Our own, of one machine."""
    return state_dir / "pki" / "own" / "certificate.der"
