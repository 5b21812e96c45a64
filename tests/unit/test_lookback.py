"""A journal without what its witnesses name is held; the right one is not, whenever the power was cut."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import IllegalTransitionError, JournalError
from edge.folders import HEAD
from edge.journal import base, chain
from edge.journal.chain import Base, Head
from edge.journal.headfile import HeadFile, Promise
from edge.journal.journal import Journal, parked
from edge.journal.lookback import Witnesses, missing
from edge.journal.restored import begin_anew
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from tests import second_verifier
from tests.helpers.pruning import acknowledge, pruner, work
from tests.journal_kit import (
    SITE,
    accepted,
    began,
    cancelled,
    ended,
    envelope,
    foreign,
    hold,
    online,
    order,
    refused,
    ticking,
)

CONFIRMED = Draft(EventKind.JOURNAL_CONFIRMED, "user:ada", {"reason": "looked"})


class Site:
    """The state directory, and the runtime directory of one boot."""

    def __init__(self, folder: Path) -> None:
        self.state, self.runtime = folder / "state", folder / "runtime"
        for directory in (self.state, self.runtime):
            directory.mkdir()
        self.file = self.state / FILE_NAME
        self.boot_id = "boot-1"
        self.held = ""
        self.have_watched = False

    @contextlib.asynccontextmanager
    async def running(self, *, first: bool = False) -> AsyncIterator[Journal]:
        """As the daemon opens its journal, and closes it in order."""
        witnesses = Witnesses(self.state, self.runtime, self.boot_id)
        async with Journal.open(self.file, SITE, ticking()) as journal:
            journal.bind(witnesses.keep)
            self.held = await witnesses.look_back(journal, is_first_start=first)
            self.have_watched = witnesses.have_watched
            await journal.record([Draft(EventKind.SITE_STARTED, "site", {})])
            await witnesses.kept(journal)
            yield journal
            await journal.record([Draft(EventKind.SITE_STOPPED, "site", {})])
        witnesses.close()

    def boot(self) -> None:
        shutil.rmtree(self.runtime)
        self.runtime.mkdir()
        self.boot_id = "boot-2"

    def copy(self, target: Path) -> Path:
        return Path(shutil.copytree(self.state, target))

    def put_back(self, copy: Path, pattern: str = f"{FILE_NAME}*") -> None:
        for old in self.state.glob(pattern):
            old.unlink()
        for file in copy.glob(pattern):
            shutil.copyfile(file, self.state / file.name)

    def promised(self, directory: Path | None = None) -> int:
        file = HeadFile((directory or self.state) / HEAD)
        file.read()
        assert file.promise is not None
        return file.promise.seq


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def kinds(transaction: Transaction) -> list[str]:
    return [row[0] for row in transaction.connection.execute("SELECT kind FROM events ORDER BY seq")]


async def begin(journal: Journal, **where: Any) -> None:
    await journal.record([began(**where)])


async def test_a_site_that_stops_and_starts_is_not_held(site: Site) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
    for _ in range(3):
        async with site.running() as journal:
            await journal.record([accepted(order(f"job-{journal.last_seq}"))])
            assert site.held == ""
    assert site.promised() == site.promised(site.runtime) > 6


async def test_an_old_copy_is_held_and_says_what_is_missing(site: Site, tmp_path: Path) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        before, idents = journal.ident, set()
    old = site.copy(tmp_path / "old")
    async with site.running() as journal:
        await begin(journal)
        await journal.record([ended("run-1", "SUCCEEDED")])
    promised = site.promised()
    good = site.copy(tmp_path / "good")
    site.put_back(old)
    for _ in range(2):
        async with site.running() as journal:
            idents.add(journal.ident)
            assert f"says that event {promised} of journal {before[:8]} was recorded here" in site.held
            assert "and this file ends with event 3: it is an old copy" in site.held
            assert "may have been carried out" in site.held
            with pytest.raises(IllegalTransitionError, match="nothing begins before somebody confirms"):
                await begin(journal, run_id="again")
            assert (await journal.transact(kinds)).count("journal_held") == 1
            assert site.promised() == promised, "the right journal can still come back"
    assert len(idents - {before}) == 1, "it goes on under one new id"
    held = site.copy(tmp_path / "held")
    site.put_back(good)
    async with site.running():
        assert site.held == ""
    site.put_back(held)
    async with site.running() as journal:
        assert site.held
        await journal.record([CONFIRMED])
        await begin(journal, run_id="again")
        assert site.promised() == journal.last_seq
        await journal.record([ended("again", "SUCCEEDED")])
    async with site.running():
        assert site.held == ""


async def test_a_power_cut_between_a_confirmation_and_the_head_asks_once_more(site: Site, tmp_path: Path) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        before = journal.ident
    old = site.copy(tmp_path / "old")
    async with site.running() as journal:
        await begin(journal)
    promised = site.promised()
    site.put_back(old)
    async with site.running() as journal:
        second = journal.ident
        journal._store.after_commit = lambda connection: None  # from here on the power is off
        await journal.record([CONFIRMED])
        assert site.promised() == promised
    async with site.running() as journal:
        assert "it went on from an old copy" in site.held
        with pytest.raises(IllegalTransitionError, match="nothing begins before somebody confirms"):
            await begin(journal, run_id="again")
        await journal.record([CONFIRMED])
        assert len({before, second, journal.ident}) == 3
    async with site.running() as journal:
        assert site.held == ""
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(site.file) == (journal.last_seq, "")
        await begin(journal, run_id="again")


async def test_an_old_copy_that_is_pruned_past_the_missing_event_is_held_until_it_is_confirmed(
    site: Site, tmp_path: Path
) -> None:
    async with site.running(first=True) as journal:
        await work(journal, 3)
    old = site.copy(tmp_path / "old")
    async with site.running() as journal:
        await work(journal, 3, first=100)
    promised = site.promised()
    site.put_back(old)
    async with site.running() as journal:
        ident = journal.ident
        for _ in range(promised):
            await journal.record([online()])
        await acknowledge(journal)
        await pruner(site.state, journal).prune(0)
        assert (await journal.verify()).pruned.seq > promised
    async with site.running() as journal:
        assert "it is an old copy" in site.held
        assert (journal.ident, site.promised()) == (ident, promised)
        assert (await journal.verify()).problems == ()
        await journal.record([CONFIRMED])
        assert site.promised() == journal.last_seq
    async with site.running() as journal:
        assert (site.held, journal.ident) == ("", ident)
        await work(journal, 1, first=200)
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(site.file)[1] == ""


async def test_what_the_collector_found_out_is_not_found_again(site: Site) -> None:
    """The head file names an event of the old id, which the journal still has under the new one."""
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        await journal.transact(lambda transaction: begin_anew(transaction, "the collector has more", "site"))
        ident = journal.ident
    for _ in range(2):
        async with site.running() as journal:
            assert (site.held, journal.ident) == ("the collector has more", ident)
            assert (await journal.transact(kinds)).count("journal_held") == 1
    async with site.running() as journal:
        await journal.record([CONFIRMED])
    async with site.running() as journal:
        assert (site.held, journal.ident) == ("", ident)


@pytest.mark.parametrize(
    ("pruned", "hash_of", "id_of", "had"),
    [
        pytest.param(9, "a", "now", True, id="pruned long ago, of this id"),
        pytest.param(9, "a", "before", True, id="pruned long ago, of an id that it had then"),
        pytest.param(9, "a", "long before", False, id="pruned long ago, of an id that it had no more"),
        pytest.param(9, "a", "other", False, id="pruned long ago, of another journal"),
        pytest.param(5, "base", "now", True, id="the newest that was pruned"),
        pytest.param(5, "a", "now", False, id="another than the newest that was pruned"),
    ],
)
async def test_an_event_that_was_pruned_is_not_missed(
    site: Site, pruned: int, hash_of: str, id_of: str, had: bool
) -> None:
    async with site.running(first=True) as journal:
        ids = {"now": journal.ident, "before": "b" * 32, "long before": "a" * 32, "other": "c" * 32}
        hashes = {"a": "a" * 64, "base": "d" * 64}
        promise = Promise(1, ids[id_of], 5, hashes[hash_of], "boot-1")

        def look(transaction: Transaction) -> bool:
            connection = transaction.connection
            base.write(connection, Base(Head(pruned, hashes["base"]), journal.ident), "2026-11-22T00:00:00Z")
            for first_seq, before, after in ((3, "long before", "before"), (7, "before", "now")):
                connection.execute("INSERT INTO branches VALUES (?, ?, ?)", (first_seq, ids[after], ids[before]))
            connection.execute("DELETE FROM events WHERE seq <= 5")
            doubt = missing(connection, promise, Path("journal.head"))
            connection.execute("DELETE FROM base")
            return doubt is None

        assert await journal.transact(look) == had


async def test_a_copy_that_went_on_is_another_history(site: Site, tmp_path: Path) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
    old = site.copy(tmp_path / "old")
    async with site.running() as journal:
        await begin(journal)
    site.put_back(old)
    async with Journal.open(site.file, SITE, ticking()) as journal:  # an edge that knows nothing of heads
        for _ in range(9):
            await journal.record([online()])
    async with site.running():
        assert "this file has another event there: it went on from an old copy" in site.held


async def test_a_state_directory_that_is_put_back_as_a_whole_is_noticed_until_the_host_is_booted(
    site: Site, tmp_path: Path
) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        assert not site.have_watched
    old = site.copy(tmp_path / "old")
    async with site.running() as journal:
        assert site.have_watched
        await begin(journal)
    site.put_back(old, "*")
    async with site.running():
        assert str(site.runtime) in site.held
    site.put_back(old, "*")
    site.boot()
    async with site.running():
        assert (site.held, site.have_watched) == ("", False)  # only the collector can tell


async def test_a_witness_of_another_boot_has_not_watched_this_one(site: Site) -> None:
    async with site.running(first=True):
        pass
    site.boot_id = "boot-2"  # a runtime directory that outlives a boot
    async with site.running():
        assert (site.held, site.have_watched) == ("", False)


async def test_a_new_journal_is_held_unless_a_site_was_set_up(site: Site, tmp_path: Path) -> None:
    async with site.running():
        assert site.held.startswith("it is new, so orders that were carried out before")
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    async with other.running(first=True):
        assert other.held == ""
    other.file.unlink()
    async with other.running(first=True) as journal:  # whatever somebody has put into the directory
        assert f"and this is journal {journal.ident[:8]}" in other.held


async def test_what_had_passed_has_passed_for_a_new_journal_too(site: Site) -> None:
    async with site.running(first=True) as journal:
        await journal.record([online(), foreign("cup")])
        before = (await journal.transact(lambda transaction: transaction.known_time())).floor
    for file in site.state.glob(f"{FILE_NAME}*"):
        file.unlink()
    async with site.running() as journal:
        after = await journal.transact(lambda transaction: transaction.known_time())
        assert after.floor >= before
        assert (await journal.verify()).problems == ()


async def test_a_floor_that_two_roles_have_lowered_does_not_come_back_from_the_head(site: Site) -> None:
    body = {"digest": "d", "signers": [], "at": "2026-03-01T00:00:00.000Z", "nonce_mono_ms": 1, "boot_id": "boot-0"}
    async with site.running(first=True) as journal:
        await journal.record([Draft(EventKind.TIME_ACCEPTED, "user:ada", body | {"repairs": True})])
        file = HeadFile(site.state / HEAD)
        file.read()
        assert file.promise is not None
        assert file.promise.floor == body["at"]


async def test_a_head_that_is_gone_or_damaged_holds_a_journal_that_had_one(site: Site) -> None:
    async with site.running(first=True):
        pass
    content = (site.state / HEAD).read_bytes()
    for spoil, words in (
        (lambda path: path.unlink(), "journal.head is gone: nobody can tell"),
        (lambda path: path.write_bytes(b"?" * len(content)), "journal.head is damaged: nobody can tell"),
    ):
        spoil(site.state / HEAD)
        site.boot()
        async with site.running() as journal:
            assert words in site.held
            await journal.record([CONFIRMED])
        async with site.running():
            assert site.held == ""


async def test_a_journal_of_an_older_edge_begins_without_a_head(site: Site) -> None:
    async with Journal.open(site.file, SITE, ticking()) as journal:
        await journal.record([accepted()])
    async with site.running() as journal:
        assert site.held == ""
        assert site.promised() == journal.last_seq
        await begin(journal)


@pytest.mark.parametrize(
    ("drafts", "binds"),
    [
        ([began()], True),
        ([cancelled()], True),
        ([hold()], True),
        ([foreign("cup")], True),
        ([accepted(order("other"))], False),
        ([parked(envelope(order("other")), "usb")], False),
        ([refused("d1")], False),
        ([online()], False),
        ([online(), began()], True),
    ],
)
async def test_only_what_comes_again_may_be_missing(site: Site, drafts: list[Draft], binds: bool) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        before = site.promised()
        await journal.record(drafts)
        for directory in (site.state, site.runtime):
            assert site.promised(directory) == (journal.last_seq if binds else before)


async def test_nobody_is_told_of_a_beginning_before_the_head_has_it(site: Site) -> None:
    """Nor is the head written before the event is durable: another connection sees it."""
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        keep, seen = journal._store.after_commit, []

        def watched(connection: sqlite3.Connection) -> None:
            with contextlib.closing(sqlite3.connect(site.file)) as other:
                (durable,) = other.execute("SELECT max(seq) FROM events").fetchone()
            before = site.promised()
            keep(connection)
            seen.append((durable, before, site.promised()))

        journal._store.after_commit = watched
        (event,) = await journal.record([began()])
        assert seen == [(event.seq, event.seq - 2, event.seq)]


async def test_a_head_that_cannot_be_written_lets_nothing_begin(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])

    def full(file: HeadFile, promise: object) -> None:
        raise JournalError(f"{file.path} cannot be written: I/O error")

    witnesses = Witnesses(site.state, site.runtime, site.boot_id)
    async with Journal.open(site.file, SITE, ticking()) as journal:
        journal.bind(witnesses.keep)
        with monkeypatch.context() as patch:
            patch.setattr(HeadFile, "write", full)
            with pytest.raises(JournalError, match=r"journal\.head cannot be written"):
                await begin(journal)
        with pytest.raises(JournalError, match=r"journal\.head cannot be written"):  # until the next start
            await journal.record([online()])
    assert "nothing more is written until a restart" in caplog.text
    async with site.running() as journal:  # the run is in the journal, and nothing had moved
        assert site.held == ""
        assert len(await journal.open_runs()) == 1


async def test_a_second_witness_that_cannot_be_written_stops_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.running(first=True) as journal:
        await journal.record([accepted()])
        shutil.rmtree(site.runtime)
        await begin(journal)
        assert site.promised() == journal.last_seq
    async with site.running():
        pass
    assert "No such file" in caplog.text
    site.runtime.mkdir()
    async with site.running():
        assert (site.held, site.have_watched) == ("", False)


async def test_one_group_of_orders_writes_no_head_and_one_group_of_beginnings_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.running(first=True) as journal:
        written = []
        write = HeadFile.write
        monkeypatch.setattr(HeadFile, "write", lambda file, said: (written.append(file.path.parent), write(file, said)))
        for number in range(50):
            await journal.record([accepted(order(f"job-{number}"))])
        assert written == []

        def group(transaction: Transaction) -> chain.Head:
            for number in range(20):
                transaction.record(began(f"run-{number}", f"m-{number}", job_id=f"job-{number}"))
            return chain.EMPTY

        await journal.transact(group)
        assert written == [site.state, site.runtime]
