"""Files give way only when no open order names them, the oldest use first; and the journal's list stays true."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from edge.artifacts.artifacts import prune
from edge.artifacts.keeper import RESERVE_BYTES, Keeper
from edge.intake.intake import Intake
from edge.model.event import Draft, EventKind
from tests.helpers.rig import Rig, rig

ROOM = 10**9


class Setting:
    """A site whose files may have `max_bytes` and whose disk has `free` bytes."""

    def __init__(self, site: Rig, max_bytes: int = 1000) -> None:
        self.site = site
        self.free = ROOM
        self.keeper = Keeper(site.journal, site.folder, site.artifacts, site.clock, max_bytes, lambda: self.free)
        processes = frozenset({"fdm"})
        site.intake = Intake(
            site.journal,
            site.artifacts,
            site.authority,
            processes,
            site.clock,
            lambda: self.free,
            max_bytes,
            self.keeper.make_room,
        )

    async def job(self, content: bytes, *, cancelled: bool = False, **how: Any) -> Any:
        receipt = await self.site.submit(content, **how)
        if cancelled:
            await self.cancel(receipt.job_id)
        return receipt

    async def cancel(self, job_id: str | None) -> None:
        await self.site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, job_id)])

    def here(self, *contents: bytes) -> list[bool]:
        return [self.site.artifacts.has(sha256(content)) for content in contents]

    def evicted(self) -> list[str]:
        return [event["body"]["sha256"] for event in self.site.events("artifact_evicted")]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


A, B, C, D = (bytes([letter]) * 400 for letter in b"abcd")


async def test_what_no_open_order_names_stays_until_its_room_is_needed(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A, cancelled=True)
        await at.keeper.make_room()
        assert (at.here(A), at.evicted(), at.keeper.trouble) == ([True], [], "")


async def test_the_one_whose_orders_are_the_longest_ago_goes_first(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A, cancelled=True)
        await at.job(B, cancelled=True)
        await at.job(A, files=False, cancelled=True)  # used again
        assert (await at.job(C)).stored
        assert at.here(A, B, C) == [True, False, True]
        assert at.evicted() == [sha256(B)]
        assert (await site.journal.verify()).problems == ()
        assert not list((site.artifacts.directory / "evicted").iterdir())


async def test_what_an_open_order_names_is_never_taken_away(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A)
        await at.job(B)
        refused = await at.job(C)
        assert (refused.verdict.reason, refused.verdict.detail) == (
            "storage_full",
            "the artifacts need 400 bytes, this site has room for 200",
        )
        at.free = 0
        await at.keeper.make_room()
        assert at.here(A, B) == [True, True]
        assert at.evicted() == []


async def test_a_disk_that_runs_full_takes_the_idle_files_first(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A)
        await at.job(B, cancelled=True)
        at.free = RESERVE_BYTES - 1
        await at.keeper.make_room()
        assert at.here(A, B) == [True, False]


async def test_room_that_is_spoken_for_is_not_given_twice(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site, max_bytes=ROOM)
        at.free = RESERVE_BYTES + 700
        first = await at.job(A, files=False)
        assert first.verdict.accepted
        assert (await at.job(B, files=False)).verdict.reason == "storage_full"
        assert (await at.job(A, files=False)).verdict.accepted, "the same file needs its room once"
        await at.cancel(first.job_id)
        assert (await at.job(C, files=False)).verdict.reason == "storage_full", "another order still needs it"
        for event in site.events("job_accepted")[1:]:
            await at.cancel(event["job_id"])
        assert (await at.job(D, files=False)).verdict.accepted


async def test_a_file_that_is_here_and_idle_counts_as_room_once_and_only_for_others(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site, max_bytes=ROOM)
        await at.job(A, cancelled=True)
        at.free = RESERVE_BYTES + 100
        assert (await at.job(A, files=False)).verdict.accepted, "it is here"
        assert (await at.job(B, files=False)).verdict.reason == "storage_full", "and idle no more"


async def test_a_file_that_is_gone_is_written_down_as_lost(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        receipt = await at.job(A)
        site.artifacts.path(sha256(A)).unlink()
        await at.keeper.make_room()
        await at.keeper.make_room()
        (event,) = site.events("artifact_lost")
        assert event["body"] == {"sha256": sha256(A), "reason": "it is gone"}
        (listed,) = site.ask(lambda snapshot: snapshot.job(receipt.job_id))["artifacts"]
        assert not listed["stored"]


async def test_a_file_that_nobody_knows_is_taken_away_and_one_on_its_way_is_not(tmp_path: Path) -> None:
    """What a power cut leaves between a file's rename and its event."""
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A, files=False)
        for content in (A, B):
            (tmp_path / "source").write_bytes(content)
            with (tmp_path / "source").open("rb") as stream:
                site.artifacts.store(stream, sha256(content), len(content))
        await at.keeper.make_room()
        assert at.here(A, B) == [True, False]
        assert at.evicted() == []


async def test_half_downloads_that_nobody_needs_are_swept_away(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A, files=False)
        for content in (A, B):
            (site.artifacts.partial / sha256(content)).write_bytes(b"half")
            (site.artifacts.partial / f"{sha256(content)}.json").write_bytes(b"{}")
        await at.keeper.make_room()
        assert {half.name[:64] for half in site.artifacts.partial.iterdir()} == {sha256(A)}


async def test_a_disk_that_refuses_is_told_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        (site.artifacts.directory / "evicted").rmdir()
        await at.keeper.make_room()
        assert "cannot be tidied: No such file" in at.keeper.trouble
        (site.artifacts.directory / "evicted").mkdir()
        await at.keeper.make_room()
        assert at.keeper.trouble == ""


async def test_a_disk_that_stays_nearly_full_is_told_until_it_has_room_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        at.free = RESERVE_BYTES - 1
        for _ in range(2):
            await at.keeper.make_room()
            assert f"nearly full, and no program comes in: {RESERVE_BYTES - 1} bytes are free" in at.keeper.trouble
        at.free = RESERVE_BYTES
        await at.keeper.make_room()
        assert at.keeper.trouble == ""


async def test_an_order_that_cannot_be_read_any_more_stops_nobody(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        at = Setting(site)
        await at.job(A)
        await site.journal.transact(lambda t: t.connection.execute("UPDATE orders SET payload = '{}'").rowcount)
        await at.keeper.make_room()
        assert (await at.job(B)).verdict.accepted


def test_pruning_leaves_the_newest_few(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name)
    (tmp_path / "folder").mkdir()
    newest = max(path.stat().st_ctime for path in tmp_path.iterdir())

    def left(*limits: Any) -> int:
        prune(tmp_path, *limits)
        return len([path for path in tmp_path.iterdir() if path.is_file()])

    assert left(1000, 60.0, newest) == 4
    assert left(1000, 60.0, newest, 3) == 3
    assert left(25, 60.0, newest) == 2
    assert left(1000, 60.0, newest + 61) == 0
    assert (tmp_path / "folder").is_dir()
    prune(tmp_path / "not there", 0, 0.0, 0.0)
