"""Profiles of firmware: which one fits, and what is wrong with one that a site wrote itself."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.profile import all_known, fitting, known, named
from edge.driver import IdentityError

SHIPPED = resources.files("firmware_profiles").joinpath("marlin-2.1.toml").read_text()
MARLIN = "Marlin 2.1.2.1 (Dec 29 2022 00:00:00)"


def own(folder: Path, name: str, old: str = "", new: str = "") -> Path:
    """A profile of the site's own, like the shipped one but for one replacement."""
    assert old in SHIPPED
    (folder / f"{name}.toml").write_text(SHIPPED.replace(old, new, 1))
    return folder


def test_a_firmware_finds_its_profile() -> None:
    assert fitting(MARLIN, "auto", None)[0] == "marlin-2.1"
    assert fitting("Marlin bugfix-2.1.x", "marlin-2.1", None)[0] == "marlin-2.1"


def test_a_firmware_without_a_profile_is_refused_by_its_own_name() -> None:
    with pytest.raises(IdentityError, match=r"calls itself 'Klipper'; no profile fits \(marlin-1\.1, "):
        fitting("Klipper", "auto", None)
    with pytest.raises(IdentityError, match=r"calls itself 'Klipper', which profile 'marlin-2\.1' does not fit"):
        fitting("Klipper", "marlin-2.1", None)


def test_two_profiles_that_fit_are_for_a_person_to_choose(tmp_path: Path) -> None:
    own(tmp_path, "ours")
    with pytest.raises(IdentityError, match=r"name one of the profiles marlin-2\.1, ours"):
        fitting(MARLIN, "auto", tmp_path)
    assert fitting(MARLIN, "ours", tmp_path)[0] == "ours"


def test_a_site_s_own_profile_comes_before_the_shipped_one_of_that_name(tmp_path: Path) -> None:
    own(tmp_path, "marlin-2.1", "silence_s = 20.0", "silence_s = 7.0")
    assert named("marlin-2.1", tmp_path).wire.silence_s == 7.0
    assert list(known(tmp_path)) == list(known(None))
    assert [info.name for info in PLUGIN.profiles(tmp_path)] == list(all_known(None))


def test_profiles_of_other_dialects_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mill.toml").write_text('dialect = "opcua"\n')
    assert list(known(tmp_path)) == list(known(None))
