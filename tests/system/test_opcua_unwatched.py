"""Links that lack something: what the server does not let be watched, and what it has not built yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncua import ua

from drivers.opcua import JOBCONTROL
from edge.driver import MachineState, Message, Reading, StateSeen
from edge.testing import RecordingContext
from tests.helpers.opcua import until
from tests.helpers.opcua_channel import CHANNEL, MANUAL, Controller, controller

WAIT_S = 30.0
WAITING = ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData)
MODE = f"{CHANNEL}cnc:ActOperationMode"


async def shows(context: RecordingContext, state: MachineState) -> None:
    """Wait until it is in this state now."""
    await until(lambda: [seen.state for seen in context.of_kind(StateSeen)][-1:] == [state], WAIT_S)


@asynccontextmanager
async def in_sight(folder: Path) -> AsyncIterator[tuple[Controller, RecordingContext]]:
    """A controller that a driver has open and sees idle, and what the driver tells."""
    async with controller(folder) as mill:
        context = RecordingContext(folder)
        async with JOBCONTROL.open(mill.machine, context):
            await shows(context, MachineState.IDLE)
            yield mill, context


async def test_a_link_on_which_what_decides_cannot_be_watched_is_none(tmp_path: Path) -> None:
    """As after a cut, while the session before still has its monitored items."""
    async with in_sight(tmp_path) as (mill, context):
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


@pytest.mark.parametrize(
    ("late", "words"),
    [
        ("ActOperationMode", f"the server has had {MODE}, and has it no more"),
        ("Start", f"the server has had {CHANNEL}cnc:Start, and has it no more"),
        ("channel", "and 4 more, and has it no more"),
        ("channels", "it has had one: not all of it may be up yet"),
    ],
)
async def test_a_server_that_is_up_before_all_its_nodes_are_is_not_in_sight_yet(
    tmp_path: Path, late: str, words: str
) -> None:
    async with in_sight(tmp_path) as (mill, context):
        await mill.hide(late)
        mill.cut()
        await context.seen(StateSeen, lambda seen: words in seen.detail, WAIT_S)
        await mill.build(late)
        await shows(context, MachineState.IDLE)
        await mill.say("ActOperationMode", MANUAL)
        await context.seen(StateSeen, lambda seen: "not in Automatic" in seen.detail, WAIT_S)


@pytest.mark.parametrize(
    ("late", "words"),
    [
        (
            "ActProgramStatus",
            "cannot be read: BadWaitingForInitialData; it has been there: not all of it may be up yet",
        ),
        ("CncTypeName", "the machine does not say its firmware yet; it was CNC 1"),
    ],
)
async def test_a_value_that_decides_and_cannot_be_read_yet_is_asked_for_again(
    tmp_path: Path, late: str, words: str
) -> None:
    async with in_sight(tmp_path) as (mill, context):
        mill.cut()
        before = await mill.nodes[late].read_data_value()
        await mill.nodes[late].write_value(ua.DataValue(before.Value, WAITING))
        await context.seen(StateSeen, lambda seen: seen.detail.endswith(words), WAIT_S)
        await mill.nodes[late].write_value(before)
        await shows(context, MachineState.IDLE)


async def test_a_value_for_people_that_is_there_no_more_is_told(tmp_path: Path) -> None:
    async with in_sight(tmp_path) as (mill, context):
        await mill.hide("ActFeedrate")
        mill.cut()
        words = f"feedrate is not shown any more: the server has no {CHANNEL}cnc:ActFeedrate now"
        await context.seen(Message, lambda message: message.text == words, WAIT_S)
        await shows(context, MachineState.IDLE)


async def test_a_link_on_which_no_alarm_would_be_heard_is_none(tmp_path: Path) -> None:
    """The server ends the one subscription, and has no room for another one."""
    async with in_sight(tmp_path) as (mill, context):
        room, mill.server.iserver.max_subscriptions = mill.server.iserver.max_subscriptions, 0
        await mill.end_events()
        ended = StateSeen(MachineState.OFFLINE, "the server has ended its subscription of events: BadTimeout")
        await context.seen(StateSeen, lambda seen: seen == ended, WAIT_S)
        words = "no room to hear of the machine's alarms: subscribing: the server says BadTooManySubscriptions"
        await context.seen(StateSeen, lambda seen: seen.detail.endswith(words), WAIT_S)
        mill.server.iserver.max_subscriptions = room
        await shows(context, MachineState.IDLE)
