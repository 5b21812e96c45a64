"""Where `make peers` has put what others wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.mosquitto import program


@pytest.fixture(scope="session")
def printrun_python() -> Path:
    """The Python that has Printrun."""
    place = os.environ.get("EDGE_PEER_PRINTRUN")
    if not place or not Path(place).exists():
        pytest.fail("Printrun is missing: run these tests with `make peers`, which installs it")
    return Path(place)


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The broker's program."""
    try:
        return program()
    except FileNotFoundError as error:
        pytest.fail(str(error))
