"""Word that is left for the daemon: an event once, and nothing beside it keeps the daemon from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.journal import word
from edge.model.event import EventKind
from edge.running import trusted
from tests.helpers.rig import rig

EARLIER, LATER = "2026-11-21T10:00:00.000Z", "2026-11-21T10:00:00.001Z"


async def test_word_becomes_events_in_the_order_in_which_it_was_left(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        for name, actor, at_wall in (("b", "user:ada", EARLIER), ("a", "user:bob", LATER)):
            left = trusted.leave(tmp_path, "prn-1", actor, "AA:11", at_wall)
            left.rename(left.with_name(f"{name}.json"))
        assert await trusted.record(site.journal, tmp_path) == 2
        assert [event["actor"] for event in site.events(EventKind.MACHINE_TRUSTED)] == ["user:ada", "user:bob"]


async def test_what_cannot_be_read_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        trusted.leave(tmp_path, "prn-1", "user:ada", "AA:11", EARLIER)
        (tmp_path / trusted.FOLDER / "x.json").mkdir()
        assert await trusted.record(site.journal, tmp_path) == 1
        assert len(site.events(EventKind.MACHINE_TRUSTED)) == 1


async def test_word_that_is_in_the_journal_already_is_only_removed(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        left = trusted.leave(tmp_path, "prn-1", "user:ada", "AA:11", EARLIER)
        kept = left.read_bytes()
        await trusted.record(site.journal, tmp_path)
        left.write_bytes(kept)  # as after a crash before it was removed
        await trusted.record(site.journal, tmp_path)
        assert len(site.events(EventKind.MACHINE_TRUSTED)) == 1
        assert not left.exists()


def test_half_a_word_is_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / trusted.FOLDER).mkdir()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        trusted.leave(tmp_path, "prn-1", "user:ada", "AA:11", EARLIER)
    assert list((tmp_path / trusted.FOLDER).iterdir()) == []
    assert word.read(tmp_path, trusted.FOLDER, trusted.Accepted) == {}
