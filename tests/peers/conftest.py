"""Where `make peers` has put what others wrote."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.mosquitto import Mosquitto, program
from tests.helpers.real_octoprint import RealOctoPrint, real_octoprint


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


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto of the test's own."""
    with Mosquitto.begin(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture(scope="session")
def octoprint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOctoPrint]:
    """A running OctoPrint with its virtual printer, for all tests: each leaves it as it likes."""
    place = os.environ.get("EDGE_PEER_OCTOPRINT")
    if not place or not Path(place).exists():
        pytest.fail("OctoPrint is missing: run these tests with `make peers`, which installs it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with real_octoprint(Path(place), tmp_path_factory.mktemp("peer"), port) as server:
        yield server
