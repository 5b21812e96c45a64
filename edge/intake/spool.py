"""Takes in what is dropped into a directory: bundles (`.mfjob`) and envelopes alone (`.dsse.json`).

Rules:

    1. Whoever drops files is nobody: what counts is the signature inside. A file is opened once, through the directory
       that was opened, never through a link; only a plain file with one name is read, and it is read by the handle.
    2. A file is taken when it has not changed for `SETTLE_S` and is whole. One that stays half is refused after
       `PATIENCE_S`. Renaming into place is the way that needs no luck; names that begin with a dot, or end otherwise,
       are left alone.
    3. What was taken goes to `done/`, what was refused to `refused/` with the reason beside it. Where nothing can be
       moved (a write-protected stick), a file is remembered until it changes or goes; the same bytes get the same
       answer anyway.
    4. A look takes at most `AT_ONCE` files, in turn from each owner, the oldest first; so nobody's thousand files keep
       the other's one waiting.
    5. `done/` and `refused/` are kept small and young: they are for looking, the journal is what counts.

The directory is looked at every `PERIOD_S`: the standard library has no inotify, and a network share tells nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.artifacts.artifacts import prune
from edge.artifacts.bundle import read_bundle
from edge.clock import SystemClock
from edge.errors import ArtifactError, BundleError, EdgeError, EnvelopeError
from edge.intake.intake import Receipt
from edge.trust import Reason
from edge.trust.envelope import MAX_ENVELOPE_BYTES, parse

ACTOR = "spool"
SUFFIXES = (".mfjob", ".dsse.json")
DONE, REFUSED = "done", "refused"

PERIOD_S = 2.0
SETTLE_S = 2.0
PATIENCE_S = 120.0
AT_ONCE = 32
MAX_NAMES = 10_000
"""Looked at in one round; what is beyond comes when these are gone."""

KEPT_BYTES = 1024**3
KEPT_S = 7 * 86_400.0
LONGEST_NAME_BYTES = 200

log = logging.getLogger("edge.intake.spool")

Take = Callable[[Path, str], Awaitable[Receipt]]
_Look = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file in the directory. `look` is the same as long as nobody writes to it."""

    name: str
    look: _Look
    owner: int


@dataclass(slots=True)
class _Seen:
    """How a file was, since when, whether it was dealt with, and whether it waits for the time."""

    look: _Look
    since_s: float
    failures: int = 0  # how often nothing could be done with it
    dealt_with: bool = False
    waits: bool = False


class Spool:
    """The task that watches a directory. `trouble` says what is wrong with it; empty while nothing is."""

    def __init__(
        self,
        directory: Path,
        take: Take,
        clock: SystemClock,
        *,
        period_s: float = PERIOD_S,
        settle_s: float = SETTLE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.directory = directory
        self._take = take
        self._clock = clock
        self._period_s = period_s
        self._settle_s = settle_s
        self._patience_s = patience_s
        self._seen: dict[str, _Seen] = {}
        self.trouble = ""

    async def serve(self) -> None:
        """Look at the directory again and again, until cancelled."""
        while True:
            try:
                more = await self.round()
                trouble = ""
            except (EdgeError, OSError) as error:
                more = False
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                trouble = f"the spool directory {self.directory}: {reason}"
            if trouble and trouble != self.trouble:
                log.error("%s; trying again", trouble)
            self.trouble = trouble
            await asyncio.sleep(0.0 if more else self._period_s)

    async def round(self) -> bool:
        """Deal with at most `AT_ONCE` files; whether others are ready.

        Raises `EdgeError` or `OSError`, after the others had their turn: a file that nothing can be done with now
        comes again, as the last.
        """
        problem: EdgeError | OSError | None = None
        with _opened(self.directory) as folder:
            found = await asyncio.to_thread(lambda: list(_files(folder)))
            ready = self._ready(found)
            for item in ready[:AT_ONCE]:
                self._seen[item.name].failures += 1  # before: after a bug of ours it is the last, too
                try:
                    await self._deal_with(folder, item)
                except (EdgeError, OSError) as error:
                    problem = error
                else:
                    self._seen[item.name].failures -= 1
            await asyncio.to_thread(self._prune)
        if problem is not None:
            raise problem
        return len(ready) > AT_ONCE

    def _ready(self, found: list[_Found]) -> list[_Found]:
        """Those that nobody writes to any more and that are still to be dealt with, in turn from each owner."""
        now_s = self._clock.mono_s()
        seen = {}
        for item in found:
            before = self._seen.get(item.name)
            seen[item.name] = before if before is not None and before.look == item.look else _Seen(item.look, now_s)
        self._seen = seen
        owners: dict[int, list[_Found]] = {}
        trusted = self._clock.now().trusted
        for item in sorted(found, key=lambda item: (seen[item.name].failures, seen[item.name].since_s, item.name)):
            if seen[item.name].waits and not trusted:
                continue
            if not seen[item.name].dealt_with and now_s - seen[item.name].since_s >= self._settle_s:
                owners.setdefault(item.owner, []).append(item)
        rows = itertools.zip_longest(*owners.values())
        return [item for row in rows for item in row if item is not None]

    async def _deal_with(self, folder: int, item: _Found) -> None:
        seen = self._seen[item.name]
        try:
            with _file(folder, item) as file:
                await asyncio.to_thread(_check_whole, file, item.name)
                receipt = await self._take(file, ACTOR)
        except _HalfError as error:
            if self._clock.mono_s() - seen.since_s < self._patience_s:
                return  # it may still be growing, or come anew
            refusal = str(error)
        except (_UnfitError, BundleError) as error:
            refusal = str(error)
        except ArtifactError as error:
            refusal = f"its files cannot be kept: {error}"
        else:
            if receipt.verdict.reason is Reason.CLOCK_UNTRUSTED:
                seen.waits = True  # it stays, with its files
                return
            refusal = _refusal(receipt)
        seen.dealt_with = True
        shown = _printable(item.name)
        if refusal:
            log.warning("%s in the spool directory is refused: %s", shown, refusal)
        else:
            log.info("%s in the spool directory is taken in", shown)
        await asyncio.to_thread(_move, folder, item, refusal)

    def _prune(self) -> None:
        for name in (DONE, REFUSED):
            with _unless_write_protected():
                prune(self.directory / name, KEPT_BYTES, KEPT_S, self._clock.age_by_s())


class _HalfError(Exception):
    """The file is not whole, now."""


class _UnfitError(Exception):
    """The file is nothing to be opened."""


def _refusal(receipt: Receipt) -> str:
    verdict = receipt.verdict
    if not verdict.accepted:
        return f"{verdict.reason}: {verdict.detail}"
    if receipt.refused:
        return f"job {receipt.job_id} is accepted, but " + "; ".join(reason for _, reason in receipt.refused)
    return ""


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _files(folder: int) -> Iterator[_Found]:
    """What may be for us; each with how it looks now."""
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, MAX_NAMES):
            if entry.name.startswith(".") or not entry.name.endswith(SUFFIXES):
                continue
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                seen = entry.stat(follow_symlinks=False)
                yield _Found(entry.name, _look_of(seen), seen.st_uid)


def _look_of(seen: os.stat_result) -> _Look:
    return (seen.st_dev, seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


@contextlib.contextmanager
def _file(folder: int, item: _Found) -> Iterator[Path]:
    """A path to the very file that was looked at, whatever becomes of its name."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to must not wait for somebody.
        handle = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise _UnfitError("it has gone") from None
    except OSError as error:
        link = error.errno in (errno.ELOOP, errno.EMLINK)
        raise _UnfitError("it is a link, not a file" if link else f"it cannot be read: {error.strerror}") from error
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode):
            raise _UnfitError("it is no plain file")
        if seen.st_nlink != 1:
            raise _UnfitError("it has several names (hard links); copy it instead")
        if _look_of(seen) != item.look:
            raise _HalfError("it changes while it is looked at")
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def _check_whole(file: Path, name: str) -> None:
    """Whether all of it is there: the end of the zip file, or of the JSON. Raises `_HalfError`."""
    try:
        if name.endswith(".mfjob"):
            with read_bundle(file):
                return
        with file.open("rb") as opened:
            raw = opened.read(MAX_ENVELOPE_BYTES + 1)
        if len(raw) <= MAX_ENVELOPE_BYTES:
            parse(raw)
    except (BundleError, EnvelopeError) as error:
        raise _HalfError(str(error).replace(file.name + " ", "", 1).replace(f"{file.name}: ", "", 1)) from error
    except OSError as error:
        raise _UnfitError(f"it cannot be read: {error.strerror}") from error


def _move(folder: int, item: _Found, refusal: str) -> None:
    """Put a file that was dealt with away; where that is not allowed, it stays and is remembered."""
    name = _safe_name(item.name)
    with _unless_write_protected(), _inner(folder, REFUSED if refusal else DONE) as target:
        now = os.stat(item.name, dir_fd=folder, follow_symlinks=False)
        if _look_of(now) != item.look:
            return  # another file has its name now: that one's turn comes
        name = next(free for free in _numbered(name) if not _exists(free, target))
        os.rename(item.name, name, src_dir_fd=folder, dst_dir_fd=target)
        if refusal:
            mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(f"{name}.reason.txt", mode, 0o640, dir_fd=target)
            with open(handle, "w", encoding="utf-8") as out:  # noqa: PTH123 - a handle, not a path
                out.write(f"{_printable(refusal)}\n")


@contextlib.contextmanager
def _unless_write_protected() -> Iterator[None]:
    """A stick may be, and a file may be gone before it is moved: both are no error."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


@contextlib.contextmanager
def _inner(folder: int, name: str) -> Iterator[int]:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o750, dir_fd=folder)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(name, flags, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        yield f"{number}-{name}"


def _exists(name: str, folder: int) -> bool:
    for candidate in (name, f"{name}.reason.txt"):
        try:
            os.stat(candidate, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        return True
    return False


def _printable(text: str) -> str:
    """Without what a terminal would obey, and without bytes that are no text."""
    return "".join(c if c.isprintable() else "_" for c in text.encode("utf-8", "replace").decode())


def _safe_name(name: str) -> str:
    """The name under which a file is kept; one that is too long or no text gets another, with a digest of its own."""
    raw = os.fsencode(name)
    if name.isprintable() and len(raw) <= LONGEST_NAME_BYTES:
        return name
    clean = _printable(name).encode()[:80].decode("utf-8", "ignore")
    return f"{clean}-{hashlib.sha256(raw).hexdigest()[:12]}"
