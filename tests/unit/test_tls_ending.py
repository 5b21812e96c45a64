"""The site's own certificate: told of before it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.uplink.tls import ending
from tests.helpers.certificates import Authority

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("valid", "after", "words"),
    [
        (365 * DAY, 330 * DAY, ""),
        (365 * DAY, 336 * DAY, "ends on"),
        (365 * DAY, 366 * DAY, "has ended on"),
        (89 * DAY, 79 * DAY, ""),  # it began a day ago
        (89 * DAY, 81 * DAY, "ends on"),
        (DAY, DAY / 2, ""),
    ],
)
def test_it_is_told_in_time_and_not_too_soon(tmp_path: Path, valid: timedelta, after: timedelta, words: str) -> None:
    path = Authority(tmp_path).issue("berlin-1", valid=valid).certificate
    assert path is not None
    said = ending(path, datetime.now(UTC) + after)
    assert words in said
    assert bool(said) == bool(words)
    assert not said or str(path) in said


def test_what_is_no_certificate_is_told_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "site.crt").write_text("nothing")
    assert ending(tmp_path / "site.crt", datetime.now(UTC)) == ""
    assert ending(tmp_path / "gone.crt", datetime.now(UTC)) == ""
