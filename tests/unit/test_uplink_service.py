"""The uplink's task: what comes in is durable before it is acknowledged, and what is wrong is shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.errors import IllegalTransitionError, JournalError, StoreClosedError
from edge.uplink import inbox, service, telemetry
from edge.uplink.attempts import FLAPS, Attempts
from edge.uplink.mqtt import RECEIVE_MAXIMUM
from edge.uplink.port import Trouble, Uplink, UplinkError
from edge.uplink.service import UplinkService
from edge.uplink.telemetry import Telemetry
from tests.helpers.memory_uplink import LOST, MemoryUplink

IN, ACK, STATE, LINK, VALUES = (f"mf/v1/berlin-1/{what}" for what in ("in", "ack", "state", "link", "telemetry"))
DENIED = UplinkError(Trouble.DENIED, f"the broker does not let this site write to {STATE}")


class Reporting:
    """An outbox that only remembers."""

    def __init__(self) -> None:
        self.acks: list[bytes] = []
        self.backlog = 0
        self.waits_s = 0.0
        self.began = asyncio.Event()

    async def send(self, uplink: Uplink) -> None:
        await uplink.publish("mf/v1/berlin-1/out", b"batch")
        self.began.set()
        await asyncio.Event().wait()

    async def take_ack(self, raw: bytes, now_s: float) -> None:
        self.acks.append(raw)

    def waiting_s(self, now_s: float) -> float:
        return self.waits_s

    def attention(self) -> list[str]:
        return []

    def view(self) -> Mapping[str, Any]:
        return {"acked_seq": 0, "backlog": 3}


class Bench:
    """The service over uplinks in memory. `judged` is what the intake was given; `verdict` what it does with it."""

    def __init__(self) -> None:
        self.uplinks = [MemoryUplink()]
        self.judged: list[bytes] = []
        self.verdict: Callable[[bytes], Any] = lambda _: None
        self.fingerprint: object = 0
        self.reporting = Reporting()
        self.errors: list[UplinkError] = []
        self.clock = SystemClock()
        self.telemetry = Telemetry("berlin-1", lambda payload: b"signed " + payload, self.clock, every_s=0.01)
        self.service = UplinkService(
            where="broker.acme:8883",
            site="berlin-1",
            connect=self._connect,
            intake=self._intake,
            look=self._look,
            seal=lambda payload: b"sealed " + payload,
            fingerprint=lambda: self.fingerprint,
            clock=self.clock,
            reporting=self.reporting,
            telemetry=self.telemetry,
        )

    @property
    def uplink(self) -> MemoryUplink:
        return self.uplinks[-1]

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[MemoryUplink]:
        if self.errors:
            raise self.errors.pop(0)
        if self.service.connections:
            self.uplinks.append(MemoryUplink())
        yield self.uplink

    async def _intake(self, raw: bytes, actor: str) -> object:
        assert actor == "mqtt"
        self.judged.append(raw)
        found = self.verdict(raw)
        if isinstance(found, BaseException):
            raise found
        return found

    async def _look(self) -> Mapping[str, Any]:
        return {"seen": self.fingerprint}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.service.serve(), name="uplink service")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in ("PAUSE_S", "RETRY_S", "STATE_S"):
        monkeypatch.setattr(service, name, 0.01)
    monkeypatch.setattr(inbox, "RETRY_S", 0.01)
    monkeypatch.setattr(telemetry, "AGAIN_S", 0.01)
    return Bench()


async def test_a_message_is_acknowledged_after_its_verdict_and_never_before(bench: Bench) -> None:
    judging = asyncio.Event()

    async def slow(raw: bytes, actor: str) -> object:
        await judging.wait()
        return None

    bench.service.inbox._intake = slow
    async with bench.running():
        (message,) = bench.uplink.come(IN, b"order")
        await bench.until(lambda: bench.service.inbox.received == 1)
        assert not message.acked
        judging.set()
        await bench.until(lambda: message.acked)


async def test_a_message_that_we_stumble_over_is_counted_and_does_not_block_the_rest(bench: Bench) -> None:
    bench.verdict = lambda raw: {b"bug": KeyError("x"), b"bad": IllegalTransitionError("no such step")}.get(raw)
    async with bench.running():
        messages = bench.uplink.come(IN, b"bug", b"bad", b"good")
        await bench.until(lambda: all(message.acked for message in messages))
    assert bench.judged == [b"bug", b"bad", b"good"]
    assert bench.service.inbox.poison == 2
    assert bench.service.trouble == ""


async def test_a_journal_that_takes_nothing_makes_what_came_wait(bench: Bench) -> None:
    bench.verdict = lambda _: JournalError("the disk is full")
    async with bench.running():
        (message,) = bench.uplink.come(IN, b"order")
        await bench.until(lambda: len(bench.judged) > 2)
        assert not message.acked
        assert any("the disk is full" in text for text in bench.service.view()["attention"])
        bench.verdict = lambda _: None
        await bench.until(lambda: message.acked)
        assert bench.service.view()["attention"] == []


async def test_what_comes_after_a_message_that_waits_for_the_journal_waits_too(bench: Bench) -> None:
    full = JournalError("the disk is full")
    bench.verdict = lambda raw: full if raw == b"order" and bench.judged.count(b"order") < 5 else None
    async with bench.running():
        messages = bench.uplink.come(IN, b"order")
        await bench.until(lambda: bench.service.trouble)
        messages += bench.uplink.come(IN, b"command", b"another")
        await bench.until(lambda: all(message.acked for message in messages))
    assert bench.judged == [b"order"] * 5 + [b"command", b"another"]
    assert bench.service.trouble == ""


async def test_a_daemon_that_stops_leaves_the_message_to_the_broker(bench: Bench) -> None:
    bench.verdict = lambda _: StoreClosedError("closed")
    async with bench.running():
        (message,) = bench.uplink.come(IN, b"order")
        await bench.until(lambda: bench.judged)
    assert not message.acked


async def test_acknowledgements_go_to_the_outbox_and_other_topics_nowhere(bench: Bench) -> None:
    async with bench.running():
        messages = [*bench.uplink.come(ACK, b"ack"), *bench.uplink.come("mf/v1/munich-2/in", b"not ours")]
        await bench.until(lambda: all(message.acked for message in messages))
    assert bench.reporting.acks == [b"ack"]
    assert bench.judged == []


async def test_no_more_messages_are_in_hand_than_the_receive_maximum(bench: Bench) -> None:
    going, most = asyncio.Event(), 0
    in_hand = 0

    async def slow(raw: bytes, actor: str) -> object:
        nonlocal in_hand, most
        in_hand += 1
        most = max(most, in_hand)
        await going.wait()
        in_hand -= 1
        return None

    bench.service.inbox._intake = slow
    async with bench.running():
        messages = bench.uplink.come(IN, *(b"%d" % number for number in range(200)))
        await bench.until(lambda: in_hand == RECEIVE_MAXIMUM)
        going.set()
        await bench.until(lambda: all(message.acked for message in messages))
    assert most == RECEIVE_MAXIMUM


async def test_the_state_is_published_when_it_changes_and_the_link_with_it(bench: Bench) -> None:
    def states() -> list[Any]:
        return [json.loads(p.removeprefix(b"sealed ")) for t, p, r in bench.uplink.published if t == STATE and r]

    async with bench.running():
        await bench.until(lambda: states() == [{"seen": 0}])
        bench.fingerprint = 1
        await bench.until(lambda: states() == [{"seen": 0}, {"seen": 1}])
        links = [json.loads(p) for t, p, r in bench.uplink.published if t == LINK and r]
        assert [link["online"] for link in links] == [True]
    links = [json.loads(p) for t, p, r in bench.uplink.published if t == LINK and r]
    assert [link["online"] for link in links] == [True, False]  # a goodbye


async def test_a_denied_state_is_shown_and_orders_still_come_in(bench: Bench) -> None:
    bench.uplink.refuses = lambda topic: DENIED if topic == STATE else None
    async with bench.running():
        await bench.until(lambda: bench.service.view()["trouble"] == "denied")
        (message,) = bench.uplink.come(IN, b"order")
        await bench.until(lambda: message.acked)
        assert bench.service.view()["attention"] == [str(DENIED)]
        bench.uplink.refuses = lambda _: None
        bench.fingerprint = 1
        await bench.until(lambda: bench.service.view()["trouble"] is None)


async def test_a_lost_connection_is_made_again_and_the_outbox_begins_anew(bench: Bench) -> None:
    async with bench.running():
        for number in range(3):
            await bench.until(lambda: bench.service.view()["online"])
            await bench.reporting.began.wait()
            bench.reporting.began.clear()
            assert bench.service.connections == number + 1
            bench.uplink.cut()
            await bench.until(lambda n=number: bench.service.connections == n + 2)


async def test_what_passes_by_itself_is_nobodys_business_and_what_does_not_is(bench: Bench) -> None:
    wrong = UplinkError(Trouble.WRONG_CA, "the certificate is not signed by uplink.ca")
    bench.errors = [LOST] * 500
    async with bench.running():
        await bench.until(lambda: bench.service.view()["trouble"] == "lost")
        assert bench.service.view()["attention"] == []
        assert not bench.service.view()["online"]
        bench.errors = [wrong] * 500
        await bench.until(lambda: bench.service.view()["attention"] == [str(wrong)])
        bench.errors = []
        await bench.until(lambda: bench.service.view()["attention"] == [])


async def test_connections_that_are_lost_at_once_again_and_again_look_like_two_clients(bench: Bench) -> None:
    async with bench.running():
        for number in range(1, FLAPS + 1):
            await bench.until(lambda n=number: bench.service.connections == n)
            assert bench.service.view()["trouble"] is None
            bench.uplink.cut()
        await bench.until(lambda: bench.service.connections == FLAPS + 1)
        assert bench.service.view()["trouble"] == "taken_over"


async def test_connections_that_are_lost_at_once_again_and_again_do_not_fill_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge.uplink")
    async with bench.running():
        for number in range(1, 30):
            await bench.until(lambda n=number: bench.service.connections == n)
            bench.uplink.cut()
    assert len(caplog.records) <= 2 * FLAPS


async def test_a_broker_that_takes_and_forgets_is_told_by_the_missing_acknowledgement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.running():
        await bench.until(lambda: bench.service.view()["online"])
        bench.reporting.waits_s = 10_000.0
        assert bench.service.view()["trouble"] is None  # it has been connected for a moment only
        monkeypatch.setattr(service, "SILENT_S", 0.01)
        await bench.until(lambda: bench.service.view()["trouble"] == "no_acknowledgement")
        assert "no collector has acknowledged" in bench.service.view()["attention"][0]


async def test_newest_values_wait_for_facts_and_a_denied_topic_of_them_is_shown(bench: Bench) -> None:
    def told() -> list[dict[str, Any]]:
        return [json.loads(raw.removeprefix(b"signed ")) for name, raw, _ in bench.uplink.published if name == VALUES]

    bench.reporting.backlog = 3
    async with bench.running():
        await bench.until(lambda: bench.service.view()["online"])
        bench.telemetry.put("prn-1/state", "EXECUTE")
        await bench.until(lambda: bench.telemetry._late)
        assert told() == []
        bench.reporting.backlog = 0
        await bench.until(told)
        assert told()[0]["gap"]["why"] == ["facts"]
        bench.uplink.cut()
        await bench.until(lambda: bench.service.connections == 2)
        refused = UplinkError(Trouble.DENIED, f"the broker does not let this site write to {VALUES}")
        bench.uplink.refuses = lambda topic: refused if topic == VALUES else None
        bench.telemetry.put("prn-1/state", "IDLE")
        await bench.until(lambda: bench.service.view()["trouble"] == "denied")
        assert bench.service.view()["online"]
        bench.uplink.refuses = lambda _: None
        bench.telemetry.put("prn-1/state", "EXECUTE")
        await bench.until(lambda: bench.service.view()["trouble"] is None)


async def test_a_site_without_telemetry_sends_none(bench: Bench) -> None:
    bench.telemetry.every_s = 0
    bench.telemetry.put("prn-1/state", "EXECUTE")
    async with bench.running():
        await bench.reporting.began.wait()
    assert bench.service.view()["telemetry"] == {"every_s": 0, "sent": 0, "waiting": 0}
    assert all(name != VALUES for name, _, _ in bench.uplink.published)


@pytest.mark.parametrize("trouble", [Trouble.ENDED, Trouble.FULL, Trouble.NO_MQTT])
async def test_what_the_broker_says_when_it_throws_the_site_out_is_not_covered_by_a_guess(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: Trouble
) -> None:
    thrown_out = UplinkError(trouble, "the broker has no room")

    async def throw_out(_: object) -> None:
        raise thrown_out

    monkeypatch.setattr(bench.service.inbox, "receive", throw_out)
    async with bench.running():
        await bench.until(lambda: bench.service.connections > FLAPS)
        assert bench.service.view()["trouble"] == trouble
        assert bench.service.view()["text"] == "the broker has no room"
        assert bench.service.view()["attention"] == ["the broker has no room"], "it does not pass by itself"


async def test_who_is_thrown_out_at_once_comes_back_slower_and_not_in_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: list[float] = []

    def drawn(low: float, high: float) -> float:
        assert low == 0.0, "full jitter: anything from nothing on"
        most.append(high)
        if len(most) == 6:  # from now on nobody answers at all
            bench.errors = [LOST] * 100
        return 0.0

    async def throw_out(_: object) -> None:
        raise LOST

    monkeypatch.setattr(service.random, "uniform", drawn)
    monkeypatch.setattr(bench.service, "_attempts", Attempts(1.0, 60.0))
    monkeypatch.setattr(bench.service.inbox, "receive", throw_out)
    async with bench.running():
        await bench.until(lambda: len(most) >= 10)
    assert most[:10] == [2, 4, 8, 16, 16, 16, 32, 60, 60, 60]


async def test_a_broker_that_is_away_for_days_is_tried_again_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.random, "uniform", lambda low, high: 0.0)
    bench.errors = [LOST] * 2000
    async with bench.running():
        await bench.until(lambda: bench.service.view()["online"])
    assert not bench.errors


async def test_what_will_keep_the_site_from_connecting_is_said_while_it_is_connected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.running():
        await bench.until(lambda: bench.service.view()["online"])
        assert bench.service.view()["attention"] == []
        monkeypatch.setattr(bench.service, "_foresee", lambda: "the certificate ends")
        assert bench.service.view()["attention"] == ["the certificate ends"]
