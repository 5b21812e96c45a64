"""`edge collect` as a person at the centre has it: set up, asked, and told what is wrong."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.cli.collect import screen
from edge.cli.main import main
from edge.clock import SystemClock
from edge.collector import views
from edge.collector.collector import Collector
from edge.trust import PayloadType, sign
from edge.uplink.telemetry import Telemetry
from edge.uplink.topics import What, topic
from tests.helpers.reporting import COLLECTOR_KEY, KEYS, SITE, SITE_KEY, fact, reporting
from tests.journal_kit import root_of_project

SHAPE = re.compile(r"<!-- collector shape: ([a-z ]+) -->\n```json\n(.*?)\n```", re.DOTALL)


def collect(*words: str, code: int = 0) -> Any:
    assert main(["collect", *words]) == code
    return None


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    collect("init", str(tmp_path / "centre"))
    shown = said(capsys).splitlines()
    public = tmp_path / "centre" / "state" / "collector.pub"
    assert f"  edge root add … --collector {public}" in shown, "typed as it stands"
    assert public.is_file()
    assert f"  edge collect --config {tmp_path / 'centre' / 'collector.toml'}" in shown
    file = tmp_path / "centre" / "collector.toml"
    file.write_text('[collector]\nstate_dir = "state"\n')
    return file


async def fill(folder: Path) -> None:
    """A site with one event, something forged, and what nobody knows."""
    async with (
        reporting(folder) as (journal, outbox),
        Collector.open(folder / "centre" / "state" / "collector.sqlite", KEYS, COLLECTOR_KEY) as collector,
    ):
        await journal.record([fact()])
        (raw,) = await outbox.next(0.0)
        await collector.take(topic(SITE, What.OUT), raw)
        await collector.take(topic(SITE, What.OUT), b"\x1b[2J")
        await collector.take(topic("paris-1\x1b", What.OUT), raw)
        await collector.take(topic(SITE, What.LINK), b'{"online": true}')
        telemetry = Telemetry(SITE, lambda raw: sign(PayloadType.TELEMETRY, raw, [SITE_KEY]), SystemClock(), 10.0)
        telemetry.put("prn-1/reading/\x1b[2J", 12.5, "\x1b%")
        telemetry.put("prn-1/message", "\x1b[2J")
        telemetry.held_up("link")
        await collector.take(topic(SITE, What.TELEMETRY), telemetry.take() or b"")


def test_the_key_is_private_and_made_once(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = config.parent / "state" / "collector.key"
    assert key.stat().st_mode & 0o777 == 0o600
    collect("init", str(config.parent), code=2)
    assert "is there already" in said(capsys)


def test_all_sites_at_a_glance_and_alarms_until_somebody_has_seen_them(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect("status", "--config", str(config), code=2)
    assert "has not run yet" in said(capsys)
    asyncio.run(fill(tmp_path))
    collect("status", "--config", str(config), code=2)
    shown = said(capsys)
    assert "ALARM" in shown
    assert "berlin-1  online" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    collect("clear", "--config", str(config))
    assert "2 alarms cleared" in said(capsys)
    collect("status", "--config", str(config))
    assert "all is well" in said(capsys)


def test_the_documented_shapes_are_those_that_come(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = {
        name: json.loads(text)
        for name, text in SHAPE.findall((root_of_project() / "docs" / "json.md").read_text(encoding="utf-8"))
    }
    asyncio.run(fill(tmp_path))
    collect("status", "--config", str(config), "--json", code=2)
    status = json.loads(said(capsys))
    assert status.keys() == shapes["status"].keys()
    for part in ("sites", "alarms"):
        assert {frozenset(one) for one in status[part]} == {frozenset(shapes["status"][part][0])}
    ours, theirs = (found["sites"][0]["telemetry"] for found in (status, shapes["status"]))
    assert ours.keys() == theirs.keys()
    assert ours["gap"].keys() == theirs["gap"].keys()
    assert {frozenset(one) for one in ours["values"].values()} == {frozenset(*theirs["values"].values())}
    collect("clear", "--config", str(config), "--json")
    assert json.loads(said(capsys)).keys() == shapes["clear"].keys()
    collect("init", str(tmp_path / "other"), "--json")
    assert json.loads(said(capsys)).keys() == shapes["init"].keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[collector", "not TOML"),
        ("[collector]\n", 'collector.state_dir: is missing; add state_dir = "state"'),
        ('[collector]\nstate_dir = "s"\ncolour = 1\n', "collector.colour: unknown key; known here: state_dir, id"),
        ('[collector]\nstate_dir = "s"\n' + '[[sites]]\nid = "a"\nkeys = ["a.pub"]\n' * 2, "'a' stands 2 times"),
        ('[collector]\nstate_dir = "s"\n', "uplink: is missing"),
        (
            '[collector]\nstate_dir = "s"\n[uplink]\nkind = "mqtt"\nurl = "mqtts://b"\ntelemetry_every_s = 1\n',
            "uplink.telemetry_every_s: unknown key",
        ),
    ],
)
def test_a_wrong_file_is_named_with_the_field(
    tmp_path: Path, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(content)
    collect("--config", str(file), code=2)
    shown = said(capsys)
    assert words in shown
    assert "collector.toml" in shown


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect("status", "--config", str(tmp_path / "no.toml"), code=2)
    assert "edge collect init" in said(capsys)


def test_newest_values_are_shown_with_their_age_and_what_is_missing(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(fill(tmp_path))
    collect("status", "--values", "--config", str(config), code=2)
    shown = said(capsys)
    assert "NEWEST VALUES (no facts" in shown
    assert "last gap" in shown
    assert "12.5" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    collect("--telemetry", "--config", str(config), code=2)
    assert "--ndjson" in said(capsys)


def test_a_site_that_has_said_nothing_for_minutes_is_not_alive_because_the_broker_says_so(tmp_path: Path) -> None:
    (tmp_path / "centre" / "state").mkdir(parents=True)
    asyncio.run(fill(tmp_path))
    with views.opened(tmp_path / "centre" / "state") as connection:
        now = datetime.now(UTC)
        for minutes, silent in ((2, False), (4, True)):
            found = views.document(connection, [SITE], now + timedelta(minutes=minutes))
            (site,) = found["sites"]
            assert site["silent"] is silent
            assert ("has said nothing" in " ".join(site["attention"])) is silent
        assert "SILENT" in "\n".join(screen(found))
