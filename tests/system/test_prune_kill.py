"""Pruning, killed at any moment and cut off at any place: the old or the new state, and nothing gone too early."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from edge.journal.journal import Journal
from edge.journal.prune import Bench, carrying_out, last_to_go
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from tests import second_verifier
from tests.helpers.pruning import KEEP_DAYS, LATER, acknowledge, hourly, work
from tests.journal_kit import SITE, root_of_project, ticking
from tests.system.test_journal_kill import FRAME_BYTES, copy_to, log_of, places

KILLS = 12


def work_until(folder: Path, first: int, lines: int) -> list[list[str]]:
    """What a worker said before it was killed after so many lines."""
    command = [sys.executable, "-m", "tests.system.prune_killed", str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root_of_project()) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if len(said) == lines:
                process.kill()
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.timeout(240)
async def test_killed_at_any_moment_nothing_is_gone_that_was_not_acknowledged(tmp_path: Path) -> None:
    moments = random.Random(20261122)
    acked, pruned, first = 0, [0], 0
    said: dict[int, str] = {}
    bound: dict[str, str] = {}
    for _ in range(KILLS):
        for what, name, *value in work_until(tmp_path, first, moments.randint(100, 700)):
            match what:
                case "event":
                    said[int(name)] = value[0]
                case "acked":
                    acked = int(name)
                case _:
                    bound[name] = value[0]
                    first = int(name.removeprefix("job-")) + 2
        async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
            report = await journal.verify()
            assert report.problems == ()
            assert second_verifier.verify(tmp_path / FILE_NAME) == (report.events, "")
            begins = report.pruned.seq
            here = dict(await journal.transact(_hashes))
            for name, digest in bound.items():
                assert await journal.transact(lambda t, name=name: t.digest_of(name)) == digest
        assert begins >= pruned[-1]
        pruned.append(begins)
        # An acknowledgement may be durable and not said.
        assert begins < max([acked, *said])
        assert {seq: digest for seq, digest in said.items() if seq > begins}.items() <= here.items()
        assert min(here) == begins + 1
    assert pruned[-1] > 100
    assert len(set(pruned)) > KILLS // 2, "it was killed while it went on"


def _hashes(transaction: Transaction) -> list[tuple[int, str]]:
    return transaction.connection.execute("SELECT seq, hash FROM events").fetchall()


async def test_a_power_cut_while_a_step_is_written_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, hourly()) as journal:
        await journal.transact(lambda t: t.connection.execute("PRAGMA wal_autocheckpoint=0").fetchall())  # one long log
        await work(journal, 60)
        await acknowledge(journal)
        upto = last_to_go(path, LATER, timedelta(days=KEEP_DAYS))
        bench = Bench(path)
        log = b""
        for number in range(2):  # the first makes the tables, the second changes them
            before, begins = log_of(path).stat().st_size, (await journal.verify()).pruned.seq
            step = bench.fold(upto)
            assert step is not None
            await journal.transact(carrying_out(step, "2027-06-01T00:00:00.000Z"))
            log = log_of(path).read_bytes()
            assert len(log) > before + FRAME_BYTES, "a commit of several frames"
            cuts = places(before, len(log))
            for cut, place in enumerate([*cuts[:: max(1, len(cuts) // 40)], len(log)]):
                copied = copy_to(path, tmp_path / f"cut-{number}-{cut}", log[:place])
                async with Journal.open(copied, SITE, ticking()) as found:
                    report = await found.verify()
                    assert report.problems == ()
                    assert report.head.seq == journal.last_seq
                    assert report.pruned.seq == (step.after.head.seq if place == len(log) else begins), place
        bench.close()
