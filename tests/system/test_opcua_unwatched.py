"""Links that lack something: what the server does not let be watched, and what it has not built yet."""

from __future__ import annotations

from pathlib import Path

from drivers.opcua import JOBCONTROL
from edge.driver import MachineState, Message, Reading, StateSeen
from edge.testing import RecordingContext
from tests.helpers.opcua import until
from tests.helpers.opcua_channel import CHANNEL, MANUAL, controller

WAIT_S = 30.0
MODE = f"{CHANNEL}cnc:ActOperationMode"


async def shows(context: RecordingContext, state: MachineState) -> None:
    """Wait until it is in this state now."""
    await until(lambda: [seen.state for seen in context.of_kind(StateSeen)][-1:] == [state], WAIT_S)


async def test_a_link_on_which_what_decides_cannot_be_watched_is_none(tmp_path: Path) -> None:
    """As after a cut, while the session before still has its monitored items."""
    async with controller(tmp_path) as mill:
        context = RecordingContext(tmp_path)
        async with JOBCONTROL.open(mill.machine, context):
            await shows(context, MachineState.IDLE)
            mill.refuses = {"ActOperationMode"}
            mill.cut()
            words = f"the server does not let {MODE} be watched: BadTooManyMonitoredItems"
            offline = StateSeen(MachineState.OFFLINE, words)
            await context.seen(StateSeen, lambda seen: seen == offline, WAIT_S)
            await mill.say("ActOperationMode", MANUAL)
            mill.refuses = set()
            await context.seen(StateSeen, lambda seen: "not in Automatic" in seen.detail, WAIT_S)


async def test_a_value_for_people_that_cannot_be_watched_is_told_once_and_not_shown(tmp_path: Path) -> None:
    async with controller(tmp_path) as mill:
        mill.refuses = {"ActFeedrate"}
        context = RecordingContext(tmp_path)
        async with JOBCONTROL.open(mill.machine, context):
            for _ in range(2):
                await shows(context, MachineState.IDLE)
                mill.cut()
                await shows(context, MachineState.OFFLINE)
            await shows(context, MachineState.IDLE)
            told = [message.text for message in context.of_kind(Message)]
            words = "feedrate is not shown: the server does not let it be watched (BadTooManyMonitoredItems)"
            assert told.count(words) == 1
            await mill.say("ActFeedrate", 77.0)
            await mill.say("ActOperationMode", MANUAL)
            await context.seen(StateSeen, lambda seen: "not in Automatic" in seen.detail, WAIT_S)
            assert 77.0 not in [reading.value for reading in context.of_kind(Reading)]
