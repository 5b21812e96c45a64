"""A daemon that is killed again and again while it prints, and what the printer has carried out in the end."""

from __future__ import annotations

import random
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.reading import views
from tests.helpers.printing import FINAL, commands_in
from tests.helpers.sim import SimPrinter
from tests.helpers.site import SiteFolder, starts

TINY = Path(__file__).parent.parent.parent / "edge" / "demo" / "tiny.gcode"
SPEED = 60.0
"""The program takes three seconds of real time, which is five kills or so."""

AT_WORK_MAX_S = 0.4
STARTING_MAX_S = 1.5
"""The latest moment of a kill: after the printer is online, and after the daemon was started."""


def exact(printer: SimPrinter) -> bool:
    """Whether the printer has carried out the whole program, each command once and in order."""
    return printer.program() == [*commands_in(TINY), FINAL]


def kill(site: SiteFolder) -> None:
    """Kill the daemon as nothing else can."""
    assert site.daemon is not None
    site.daemon.end(signal.SIGKILL)


@dataclass
class Killed:
    """What became of one print."""

    kills: int
    resumed: int


def print_through_kills(site: SiteFolder, printer: SimPrinter, moments: random.Random, kills: int) -> Killed:
    """Print once with `kills` kills at most, fewer if the print ends before; fails unless the log is exact.

    Every other kill comes while the daemon starts and looks where the print stands; one between them is at work, so
    that the print comes on.
    """
    before = starts(printer)
    job_id = site.begun(commands=1, program=TINY.read_bytes(), on_restart="resume")
    done = 0
    while done < kills and not _events(site, "run_ended", job_id):
        threading.Event().wait(moments.uniform(0.0, AT_WORK_MAX_S))  # the moment to be tried
        kill(site)
        done += 1
        if done < kills and moments.random() < 0.5:
            site.start(ready="")
            threading.Event().wait(moments.uniform(0.0, STARTING_MAX_S))
            kill(site)
            done += 1
        site.start()
    ended = site.wait_event("run_ended", job_id)["body"]
    total = len(commands_in(TINY))
    assert (ended["outcome"], ended["reason"]) == ("SUCCEEDED", f"all {total} commands carried out"), ended
    assert exact(printer), "commands are missing, or were carried out twice"
    assert starts(printer) == before + 1
    assert len(_events(site, "run_began", job_id)) == 1
    resumed = len(_events(site, "run_resumed", job_id))
    assert resumed <= done
    assert site.json("verify")["ok"]
    site.json("machine", "clear", "prn-1")
    return Killed(done, resumed)


def _events(site: SiteFolder, kind: str, job_id: str) -> list[dict[str, Any]]:
    """From the journal's file, without a process: a print lasts no longer than a few of them."""
    with views.open_readonly(site.state_dir) as snapshot:
        return [event for event in snapshot.events() if (event["kind"], event["job_id"]) == (kind, job_id)]
