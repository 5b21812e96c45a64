"""Ten mills that fail at once, with a run on each: seen soon, right again within a minute, nothing started twice."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from edge.cli.client import call
from edge.folders import make_state_dir
from tests.helpers.opcua_site import mill, trust_mill
from tests.helpers.opcua_trust import password_in
from tests.helpers.site import SiteFolder, until
from tests.helpers.trust import step_document

COUNT = 10
RIGHT_S = 60.0
BEGUN_S = 120.0
"""What comes before the fault is not what is tried: a busy host may take its time for it."""

SILENT_S = 2.5
"""Nothing has come for 5 s when a machine is called out of sight; what was told last was 2 s old at most."""

PROGRAM = b"G21 G90\n" + b"G1 X410 F3000\nG1 X10 F3000\n" * 1000 + b"M30\n"
"""Hours of moving to and fro."""


class Mills(Protocol):
    """Ten mills, on one server or on ten."""

    password: str

    def where(self, number: int) -> tuple[str, str]:
        """Endpoint of a mill, and its browse name if that server has several."""

    def trust(self, number: int, certificate: Path) -> None:
        """As a technician does at the machine."""

    def at_work(self) -> bool:
        """Whether all have carried out something."""

    def starts(self) -> list[int]:
        """How many programs each has begun since its server began."""

    def freeze(self) -> None:
        """All processes stand still, their sockets stay."""

    def thaw(self) -> None: ...

    def kill(self) -> None: ...

    def restart(self) -> None:
        """All begin anew at the same places, with nothing remembered but their files."""


class TenAtOnce(ABC):
    """Subclass it, say in `mills` what they are, and name the subclass ``Test…``.

    They serve both tests, in this order: after the second nothing goes on any more.
    """

    @classmethod
    @abstractmethod
    def mills(cls, folder: Path) -> AbstractContextManager[Mills]:
        """Ten mills behind SignAndEncrypt and a password, each of which takes hours for the program."""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SiteFolder, Mills]]:
        """They and a site that has them, with its daemon and a run on each."""
        folder = tmp_path_factory.mktemp("site")
        with cls.mills(folder) as mills:
            password_in(folder, mills.password)
            names = {f"mill-{number}": mills.where(number) for number in range(COUNT)}
            site = SiteFolder(folder, "".join(mill(folder, name, *where) for name, where in names.items()))
            make_state_dir(site.state_dir)
            for number, (name, (endpoint, _)) in enumerate(names.items()):
                trust_mill(folder, name, endpoint, lambda certificate, number=number: mills.trust(number, certificate))
            try:
                site.start(ready="it listens on")
                within(BEGUN_S, lambda: states(site) == {"IDLE"})
                for _ in names:
                    order = site.bundle(PROGRAM, steps=[step_document(process="mill", requires={})])
                    with order.open("rb") as bundle:
                        assert call(site.socket, "POST", "/v1/jobs", bundle)["accepted"]
                within(BEGUN_S, lambda: states(site) == {"EXECUTE"} and mills.at_work())
                yield site, mills
            finally:
                if site.daemon is not None:
                    site.daemon.process.kill()  # it would leave the runs to the machines, and they end with the test
                    site.daemon.end()

    def test_ten_that_freeze_at_once_are_right_within_a_minute(self, place: tuple[SiteFolder, Mills]) -> None:
        site, mills = place
        assert mills.starts() == [1] * COUNT
        mills.freeze()
        try:
            until(lambda: states(site) == {"OFFLINE"})
            assert site.live()["level"] == 2, "runs that nobody looks at are UNSAFE"
            shown = [seen for machine in site.live()["machines"] for seen in machine["readings"].values()]
            assert len(shown) == COUNT
            assert all(seen["age_s"] > SILENT_S for seen in shown), "what is shown is old, and looks old"
        finally:
            mills.thaw()
        within(RIGHT_S, lambda: states(site) == {"EXECUTE"})
        assert mills.starts() == [1] * COUNT
        assert not ended(site)

    def test_ten_that_are_killed_at_once_are_right_within_a_minute_of_their_start(
        self, place: tuple[SiteFolder, Mills]
    ) -> None:
        site, mills = place
        assert states(site) == {"EXECUTE"}
        mills.kill()
        until(lambda: states(site) == {"OFFLINE"})
        mills.restart()
        within(RIGHT_S, lambda: states(site) == {"IDLE"} and len(ended(site)) == COUNT)
        assert ended(site) == ["UNKNOWN"] * COUNT, "they have forgotten, and nobody guesses"
        assert mills.starts() == [0] * COUNT, "nothing is started by itself"


def states(site: SiteFolder) -> set[str]:
    return {machine["state"] for machine in site.live()["machines"]}


def ended(site: SiteFolder) -> list[str]:
    return [event["body"]["outcome"] for event in site.events("run_ended")]


def within(limit_s: float, holds: Callable[[], object]) -> None:
    """Wait until it holds, at most so long."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < limit_s, "not right yet"
        time.sleep(0.1)
