"""Begins run after run, each "moving" a machine, again and again, each time killed one step later.

``python -m tests.system.head_killed FOLDER`` prints ``killed STEP`` or ``done STEPS`` for each try. The kill comes
after a commit, before, within and after each write of a witness and each fsync of one, and before and after the motion.

A power cut is tried after each kill: what was not synced is gone, there or half there. After it the site is not held;
and no copy of the journal from before a motion passes for the newest.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.folders import HEAD
from edge.journal.headfile import SLOT_BYTES
from edge.journal.journal import Journal
from edge.journal.lookback import Witnesses
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind
from tests.journal_kit import SITE, accepted, began, cleared, ended, order, ticking
from tests.system.fetch_killed import forked, say

RUNS = 3
LOG = FILE_NAME + "-wal"


class Killer:
    """Kills this process right before a step, and notes what is on the disk for sure before that."""

    def __init__(self, folder: Path, at_step: int) -> None:
        self._folder, self._at_step = folder, at_step
        self.steps = 0
        self._pwrite, self._fsync = os.pwrite, os.fsync
        os.pwrite = self._counted_pwrite  # type: ignore[assignment]
        os.fsync = os.fdatasync = self._counted_fsync  # type: ignore[assignment]

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def committed(self) -> None:
        """A COMMIT has returned: the log is on the disk up to its end."""
        log = self._folder / "state" / LOG
        (self._folder / "synced.log").write_text(str(log.stat().st_size if log.exists() else 0))

    def _counted_pwrite(self, descriptor: int, raw: bytes, at: int) -> int:
        self.step()
        half = len(raw) // 2
        self._pwrite(descriptor, raw[:half], at)
        self.step()
        self._pwrite(descriptor, raw[half:], at + half)
        self.step()
        return len(raw)

    def _counted_fsync(self, descriptor: int) -> None:
        self.step()
        self._fsync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == self._folder / "state" / HEAD:
            shutil.copyfile(self._folder / "state" / HEAD, self._folder / "synced.head")
        self.step()


async def work(folder: Path, killer: Killer) -> None:
    """A daemon's life: each run is recorded, moves and ends. The copies are what a backup tool takes meanwhile."""
    state, runtime = folder / "state", folder / "runtime"
    state.mkdir(exist_ok=True)
    runtime.mkdir(exist_ok=True)
    witnesses = Witnesses(state, runtime, "boot-1")
    async with Journal.open(state / FILE_NAME, SITE, ticking()) as journal:

        def keep(connection: sqlite3.Connection) -> None:
            killer.committed()
            killer.step()
            witnesses.keep(connection)
            killer.step()

        journal.bind(keep)
        assert await witnesses.look_back(journal, is_first_start=True) == ""
        await journal.record([Draft(EventKind.SITE_STARTED, "site", {})])
        await witnesses.kept(journal)
        for number in range(RUNS):
            job = f"job-{number}"
            await journal.record([accepted(order(job))])
            copy(state, folder / f"before-{number}")
            killer.step()
            await journal.record([began(f"run-{number}", job_id=job)])
            with (folder / "moved").open("a") as motion:
                motion.write(f"{number}\n")
            killer.step()
            drafts = [ended(f"run-{number}", "SUCCEEDED", job_id=job), cleared(f"run-{number}")]
            await journal.record(drafts)
        await journal.record([Draft(EventKind.SITE_STOPPED, "site", {})])
    witnesses.close()


def copy(state: Path, target: Path) -> None:
    target.mkdir()
    for file in state.glob(f"{FILE_NAME}*"):
        if not file.name.endswith(("-shm", ".lock")):
            shutil.copyfile(file, target / file.name)


def after_power_cuts(folder: Path) -> Iterator[Path]:
    """State directories as the disk may have them: of the log and of the head the synced part is there for sure."""
    state = folder / "state"
    log = (state / LOG).read_bytes() if (state / LOG).exists() else b""
    noted = folder / "synced.log"
    logs = {log, log[: int(noted.read_text() or 0)] if noted.exists() else b""}
    heads: set[bytes | None] = {(state / HEAD).read_bytes() if (state / HEAD).exists() else None}
    if (synced := folder / "synced.head").exists():
        old = synced.read_bytes()
        heads.add(old)
        new = (state / HEAD).read_bytes()
        for slot in range(0, len(new), SLOT_BYTES):
            torn = bytearray(new)
            if old[slot : slot + SLOT_BYTES] != new[slot : slot + SLOT_BYTES]:  # it is being written
                torn[slot : slot + SLOT_BYTES] = bytes(SLOT_BYTES)
                heads.add(bytes(torn))
    for number, (tail, head) in enumerate(itertools.product(logs, heads)):
        cut = folder / f"cut-{number}"
        cut.mkdir()
        shutil.copyfile(state / FILE_NAME, cut / FILE_NAME)
        (cut / LOG).write_bytes(tail)
        if head is not None:
            (cut / HEAD).write_bytes(head)
        yield cut


async def why_held(state: Path, journal: Path) -> str:
    """What a daemon says of `journal` after a boot, with the head of `state`."""
    place = state.with_name(state.name + "-tried")
    copy(journal, place)
    if (state / HEAD).exists():
        shutil.copyfile(state / HEAD, place / HEAD)
    (place / "boot").mkdir()
    async with Journal.open(place / FILE_NAME, SITE, ticking()) as opened:
        found = await Witnesses(place, place / "boot", "boot-2").look_back(opened, is_first_start=True)
        assert (await opened.verify()).problems == ()
    shutil.rmtree(place)
    return found


async def look(folder: Path) -> None:
    """After a kill."""
    moved = (folder / "moved").read_text().split() if (folder / "moved").exists() else []
    for state in after_power_cuts(folder):
        assert await why_held(state, state) == "", "an innocent power cut holds the site"
        for number in moved:
            found: Any = await why_held(state, folder / f"before-{number}")
            assert "it is an old copy" in found, f"run {number} has moved, and the journal without it passes"


def main(folder: Path) -> None:
    for at_step in itertools.count(1):
        site = folder / f"site-{at_step}"
        site.mkdir()

        def until_killed(site: Path = site, at_step: int = at_step) -> None:
            killer = Killer(site, at_step)
            asyncio.run(work(site, killer))
            say(f"done {killer.steps}")

        code = forked(until_killed)
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        if (site / "state" / FILE_NAME).exists():
            asyncio.run(look(site))
        say(f"killed {at_step}")
        shutil.rmtree(site)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
