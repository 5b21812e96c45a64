"""The part of the contract about pause and resume; a machine that cannot be paused skips it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import SkipTest

from edge.driver import (
    Capability,
    DriverError,
    NotAcceptableError,
    OutcomeKind,
    Progress,
)
from edge.testing.bench import Bench, OnABench, Opened, raises


class PauseContract(OnABench):
    """`DriverContract` has it."""

    stillness_s: float = 0.1
    """How long a paused machine is watched, in real time: long enough for it to do something if it were not paused."""

    async def test_a_paused_run_does_nothing_and_goes_on_to_the_same_end(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._pausing(bench, tmp_path) as opened:
            running = asyncio.create_task(opened.driver.execute(self._run(), bench.good), name="run")
            await opened.context.seen(Progress, lambda progress: progress.done > 0, self.patience_s)
            await self._in_time(opened.driver.pause(self._deadline_s(opened)))
            await self._stands_still(bench, opened)
            assert not running.done(), "the good program is too short: it had ended before it was paused"
            await self._in_time(opened.driver.resume(self._deadline_s(opened)))
            assert (await self._in_time(running)).kind is OutcomeKind.SUCCEEDED
            assert list(bench.carried_out()) == list(bench.expected)

    async def test_a_run_is_paused_again_and_again_and_loses_nothing(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._pausing(bench, tmp_path) as opened:
            running = asyncio.create_task(opened.driver.execute(self._run(), bench.good), name="run")
            await asyncio.sleep(0)
            for _ in range(3):  # the first one comes before the first command
                await self._in_time(opened.driver.pause(self._deadline_s(opened)))
                await self._in_time(opened.driver.resume(self._deadline_s(opened)))
            assert (await self._in_time(running)).kind is OutcomeKind.SUCCEEDED
            assert list(bench.carried_out()) == list(bench.expected)

    async def test_pausing_a_paused_run_and_resuming_one_that_goes_on_confirms(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._pausing(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            await self._in_time(opened.driver.resume(self._deadline_s(opened)))
            pauses = [opened.driver.pause(self._deadline_s(opened)) for _ in range(3)]
            await self._in_time(asyncio.gather(*pauses))
            await self._stands_still(bench, opened)
            resumes = [opened.driver.resume(self._deadline_s(opened)) for _ in range(3)]
            await self._in_time(asyncio.gather(*resumes))
            acts = bench.acts()
            await opened.context.seen(Progress, lambda progress: bench.acts() > acts, self.patience_s)
            assert not running.done()

    async def test_a_paused_run_can_be_stopped(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._pausing(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            await self._in_time(opened.driver.pause(self._deadline_s(opened)))
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            acts = bench.acts()
            assert (await self._in_time(running)).kind is OutcomeKind.STOPPED
            assert bench.acts() == acts

    async def test_a_stop_passes_a_pause_that_is_under_way(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._pausing(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            pausing = asyncio.create_task(opened.driver.pause(self._deadline_s(opened)), name="pause")
            await asyncio.sleep(0)
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert (await self._in_time(running)).kind is OutcomeKind.STOPPED
            await self._in_time(asyncio.wait([pausing]))
            assert pausing.exception() is None or isinstance(pausing.exception(), DriverError)

    async def test_cancelling_a_paused_run_stops_the_machine(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._pausing(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            await self._in_time(opened.driver.pause(self._deadline_s(opened)))
            running.cancel()
            await self._in_time(asyncio.wait([running]))
            acts = bench.acts()
            await self._in_time(opened.driver.stop(self._deadline_s(opened)))
            assert bench.acts() == acts

    async def test_abort_ends_a_paused_run_at_once(self, tmp_path: Path) -> None:
        async with (
            self.bench(tmp_path) as bench,
            self._pausing(bench, tmp_path) as opened,
            self._running(bench, opened) as running,
        ):
            await self._in_time(opened.driver.pause(self._deadline_s(opened)))
            await self._at_once(opened.driver.abort())
            await self._ends_badly(running)

    async def test_a_machine_without_a_run_is_neither_paused_nor_resumed(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench, self._pausing(bench, tmp_path) as opened:
            for number in range(2):
                acts = bench.acts()
                for verb in (opened.driver.pause, opened.driver.resume):
                    with raises(NotAcceptableError) as caught:
                        await self._in_time(verb(self._deadline_s(opened)))
                    assert str(caught[0])
                assert bench.acts() == acts
                await self._in_time(opened.driver.execute(self._run(f"run-{number}"), bench.good))

    @asynccontextmanager
    async def _pausing(self, bench: Bench, folder: Path) -> AsyncIterator[Opened]:
        """Open a machine that can pause; one that cannot is skipped."""
        async with self._open(bench, folder) as opened:
            if Capability.PAUSE not in opened.driver.capabilities:
                raise SkipTest("this machine cannot be paused")
            yield opened

    async def _stands_still(self, bench: Bench, opened: Opened) -> None:
        """A pause is confirmed when nothing moves any more: also not while the machine answers once more."""
        acts = bench.acts()
        await asyncio.sleep(self.stillness_s)
        await self._in_time(opened.driver.pause(self._deadline_s(opened)))
        assert bench.acts() == acts, "a pause is confirmed when nothing moves any more"
