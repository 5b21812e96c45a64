"""Reporting through a real Mosquitto that persists: latency, replay of a backlog, and a large journal.

BENCH_EVENTS is the size of the large journal; a tenth of it is the backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from bench.equipment import MissingError
from edge.journal.journal import CHECK_AT_OPEN_BYTES
from edge.journal.schema import FILE_NAME
from edge.trust import read_envelope
from edge.uplink.mqtt import MqttUplink, connect
from edge.uplink.topics import What, topic
from tests.helpers.centre import NAME, Centre, ended, site_at, uplink_table
from tests.helpers.large_journal import fill
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import PRINTER, SITE, SiteFolder

ORDERS_PER_S = 20
ORDERS = 400
REPLAYED = 20_000
LARGE = 1_000_000
STARTS = 3
DEADLINE_S = 300.0
LOOK_S = 0.002
ISSUER = "issuer"
MIB = 1024


def report() -> tuple[list[str], int]:
    """Measure; the lines, and how many figures are missing."""
    lines = ["uplink: through a Mosquitto that persists, with TLS; daemon and collector are processes", ""]
    missing = 0
    for measure in (_latency, _replay, _large):
        try:
            with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
                lines += measure(Path(folder))
        except (MissingError, AssertionError, OSError) as error:
            lines.append(f"  MISSING {measure.__name__.strip('_')}: {error}")
            missing += 1
    return lines, missing


def _line(what: str, target: str, found: str, *, reached: bool) -> str:
    return f"  {what:<60}{target:>14}{found:>14}  {'reached' if reached else 'NOT REACHED'}"


@contextlib.contextmanager
def setting(folder: Path) -> Iterator[tuple[Mosquitto, SiteFolder, Centre]]:
    """A running broker, and a site and a collector that do not run yet."""
    with Mosquitto.begin(folder / "broker") as broker:
        site = site_at(folder / "site", uplink_table(broker, NAME))
        centre = Centre(folder / "centre", uplink_table(broker, CENTRE), site)
        with ended(site, centre):
            yield broker, site, centre


def waiting_printer(site: SiteFolder, broker: Mosquitto) -> None:
    """Give it a printer that is not there: orders are taken, and wait."""
    machine = PRINTER.format(port=site.folder / "printer")
    site.config.write_text(f'{SITE}\n[time]\nsource = "host"\n{uplink_table(broker, NAME)}{machine}')


@contextlib.asynccontextmanager
async def issuing(broker: Mosquitto) -> AsyncIterator[MqttUplink]:
    """A connection of somebody who may send orders."""
    broker.authority.issue(ISSUER)
    acl = broker.folder / "acl"
    acl.write_text(f"{acl.read_text()}\nuser {ISSUER}\ntopic write mf/v1/+/in\n")
    broker.reload()
    async with connect(broker.at(ISSUER), ISSUER, []) as issuer:
        yield issuer


# Publish to `job_accepted`


def _latency(folder: Path) -> list[str]:
    with setting(folder) as (broker, site, centre):
        waiting_printer(site, broker)
        alone(site)
        centre.start()
        site.start(ready="connected to the broker")
        orders = [read_envelope(site.bundle(files=False)) for _ in range(ORDERS)]
        found = asyncio.run(_published(broker, centre, orders))
    ms = statistics.quantiles([1000 * seconds for seconds in found], n=100)
    title = f"publish to `accepted` at the collector, {ORDERS} orders"
    return [
        _line(f"{title}: p50", "<= 100 ms", f"{ms[49]:.0f} ms", reached=ms[49] <= 100),
        _line("  p99", "<= 1000 ms", f"{ms[98]:.0f} ms", reached=ms[98] <= 1000),
    ]


async def _published(broker: Mosquitto, centre: Centre, orders: Sequence[bytes]) -> list[float]:
    """How long each order took, in s, in the order in which they came out at the collector."""
    sent_s: list[float] = []
    watching = asyncio.create_task(asyncio.to_thread(_accepted, centre, len(orders)), name="bench: accepted")
    async with issuing(broker) as issuer, asyncio.TaskGroup() as publishing:
        began_s = time.monotonic()
        for number, raw in enumerate(orders):
            await asyncio.sleep(max(0.0, began_s + number / ORDERS_PER_S - time.monotonic()))
            sent_s.append(time.monotonic())
            publishing.create_task(issuer.publish(topic(NAME, What.IN), raw))
    came_s = await watching
    return [came - sent for sent, came in zip(sent_s, came_s, strict=True)]


def _accepted(centre: Centre, count: int) -> list[float]:
    """When each `job_accepted` came out of the collector as a line."""
    came_s: list[float] = []
    deadline_s = time.monotonic() + DEADLINE_S
    with centre.lines.open("rb") as lines:
        partial = b""
        while len(came_s) < count:
            partial += lines.readline()
            if not partial.endswith(b"\n"):
                if time.monotonic() > deadline_s:
                    raise MissingError(f"{count - len(came_s)} of {count} orders were not accepted")
                time.sleep(LOOK_S)
                continue
            if json.loads(partial)["event"]["kind"] == "job_accepted":
                came_s.append(time.monotonic())
            partial = b""
    return came_s


# A backlog


def _applied(centre: Centre) -> int:
    with contextlib.closing(sqlite3.connect(centre.database)) as connection:
        row = connection.execute("SELECT seq FROM journals").fetchone()
        return 0 if row is None else int(row[0])


def _timed(centre: Centre, first: int, last: int) -> float:
    """Events a second at the collector, from the first batch after `first` to event `last`."""
    began: tuple[float, int] | None = None
    deadline_s = time.monotonic() + DEADLINE_S
    while (seq := _applied(centre)) < last:
        if began is None and seq > first:
            began = time.monotonic(), seq
        if time.monotonic() > deadline_s:
            raise MissingError(f"only {seq} of {last} events came")
        time.sleep(0.02)
    if began is None:
        raise MissingError("it was over before anybody looked")
    return (seq - began[1]) / (time.monotonic() - began[0])


def alone(site: SiteFolder) -> Path:
    """Let the site make its key and its journal."""
    site.start(ready="is up").end(signal.SIGKILL)
    return site.state_dir / FILE_NAME


def _replay(folder: Path) -> list[str]:
    with setting(folder) as (_, site, centre):
        fill(alone(site), NAME, REPLAYED)
        centre.start()
        site.start(ready="is up")
        rate = _timed(centre, 0, REPLAYED)
    return [_line(f"replay of {REPLAYED:,} events", ">= 1,000 /s", f"{rate:,.0f} /s", reached=rate >= 1000)]


# A large journal


def _large(folder: Path) -> list[str]:
    events = int(os.environ.get("BENCH_EVENTS", LARGE))
    acknowledged = events - events // 10
    with setting(folder) as (_, site, centre):
        path = alone(site)
        began_s = time.monotonic()
        fill(path, NAME, events, acknowledged)
        made_s = time.monotonic() - began_s
        centre.start()
        assert centre.daemon is not None
        centre.daemon.end()
        _copy(path, centre.database, acknowledged)
        ready_s, sound_s = [], []
        for number in range(STARTS):
            if site.daemon is not None:
                site.daemon.end(signal.SIGKILL)
            if number == STARTS - 1:
                centre.start()
            began_s = time.monotonic()
            daemon = site.start(ready="is up")
            ready_s.append(time.monotonic() - began_s)
            if path.stat().st_size > CHECK_AT_OPEN_BYTES:
                daemon.wait_line("file is sound")
            sound_s.append(time.monotonic() - began_s)
        rate = _timed(centre, acknowledged, events)
        peak = _peak_mib(daemon.process.pid)
        size_mib = path.stat().st_size / MIB / MIB
    ready, sound = max(ready_s), max(sound_s)
    what = f"journal of {events:,} events ({size_mib:.0f} MiB)"
    return [
        _line(f"{what}: ready, slowest of {STARTS}", "<= 2 s", f"{ready:.1f} s", reached=ready <= 2),
        _line("  its backlog of a tenth replayed: peak RSS", "<= 100 MiB", f"{peak:.0f} MiB", reached=peak <= 100),
        f"  checked {sound:.1f} s after the start; backlog at {rate:,.0f}/s; the journal was made in {made_s:.0f} s",
    ]


def _copy(journal: Path, database: Path, last: int) -> None:
    """Give the collector the events up to `last`, as if it had applied them."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("ATTACH ? AS site", (str(journal),))
        (ident,) = connection.execute("SELECT value FROM site.meta WHERE key = 'journal'").fetchone()
        connection.execute(
            "INSERT INTO events (site, journal, seq, hash, kind, job_id, machine, at_wall, raw)"
            " SELECT ?, ?, seq, hash, kind, job_id, machine, at_wall, raw FROM site.events WHERE seq <= ? ORDER BY seq",
            (NAME, ident, last),
        )
        connection.execute(
            "INSERT INTO journals (site, journal, seq, hash, first_at, applied_at)"
            " SELECT ?, ?, seq, hash, at_wall, at_wall FROM site.events WHERE seq = ?",
            (NAME, ident, last),
        )
        connection.execute("UPDATE meta SET value = (SELECT max(number) FROM events) WHERE key = 'handed_on'")
        connection.commit()


def _peak_mib(pid: int) -> float:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM")]
    return float(line.split()[1]) / MIB
