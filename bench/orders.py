"""Signed orders a second through verification and a durable commit, while printers print; and what a flood costs.

Every order needs two signatures, and comes over the daemon's socket. The printers are held against the same printers
in the same daemon without orders, right before. The client is a process of its own: ``python -m bench.orders SOCKET``.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.equipment import BAUD, MissingError, measured, printers
from bench.ours import MACHINE, OurSite
from bench.reporting import issuing, setting, waiting_printer
from edge.cli.client import call
from edge.model.fields import time_text
from edge.trust import PayloadType, new_job_id, read_envelope
from edge.uplink.topics import What, topic
from tests.helpers.centre import NAME
from tests.helpers.site import SiteFolder
from tests.helpers.trust import ISSUER, Ceremony, keyid, order_document, root_document, signed_root

PRINTERS = 4
SECOND = "qa@acme"
SIGNERS = (ISSUER, SECOND)
ORDERS = 4000
"""More than can be taken while the printers print."""

AT_ONCE = 16
OFFERED = 220.0
"""Orders a second that the client sends, unless the site is slower: an MES has so many, and no more."""

HOSTILE = 1000
CONNECTIONS = 50
RATE_MIN, SHARE_MIN, DELAY_MAX_S = 200.0, 0.95, 2.0


class _Both(Ceremony):
    """Every order is signed by both issuers."""

    def sign(self, payload: bytes, signers: tuple[str, ...] = SIGNERS, kind: str = PayloadType.JOB) -> bytes:
        return super().sign(payload, signers, kind)


def report() -> tuple[list[str], int]:
    """Lines for people, and how many figures are missing."""
    head = f"two-signature orders, {OFFERED:.0f} a second offered, while {PRINTERS} printers print at {BAUD} baud"
    try:
        with tempfile.TemporaryDirectory() as place:
            alone, beside, told = _streaming(Path(place))
        with tempfile.TemporaryDirectory() as place:
            delays, grown = _flooded(Path(place))
        waited: dict[str, float] = {}
        for kind, raw in list(hostile().items())[:2]:
            with tempfile.TemporaryDirectory() as place:
                waited[kind] = _queued(Path(place), raw)
    except (MissingError, AssertionError, OSError) as error:
        return [f"{head}: MISSING: {error!r}"], 1

    def row(what: str, wanted: str, found: str, reached: bool) -> str:
        return f"  {what:<60}{wanted:>10}{found:>12}  {'reached' if reached else 'NOT REACHED'}"

    kept = beside / alone
    lines = [
        head,
        "",
        row(
            "orders a second, verified and durable",
            f">= {RATE_MIN:.0f}",
            f"{told['rate']:.0f}",
            told["rate"] >= RATE_MIN,
        ),
        row("printers: share of their rate without orders", f">= {SHARE_MIN:.0%}", f"{kept:.1%}", kept >= SHARE_MIN),
        f"  answer to one order: p50 {told['p50_ms']:.0f} ms, p99 {told['p99_ms']:.0f} ms; of the wire: {beside:.1%},"
        f" without orders {alone:.1%}",
        "",
        f"{HOSTILE} hostile messages before a good one, on {CONNECTIONS} connections",
        "",
    ]
    for kind, delay_s in delays.items():
        found = f"{delay_s * 1000:.0f} ms"
        lines.append(row(f"the good one waits, {kind}", f"<= {DELAY_MAX_S:.0f} s", found, delay_s <= DELAY_MAX_S))
    small_s, large_s = waited.values()
    return [
        *lines,
        row("events that the hostile ones made", "0", str(grown), grown == 0),
        "",
        f"{HOSTILE} hostile messages wait at a broker, and a good one behind them, for a site that was away",
        "",
        row("bad signatures", f"<= {DELAY_MAX_S:.0f} s", f"{small_s * 1000:.0f} ms", small_s <= DELAY_MAX_S),
        f"  a quarter of a megabyte of each, a quarter of a gigabyte in all: {large_s:.1f} s",
    ], 0


@contextmanager
def _site(folder: Path, machines: str) -> Iterator[SiteFolder]:
    site = SiteFolder(folder, machines)
    root = {"issuers": SIGNERS, "threshold": 2}
    site.ceremony = _Both(**root)
    (folder / "root.dsse.json").write_bytes(signed_root(root_document(**root)))  # type: ignore[arg-type]
    try:
        yield site
    finally:
        if site.daemon is not None:
            site.daemon.end()


def _streaming(folder: Path) -> tuple[float, float, dict[str, float]]:
    """Share of the wire without orders and with them, and what the client tells."""
    shares = []
    told: dict[str, float] = {}
    for index, with_orders in enumerate((False, True)):
        place = folder / str(index)
        place.mkdir()
        with printers(place, PRINTERS) as paced:
            machines = [MACHINE.format(index=i, port=paced.port(i), baud=BAUD, window="full") for i in range(PRINTERS)]
            with _site(place, "".join(machines)) as site:
                ours = OurSite(site, PRINTERS)
                client = _Client(site) if with_orders else None
                ours.submit()
                if client is not None:
                    client.begin()
                ended = functools.partial(_ended, ours, client, told)
                shares.append(measured(ours.pid, paced, ended).wire_share)
                if client is not None and told["accepted"] > len(site.events("job_accepted")):
                    raise MissingError("an order was acknowledged that is not in the journal")
    return shares[0], shares[1], told


def _ended(ours: OurSite, client: _Client | None, told: dict[str, float]) -> None:
    """The printers are through: stop the client, and look whether everything went well."""
    if client is not None:
        told.update(client.end())
    ours.wait_ended()


def _orders(site: SiteFolder, count: int) -> Iterator[bytes]:
    now = datetime.now(UTC).replace(microsecond=0)
    for number in range(count):
        order = order_document(
            job_id=new_job_id(now),
            issued_at=time_text(now - timedelta(minutes=1)),
            expires_at=time_text(now + timedelta(days=7)),
            series="be4c" * 8,
            sequence=1 + number,
        )
        yield site.ceremony.sign(json.dumps(order).encode())


class _Client:
    """The process that sends orders, from `begin` to `end`."""

    def __init__(self, site: SiteFolder) -> None:
        file = site.folder / "orders.b64"
        file.write_bytes(b"\n".join(base64.b64encode(raw) for raw in _orders(site, ORDERS)))
        command = [sys.executable, "-m", "bench.orders", str(site.socket), str(file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self) -> None:
        self._say("begin")

    def end(self) -> dict[str, float]:
        self._say("end")
        said, _ = self._process.communicate(timeout=60)
        told: dict[str, float] = json.loads(said)
        if told["refused"] or not told["accepted"]:
            raise MissingError(f"of the orders, {told['refused']} were refused and {told['accepted']} accepted")
        return told

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()


async def _send(socket: Path, orders: list[bytes], end: asyncio.Event) -> dict[str, float]:
    left, took, answers, from_s = iter(enumerate(orders)), [], [], time.monotonic()

    async def worker() -> None:
        connection = await _Connection.open(socket)
        for number, raw in left:
            await asyncio.sleep(from_s + number / OFFERED - time.monotonic())
            began_s = time.monotonic()
            answers.append((await connection.post(raw))["accepted"])
            took.append(time.monotonic() - began_s)
            if end.is_set():
                break
        connection.close()

    began_s = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    spent_s = time.monotonic() - began_s
    took.sort()
    return {
        "rate": len(answers) / spent_s,
        "accepted": sum(answers),
        "refused": len(answers) - sum(answers),
        "p50_ms": 1000 * statistics.median(took),
        "p99_ms": 1000 * took[math.ceil(0.99 * len(took)) - 1],
    }


class _Connection:
    """HTTP over the daemon's socket, one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, socket: Path) -> _Connection:
        return cls(*await asyncio.open_unix_connection(str(socket)))

    def send(self, raw: bytes) -> None:
        head = f"POST /v1/envelopes HTTP/1.1\r\nHost: edge\r\nContent-Length: {len(raw)}\r\n\r\n"
        self._writer.write(head.encode() + raw)

    async def answer(self) -> dict[str, Any]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        (length,) = (line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        verdict: dict[str, Any] = json.loads(await self._reader.readexactly(int(length)))
        return verdict

    async def post(self, raw: bytes) -> dict[str, Any]:
        self.send(raw)
        await self._writer.drain()
        return await self.answer()

    def close(self) -> None:
        self._writer.close()


# The flood


def hostile() -> dict[str, bytes]:
    """What costs most to refuse, for its size."""
    payload = json.dumps(order_document()).encode()
    bad = base64.b64encode(bytes(range(1, 64)) + b"\0").decode()
    signatures = [{"keyid": keyid(SIGNERS[index % 2]), "sig": bad} for index in range(32)]

    def envelope(content: bytes) -> bytes:
        text = base64.b64encode(content).decode()
        return json.dumps({"payloadType": PayloadType.JOB, "payload": text, "signatures": signatures}).encode()

    return {
        "behind orders with bad signatures": envelope(payload),
        "behind a quarter of a megabyte of each": envelope(payload + b" " * 180_000),
        "behind no envelopes": b'{"a":[' + b"1," * 120_000 + b"1]}",
    }


def _flooded(folder: Path) -> tuple[dict[str, float], int]:
    machine = MACHINE.format(index=0, port=folder / "none", baud=BAUD, window="full")
    with _site(folder, machine) as site:
        site.start(ready="it listens on")
        before = call(site.socket, "GET", "/v1/status")["last_event"]["seq"]
        kinds = hostile()
        good = list(_orders(site, len(kinds)))
        delays = {
            kind: asyncio.run(_delay(site.socket, raw, order))
            for (kind, raw), order in zip(kinds.items(), good, strict=True)
        }
        events = call(site.socket, "GET", f"/v1/events?after={before}&limit=10000")
        return delays, sum(event["kind"] != "machine_offline" for event in events) - len(good)


async def _delay(socket: Path, raw: bytes, good: bytes) -> float:
    """How long a good order takes that comes behind all the others; those are refused."""
    waiting = [await _Connection.open(socket) for _ in range(CONNECTIONS)]

    async def flood(connection: _Connection) -> None:
        for _ in range(HOSTILE // CONNECTIONS):
            if (await connection.post(raw))["accepted"]:
                raise MissingError("a hostile message is accepted")

    flooding = [asyncio.create_task(flood(connection)) for connection in waiting]
    await asyncio.sleep(0.2)  # until the daemon has its hands full
    connection = await _Connection.open(socket)
    began_s = time.monotonic()
    verdict = await connection.post(good)
    delay_s = time.monotonic() - began_s
    if not verdict["accepted"]:
        raise MissingError(f"the good order is refused: {verdict['detail']}")
    await asyncio.gather(*flooding)
    for one in (connection, *waiting):
        one.close()
    return delay_s


def _queued(folder: Path, raw: bytes) -> float:
    """How long a good order takes that waits at the broker behind the others, for a site that was away."""
    with setting(folder) as (broker, site, _):
        broker.configure(autosave_on_changes="false", autosave_interval="1800")  # as it is, if nobody says otherwise
        broker.restart()
        waiting_printer(site, broker)
        site.start(ready="connected to the broker").end()
        good = read_envelope(site.bundle(files=False))

        async def publish() -> None:
            async with issuing(broker) as issuer:
                for _ in range(HOSTILE):
                    await issuer.publish(topic(NAME, What.IN), raw)
                await issuer.publish(topic(NAME, What.IN), good)

        asyncio.run(publish())
        site.start(ready="connected to the broker")
        began_s = time.monotonic()
        site.wait_event("job_accepted")
        return time.monotonic() - began_s


def _main(socket: Path, file: Path) -> None:
    orders = [base64.b64decode(line) for line in file.read_bytes().splitlines()]
    assert sys.stdin.readline() == "begin\n"

    async def serve() -> dict[str, float]:
        end = asyncio.Event()

        async def listen() -> None:
            await asyncio.to_thread(sys.stdin.readline)
            end.set()

        listening = asyncio.create_task(listen())
        told = await _send(socket, orders, end)
        await listening
        return told

    print(json.dumps(asyncio.run(serve())))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
