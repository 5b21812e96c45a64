"""The site's own key: made once, private, and its public part beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import KeyFileError
from edge.trust import load_public_key, public_bytes
from edge.uplink.sitekey import PRIVATE_NAME, PUBLIC_NAME, open_key


def test_it_is_made_once_and_its_public_part_names_the_site(tmp_path: Path) -> None:
    key = open_key(tmp_path, "berlin-1")
    assert (tmp_path / PRIVATE_NAME).stat().st_mode & 0o777 == 0o600
    public = load_public_key(tmp_path / PUBLIC_NAME)
    assert (public.name, public.public) == ("berlin-1", public_bytes(key))
    (tmp_path / PUBLIC_NAME).unlink()
    assert public_bytes(open_key(tmp_path, "berlin-1")) == public.public
    assert load_public_key(tmp_path / PUBLIC_NAME) == public


def test_one_that_others_may_read_is_refused(tmp_path: Path) -> None:
    open_key(tmp_path, "berlin-1")
    (tmp_path / PRIVATE_NAME).chmod(0o644)
    with pytest.raises(KeyFileError, match="may be used by others"):
        open_key(tmp_path, "berlin-1")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot write"):
        open_key(tmp_path / "nowhere", "berlin-1")
