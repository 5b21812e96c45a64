"""Accepts an order and fetches its program, again and again, each time killed one step later, until none is left.

``python -m tests.system.fetch_killed FOLDER CA SIZE`` looks for ``FOLDER/order.mfjob`` and prints ``killed STEP`` or
``done STEPS`` for each try. A step is whatever changes a file of the site: a file opened to be written, renamed,
removed, synced, a directory made, an event recorded. The kill comes right before it.

A kill leaves what was not synced, and a power cut does not. So every file that gets its final name must have been
synced before, and the directory of that name before an event says that the file is here.

After a kill the site must have the old or the new state, and go on to the new one; every other time the half file is
made what a power cut may leave of it, its newest half zeroed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.download import make_context
from edge.artifacts.fetch import Fetcher
from edge.artifacts.keeper import Keeper
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.reading import views
from tests import second_verifier
from tests.helpers.rig import Rig

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FINAL = re.compile(r".*/(?:artifacts/[0-9a-f]{2}/[0-9a-f]{64}|roots/[0-9]+\.dsse\.json|time-nonce\.json)")
"""Names that only a whole file has."""

SAYS_SO = {EventKind.ARTIFACT_STORED, EventKind.ROOT_ACCEPTED, EventKind.TIME_ACCEPTED}

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod"}


class Killer:
    """Kills this process right before a step."""

    def __init__(self, folder: Path, at_step: int) -> None:
        self._folder, self._at_step = str(folder), at_step
        self.steps = 0
        self._synced: set[int] = set()  # inodes
        self._unsure: set[Path] = set()  # directories with a new name that a power cut may take away
        fsync, record = os.fsync, Transaction.record
        sys.addaudithook(self._hook)

        def counted_fsync(handle: int) -> None:
            self.step()
            fsync(handle)
            self._synced.add(os.fstat(handle).st_ino)
            self._unsure.discard(Path(f"/proc/self/fd/{handle}").readlink())

        def counted_record(transaction: Transaction, draft: Draft) -> Any:
            if draft.kind in SAYS_SO and self._unsure:
                fail(f"{draft.kind} is recorded before {self._unsure} are synced")
            self.step()
            event = record(transaction, draft)
            self.step()
            return event

        os.fsync, Transaction.record = counted_fsync, counted_record  # type: ignore[method-assign]

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str) and path.startswith(self._folder) and flags & WRITES:
                self.step()
        elif event in CHANGES and str(args[0]).startswith(self._folder):
            self.step()
            if event == "os.mkdir":
                self._unsure.add(Path(args[0]).parent)
            elif event == "os.rename" and FINAL.fullmatch(str(args[1])):
                if Path(args[0]).stat().st_ino not in self._synced:
                    fail(f"{args[0]} gets its final name before it is synced")
                self._unsure.add(Path(args[1]).parent)

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._at_step:
            os.kill(os.getpid(), signal.SIGKILL)


async def work(folder: Path, order: Path, ca: Path) -> None:
    """What a daemon does from its start until the order's program is here."""
    from edge.clock import SystemClock

    clock = SystemClock()
    async with Journal.open(folder / FILE_NAME, "berlin-1", clock.stamp) as journal:
        site = Rig(folder, journal)
        keeper = Keeper(journal, folder, site.artifacts, clock, 10**9)
        fetcher = Fetcher(
            journal, folder, site.artifacts, clock, make_context(ca), make_room=keeper.make_room, first_pause_s=0.01
        )
        serving = asyncio.create_task(fetcher.serve())
        try:
            receipt = await site.intake.bundle(order, "user:ada")
            assert receipt.verdict.accepted
            await site.until(lambda: site.events("artifact_stored"))
        finally:
            serving.cancel()
            await asyncio.wait([serving])
        await keeper.make_room()
        assert site.artifacts.halves() == []
        assert len(site.events("job_accepted")) == len(site.events("artifact_stored")) == 1
        (job,) = site.ask(lambda snapshot: snapshot.jobs())
        (artifact,) = site.ask(lambda snapshot: snapshot.job(job["job_id"]))["artifacts"]
        assert artifact["stored"]
        site.artifacts.verify(artifact["sha256"])
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(folder / FILE_NAME) == (journal.last_seq, "")


def old_or_new(folder: Path, size_bytes: int) -> None:
    """What is visible right after a kill: no file or the whole one, and no event without its file."""
    artifacts = Artifacts(folder / "artifacts")
    here = artifacts.on_disk() if artifacts.directory.is_dir() else {}
    for sha256, size in here.items():
        assert size == size_bytes
        artifacts.verify(sha256)
    if (folder / FILE_NAME).exists() and (folder / FILE_NAME).stat().st_size:
        with views.open_readonly(folder) as snapshot:
            stored = {row[0] for row in snapshot.connection.execute("SELECT sha256 FROM artifacts")}
            assert len(snapshot.jobs()) <= 1
        assert stored <= here.keys()


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def fail(why: str) -> None:
    """From any thread, whatever it would catch."""
    say(why)
    os._exit(1)


def cut_power(folder: Path) -> None:
    """Half of the half file did not reach the disk, though its size did."""
    for half in (folder / "artifacts" / "partial").glob("*"):
        content = half.read_bytes()
        half.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


def forked(what: Any) -> int:
    """Do it in a process of its own; how that ended, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            what()
        except BaseException:  # noqa: BLE001 - told, and the exit code says that there was one
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, ca: Path, size_bytes: int) -> None:
    for at_step in itertools.count(1):
        site = folder / f"site-{at_step}"
        site.mkdir()

        def until_killed(site: Path = site, at_step: int = at_step) -> None:
            killer = Killer(site, at_step)
            asyncio.run(work(site, folder / "order.mfjob", ca))
            say(f"done {killer.steps}")

        code = forked(until_killed)
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        old_or_new(site, size_bytes)
        if at_step % 2:
            cut_power(site)
        assert forked(lambda site=site: asyncio.run(work(site, folder / "order.mfjob", ca))) == 0
        say(f"killed {at_step}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
