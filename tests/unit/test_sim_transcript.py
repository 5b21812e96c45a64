"""The recorded exchanges with the real firmware, replayed against the simulated one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sim_rig import Rig

TRANSCRIPT = Path(__file__).parent.parent / "transcripts" / "marlin-2.1.2.1.txt"


def parts() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in TRANSCRIPT.read_text().splitlines():
        if line.startswith("== "):
            name = line[3:]
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


PARTS = parts()


def matches(expected: str, seen: str) -> bool:
    return re.fullmatch(".*".join(re.escape(text) for text in expected.split("...")), seen) is not None


@pytest.mark.parametrize("name", PARTS)
def test_the_simulator_says_what_the_firmware_said(name: str) -> None:
    rig = Rig()
    seen = rig.banner.splitlines() if name == "the banner" else []
    for line in PARTS[name]:
        kind, _, text = line.partition(" ")
        if kind in (">", "~"):
            assert seen == [], f"before {line!r}"
            seen = rig.send(text + "\n") if kind == ">" else rig.wait(float(text))
        else:
            for _ in range(int(kind[1:] or 1)):
                assert seen, f"nothing more came, but {text!r} should have"
                assert matches(text, seen.pop(0)), text
    assert seen == []
