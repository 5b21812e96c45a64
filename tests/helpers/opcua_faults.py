"""What links and servers do in the middle of a run: frozen, dropped, killed, switched off, full; and what comes of it.

Never a second start, never a success that was none, and the right state within 10 s of the end of the fault.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.driver import (
    Driver,
    Finished,
    Lost,
    MachineError,
    MachineState,
    Motion,
    Outcome,
    OutcomeKind,
    Program,
    Reading,
    Run,
    StateSeen,
    Step,
    StillRunning,
)
from edge.testing import RecordingContext
from tests.helpers.opcua import Served, machine_of, plugin_of, program_of, trust_each_other, until
from tests.helpers.proxy import Network, network

RIGHT_S = 10.0
WAIT_S = 40.0
LINES = {
    "cnc": ["G21 G90", *(f"G1 X{10 + 100 * (i % 2)} F3000" for i in range(2000)), "M30"],
    "robot": ["move printer", *("wait 0.5" for _ in range(4000))],
}
SHORT = {
    "cnc": ["G21 G90", *(f"G1 X{10 + 100 * (i % 2)} F3000" for i in range(30)), "M30"],
    "robot": ["move printer", *("wait 2" for _ in range(20))],
}


@dataclass
class At:
    """A driver with a run under way."""

    driver: Driver
    context: RecordingContext
    server: Served
    running: asyncio.Task[Outcome]
    program: Program

    def state(self) -> MachineState:
        return self.context.of_kind(StateSeen)[-1].state

    async def becomes(self, state: MachineState, within_s: float = RIGHT_S) -> None:
        await until(lambda: self.state() is state, within_s)


def run_of(run_id: str = "run-1", checkpoint: Any = None) -> Run:
    return Run(run_id, "job-1", 1, Step("step-1", "any"), 1, checkpoint)


@asynccontextmanager
async def under_way(
    folder: Path, server: Served, lines: dict[str, list[str]] = LINES, **more: Any
) -> AsyncIterator[At]:
    """A run that the machine carries out."""
    context = RecordingContext(folder)
    program = program_of(folder / "program.nc", lines[server.kind])
    machine = machine_of(server, **{"patience_s": 120.0, **more})
    await asyncio.to_thread(trust_each_other, server, machine, folder)
    async with plugin_of(server.kind).open(machine, context) as driver:
        running = asyncio.create_task(driver.execute(run_of(), program), name="run")
        at = At(driver, context, server, running, program)
        try:
            await until(lambda: len(server.instructions()) >= 3, WAIT_S)
            await at.becomes(MachineState.EXECUTE)
            yield at
        finally:
            if not running.done():
                await driver.detach()
                running.cancel()
            await asyncio.wait([running])


async def stopped(at: At) -> None:
    """The end of a test: the run is stopped, and was started once."""
    await at.driver.stop(at.context.clock.mono_s() + WAIT_S)
    outcome = await asyncio.wait_for(at.running, WAIT_S)
    assert outcome.kind is OutcomeKind.STOPPED
    assert at.server.starts() == 1


class _Deafening(RecordingContext):
    """Answers get lost from the moment in which the start is about to be asked for."""

    def __init__(self, folder: Path, between: Network) -> None:
        super().__init__(folder)
        self._between = between

    async def checkpoint(self, value: Any) -> None:
        await super().checkpoint(value)
        self._between.deafen()


class _WithAMachine(ABC):
    kind: str

    @abstractmethod
    def served(self, folder: Path, speed: float) -> AbstractContextManager[Served]:
        """A fresh machine. At `speed` 1 it carries out one or two lines a second, as much faster as it says."""


class LinkFaults(_WithAMachine):
    """Subclass it, say in `served` how to reach a machine of the `kind`, and name the subclass ``Test…``."""

    @pytest.mark.parametrize("seconds", [2.0, 8.0, pytest.param(60.0, marks=pytest.mark.slow)])
    async def test_a_frozen_server_is_seen_and_the_run_goes_on_when_it_thaws(
        self, tmp_path: Path, seconds: float
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server, silence_s=3.0) as at:
                server.freeze()
                frozen_s = time.monotonic()
                if seconds > 5.0:
                    await at.becomes(MachineState.OFFLINE)
                told = len(at.context.of_kind(Reading)) if seconds > 5.0 else 0
                await asyncio.sleep(frozen_s + seconds - time.monotonic())
                if seconds > 5.0:
                    assert at.state() is MachineState.OFFLINE, "what is shown is old by now, and must not look fresh"
                    assert len(at.context.of_kind(Reading)) == told, "a value that is told again looks new"
                server.thaw()
                thawed_s = time.monotonic()
                await at.becomes(MachineState.EXECUTE)
                assert time.monotonic() - thawed_s < RIGHT_S
                assert not at.running.done()
                await stopped(at)

    async def test_a_program_that_ends_while_nobody_can_see_it_is_found_to_have_succeeded(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 4.0) as server:
            port = int(server.endpoint.rstrip("/").rpartition(":")[2])
            with network(port) as between:
                server.endpoint = f"opc.tcp://127.0.0.1:{between.port}/"
                async with under_way(tmp_path, server, SHORT) as at:
                    between.cut()
                    await at.becomes(MachineState.OFFLINE)
                    await until(lambda: len(server.instructions()) >= len(SHORT[self.kind]), WAIT_S)
                    await asyncio.sleep(1.0)  # its last instruction is still being carried out
                    assert not at.running.done()
                    between.mend()
                    outcome = await asyncio.wait_for(at.running, WAIT_S)
                    assert outcome.kind is OutcomeKind.SUCCEEDED
                    assert server.starts() == 1

    async def test_a_dropped_connection_comes_back_and_nothing_is_started_twice(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 2.0) as server:
            port = int(server.endpoint.rstrip("/").rpartition(":")[2])
            with network(port) as between:
                server.endpoint = f"opc.tcp://127.0.0.1:{between.port}/"
                async with under_way(tmp_path, server) as at:
                    for _ in range(3):
                        between.drop()
                        await at.becomes(MachineState.OFFLINE)
                        await at.becomes(MachineState.EXECUTE)
                    await stopped(at)

    async def test_a_controller_that_was_switched_off_and_forgot_ends_the_run_as_unknown(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                server.power_cycle()
                outcome = await asyncio.wait_for(at.running, WAIT_S)
                assert (outcome.kind, outcome.motion) == (OutcomeKind.UNKNOWN, Motion.POSSIBLE)
                assert outcome.reason
                assert server.starts() == 1

    async def test_a_server_that_was_killed_and_started_again_is_unknown_and_then_takes_work(
        self, tmp_path: Path
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                server.kill()
                await at.becomes(MachineState.OFFLINE)
                await asyncio.to_thread(server.restart)
                outcome = await asyncio.wait_for(at.running, RIGHT_S)
                assert outcome.kind is OutcomeKind.UNKNOWN
                await at.becomes(MachineState.IDLE)
                assert server.starts() == 0, "nothing is started by itself"
                again = await asyncio.wait_for(
                    at.driver.execute(run_of("run-2"), program_of(tmp_path / "b.nc", SHORT[self.kind][-2:])), WAIT_S
                )
                assert again.kind is OutcomeKind.SUCCEEDED

    async def test_a_full_session_table_is_shown_and_over_when_a_session_is_free(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                server.refuse_sessions()
                await at.becomes(MachineState.OFFLINE)
                await until(lambda: "no free session" in at.context.of_kind(StateSeen)[-1].detail, RIGHT_S)
                server.allow_sessions()
                await at.becomes(MachineState.EXECUTE)
                await stopped(at)

    async def test_a_daemon_that_is_restarted_finds_its_run_and_starts_nothing(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                await at.driver.detach()
                at.running.cancel()
                await asyncio.wait([at.running])
                checkpoint = at.context.checkpoints[-1]
                program = at.program
            context = RecordingContext(tmp_path)
            async with plugin_of(self.kind).open(machine_of(server), context) as driver:
                assert isinstance(await driver.recover(run_of(checkpoint=checkpoint), program), StillRunning)
                running = asyncio.create_task(
                    driver.execute(run_of(checkpoint=checkpoint), program, StillRunning()), name="run"
                )
                await asyncio.sleep(0)
                await stopped(At(driver, context, server, running, program))
                never = await driver.recover(run_of("run-9"), program)
                assert isinstance(never, Finished)
                assert never.outcome.motion is Motion.NONE
                server.power_cycle()
                lost = await asyncio.wait_for(driver.recover(run_of("run-8", checkpoint), program), WAIT_S)
                assert isinstance(lost, Lost)

    async def test_a_run_that_was_given_up_here_keeps_the_machine_from_the_next(self, tmp_path: Path) -> None:
        """As one that a person has resolved while the machine was out of reach, and still went on with it."""
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                program = at.program
            context = RecordingContext(tmp_path)
            async with plugin_of(self.kind).open(machine_of(server), context) as driver:
                await context.seen(StateSeen, lambda seen: seen.state is not MachineState.OFFLINE, WAIT_S)
                assert context.of_kind(StateSeen)[-1].state is MachineState.EXECUTE
                with pytest.raises(MachineError, match="carries out") as caught:
                    await asyncio.wait_for(driver.execute(run_of("run-2"), program), WAIT_S)
                assert caught.value.motion is Motion.NONE
                assert server.starts() == 1

    async def test_a_start_whose_answer_is_lost_is_looked_up_and_not_asked_for_again(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 10.0) as server:
            port = int(server.endpoint.rstrip("/").rpartition(":")[2])
            with network(port) as between:
                server.endpoint = f"opc.tcp://127.0.0.1:{between.port}/"
                context = _Deafening(tmp_path, between)
                program = program_of(tmp_path / "program.nc", SHORT[self.kind])
                machine = machine_of(server, patience_s=60.0)
                await asyncio.to_thread(trust_each_other, server, machine, tmp_path)
                async with plugin_of(self.kind).open(machine, context) as driver:
                    running = asyncio.create_task(driver.execute(run_of(), program), name="run")
                    await until(lambda: server.starts() == 1, WAIT_S)
                    between.drop()
                    outcome = await asyncio.wait_for(running, WAIT_S)
                    assert outcome.kind is OutcomeKind.SUCCEEDED
                    assert server.starts() == 1


class AlarmFaults(_WithAMachine):
    """Of a machine whose alarms let nothing start."""

    async def test_an_alarm_that_was_there_before_we_came_lets_nothing_start_from_the_first_moment(
        self, tmp_path: Path
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            server.alarm("coolant is low")
            machine = machine_of(server)
            await asyncio.to_thread(trust_each_other, server, machine, tmp_path)
            for run_id in ("run-1", "run-2"):
                context = RecordingContext(tmp_path)
                async with plugin_of(self.kind).open(machine, context) as driver:
                    await context.seen(StateSeen, lambda seen: seen.state is not MachineState.OFFLINE, WAIT_S)
                    with pytest.raises(MachineError, match="alarm: coolant is low") as caught:
                        await driver.execute(run_of(run_id), program_of(tmp_path / "program.nc", SHORT[self.kind]))
                    assert caught.value.motion is Motion.NONE
                first = next(seen for seen in context.of_kind(StateSeen) if seen.state is not MachineState.OFFLINE)
                assert first.state is MachineState.STOPPED
                assert "alarm: coolant is low" in first.detail
            assert server.starts() == 0


class TransferFaults(_WithAMachine):
    """Of a machine whose programs are files."""

    async def test_a_big_program_arrives_whole_and_a_cut_transfer_leaves_nothing_startable(
        self, tmp_path: Path
    ) -> None:
        with self.served(tmp_path, 10_000.0) as server:
            folder = server.programs
            port = int(server.endpoint.rstrip("/").rpartition(":")[2])
            with network(port) as between:
                server.endpoint = f"opc.tcp://127.0.0.1:{between.port}/"
                big = tmp_path / "big.nc"
                line = b"( " + b"x" * 60 + b" )\n"
                big.write_bytes(b"G21 G90\n" + line * (20_000_000 // len(line)) + b"G1 X10 F3000\nM30\n")
                data = big.read_bytes()
                program = Program("big.nc", big, hashlib.sha256(data).hexdigest(), len(data))
                context = RecordingContext(tmp_path)
                machine = machine_of(server, patience_s=60.0)
                await asyncio.to_thread(trust_each_other, server, machine, tmp_path)
                async with plugin_of(self.kind).open(machine, context) as driver:
                    cut = asyncio.create_task(driver.execute(run_of("run-1"), program), name="run")
                    await until(lambda: any(path.stat().st_size > 100_000 for path in folder.glob("*")), WAIT_S)
                    between.drop()
                    await asyncio.wait([cut], timeout=WAIT_S)
                    error = cut.exception()
                    assert isinstance(error, MachineError)
                    assert error.motion is Motion.NONE
                    assert not (folder / "edge-run-1.nc").exists()
                    assert server.starts() == 0
                    outcome = None
                    async with asyncio.timeout(90.0):
                        while outcome is None:
                            await asyncio.sleep(0.1)
                            with suppress(MachineError):  # it is not in sight yet
                                outcome = await driver.execute(run_of("run-2"), program)
                    assert outcome.kind is OutcomeKind.SUCCEEDED
                    assert server.starts() == 1
                    assert (folder / "edge-run-2.nc").read_bytes() == data
                    # A server may hold a file open for a cut session until that times out; after that it is cleared.
                    short = program_of(tmp_path / "short.nc", SHORT[self.kind][-2:])
                    number = 2
                    while list(folder.glob("*.part")):
                        number += 1
                        assert number < 12, "what the cut transfer left is never cleared"
                        await asyncio.sleep(5.0)
                        await driver.execute(run_of(f"run-{number}"), short)
