"""Any mixture of writers, failures and cancellations: each write is there once or not at all, and callers know."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.journal.store import Store

# What each caller does: whether its function fails, after how many turns of the loop it is cancelled, if at all.
callers = st.lists(st.tuples(st.booleans(), st.none() | st.integers(0, 6)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(callers, st.integers(1, 8))
def test_a_write_happens_once_or_not_at_all(plan: list[tuple[bool, int | None]], queue_limit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_carry_out(plan, queue_limit, Path(directory) / "s.sqlite"))


async def _carry_out(plan: list[tuple[bool, int | None]], queue_limit: int, path: Path) -> None:
    calls: list[int] = []
    async with Store(path, queue_limit) as store:
        await store.write(lambda connection: connection.execute("CREATE TABLE t (n INTEGER) STRICT").close())

        async def caller(number: int, fails: bool) -> None:
            def fn(connection: sqlite3.Connection) -> None:
                calls.append(number)
                connection.execute("INSERT INTO t VALUES (?)", (number,))
                if fails:
                    raise LookupError(number)

            await store.write(fn)

        tasks = [asyncio.create_task(caller(number, fails)) for number, (fails, _) in enumerate(plan)]
        for turn in range(8):
            for task, (_, cancel_at) in zip(tasks, plan, strict=True):
                if cancel_at == turn:
                    task.cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = await store.write(lambda connection: [row[0] for row in connection.execute("SELECT n FROM t")])
    assert len(set(calls)) == len(calls), "no function ran twice"
    assert len(set(kept)) == len(kept)
    for number, ((fails, _), result) in enumerate(zip(plan, results, strict=True)):
        if fails:
            assert number not in kept
            assert isinstance(result, LookupError | asyncio.CancelledError)
        elif result is None:
            assert number in kept
        else:
            assert isinstance(result, asyncio.CancelledError)
            assert (number in kept) == (number in calls), "what a cancelled caller had queued is whole or not there"
