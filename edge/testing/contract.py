"""The contract of a driver as a suite of tests: what edge relies upon, whatever the machine.

A subclass says in `bench` how to reach a fresh machine (a simulator, on the other side of a real wire); pytest collects
the subclass. The machine of a bench is the driver's alone, and nothing has happened to it yet.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from pathlib import Path

from edge.driver import (
    At,
    Finished,
    Lost,
    MachineError,
    MachineState,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    OutcomeKind,
    Progress,
    StateSeen,
    StillRunning,
)
from edge.testing.bench import Bench, raises
from edge.testing.pausing import PauseContract

_POOL_THREAD = "asyncio_"
"""Threads of the event loop's own pool (`asyncio.to_thread`) stay until the loop is closed; they are no leak."""


class DriverContract(PauseContract):
    """Subclass it, give `bench`, and name the subclass ``Test…``."""

    # Identity

    async def test_identity_is_what_the_machine_says_and_opening_moves_nothing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            async with self._open(bench, tmp_path) as opened:
                assert opened.driver.identity.firmware
                assert isinstance(opened.driver.capabilities, frozenset)
                first = opened.driver.identity
            async with self._open(bench, tmp_path) as opened:
                assert opened.driver.identity == first
            assert bench.acts() == 0

    async def test_a_machine_that_stands_ready_is_idle_and_one_in_a_run_executes(self, tmp_path: Path) -> None:
        """Otherwise edge gives it no work, and `edge status` never shows it at work."""
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            context = opened.context
            await context.seen(StateSeen, lambda seen: seen.state is MachineState.IDLE, self.patience_s)
            async with self._running(bench, opened) as running:
                await context.seen(StateSeen, lambda seen: seen.state is MachineState.EXECUTE, self.patience_s)
                await opened.driver.stop(self._deadline_s(opened))
                await self._in_time(running)

            def ready(_: StateSeen) -> bool:
                return context.of_kind(StateSeen)[-1].state is MachineState.IDLE

            await context.seen(StateSeen, ready, self.patience_s)

    async def test_what_crosses_the_wire_is_recorded_where_the_plug_in_says_that_there_is_one(
        self, tmp_path: Path
    ) -> None:
        """Nothing else is: a site that cannot switch it on must find nothing kept."""
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            ways = {direction for direction, _ in opened.context.wire}
            assert ways == (set() if bench.plugin.wire(bench.machine) is None else {"<", ">"})

    # A run to its end

    async def test_a_run_succeeds_only_when_the_machine_has_done_everything(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            outcome = await self._in_time(opened.driver.execute(self._run(), bench.good))
            assert list(bench.carried_out()) == list(bench.expected)
            assert (outcome.kind, outcome.motion) == (OutcomeKind.SUCCEEDED, Motion.POSSIBLE)
            assert outcome.evidence, "the machine's own words are the proof"
            assert pickle.loads(pickle.dumps(outcome)) == outcome

    async def test_one_run_after_the_other_starts_afresh(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            for number in range(2):
                outcome = await self._in_time(opened.driver.execute(self._run(f"run-{number}"), bench.good))
                assert outcome.kind is OutcomeKind.SUCCEEDED
                assert list(bench.carried_out()) == list(bench.expected)

    async def test_progress_never_goes_back_and_ends_at_its_total(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            await self._in_time(opened.driver.execute(self._run(), bench.good))
            seen = opened.context.of_kind(Progress)
            done = [progress.done for progress in seen]
            assert done == sorted(done)
            assert all(0 <= progress.done <= progress.total for progress in seen)
            assert seen[-1].done == seen[-1].total

    async def test_a_second_run_while_one_is_going_on_is_refused(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._open(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            with raises(NotAcceptableError):
                await self._in_time(opened.driver.execute(self._run("run-2"), bench.good))
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert (await self._in_time(running)).kind is OutcomeKind.STOPPED

    async def test_two_runs_asked_for_at_once_are_one(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            both = [
                asyncio.create_task(opened.driver.execute(self._run(f"run-{number}"), bench.good), name=f"run {number}")
                for number in range(2)
            ]
            await self._in_time(asyncio.wait(both))
            errors = [error for task in both if (error := task.exception()) is not None]
            assert len(errors) == 1
            assert isinstance(errors[0], NotAcceptableError)
            assert list(bench.carried_out()) == list(bench.expected)

    # Stop

    async def test_a_stop_is_confirmed_and_ends_the_run_as_stopped(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            async with self._running(bench, opened) as running:
                await opened.driver.stop(self._deadline_s(opened))
                acts = bench.acts()
                outcome = await self._in_time(running)
            assert (outcome.kind, outcome.motion) == (OutcomeKind.STOPPED, Motion.POSSIBLE)
            assert bench.acts() == acts, "a stop is confirmed when nothing moves any more"
            again = await self._in_time(opened.driver.execute(self._run("run-2"), bench.good))
            assert again.kind is OutcomeKind.SUCCEEDED

    async def test_stopping_a_stopped_machine_confirms_and_moves_nothing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert bench.acts() == 0
            async with self._running(bench, opened) as running:
                stops = [opened.driver.stop(self._deadline_s(opened)) for _ in range(3)]
                await self._in_time(asyncio.gather(*stops))
                await self._in_time(running)
            acts = bench.acts()
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert bench.acts() == acts

    async def test_a_stop_that_comes_before_the_first_command_counts(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            running = asyncio.create_task(opened.driver.execute(self._run(), bench.long), name="run")
            await asyncio.sleep(0)
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert (await self._in_time(running)).kind is OutcomeKind.STOPPED

    async def test_a_stop_without_time_is_not_confirmed_and_may_be_asked_again(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._open(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            with raises(NotConfirmedError) as caught:
                await self._in_time(opened.driver.stop(opened.context.clock.mono_s()))
            assert caught[0].motion is Motion.POSSIBLE
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            await self._in_time(asyncio.wait([running]))
            assert running.exception() is None or isinstance(running.exception(), NotConfirmedError)

    async def test_cancelling_a_run_stops_the_machine(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            async with self._running(bench, opened) as running:
                running.cancel()
                await self._in_time(asyncio.wait([running]))
                assert running.cancelled()
                acts = bench.acts()
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert bench.acts() == acts

    # Abort

    async def test_abort_is_legal_when_idle_and_twice(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            await self._at_once(opened.driver.abort())
            await self._at_once(opened.driver.abort())

    async def test_abort_ends_a_run_at_once_and_not_as_a_success(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._open(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            await self._at_once(opened.driver.abort())
            await self._at_once(opened.driver.abort())
            await self._ends_badly(running)

    async def test_abort_passes_a_stop_that_waits(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._open(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            stopping = asyncio.create_task(opened.driver.stop(self._deadline_s(opened)), name="stop")
            await asyncio.sleep(0)
            await self._at_once(opened.driver.abort())
            await self._in_time(asyncio.wait([stopping, running]))
            assert stopping.exception() is None or isinstance(stopping.exception(), NotConfirmedError)
            await self._ends_badly(running)

    # Connections

    async def test_recovery_tells_what_is_known_and_moves_nothing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            async with self._open(bench, tmp_path) as opened:
                await self._in_time(opened.driver.execute(self._run(), bench.good))
            acts = bench.acts()
            async with self._open(bench, tmp_path) as opened:
                recovery = await self._in_time(opened.driver.recover(self._run(), bench.good))
                assert isinstance(recovery, StillRunning | At | Finished | Lost)
            assert bench.acts() == acts

    async def test_a_machine_that_is_unplugged_ends_its_run_and_is_lost(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._open(bench, tmp_path) as opened:
            lost = asyncio.create_task(opened.driver.lost(), name="lost")
            async with self._running(bench, opened) as running:
                assert not lost.done()
                bench.unplug()
                await self._ends_badly(running)
            assert isinstance(await self._in_time(lost), MachineError)
            with raises(NotConfirmedError):
                await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            with raises(MachineError):
                await self._in_time(opened.driver.execute(self._run("run-2"), bench.good))

    async def test_a_machine_that_is_not_there_is_refused_in_words(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            bench.unplug()
            with raises(MachineError) as caught:
                async with self._open(bench, tmp_path):
                    pass
            assert caught[0].motion is Motion.NONE
            assert str(caught[0])

    async def test_leaving_ends_every_wait_and_leaks_nothing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            await self._in_time(self._use(bench, tmp_path, "run-1"))  # what is loaded once is no leak
            before = _resources()
            await self._in_time(self._use(bench, tmp_path, "run-2"))
            assert _resources() == before

    async def _use(self, bench: Bench, folder: Path, run_id: str) -> None:
        async with self._open(bench, folder) as opened:
            lost = asyncio.create_task(opened.driver.lost(), name="lost")
            await opened.driver.execute(self._run(run_id), bench.good)
        await asyncio.wait([lost])
        assert lost.cancelled() or lost.exception() is None

    # Check

    async def test_a_program_out_of_limits_is_refused_with_value_limit_and_unit(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            with raises(NotAcceptableError) as caught:
                bench.plugin.check(bench.machine, self._step(bench), bench.bad)
            refusal = caught[0]
            assert all((refusal.what, str(refusal.value), str(refusal.limit), refusal.unit))
            again = pickle.loads(pickle.dumps(refusal))
            assert isinstance(again, NotAcceptableError)
            assert str(again) == str(refusal)
            assert bench.acts() == 0

    async def test_a_check_can_be_carried_out_in_another_process(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            asked = (bench.plugin, bench.machine, self._step(bench), bench.good)
            plugin, machine, step, program = pickle.loads(pickle.dumps(asked))
            assert machine == bench.machine
            prediction = plugin.check(machine, step, program)
            assert pickle.loads(pickle.dumps(prediction)) == prediction
            assert bench.acts() == 0

    async def test_configuration_refuses_unknown_keys_and_preflight_finds_the_machine(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            for shape in (bench.plugin.connection, bench.plugin.limits):
                assert shape.model_config.get("extra") == "forbid"
            bench.plugin.preflight(bench.machine)
            assert bench.acts() == 0


def _resources() -> tuple[int, frozenset[str], frozenset[str]]:
    """Open file descriptors, names of tasks other than the caller's, names of threads."""
    current = asyncio.current_task()
    tasks = frozenset(task.get_name() for task in asyncio.all_tasks() if task is not current)
    threads = frozenset(t.name for t in threading.enumerate() if not t.name.startswith(_POOL_THREAD))
    return len(list(Path("/proc/self/fd").iterdir())), tasks, threads
