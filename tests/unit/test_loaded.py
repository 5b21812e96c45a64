"""What is loaded in a machine: the word of a person, in the journal, and what it is held against."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.cli import events
from edge.cli import load as cli_load
from edge.cli import status as cli_status
from edge.errors import IllegalTransitionError, UsageError
from edge.intake.timekeeping import TimeKeeper
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind
from edge.model.loaded import MAX_TEXT, Loaded, checked, counting, typed
from edge.model.machine import Value
from edge.reading.views import open_readonly
from edge.running.loads import record_overtaken
from edge.serving.site import Site
from edge.sitefile import SiteFile
from tests.helpers.pruning import acknowledge, hourly, pruner, work
from tests.helpers.rig import Rig, rig, working_rig
from tests.helpers.trust import step_document
from tests.journal_kit import SITE, loaded, online, ticking

OWN: dict[str, Value] = {"material": "PLA", "nozzle_mm": 0.4, "enclosed": False, "axes": 3}


# What may be said


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"material": "PETG"}, {"material": "PETG"}),
        ({"material": " PLA Silk "}, {"material": "PLA Silk"}),
        ({"nozzle_mm": "0.6", "axes": "5"}, {"nozzle_mm": 0.6, "axes": 5}),
        ({"nozzle_mm": 1, "axes": "-4.5e-1"}, {"nozzle_mm": 1, "axes": -0.45}),
        ({"enclosed": "True"}, {"enclosed": True}),
        ({"enclosed": True}, {"enclosed": True}),
        ({"material": "0.4"}, {"material": "0.4"}),
    ],
)
def test_a_value_is_read_as_the_configured_one_is(said: dict[str, object], found: dict[str, Value]) -> None:
    made = checked("prn-1", said, OWN)
    assert (made, [type(value) for value in made.values()]) == (found, [type(value) for value in found.values()])


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"colour": "red"}, "prn-1 has no property 'colour'; site.toml names these for it: material, nozzle_mm,"),
        ({}, "say what is loaded in prn-1, as material=PLA"),
        (None, "say what is loaded in prn-1, as material=PLA"),
        ({"material": ""}, "material is '', must be a text of 1 to 200 printable characters"),
        ({"material": "x" * (MAX_TEXT + 1)}, "material is 'xxx"),
        ({"material": "P\x1b[2JLA"}, "material is 'P\\x1b[2JLA', must be a text"),
        ({"material": 5}, "material is 5, must be a text"),
        ({"nozzle_mm": "0,6"}, "nozzle_mm is '0,6', must be a number, such as 0.4"),
        ({"nozzle_mm": "nan"}, "nozzle_mm is 'nan', must be a number"),
        ({"nozzle_mm": "1e999"}, "nozzle_mm is '1e999', must be a number"),
        ({"nozzle_mm": "1" * 400}, "nozzle_mm is '111"),
        ({"nozzle_mm": "1_0"}, "nozzle_mm is '1_0', must be a number"),
        ({"nozzle_mm": float("inf")}, "nozzle_mm is inf, must be a number"),
        ({"nozzle_mm": True}, "nozzle_mm is True, must be a number"),
        ({"nozzle_mm": None}, "nozzle_mm is None, must be a number"),
        ({"axes": 2**53}, "axes is 9007199254740992, must be a number"),
        ({"enclosed": "yes"}, "enclosed is 'yes', must be true or false"),
        ({"enclosed": 1}, "enclosed is 1, must be true or false"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_says_what_is_right(said: object, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked("prn-1", said, OWN)
    assert str(caught.value).startswith(complaint)


def test_a_machine_without_properties_takes_none() -> None:
    with pytest.raises(UsageError, match=r"mill-1 has no properties: site\.toml names none for it"):
        checked("mill-1", {"material": "PLA"}, {})
    assert typed("axes", "3", 4.0) == 3


# The journal


async def test_the_newest_word_on_each_property_counts(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        await journal.record([online(), loaded(material="PETG", nozzle_mm=0.6), loaded("mill-1", material="steel")])
        await journal.record([loaded(material="ABS", actor="user:bob")])
        found = await journal.transact(lambda transaction: transaction.loaded("prn-1"))
        assert await journal.transact(lambda transaction: transaction.loaded("prn-9")) == {}
        assert (await journal.verify()).problems == ()
    assert {name: (one.value, one.configured, one.by) for name, one in found.items()} == {
        "material": ("ABS", "PLA", "user:bob"),
        "nozzle_mm": (0.6, 0.4, "user:ada"),
    }
    assert found["material"].since > found["nozzle_mm"].since
    with open_readonly(tmp_path) as snapshot:
        assert snapshot.loaded()["prn-1"] == found
        assert snapshot.loaded().keys() == {"mill-1", "prn-1"}


async def test_only_what_was_loaded_is_overtaken(tmp_path: Path) -> None:
    overtaken = Draft(EventKind.LOAD_OVERTAKEN, "site", {"configured": {"material": "ABS"}}, machine="prn-1")
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        with pytest.raises(IllegalTransitionError, match="nobody has loaded material in prn-1"):
            await journal.record([overtaken])
        await journal.record([loaded(material="PETG", nozzle_mm=0.6), overtaken])
        assert (await journal.transact(lambda transaction: transaction.loaded("prn-1"))).keys() == {"nozzle_mm"}
        assert (await journal.verify()).problems == ()


@pytest.mark.parametrize("body", [{}, {"values": {"material": {"value": "PLA"}}}, {"values": ["material"]}])
async def test_a_load_that_says_not_all_of_it_is_not_recorded(tmp_path: Path, body: dict[str, Any]) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        with pytest.raises(IllegalTransitionError):
            await journal.record([Draft(EventKind.MACHINE_LOADED, "user:ada", body, machine="prn-1")])
        assert journal.last_seq == 0


@pytest.mark.parametrize("pruned", [False, True])
async def test_a_journal_from_before_anybody_could_load_reads_as_before(tmp_path: Path, pruned: bool) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, hourly()) as journal:
        await work(journal, 20)
        if pruned:
            await acknowledge(journal, 30)
            assert await pruner(tmp_path, journal).prune(0) == 29
    with sqlite3.connect(path) as connection:  # as an edge of format 4 has left it
        connection.execute("DROP TABLE loaded")
        connection.execute("DROP TABLE IF EXISTS base_loaded")
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'format'")
    connection.close()
    async with Journal.open(path, SITE, hourly()) as journal:
        assert await journal.transact(lambda transaction: transaction.loaded("prn-1")) == {}
        assert (await journal.verify()).problems == ()
        await journal.record([loaded(material="PETG")])
        assert (await journal.verify()).problems == ()


async def test_what_is_loaded_outlives_its_event(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, hourly()) as journal:
        await journal.record([loaded(material="PETG")])
        await work(journal, 20)
        await acknowledge(journal, 30)
        assert await pruner(tmp_path, journal).prune(0) == 29
        assert (await journal.transact(lambda transaction: transaction.loaded("prn-1")))["material"].value == "PETG"
        assert (await journal.verify()).problems == ()


# The running site


def serving(parts: Rig) -> Site:
    """The site as the API serves it, without anybody who plans."""
    time: TimeKeeper = SimpleNamespace(clock=parts.clock, row=lambda: {"trust": "trusted"})  # type: ignore[assignment]
    dispatcher: Any = SimpleNamespace(waits={}, trouble="", open=(), checks={}, given={})
    runners, equipment = {"prn-1": parts.runner}, [parts.equipment]
    return Site(parts.journal, parts.folder, None, dispatcher, equipment, runners, time, "", int, int)  # type: ignore[arg-type]


async def test_what_a_person_says_is_in_the_journal_with_the_name(tmp_path: Path) -> None:
    async with rig(tmp_path) as parts:
        site = serving(parts)
        found = await site.load("prn-1", {"material": "PETG", "nozzle_mm": "0.6"}, "user:ada")
        (event,) = parts.events("machine_loaded")
        since = event["at_wall"]
        assert found == {
            "machine": "prn-1",
            "properties": {
                "material": {"value": "PETG", "configured": "PLA", "loaded": {"by": "user:ada", "since": since}},
                "nozzle_mm": {"value": 0.6, "configured": 0.4, "loaded": {"by": "user:ada", "since": since}},
            },
            "job": None,
        }
        assert (event["actor"], event["machine"]) == ("user:ada", "prn-1")
        assert event["body"] == {
            "values": {
                "material": {"value": "PETG", "configured": "PLA"},
                "nozzle_mm": {"value": 0.6, "configured": 0.4},
            }
        }
        for machine, said, words in (
            ("prn-9", {"material": "PETG"}, "there is no machine prn-9; there are: prn-1"),
            ("prn-1", {"colour": "red"}, "prn-1 has no property 'colour'; site.toml names"),
            ("prn-1", {"material": "ABS", "nozzle_mm": "wide"}, "nozzle_mm is 'wide', must be a number"),
        ):
            with pytest.raises(UsageError, match=words):
                await site.load(machine, said, "user:ada")
        assert len(parts.events("machine_loaded")) == 1, "all of it, or nothing"
        (machine,) = (await site.state())["machines"]
        assert machine["properties"] == {"material": "PETG", "nozzle_mm": 0.6}, "the centre is told what counts"


async def test_site_toml_that_has_changed_overtakes_what_was_loaded_for_good(tmp_path: Path) -> None:
    def edited(**values: Value) -> Any:
        machine = dataclasses.replace(parts.equipment.machine, properties=values)
        return [dataclasses.replace(parts.equipment, machine=machine)]

    async with rig(tmp_path) as parts:
        await parts.journal.record([loaded(material="PETG", nozzle_mm=0.6), loaded("prn-7", material="ABS")])
        await record_overtaken(parts.journal, edited(material="PLA", nozzle_mm=0.4))
        assert parts.events("load_overtaken") == []
        await record_overtaken(parts.journal, edited(material="ABS", nozzle_mm=0.4))
        (event,) = parts.events("load_overtaken")
        assert (event["actor"], event["machine"], event["body"]) == (
            "site",
            "prn-1",
            {"configured": {"material": "ABS"}},
        )
        await record_overtaken(parts.journal, edited(material="PLA"))
        assert parts.events("load_overtaken")[1]["body"] == {"configured": {"nozzle_mm": None}}
        found = parts.ask(lambda snapshot: snapshot.loaded())
        assert found.keys() == {"prn-7"}, "what is not in site.toml now keeps what was loaded in it"
        assert counting({"material": "PLA"}, found.get("prn-1", {}))["material"].loaded is None
        assert (await parts.journal.verify()).problems == ()


# The claim


@pytest.mark.parametrize("when", ["before the claim", "while the program is checked"])
async def test_nothing_begins_on_what_was_loaded_before(
    tmp_path: Path, monkeypatch: Any, caplog: Any, when: str
) -> None:
    """The plan was made with PLA in the machine; the claim looks again."""
    async with working_rig(tmp_path) as parts:
        assignment = await parts.assignment()
        loop, verify = asyncio.get_running_loop(), parts.artifacts.verify

        def load_meanwhile(sha256: str) -> None:
            asyncio.run_coroutine_threadsafe(parts.journal.record([loaded(material="PETG")]), loop).result()
            verify(sha256)

        if when == "before the claim":
            await parts.journal.record([loaded(material="PETG")])
        else:
            monkeypatch.setattr(parts.artifacts, "verify", load_meanwhile)
        caplog.set_level("INFO", "edge.claim")
        await parts.offer(assignment)
        await parts.until(lambda: parts.runner.claimed is None)
        assert (parts.events("run_began"), parts.script.executed) == ([], [])
        assert parts.step(assignment.key.job_id)["state"] == "ALLOWED_TO_START"
        assert "something has changed: in prn-1, material is PETG (loaded 20" in caplog.text
        monkeypatch.setattr(parts.artifacts, "verify", verify)
        await parts.journal.record([loaded(material="PLA")])
        await parts.offer(assignment)
        assert (await parts.ended())["outcome"] == "SUCCEEDED"


async def test_what_the_machine_has_by_now_may_begin(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as parts:
        petg = step_document(requires={"material": "PETG", "nozzle_mm": 0.4})
        assignment = await parts.assignment(steps=[petg])
        await parts.offer(assignment)
        await parts.until(lambda: parts.runner.claimed is None)
        assert parts.events("run_began") == []
        await parts.journal.record([loaded(material="PETG")])
        await parts.offer(assignment)
        assert (await parts.ended())["outcome"] == "SUCCEEDED"


async def test_a_spool_that_is_swapped_in_the_middle_of_a_run_counts_for_the_next(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as parts:
        begun = parts.script.work_until_stopped()
        await parts.offer(await parts.assignment())
        await begun.wait()
        found = await serving(parts).load("prn-1", {"material": "PETG"}, "user:ada")
        (event,) = parts.events("run_began")
        assert found["job"] == event["job_id"]
        assert parts.events("run_ended") == []
        parts.runner.stop(event["run_id"])
        assert (await parts.ended())["outcome"] == "STOPPED"


# The terminal


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["PETG"], "'PETG' does not say what is loaded; write NAME=VALUE, as material=PETG"),
        (["=PETG"], "'=PETG' does not say what is loaded"),
        (["material="], "'material=' does not say what is loaded"),
        (["material= "], "'material= ' does not say what is loaded"),
        (["material=PLA", "material=PETG"], "material stands twice, must stand once"),
    ],
)
def test_words_that_say_nothing_are_refused(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        cli_load.said(words)


def test_a_value_may_hold_what_stands_between_name_and_value() -> None:
    assert cli_load.said(["note=a=b", "material=PLA"]) == {"note": "a=b", "material": "PLA"}


def row(**loaded_now: Value) -> dict[str, Any]:
    said = {
        name: Loaded(value, OWN[name], "user:ada", "2025-11-22T10:00:00.000Z") for name, value in loaded_now.items()
    }
    return {name: one.as_json() for name, one in counting(OWN, said).items()}


def test_a_page_says_what_counts_and_where_it_is_from() -> None:
    found = {"machine": "prn-1", "properties": row(material="PETG"), "job": "01J9"}
    lines = cli_load.page(found, said_now=True)
    assert lines[0] == "prn-1"
    assert lines[1].startswith("  material: PETG (loaded by ada, 2025-11-22 ")
    assert lines[1].endswith("; site.toml says PLA)")
    assert lines[2:4] == ["  nozzle_mm: 0.4 (as site.toml says)", "  enclosed: false (as site.toml says)"]
    assert lines[-1] == "  job 01J9 goes on as it began; this counts for what begins after it"
    assert "job" not in " ".join(cli_load.page(found, said_now=False))
    nothing = cli_load.page({"machine": "m", "properties": {}, "job": None}, said_now=False)
    assert nothing == ["m", "  site.toml names no properties for it, so nothing can be loaded"]


def test_a_machine_shows_what_was_loaded_and_all_of_it_if_asked() -> None:
    empty: dict[str, Any] = {
        **dict.fromkeys(("progress", "link", "needs_clearing", "maintenance", "run")),
        "id": "prn-1",
        "state": "IDLE",
        "temperatures": {},
    }
    machines = [empty | {"properties": row(material="PETG")}, empty | {"id": "prn-2", "properties": row()}]
    lines = cli_status.machine_lines(machines)
    assert [line.split()[0] for line in lines] == ["MACHINE", "prn-1", "material", "prn-2"]
    assert lines[2] == "    material PETG (loaded by ada)"
    lines = cli_status.machine_lines(machines, properties=True)
    assert lines[2] == "    material PETG (loaded by ada), nozzle_mm 0.4, enclosed false, axes 3"
    assert lines[4] == "    material PLA, nozzle_mm 0.4, enclosed false, axes 3"


def test_an_event_line_says_what_was_loaded() -> None:
    event = {
        "seq": 7,
        "at_wall": "2026-11-22T10:00:00.000Z",
        "kind": "machine_loaded",
        "machine": "prn-1",
        "job_id": None,
        "actor": "user:ada",
        "body": {"values": {"material": {"value": "PETG", "configured": "PLA"}, "enclosed": {"value": True}}},
    }
    assert events.line(event, whole=True).endswith("machine_loaded  prn-1  (user:ada)  material=PETG, enclosed=true")


def test_an_event_line_says_what_overtook_a_load() -> None:
    event = {
        "seq": 8,
        "at_wall": "2026-11-22T10:00:00.000Z",
        "kind": "load_overtaken",
        "machine": "prn-1",
        "job_id": None,
        "actor": "site",
        "body": {"configured": {"material": "ABS", "nozzle_mm": None}},
    }
    assert events.line(event, whole=True).endswith("load_overtaken  prn-1  (site)  material=ABS, no nozzle_mm")


def test_tables_of_site_toml_that_nobody_has_checked_give_what_they_can(tmp_path: Path) -> None:
    tables = {"machines": [{"id": "a", "properties": {"x": 1, "y": [], "z": "b"}}, {"id": "b", "properties": 3}]}
    file = SiteFile(tmp_path / "site.toml", SITE, tmp_path, tmp_path / "s", tables)
    assert [one["properties"] for one in cli_status.configured(file)] == [{"x": 1, "z": "b"}, {}]
