"""What pytest wants of the tests themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_two_files_have_one_name() -> None:
    """`make slow` collects all folders at once, and pytest knows a file by its name."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py") if "node_modules" not in path.parts)
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []
