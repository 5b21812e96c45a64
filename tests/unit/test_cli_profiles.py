"""`edge machine profiles` with a site's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli.main import main

SITE = """
[site]
id = "berlin-1"
state_dir = "state"
socket = "edge.sock"
trust_root = "root.dsse.json"
profiles_dir = "profiles"
"""
OURS = """
dialect = "marlin"
summary = "our delta"
match = {firmware_name = '^Ours'}
wire = {rx_buffer_bytes = 64, line_max_bytes = 96, busy_interval_s = 0, silence_s = 60}
macro = {make_safe = ["M104 S0"], abort = "M112"}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "profiles").mkdir()
    return tmp_path / "site.toml"


def test_a_profile_of_the_site_s_own_is_listed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "profiles" / "delta.toml").write_text(OURS)
    assert main(["--config", str(config), "machine", "profiles", "--json"]) == 0
    found = {profile["name"]: profile for profile in json.loads(capsys.readouterr().out)}
    assert found["delta"]["summary"] == "our delta"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('dialect = "marlni"', "delta.toml: dialect: 'marlni' is of no driver that is installed"),
        ("", "delta.toml: dialect: is missing"),
        ('dialect = "grbl"', "delta.toml: the whole: macro.abort is"),
    ],
)
def test_one_that_no_driver_takes_is_told_and_not_left_out(
    config: Path, capsys: pytest.CaptureFixture[str], wrong: str, words: str
) -> None:
    (config.parent / "profiles" / "delta.toml").write_text(OURS.replace('dialect = "marlin"', wrong))
    assert main(["--config", str(config), "machine", "profiles"]) == 2
    said = capsys.readouterr()
    assert words in " ".join((said.out + said.err).split())
