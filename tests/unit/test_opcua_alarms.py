"""Conditions of a machine: what is open, what a person has acknowledged, and safety stops that outlive the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from asyncua import ua

from drivers.opcua.alarms import NOT_TOLD, Alarms
from drivers.opcua.client import Link, Method
from drivers.opcua.whose import Sources
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import Condition, MachineError

NODE = ua.NodeId("alarm", 2)
ROOT = ua.NodeId("mill", 2)


class Machine:
    """The other end of `Acknowledge`."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.asked: list[tuple[bytes, str | None]] = []
        self.shown: dict[str, Any] = {}

    async def find_all(self, start: ua.NodeId, places: dict[str, Any]) -> dict[str, ua.NodeId]:
        """It shows no conditions as nodes, unless `shown` has their states."""
        assert start == NODE
        return {name: ua.NodeId(name, 2) for name in self.shown if name in places}

    async def read(self, nodes: list[ua.NodeId]) -> list[ua.DataValue]:
        return [ua.DataValue(ua.Variant(self.shown[str(node.Identifier)])) for node in nodes]

    async def parents(self, node: ua.NodeId) -> list[ua.NodeId]:
        return []

    async def call(self, method: Method, event_id: bytes, comment: ua.LocalizedText) -> list[Any]:
        assert (method.object, method.node) == (NODE, ua.NodeId(9111)), "AcknowledgeableConditionType's Acknowledge"
        self.asked.append((event_id, comment.Text))
        if self.refuses:
            raise RefusedError(f"Acknowledge: the server says {self.refuses}", self.refuses)
        return []


def link(machine: Machine) -> Link:
    return cast(Link, machine)


def event(number: int, *, active: bool, acked: bool | None = False, severity: int = 700) -> dict[str, Any]:
    return {
        "ConditionId": NODE,
        "SourceNode": ROOT,
        "EventId": bytes([number]),
        "Message": ua.LocalizedText("lubrication"),
        "Severity": severity,
        "ActiveState": active,
        "AckedState": acked,
    }


def alarms_of(folder: Path, say: Callable[[str], None] = lambda _: None) -> Alarms:
    """Of a machine on a new link."""
    alarms = Alarms(folder, say)
    alarms.forget_events(Sources(ROOT, ()))
    return alarms


async def tell(alarms: Alarms, *events: dict[str, Any]) -> None:
    for each in events:
        alarms.event(each)
    await alarms.take_in(link(Machine()))


def only(alarms: Alarms) -> Condition:
    (found,) = alarms.open
    return found


class Server(Machine):
    """It has events, and tells its conditions as `says`: all at once, never, or not at all for a reason.

    `events`: the status with which it refuses a subscription of events.
    """

    def __init__(self, says: str = "all") -> None:
        super().__init__()
        self.says = says
        self.events = ""
        self.calls: list[str] = []
        self.tell: Callable[[dict[str, Any]], None] = lambda _: None

    async def subscribe_events(self, source: ua.NodeId, tell: Callable[[dict[str, Any]], None]) -> int:
        assert source == ua.NodeId(ua.ObjectIds.Server)
        self.calls.append("subscribe")
        if self.events:
            raise RefusedError(f"events cannot be watched: {self.events}", self.events)
        self.tell = tell
        return 7

    async def refresh(self, subscription: int) -> None:
        assert subscription == 7
        self.calls.append("refresh")
        if self.says.startswith("Bad"):
            raise RefusedError(f"ConditionRefresh: the server says {self.says}", self.says)
        self.tell(event(1, active=True))
        if self.says == "all":
            self.tell(END)


END = {"EventType": ua.NodeId(ua.ObjectIds.RefreshEndEventType)}


async def hears(alarms: Alarms, server: Server | str) -> tuple[str, list[str]]:
    """What people are told, and what blocks, of this server, or of one that says this."""
    server = Server(server) if isinstance(server, str) else server
    words = await alarms.hear(link(server), alarms.event)
    await alarms.take_in(link(server))
    return words, alarms.blocking("mill-1", 500)


def told(folder: Path, say: Callable[[str], None]) -> Alarms:
    """Those of a machine that has said all that there is."""
    alarms = alarms_of(folder, say)
    alarms.event(END)
    return alarms


async def test_nothing_starts_before_the_machine_has_told_all_its_alarms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms = alarms_of(tmp_path)
    assert alarms.blocking("mill-1", 500) == [NOT_TOLD]
    assert alarms.blocking("mill-1", 0) == [], "alarms block nothing there"
    assert await hears(alarms, "all") == ("", ["alarm: lubrication"])
    alarms.forget_events(Sources(ROOT, ()))
    assert alarms.blocking("mill-1", 500) == [NOT_TOLD]
    monkeypatch.setattr("drivers.opcua.alarms.REFRESH_S", 0.01)
    assert await hears(alarms, "some") == ("", ["alarm: lubrication", NOT_TOLD])
    alarms.event({**event(2, active=True), "ConditionId": ua.NodeId("another alarm", 2)})
    alarms.event(END)
    assert alarms.blocking("mill-1", 500) == ["alarm: lubrication", NOT_TOLD], "they may be this machine's"
    await tell(alarms, event(3, active=False), {**event(4, active=False), "ConditionId": ua.NodeId("another alarm", 2)})
    assert alarms.blocking("mill-1", 500) == []
    await tell(alarms, event(5, active=True))
    assert alarms.blocking("mill-1", 500) == ["alarm: lubrication"]


async def test_a_machine_that_cannot_tell_its_alarms_says_so_and_one_that_will_not_is_not_started(
    tmp_path: Path,
) -> None:
    alarms = alarms_of(tmp_path)
    words, blocking = await hears(alarms, "BadInternalError")
    assert (words[:45], blocking) == ("alarms that are older than the connection are", [])
    alarms.forget_events(Sources(ROOT, ()))
    assert await hears(alarms, "BadMethodInvalid") == ("", []), "it is said once"
    alarms.forget_events(Sources(ROOT, ()))
    why = "the machine does not tell its alarms: ConditionRefresh: the server says BadUserAccessDenied"
    assert await hears(alarms, "BadUserAccessDenied") == ("", [why])


async def test_a_server_that_tells_them_to_somebody_else_first_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.opcua.alarms.REFRESH_S", 60.0)
    alarms, asked = alarms_of(tmp_path), 0

    class Busy(Server):
        async def refresh(self, subscription: int) -> None:
            nonlocal asked
            asked += 1
            self.says = "BadRefreshInProgress" if asked < 3 else "all"
            await super().refresh(subscription)

    server = Busy()
    assert await alarms.hear(link(server), alarms.event) == ""
    await alarms.take_in(link(server))
    assert (asked, alarms.blocking("mill-1", 500)) == (3, ["alarm: lubrication"])
    alarms.forget_events(Sources(ROOT, ()))
    monkeypatch.setattr("drivers.opcua.alarms.REFRESH_S", 0.01)
    _, blocking = await hears(alarms, "BadRefreshInProgress")
    assert blocking == ["the machine does not tell its alarms: ConditionRefresh: the server says BadRefreshInProgress"]


@pytest.mark.parametrize("status", ["BadNotSupported", "BadServiceUnsupported", "BadMonitoredItemFilterUnsupported"])
async def test_a_server_without_events_says_so_and_its_machine_may_start(tmp_path: Path, status: str) -> None:
    alarms, server = alarms_of(tmp_path), Server()
    server.events = status
    words, blocking = await hears(alarms, server)
    assert (words, blocking) == (f"alarms are not seen: events cannot be watched: {status}", [])
    alarms.forget_events(Sources(ROOT, ()))
    assert await hears(alarms, server) == ("", []), "it is said once"


@pytest.mark.parametrize("status", ["BadTooManySubscriptions", "BadOutOfMemory", "BadTcpServerTooBusy"])
async def test_a_link_on_which_there_is_no_room_for_alarms_is_none(tmp_path: Path, status: str) -> None:
    """They come again with the next one; a machine that was startable without them would be so for months."""
    alarms, server = alarms_of(tmp_path), Server()
    server.events = status
    with pytest.raises(LinkError, match=f"there is no room to hear of the machine's alarms: .*{status}"):
        await hears(alarms, server)
    assert alarms.blocking("mill-1", 500) == [NOT_TOLD]


async def test_an_internal_error_of_this_moment_does_not_mean_that_there_are_no_events(tmp_path: Path) -> None:
    alarms, server = alarms_of(tmp_path), Server()
    server.events = "BadInternalError"
    why = "the machine does not tell its alarms: events cannot be watched: BadInternalError"
    assert await hears(alarms, server) == ("", [why]), "nothing starts, and it is asked again"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last entry is the time for `ask_again`."""
    monkeypatch.setattr("drivers.opcua.alarms.REFRESH_S", 0.0)
    times = [0.0]
    monkeypatch.setattr("drivers.opcua.alarms._now_s", lambda: times[-1])
    return times


async def asked_until(alarms: Alarms, server: Server, clock: list[float], until_s: int) -> list[int]:
    """When it was asked again, in whole seconds; tried each second as the watch does."""
    asked: list[int] = []
    while clock[-1] < until_s:
        clock.append(clock[-1] + 1)
        before = len(server.calls)
        assert await alarms.ask_again(link(server), alarms.event) == ""
        await alarms.take_in(link(server))
        if len(server.calls) > before:
            asked.append(int(clock[-1]))
    return asked


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("some", NOT_TOLD),
        *(
            (says, f"the machine does not tell its alarms: ConditionRefresh: the server says {says}")
            for says in ("BadRefreshInProgress", "BadUserAccessDenied")
        ),
    ],
)
async def test_a_server_that_has_not_told_all_is_asked_again_and_again_ever_more_rarely(
    tmp_path: Path, clock: list[float], says: str, why: str
) -> None:
    """Another client has all told for longer than we wait, the end is lost on the way, or a person gives us rights."""
    alarms, server = alarms_of(tmp_path), Server(says)
    assert (await hears(alarms, server))[1][-1] == why
    assert await asked_until(alarms, server, clock, 200) == [4, 12, 28, 60, 120, 180]
    assert alarms.blocking("mill-1", 500)[-1] == why
    server.says = "all"
    assert await asked_until(alarms, server, clock, 400) == [240], "and then no more"
    assert alarms.blocking("mill-1", 500) == ["alarm: lubrication"]
    assert server.calls.count("subscribe") == 1


async def test_events_that_were_refused_to_us_are_subscribed_again(tmp_path: Path, clock: list[float]) -> None:
    alarms, server = alarms_of(tmp_path), Server()
    server.events = "BadUserAccessDenied"
    why = "the machine does not tell its alarms: events cannot be watched: BadUserAccessDenied"
    assert await hears(alarms, server) == ("", [why])
    server.events = ""
    assert await asked_until(alarms, server, clock, 20) == [4]
    assert (server.calls, alarms.blocking("mill-1", 500)) == (
        ["subscribe", "subscribe", "refresh"],
        ["alarm: lubrication"],
    )


async def test_what_was_asked_on_a_link_that_is_gone_says_nothing_of_the_next(
    tmp_path: Path, clock: list[float]
) -> None:
    alarms = alarms_of(tmp_path)

    class Gone(Server):
        async def refresh(self, subscription: int) -> None:
            alarms.forget_events(Sources(ROOT, ()))
            raise RefusedError("ConditionRefresh: the server says BadMethodInvalid", "BadMethodInvalid")

    assert await hears(alarms, Gone()) == ("", [NOT_TOLD])


async def test_a_condition_is_open_until_it_is_over_and_acknowledged(tmp_path: Path) -> None:
    said: list[str] = []
    alarms = told(tmp_path, said.append)
    await tell(alarms, {"Message": ua.LocalizedText("no condition")}, event(1, active=True))
    await tell(alarms, event(2, active=True))
    assert said == ["lubrication"], "it is told once"
    assert (only(alarms).active, only(alarms).acknowledged, only(alarms).severity) == (True, False, 700)
    assert (only(alarms).refused, only(alarms).alone) == ("", False)
    assert alarms.blocking("mill-1", 500) == ["alarm: lubrication"]
    assert alarms.blocking("mill-1", 701) == alarms.blocking("mill-1", 0) == []
    await tell(alarms, event(3, active=False))
    assert (only(alarms).active, alarms.blocking("mill-1", 500), alarms.text) == (False, [], "")
    await tell(alarms, event(4, active=False, acked=True))
    assert alarms.open == ()
    await tell(alarms, event(5, active=False, acked=None))
    assert alarms.open == (), "nothing is asked for where the server has no such state"


async def test_a_condition_that_is_cleared_without_an_event_is_asked_for(tmp_path: Path) -> None:
    alarms, machine = alarms_of(tmp_path), Machine()
    await tell(alarms, event(1, active=True))
    await alarms.look(link(machine))
    assert (only(alarms).active, only(alarms).acknowledged) == (True, False), "nothing is shown, so nothing is learnt"
    machine.shown = {"active": False, "acked": "strange"}
    await alarms.look(link(machine))
    assert (only(alarms).active, only(alarms).acknowledged) == (False, False)
    machine.shown = {"active": False, "acked": True}
    await alarms.look(link(machine))
    assert alarms.open == ()


async def test_what_is_acknowledged_is_what_was_seen(tmp_path: Path) -> None:
    alarms, machine = alarms_of(tmp_path), Machine()
    await tell(alarms, event(1, active=True))
    seen = only(alarms).token
    await tell(alarms, event(2, active=True))
    assert only(alarms).token != seen
    with pytest.raises(MachineError, match="there is no open condition"):
        await alarms.acknowledge(link(machine), seen, "ada")
    assert machine.asked == []
    await alarms.acknowledge(link(machine), only(alarms).token, "ada: the pump again")
    assert machine.asked == [(b"\2", "ada: the pump again")]
    assert only(alarms).acknowledged
    await alarms.acknowledge(link(machine), only(alarms).token, "bob")
    assert len(machine.asked) == 1, "it is acknowledged already"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("BadUserAccessDenied", "does not let this user acknowledge"),
        ("BadConditionBranchAlreadyAcked", "somebody else"),
        ("BadEventIdUnknown", "knows nothing of this occurrence"),
        ("BadNodeIdUnknown", "the server says BadNodeIdUnknown"),
    ],
)
async def test_a_refusal_is_told_in_words_and_changes_nothing(tmp_path: Path, status: str, words: str) -> None:
    alarms = alarms_of(tmp_path)
    await tell(alarms, event(1, active=True))
    with pytest.raises(MachineError, match=f"has not acknowledged 'lubrication': .*{words}"):
        await alarms.acknowledge(link(Machine(status)), only(alarms).token, "ada")
    assert not only(alarms).acknowledged


async def test_a_safety_stop_stays_until_a_person_has_acknowledged_it(tmp_path: Path) -> None:
    alarms, machine = alarms_of(tmp_path), Machine()
    alarms.safety("emergency stop", broken=False)
    assert alarms.open == ()
    alarms.safety("emergency stop", broken=True)
    assert only(alarms).refused == "reset it at the machine first"
    with pytest.raises(MachineError, match=only(alarms).refused):
        await alarms.acknowledge(link(machine), only(alarms).token, "ada")
    alarms.safety("emergency stop", broken=False)
    assert only(alarms).refused == ""
    (words,) = alarms.blocking("robot-1", 0)
    assert words == "emergency stop is over, and nobody has acknowledged it: `edge machine acknowledge robot-1 s1`"
    await alarms.kept()

    after_a_restart = Alarms(tmp_path)
    assert after_a_restart.open == alarms.open
    await after_a_restart.acknowledge(link(machine), only(after_a_restart).token, "ada")
    assert after_a_restart.blocking("robot-1", 0) == []
    assert Alarms(tmp_path).open == ()
    assert machine.asked == [], "a server need not have a condition for it"

    first = only(alarms).token
    again = Alarms(tmp_path)
    again.safety("emergency stop", broken=True)
    assert only(again).token != first, "that is another occurrence"


async def test_a_release_acknowledges_what_is_open_and_no_stop_that_is_still_there(tmp_path: Path) -> None:
    alarms, machine = alarms_of(tmp_path), Machine()
    await tell(alarms, event(1, active=False))
    alarms.safety("emergency stop", broken=True)
    alarms.safety("protective stop", broken=True)
    alarms.safety("protective stop", broken=False)
    await alarms.acknowledge_all(link(machine), "released")
    assert [condition.text for condition in alarms.open] == ["emergency stop"]
    assert machine.asked == [(b"\1", "released")]


async def test_what_the_server_has_no_event_of_keeps_no_run_from_going_on(tmp_path: Path) -> None:
    """As node-opcua has it where an alarm was cleared that was never raised."""
    alarms, machine = alarms_of(tmp_path), Machine("BadEventIdUnknown")
    await tell(alarms, {**event(1, active=False, severity=0), "EventId": None})
    await alarms.acknowledge_all(link(machine), "released")
    assert (machine.asked, only(alarms).acknowledged) == ([], False)


async def test_a_note_of_a_stop_that_cannot_be_read_is_a_stop(tmp_path: Path) -> None:
    (tmp_path / "safety.json").write_text("{")
    found = only(Alarms(tmp_path))
    assert "cannot be read" in found.text
    assert not await asyncio.to_thread((tmp_path / "safety.json.part").exists)


async def test_a_stop_that_comes_again_is_not_the_one_that_was_seen(tmp_path: Path) -> None:
    alarms, machine = alarms_of(tmp_path), Machine()
    for broken in (True, False):
        alarms.safety("emergency stop", broken=broken)
    seen = only(alarms).token
    for broken in (True, True, False):
        alarms.safety("emergency stop", broken=broken)
    with pytest.raises(MachineError, match="there is no open condition"):
        await alarms.acknowledge(link(machine), seen, "ada")
    assert alarms.blocking("robot-1", 0)


async def test_a_stop_that_cannot_be_written_down_is_not_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "safety.json").mkdir()
    alarms, machine = alarms_of(tmp_path), Machine()
    (tmp_path / "safety.json").rmdir()
    (only_one,) = alarms.open
    assert "cannot be read" in only_one.text
    (tmp_path / "safety.json.part").mkdir()
    for _ in range(2):
        with pytest.raises(MachineError, match=r"cannot be kept in .*safety\.json"):
            await alarms.acknowledge(link(machine), only_one.token, "ada")
        assert alarms.blocking("robot-1", 0), "it is asked for again, and not only refused once"
    (tmp_path / "safety.json.part").rmdir()
    await alarms.acknowledge(link(machine), only_one.token, "ada")
    assert Alarms(tmp_path).open == alarms.open == ()


async def test_what_is_written_last_is_what_was_last(tmp_path: Path) -> None:
    alarms, machine = alarms_of(tmp_path), Machine()
    alarms.safety("emergency stop", broken=True)
    alarms.safety("emergency stop", broken=False)
    noting = asyncio.create_task(alarms.acknowledge(link(machine), only(alarms).token, "ada"))
    await asyncio.sleep(0)
    alarms.safety("protective stop", broken=True)
    await asyncio.gather(noting, alarms.kept(), alarms.kept())
    assert [condition.text for condition in Alarms(tmp_path).open] == ["protective stop"]


async def test_a_release_takes_what_somebody_else_has_acknowledged_as_acknowledged(tmp_path: Path) -> None:
    alarms = alarms_of(tmp_path)
    await tell(alarms, event(1, active=True))
    await alarms.acknowledge_all(link(Machine("BadConditionBranchAlreadyAcked")), "released")
    with pytest.raises(RefusedError, match="does not let this user"):
        await alarms.acknowledge_all(link(Machine("BadUserAccessDenied")), "released")


async def test_what_may_be_anybodys_counts_and_is_acknowledged_by_its_own_token_alone(tmp_path: Path) -> None:
    said: list[str] = []
    alarms, machine = told(tmp_path, said.append), Machine()
    await tell(alarms, {**event(1, active=True), "SourceNode": ua.NodeId(ua.ObjectIds.Server)})
    words = "lubrication (the server does not say of which machine)"
    assert (said, alarms.text, only(alarms).text, only(alarms).alone) == ([words], words, words, True)
    assert alarms.blocking("mill-1", 500) == [f"alarm: {words}"]
    await alarms.acknowledge_all(link(machine), "released")
    assert (machine.asked, only(alarms).acknowledged) == ([], False), "nobody has looked at all the machines"
    await alarms.acknowledge(link(machine), only(alarms).token, "ada")
    assert machine.asked == [(b"\1", "ada")]


async def test_what_is_another_machines_is_not_heard(tmp_path: Path) -> None:
    said: list[str] = []
    alarms, machine = alarms_of(tmp_path, said.append), Machine()
    another = ua.NodeId("mill 2", 2)
    alarms.forget_events(Sources(ROOT, [another]))
    await tell(alarms, END, {**event(1, active=True), "SourceNode": another})
    assert (said, alarms.open, alarms.text, alarms.blocking("mill-1", 500)) == ([], (), "", [])
    await alarms.acknowledge_all(link(machine), "released")
    assert machine.asked == []


async def test_what_two_take_in_at_once_is_taken_in_once_and_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    alarms = alarms_of(tmp_path, said.append)

    class Slow(Machine):
        async def parents(self, node: ua.NodeId) -> list[ua.NodeId]:
            await asyncio.sleep(0)
            return [ROOT] if node != ROOT else []

    for number in range(1, 4):
        alarms.event({**event(number, active=number != 2), "SourceNode": ua.NodeId(number, 2)})
    await asyncio.gather(*(alarms.take_in(link(Slow())) for _ in range(3)))
    assert (said, only(alarms).active) == (["lubrication"] * 2, True)


async def test_what_was_heard_on_a_link_that_is_gone_is_not_taken_in_on_the_next(tmp_path: Path) -> None:
    alarms = alarms_of(tmp_path)

    class Gone(Machine):
        async def parents(self, node: ua.NodeId) -> list[ua.NodeId]:
            alarms.forget_events(Sources(ROOT, ()))
            return []

    alarms.event({**event(1, active=True), "SourceNode": ua.NodeId("table", 2)})
    await alarms.take_in(link(Gone()))
    assert alarms.open == ()
