"""A site that has seen network time and then has no network: how long its clock is believed."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.intake.vouched import FILE_NAME, VouchedFile
from edge.timefloor import Known, Source

START = datetime(2027, 3, 1, tzinfo=UTC)
DAY_S = 86_400.0


class Host(SystemClock):
    """A host that was booted at START; a test lets time pass, sets its clock, and says what the kernel says."""

    def __init__(self, source: Source = Source.NTP, *, boot_id: str = "boot-1") -> None:
        super().__init__(source, Known(START - timedelta(days=1)), lambda: self.synchronized)
        self.boot_id = boot_id
        self.synchronized = False
        self.up_s = 60.0
        self.set_by = timedelta()

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.up_s) + self.set_by

    def since_boot_s(self) -> float:
        return self.up_s


def seen_network_time() -> Host:
    host = Host()
    host.synchronized = True
    assert host.now().trusted
    host.synchronized = False
    return host


@pytest.mark.parametrize("days", [0.001, 8.9 / 24, 1, 30, 400])
def test_a_clock_that_the_kernel_has_vouched_for_is_believed_without_a_network(days: float) -> None:
    host = seen_network_time()
    host.up_s += days * DAY_S
    assert host.now().trusted
    assert host.now().wall == START + timedelta(seconds=host.up_s)
    assert host.doubt() == ""
    assert host.stamp().clock == "trusted"


def test_until_the_kernel_has_vouched_for_it_since_the_boot_it_is_not() -> None:
    host = Host()
    host.up_s += 30 * DAY_S
    assert not host.now().trusted
    assert "nor has it since the host was booted" in host.doubt()


@pytest.mark.parametrize("by", [timedelta(seconds=2), timedelta(seconds=-2), timedelta(days=-1), timedelta(days=1)])
def test_whoever_sets_it_vouches_for_nothing_until_the_kernel_does_again(by: timedelta) -> None:
    host = seen_network_time()
    host.up_s += DAY_S
    host.set_by = by
    assert not host.now().trusted
    host.synchronized = True
    assert host.now().trusted
    host.synchronized = False
    host.up_s += 30 * DAY_S
    assert host.now().trusted, "network time has set it right, and nobody since"


def test_a_leap_second_sets_nothing() -> None:
    host = seen_network_time()
    host.set_by = timedelta(seconds=-1)
    assert host.now().trusted


def test_a_site_that_believes_signed_times_only_does_not_come_to_believe_the_kernel() -> None:
    host = Host(Source.SIGNED)
    host.synchronized = True
    assert not host.now().trusted
    host.synchronized = False
    assert not host.now().trusted


def test_the_next_daemon_of_this_boot_knows_it_and_that_of_another_does_not(tmp_path: Path) -> None:
    before = seen_network_time()
    VouchedFile(tmp_path).keep(before)
    for boot_id, believed in (("boot-1", True), ("boot-2", False)):
        after = Host(boot_id=boot_id)
        after.up_s = before.up_s + 3 * DAY_S
        VouchedFile(tmp_path).recall(after)
        assert after.now().trusted == believed


def test_it_is_written_when_it_is_news_and_not_for_each_look(tmp_path: Path) -> None:
    host, file = Host(), VouchedFile(tmp_path)
    file.keep(host)
    assert not (tmp_path / FILE_NAME).exists(), "nobody has vouched yet"
    host.synchronized = True
    host.now()
    file.keep(host)
    written = (tmp_path / FILE_NAME).stat()
    assert written.st_mode & 0o777 == 0o600
    for _ in range(3):
        host.up_s += 60.0
        host.now()
        file.keep(host)
    assert (tmp_path / FILE_NAME).stat().st_ino == written.st_ino
    host.set_by = timedelta(seconds=1)  # by network time, which goes on vouching
    host.now()
    file.keep(host)
    assert json.loads((tmp_path / FILE_NAME).read_text())["booted_at"] == "2027-03-01T00:00:01.000Z"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"boot_id": "boot-1"}', '{"boot_id": "boot-1", "booted_at": 5}']
)
def test_a_file_that_cannot_be_understood_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    host = Host()
    VouchedFile(tmp_path).recall(host)
    assert host.vouched is None


def test_a_folder_that_takes_nothing_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "edge.time")
    file = VouchedFile(tmp_path / "gone")
    for _ in range(3):
        file.keep(seen_network_time())
    assert len(caplog.records) == 1
    (tmp_path / "gone").mkdir()
    file.keep(seen_network_time())
    assert (tmp_path / "gone" / FILE_NAME).exists()
