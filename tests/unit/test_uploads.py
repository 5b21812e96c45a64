"""What comes over the socket never takes the room that is kept for the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.errors import UsageError
from edge.serving import api

PIECE_BYTES = 100_000


async def test_uploads_at_the_same_time_leave_the_reserve_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two would fit; together they do not."""
    disk = SimpleNamespace(free=api.RESERVE_BYTES + 1_000_000)
    monkeypatch.setattr(api.shutil, "disk_usage", lambda _: disk)

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * PIECE_BYTES
            disk.free -= 2 * PIECE_BYTES  # this one's, and the other's

    request = SimpleNamespace(content=SimpleNamespace(iter_chunked=pieces))
    with pytest.raises(UsageError, match="the disk has no room for the bundle"):
        async with api._received(request, tmp_path):  # type: ignore[arg-type]
            pass
    assert disk.free >= api.RESERVE_BYTES
    assert list(tmp_path.iterdir()) == []
