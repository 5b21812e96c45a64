"""Alarms and safety stops of node-opcua's machines, seen and acknowledged through our drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.opcua import JOBCONTROL, ROBOTICS
from edge.driver import Condition, Conditions, Machine, MachineError, MachineState, Message, OutcomeKind, StateSeen
from edge.testing import RecordingContext
from tests.helpers.nodeopcua import Peer, node_opcua
from tests.helpers.opcua import program_of, until
from tests.helpers.opcua_faults import run_of

pytestmark = pytest.mark.slow
WAIT_S = 30.0


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    (tmp_path / "peer").mkdir()
    with node_opcua(tmp_path / "peer", "--security", "none") as peer:
        yield peer


def machine(peer: Peer, plugin: Any, driver: str, profile: str, browse_name: str) -> Machine[Any, Any]:
    way = {"endpoint": peer.endpoint, "security": "None", "machine": browse_name}
    limits = plugin.limits(checked_by="controller")
    return Machine("peer-1", driver, profile, ("any",), plugin.connection(**way), limits)


def open_conditions(context: RecordingContext) -> tuple[Condition, ...]:
    told = context.of_kind(Conditions)
    return told[-1].open if told else ()


def shown(context: RecordingContext) -> list[tuple[str, bool]]:
    return [(each.text, each.active) for each in open_conditions(context)]


async def test_an_alarm_of_the_mill_is_acknowledged_by_its_name(peer: Peer, tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    mill = machine(peer, JOBCONTROL, "opcua-jobcontrol", "machinery-jobs", "Mill")
    async with JOBCONTROL.open(mill, context) as driver:
        peer.tell("alarm", text="spindle overload", effect="none")
        await until(lambda: open_conditions(context), WAIT_S)
        (alarm,) = open_conditions(context)
        assert (alarm.text, alarm.severity, alarm.active, alarm.acknowledged) == ("spindle overload", 700, True, False)
        with pytest.raises(MachineError, match="there is no open condition"):
            await driver.acknowledge("00000000", "ada", context.clock.mono_s() + WAIT_S)
        assert not peer.tell("acknowledged", machine="mill")["acknowledged"]
        await driver.acknowledge(alarm.token, "ada: seen", context.clock.mono_s() + WAIT_S)
        assert peer.tell("acknowledged", machine="mill")["acknowledged"]
        await until(lambda: all(each.acknowledged for each in open_conditions(context)), WAIT_S)
        peer.tell("clear_alarm")
        await until(lambda: not open_conditions(context), WAIT_S)
        assert context.of_kind(StateSeen)[-1].state is MachineState.IDLE


async def test_after_an_emergency_stop_the_robot_takes_work_once_everything_is_acknowledged(
    peer: Peer, tmp_path: Path
) -> None:
    context = RecordingContext(tmp_path)
    robot = machine(peer, ROBOTICS, "opcua-robotics", "robotics-1.02", "Robot")
    async with ROBOTICS.open(robot, context) as driver:
        await context.seen(StateSeen, lambda seen: seen.state is MachineState.IDLE, WAIT_S)
        peer.tell("estop", on=True)
        await context.seen(StateSeen, lambda seen: "emergency stop" in seen.detail, WAIT_S)
        # The stop itself, and not only the alarm for it, whose event may come first.
        await until(lambda: "s1" in [each.token for each in open_conditions(context)], WAIT_S)
        peer.tell("estop", on=False)
        await context.seen(StateSeen, lambda seen: "nobody has acknowledged" in seen.detail, WAIT_S)
        assert context.of_kind(StateSeen)[-1].state is MachineState.STOPPED
        async with asyncio.timeout(WAIT_S):
            while noticeable := [each for each in open_conditions(context) if not each.acknowledged]:
                await driver.acknowledge(noticeable[0].token, "ada", context.clock.mono_s() + WAIT_S)
                await asyncio.sleep(0.1)  # its next event has another token
        await until(lambda: context.of_kind(StateSeen)[-1].state is MachineState.IDLE, WAIT_S)
        assert peer.acts("robot") == 0, "nothing was started by it"


async def test_an_alarm_of_the_mill_beside_it_is_neither_shown_nor_blocks_nor_is_acknowledged(tmp_path: Path) -> None:
    """On one server; one alarm of it was there before we came, and one comes while ours carries out a run."""
    (tmp_path / "peer").mkdir()
    options = ("--security", "none", "--mills", "3", "--blocks-per-s", "2")
    with node_opcua(tmp_path / "peer", *options) as peer:
        context = RecordingContext(tmp_path)
        mill = machine(peer, JOBCONTROL, "opcua-jobcontrol", "machinery-jobs", "Mill")
        program = program_of(tmp_path / "x.nc", [*(f"G1 X{i} F3000" for i in range(16)), "M30"])
        peer.tell("alarm", machine="mill2", text="coolant is low", effect="none")
        async with JOBCONTROL.open(mill, context) as driver:
            await context.seen(StateSeen, lambda seen: seen.state is MachineState.IDLE, WAIT_S)
            running = asyncio.create_task(driver.execute(run_of(), program), name="run")
            await until(lambda: peer.carried_out("mill"), WAIT_S)
            peer.tell("alarm", machine="mill3", text="door", effect="none")
            peer.tell("alarm", machine="mill", text="chips", effect="suspend")
            await until(lambda: context.of_kind(StateSeen)[-1].state is MachineState.HELD, WAIT_S)
            await until(lambda: shown(context) == [("chips", True)], WAIT_S)
            peer.tell("clear_alarm", machine="mill")
            await until(lambda: shown(context) == [("chips", False)], WAIT_S)
            await driver.resume(context.clock.mono_s() + WAIT_S)
            peer.tell("speed", blocks_per_s=100)
            assert (await asyncio.wait_for(running, WAIT_S)).kind is OutcomeKind.SUCCEEDED
            names = ("mill", "mill2", "mill3")
            assert [peer.tell("acknowledged", machine=name)["acknowledged"] for name in names] == [True, False, False]
        told = [str(each) for kind in (Conditions, Message, StateSeen) for each in context.of_kind(kind)]
        assert any("chips" in each for each in told)
        assert not [each for each in told if "coolant" in each or "door" in each]
