"""How a site is told: what needs a hand first, and the level that is the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.cli import conditions, text
from edge.cli import status as cli_status
from edge.errors import UsageError
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.journal.worktime import Moment
from edge.model.event import Draft, EventKind
from edge.reading import status, views
from tests.journal_kit import JOB, SITE, accepted, began, cleared, ended, online, overran, released, suspended, ticking

CONFIGURED = [
    {"id": "prn-1", "driver": "gcode", "processes": ["fdm"], "properties": {"material": "PLA", "nozzle_mm": 0.4}}
]
CLOCK = {"now": "2026-11-21T10:00:00.000Z", "trust": "trusted"}
DAEMON = {"pid": 1, "version": "0", "since": "2026-11-21T10:00:00.000Z", "clock": CLOCK}
IDLE, EXECUTE = ({"state": state, "detail": ""} for state in ("IDLE", "EXECUTE"))


@pytest.fixture
def tell(tmp_path: Path) -> Callable[..., Any]:
    """The document of a site whose journal has these drafts."""

    async def told(
        *drafts: Draft, daemon: Any = DAEMON, live: Any = IDLE, waits: Any = None, trouble: str = "", storage: Any = ()
    ) -> Any:
        async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
            for draft in drafts:
                await journal.record([draft])
        with views.open_readonly(tmp_path) as snapshot:
            seen = {"prn-1": live} if daemon else {}
            return status.document(snapshot, CONFIGURED, daemon, seen, waits or {}, trouble, storage)

    return told


def kinds(found: Any) -> list[str]:
    return [item["kind"] for item in found["attention"]]


async def test_a_site_where_nothing_is_to_be_done_is_level_0(tell) -> None:
    found = await tell(online())
    assert (found["level"], found["attention"]) == (0, [])
    assert found["machines"] == [
        {
            "id": "prn-1",
            "driver": "gcode",
            "processes": ["fdm"],
            "properties": {
                "material": {"value": "PLA", "configured": "PLA", "loaded": None},
                "nozzle_mm": {"value": 0.4, "configured": 0.4, "loaded": None},
            },
            "identity": None,
            "progress": None,
            "temperatures": {},
            "readings": {},
            "conditions": [],
            "link": None,
            "message": None,
            "state": "IDLE",
            "detail": "",
            "run": None,
            "needs_clearing": None,
            "maintenance": None,
        }
    ]


async def test_a_running_job_needs_nobody(tell) -> None:
    found = await tell(accepted(), began(), live={"state": "EXECUTE", "detail": ""})
    assert (found["level"], found["attention"]) == (0, [])
    assert found["machines"][0]["run"]["job_id"] == JOB
    screen = cli_status.screen(found)
    assert "    on prn-1" in screen
    assert "berlin-1: all is well   (event 2, " in screen[0]


async def test_a_finished_part_waits_for_somebody_to_take_it_off(tell) -> None:
    found = await tell(accepted(), began(), ended("run-1", "SUCCEEDED"))
    assert (found["level"], kinds(found)) == (1, ["needs_clearing"])
    assert "      edge machine clear prn-1" in cli_status.screen(found)
    found = await tell(cleared("run-1"))
    assert found["level"] == 0


async def test_a_machine_that_is_out_of_service_says_who_did_it_and_what_ends_it(tell) -> None:
    body = {"reason": "made safe", "made_safe": True}
    found = await tell(online(), Draft(EventKind.MAINTENANCE_BEGAN, "user:ada", body, machine="prn-1"))
    assert (found["level"], kinds(found)) == (1, ["maintenance"])
    assert found["machines"][0]["maintenance"].keys() == {"by", "since", "reason"}
    screen = " ".join(" ".join(cli_status.screen(found)).split())
    assert "! prn-1 is out of service by ada since 2026-11-21 10:00 UTC: made safe; it takes no work" in screen
    assert "edge machine maintain prn-1 --end" in screen
    assert "IDLE!" in screen
    found = await tell(Draft(EventKind.MAINTENANCE_ENDED, "user:ada", {"reason": ""}, machine="prn-1"))
    assert (found["level"], found["machines"][0]["maintenance"]) == (0, None)


async def test_a_run_that_takes_too_long_says_for_how_long_and_that_nothing_is_stopped(tell, monkeypatch) -> None:
    monkeypatch.setattr(views, "_now", lambda: Moment("2026-11-21T12:00:00.000Z", 8_402_500, "boot-1", False))
    found = await tell(accepted(), began(), overran(), live=EXECUTE)
    assert (found["level"], kinds(found)) == (1, ["overrun"])
    (item,) = found["attention"]
    assert item["text"] == (
        f"job {JOB}, part 1, step print: its run on prn-1 has been at work for 2 h 03 min, longer than its limit of"
        " 60 min (30 min predicted); nothing is stopped by itself: look at the machine"
    )
    assert (item["command"], item["machine"], item["run_id"]) == (f"edge why {JOB}", "prn-1", "run-1")
    assert found["machines"][0]["run"]["overrun"] == {
        "since": "2026-11-21T10:00:02.000Z",
        "worked_s": 7401.0,
        "limit_s": 3600.0,
        "predicted_s": 1800.0,
    }
    screen = cli_status.screen(found)
    assert "EXECUTE+" in "".join(screen)
    assert "  + its run has been at work for longer than its limit" in screen
    assert "on prn-1: it has been at work for 2 h 03 min, longer than" in " ".join(" ".join(screen).split())


async def test_a_run_that_takes_too_long_is_not_told_of_while_it_waits_or_nobody_looks(tell) -> None:
    found = await tell(accepted(), began(), overran(), suspended(), live={"state": "HELD", "detail": ""})
    assert (found["level"], kinds(found)) == (0, [])
    assert kinds(await tell(released(), live={"state": "OFFLINE", "detail": ""})) == ["unwatched_run"]
    assert kinds(await tell(daemon=None)) == ["unwatched_run", "no_daemon"]
    assert kinds(await tell(live=EXECUTE)) == ["overrun"]
    found = await tell(ended("run-1", "SUCCEEDED"))
    assert kinds(found) == ["needs_clearing"]


async def test_a_held_step_needs_a_decision(tell) -> None:
    found = await tell(accepted(), began(), ended("run-1", "FAILED", "none"))
    assert (found["level"], kinds(found)) == (1, ["held"])


async def test_an_unknown_run_is_unsafe_and_comes_first(tell) -> None:
    found = await tell(accepted(), began(), ended("run-1", "UNKNOWN"))
    assert (found["level"], kinds(found)) == (2, ["unknown_run", "needs_clearing"])
    assert "UNSAFE" in cli_status.screen(found)[0]


async def test_a_run_that_nobody_watches_is_unsafe(tell) -> None:
    found = await tell(accepted(), began(), daemon=None)
    assert (found["level"], kinds(found)) == (2, ["unwatched_run", "no_daemon"])
    assert found["attention"][0]["command"] == "edge run"
    assert found["machines"][0]["state"] == "UNKNOWN"


async def test_a_run_on_a_machine_that_cannot_be_reached_is_unsafe_with_the_daemon_alive(tell) -> None:
    found = await tell(accepted(), began(), live={"state": "OFFLINE", "detail": "the cable is out"})
    assert (found["level"], kinds(found)[0]) == (2, "unwatched_run")
    assert "cannot be reached: the cable is out" in found["attention"][0]["text"]


async def test_the_age_is_that_of_the_oldest_thing_seen() -> None:
    heat = {"actual_degc": 20.0, "target_degc": 0.0}
    machine = {
        **dict.fromkeys(("progress", "link", "needs_clearing", "maintenance", "run")),
        "id": "prn-1",
        "state": "IDLE",
        "temperatures": {"T": {**heat, "age_s": 1.0}, "B": {**heat, "age_s": 90.0}},
        "properties": {},
    }
    assert " 90 s " in cli_status.machine_lines([machine])[1]


@pytest.mark.parametrize("dangerous", ["\x1b[2J", "\x9b2J", "\x07", "\u202e"])
def test_nothing_that_others_wrote_commands_the_terminal(dangerous) -> None:
    said = f"jam{dangerous}med"
    shown = [*text.wrap(said, "  "), text.clip(said, 80), *text.table(["A", "B"], [[said, said]])]
    assert all("jam\N{REPLACEMENT CHARACTER}" in line for line in (*shown[:2], shown[-1]))
    assert all(line.isprintable() for line in shown)


def test_what_is_wrong_fits_a_terminal_and_is_one_line_for_a_program(monkeypatch: Any, capsys: Any) -> None:
    problem = "/etc/edge/site.toml: machines[3].connection.port: " + "is not what it has to be, " * 5 + "\033[2J"
    text.complain(problem)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edge: /etc/edge/site.toml: ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    text.complain(problem)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= text.WIDTH
    assert " ".join(" ".join(lines).split()) == line
    assert "\033" not in line


async def test_a_dead_daemon_alone_needs_a_hand(tell) -> None:
    found = await tell(online(), daemon=None)
    assert (found["level"], kinds(found)) == (1, ["no_daemon"])


async def test_nothing_planned_is_unsafe_for_no_stop_would_reach_a_machine(tell) -> None:
    found = await tell(online(), trouble="the journal cannot be read")
    assert (found["level"], kinds(found)) == (2, ["not_planning"])
    assert "the journal cannot be read" in " ".join(cli_status.screen(found))


@pytest.mark.parametrize(
    ("live", "text"),
    [
        ({"state": "OFFLINE", "detail": "unplugged"}, "prn-1 is OFFLINE: unplugged"),
        ({"state": "STOPPED", "detail": "the journal cannot be written"}, "prn-1 is STOPPED: the journal cannot"),
        ({"state": "ABORTED", "detail": ""}, "prn-1 is ABORTED"),
    ],
)
async def test_a_machine_that_takes_no_work_needs_a_hand(tell, live: dict, text: str) -> None:
    found = await tell(online(), live=live)
    assert found["level"] == 1
    assert found["attention"][0]["text"].startswith(text)


@pytest.mark.parametrize(
    ("codes", "level"),
    [
        (["no_program"], 1),
        (["requirement", "program_refused"], 1),
        (["requirement", "busy"], 0),
        (["not_before"], 0),
        (["no_program", "busy"], 1),
    ],
)
async def test_a_job_that_will_not_start_by_itself_needs_a_hand(tell, codes: list[str], level: int) -> None:
    waits = {JOB: [{"code": code, "text": f"because {code}", "command": ""} for code in codes]}
    found = await tell(accepted(), waits=waits)
    assert found["level"] == level
    assert kinds(found) == ["waiting"] * level
    assert f"    waits: because {codes[0]}" in cli_status.screen(found)


def test_a_site_that_has_never_run_says_how_to_begin() -> None:
    found = status.without_journal("berlin-1", CONFIGURED) | {"daemon_missing": "the daemon is not running"}
    screen = cli_status.screen(found)
    assert found["level"] == 1
    assert "      edge run" in screen
    assert any(line.startswith("  prn-1    UNKNOWN") for line in screen)


async def test_a_full_screen_fits_a_terminal(tell) -> None:
    live = {
        "state": "EXECUTE",
        "detail": "",
        "progress": {"done": 333, "total": 1000, "unit": "commands", "age_s": 0.1},
        "temperatures": {name: {"actual_degc": 199.9, "target_degc": 200.0, "age_s": 0.5} for name in ("T", "B")},
        "link": {"resends": 100, "time_outs": 23},
    }
    waits = {JOB: [{"code": "busy", "text": "because " + "of many words " * 20, "command": ""}]}
    found = await tell(accepted(), began(), live=live, waits=waits)
    screen = cli_status.screen(found)
    assert max(map(len, screen)) <= 80
    (row,) = [line for line in screen if line.startswith("  prn-1")]
    assert row.split() == [
        "prn-1",
        "EXECUTE",
        "33",
        "%",
        "T",
        "200/200",
        "B",
        "200/200",
        "123",
        "0",
        "s",
        f"…{JOB[-8:]}",
    ]


async def test_a_machine_that_heats_for_no_run_is_told(tell) -> None:
    heat = {"T": {"actual_degc": 199.9, "target_degc": 200.0, "age_s": 0.5}}
    found = await tell(online(), live=IDLE | {"temperatures": heat})
    assert (found["level"], kinds(found)) == (1, ["heating"])
    assert "prn-1 heats T to 200 degC, and no run is going on" in found["attention"][0]["text"]
    assert found["attention"][0]["command"] == "edge make-safe prn-1"
    cold = {"T": {"actual_degc": 199.9, "target_degc": 0.0, "age_s": 0.5}}
    assert (await tell(live=IDLE | {"temperatures": cold}))["level"] == 0


async def test_what_keeps_files_from_coming_wants_a_hand(tell) -> None:
    found = await tell(online(), storage=["the spool directory /media/stick: No such file or directory"])
    assert (found["level"], kinds(found)) == (1, ["storage"])


async def test_a_job_whose_program_comes_needs_nobody(tell) -> None:
    waits = {JOB: [{"code": "fetching", "text": "its program body.gcode is being fetched: 3 %", "command": ""}]}
    assert kinds(await tell(online(), accepted(), waits=waits)) == []


async def test_the_page_of_a_machine_says_what_it_does_and_what_keeps_it_from_the_next_job(tell) -> None:
    progress = {"done": 1, "total": 2, "unit": "stages", "age_s": 0.1}
    heat = {"T": {"actual_degc": 95.2, "target_degc": 200.0, "age_s": 0.4}}
    live = {"state": "EXECUTE", "detail": "", "progress": progress, "temperatures": heat}
    working = await tell(accepted(), began(), live=live)
    page = conditions.machine_page(working["machines"][0])
    assert f"  job: {JOB}" in page
    assert "  done: begun" in page, "nobody makes a share of two stages"
    assert "  T: 95 degC, to be 200 (0 s ago)" in page

    over = await tell(ended("run-1", "SUCCEEDED"))
    out = {"by": "user:ada", "since": CLOCK["now"], "reason": "a new nozzle"}
    machine = over["machines"][0] | {"maintenance": out}
    machine |= {"conditions": [condition("s1", active=True, refused="reset it first"), condition("a1", active=True)]}
    page = conditions.machine_page(machine)
    assert any("severity 700; reset it first)" in line for line in page)
    assert "      edge machine clear prn-1" in page
    assert "      edge machine maintain prn-1 --end" in page


def condition(token: str, *, active: bool, refused: str = "", alone: bool = False) -> dict[str, Any]:
    told = {"token": token, "text": "door", "severity": 700, "active": active, "acknowledged": False}
    return told | {"refused": refused, "alone": alone}


@pytest.mark.parametrize(
    ("there", "meant"),
    [
        ([condition("s1", active=False), condition("a1", active=False)], ["a1", "s1"]),
        ([condition("s1", active=False), condition("a1", active=True)], ["s1"]),
        ([condition("s1", active=False), condition("a1", active=False, alone=True)], ["s1"]),
        ([condition("a1", active=True)], ["a1"]),
        ([condition("a1", active=False, alone=True)], ["a1"]),
        ([condition("s1", active=True, refused="reset it first"), condition("a1", active=True)], None),
        ([], None),
    ],
)
def test_who_names_no_condition_means_the_only_one_or_all_that_are_over(there, meant) -> None:
    machine = {"id": "robot-1", "conditions": there}
    if meant is None:
        with pytest.raises(UsageError):
            conditions.meant(machine)
    else:
        assert conditions.meant(machine) == meant
