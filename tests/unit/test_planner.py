"""Which machine does which step, and the words for why another waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edge.model.event import ClockTrust
from edge.model.loaded import Loaded, Property, counting
from edge.model.machine import MachineState, Value
from edge.model.order import AnyOf, Range
from edge.running.planner import CheckResult, CheckState, Code, MachineView, OpenStep, StepKey, plan
from edge.timefloor import Now, vouched

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SUITS = CheckResult(CheckState.SUITS)

STEP = OpenStep(
    key=StepKey("job-1", 1, "print"),
    process="fdm",
    requires={},
    program="ab" * 32,
    program_name="body.gcode",
    program_here=True,
    priority=50,
    due_at=None,
    not_before=None,
    expires_at=NOW + timedelta(days=1),
    accepted_seq=1,
)


def by_site_toml(**values: Value) -> dict[str, Property]:
    return counting(values, {})


MACHINE = MachineView("prn-1", ("fdm",), by_site_toml(material="PLA"), MachineState.IDLE)
CHECKS = {("ab" * 32, "prn-1"): SUITS, ("ab" * 32, "prn-2"): SUITS}


def step(name: str, **fields: object) -> OpenStep:
    return replace(STEP, key=StepKey(name, 1, "print"), **fields)


def waits(one: OpenStep, *machines: MachineView, checks=CHECKS) -> list[tuple[Code, str, str]]:
    """Code, text and command of each blocker of the only step."""
    made = plan([one], machines, checks, vouched(NOW))
    assert made.assignments == {}
    return [(blocker.code, blocker.text, blocker.command) for blocker in made.waits[one.key]]


def test_a_step_goes_to_the_first_machine_that_can_take_it() -> None:
    second = replace(MACHINE, id="prn-2")
    assert plan([STEP], [MACHINE, second], CHECKS, vouched(NOW)).assignments == {STEP.key: "prn-1"}
    busy = replace(MACHINE, busy_with="run-1")
    made = plan([STEP], [busy, second], CHECKS, vouched(NOW))
    assert (made.assignments, made.waits) == ({STEP.key: "prn-2"}, {})


def test_steps_go_by_priority_then_due_date_then_acceptance() -> None:
    steps = [
        step("late", accepted_seq=1),
        step("early", accepted_seq=2, due_at=NOW),
        step("earlier", accepted_seq=3, due_at=NOW - timedelta(hours=1)),
        step("urgent", accepted_seq=4, priority=51),
    ]
    order = []
    while steps:
        (taken,) = plan(steps, [MACHINE], CHECKS, vouched(NOW)).assignments
        order.append(taken.job_id)
        steps = [one for one in steps if one.key != taken]
    assert order == ["urgent", "earlier", "early", "late"]


def test_a_machine_takes_one_step_and_the_next_waits_for_it() -> None:
    made = plan([step("a", accepted_seq=1), step("b", accepted_seq=2)], [MACHINE], CHECKS, vouched(NOW))
    assert [key.job_id for key in made.assignments] == ["a"]
    assert [blocker.code for blocker in made.waits[StepKey("b", 1, "print")]] == [Code.BUSY]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"held": "held by ada: the spool looks wrong"},
            (Code.HELD, "the job is held by ada: the spool looks wrong", "edge job release job-1"),
        ),
        ({"refusal": "its key is revoked"}, (Code.UNSIGNED, "its key is revoked", "edge job cancel job-1")),
        (
            {"expires_at": NOW},
            (Code.EXPIRED, "the order was to start before 2026-11-21 12:00 UTC", "edge job cancel job-1"),
        ),
        ({"not_before": NOW + timedelta(minutes=1)}, (Code.NOT_BEFORE, "not before 2026-11-21 12:01 UTC", "")),
        (
            {"program_here": False},
            (Code.NO_PROGRAM, "the file body.gcode has not arrived", "edge job submit FILE.mfjob"),
        ),
        (
            {"program_here": False, "fetch": "34 % from files.acme"},
            (Code.FETCHING, "its program body.gcode is being fetched: 34 % from files.acme", ""),
        ),
        (
            {"program_here": False, "fetch": "0 %, waiting", "fetch_fails": True},
            (
                Code.NO_PROGRAM,
                "its program body.gcode cannot be fetched yet: 0 %, waiting",
                "edge job submit FILE.mfjob",
            ),
        ),
        ({"process": "mill"}, (Code.NO_MACHINE, "no machine here does mill", "")),
        (
            {"requires": {"material": "PETG"}},
            (
                Code.UNMET,
                "prn-1: material is PLA (site.toml), needs PETG; say so once it is in",
                "edge machine load prn-1 material=PETG",
            ),
        ),
        (
            {"requires": {"nozzle_mm": Range(max=0.4)}},
            (Code.UNMET, "prn-1: nozzle_mm is not known, needs at most 0.4; its properties are in site.toml", ""),
        ),
    ],
)
def test_what_keeps_a_step_from_starting(fields: dict, expected: tuple[Code, str, str]) -> None:
    assert waits(replace(STEP, **fields), MACHINE)[0] == expected


PRINTER = replace(MACHINE, properties=by_site_toml(material="PLA", nozzle_mm=0.4, enclosed=False))


@pytest.mark.parametrize(
    ("requires", "command"),
    [
        ({"material": "PETG", "nozzle_mm": 0.6}, "edge machine load prn-1 material=PETG nozzle_mm=0.6"),
        ({"material": "PETG", "nozzle_mm": 0.4}, "edge machine load prn-1 material=PETG"),
        ({"material": "PLA Silk; rm x"}, "edge machine load prn-1 'material=PLA Silk; rm x'"),
        ({"enclosed": True}, "edge machine load prn-1 enclosed=true"),
        ({"nozzle_mm": Range(min=0.6)}, "edge machine load prn-1 nozzle_mm=VALUE"),
        ({"material": AnyOf(any=("PETG", "ABS"))}, "edge machine load prn-1 material=PETG"),
        ({"material": AnyOf(any=(1, True))}, ""),
        ({"material": Range(min=1)}, ""),
        ({"material": 5}, ""),
        ({"material": " PETG"}, ""),
        ({"nozzle_mm": "0.6"}, ""),
        ({"material": "PETG", "colour": "red"}, ""),
    ],
)
def test_what_can_be_loaded_comes_with_its_command_and_what_cannot_is_in_site_toml(requires, command: str) -> None:
    ((code, text, found),) = waits(replace(STEP, requires=requires), PRINTER)
    assert (code, found) == (Code.UNMET, command)
    assert text.endswith("; say so once it is in" if command else "; its properties are in site.toml")


def test_who_has_loaded_the_wrong_thing_is_named() -> None:
    said = Loaded("PLA", "ABS", "user:ada", "2026-11-22T10:00:00.000Z")
    machine = replace(MACHINE, properties=counting({"material": "ABS"}, {"material": said}))
    ((_, text, _),) = waits(replace(STEP, requires={"material": "PETG"}), machine)
    assert text == "prn-1: material is PLA (loaded 2026-11-22 by ada), needs PETG; say so once it is in"
    fits = replace(STEP, requires={"material": "PLA"})
    assert plan([fits], [machine], CHECKS, vouched(NOW)).assignments == {STEP.key: "prn-1"}


def test_an_order_may_start_at_its_not_before_and_until_right_before_its_end() -> None:
    timely = replace(STEP, not_before=NOW, expires_at=NOW + timedelta(microseconds=1))
    assert plan([timely], [MACHINE], CHECKS, vouched(NOW)).assignments == {STEP.key: "prn-1"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": MachineState.OFFLINE}, (Code.OFFLINE, "prn-1: offline", "")),
        (
            {"state": MachineState.OFFLINE, "state_detail": "no answer"},
            (Code.OFFLINE, "prn-1: offline: no answer", ""),
        ),
        ({"busy_with": "run-1", "needs_clearing": "run-1"}, (Code.BUSY, "prn-1: busy", "")),
        ({"state": MachineState.HELD}, (Code.BUSY, "prn-1: is HELD", "")),
        (
            {"state": MachineState.STOPPED, "state_detail": "door open"},
            (Code.BUSY, "prn-1: is STOPPED: door open", ""),
        ),
        (
            {"needs_clearing": "run-0"},
            (Code.NEEDS_CLEARING, "prn-1: the last part is still on it", "edge machine clear prn-1"),
        ),
        (
            {"maintenance": "out of service by ada"},
            (Code.MAINTENANCE, "prn-1: out of service by ada", "edge machine maintain prn-1 --end"),
        ),
    ],
)
def test_what_keeps_a_machine_from_taking_it(fields: dict, expected: tuple[Code, str, str]) -> None:
    assert waits(STEP, replace(MACHINE, **fields)) == [expected]


def test_a_program_is_checked_before_and_may_be_refused() -> None:
    assert waits(STEP, MACHINE, checks={}) == [(Code.CHECKING, "prn-1: body.gcode is being checked", "")]
    again = {(STEP.program, MACHINE.id): CheckResult(CheckState.PENDING, "it cannot be read")}
    assert waits(STEP, MACHINE, checks=again) == [
        (Code.CHECKING, "prn-1: body.gcode is being checked: it cannot be read", "")
    ]
    pending = {("ab" * 32, "prn-1"): CheckResult(CheckState.PENDING)}
    assert waits(STEP, MACHINE, checks=pending)[0][0] is Code.CHECKING
    refused = {("ab" * 32, "prn-1"): CheckResult(CheckState.REFUSED, "line 7 X: 900 mm, allowed: 200 mm")}
    text = "prn-1: refuses body.gcode: line 7 X: 900 mm, allowed: 200 mm"
    assert waits(STEP, MACHINE, checks=refused) == [(Code.REFUSED, text, "")]


def test_each_machine_that_could_do_it_says_what_lasts_longest_and_the_order_comes_first() -> None:
    one = replace(STEP, requires={"material": "PLA"}, program_here=False)
    machines = [
        replace(MACHINE, state=MachineState.OFFLINE, needs_clearing="run-0"),
        replace(MACHINE, id="prn-2", properties={}),
        replace(MACHINE, id="mill-1", processes=("mill",)),
    ]
    assert [code for code, _, _ in waits(one, *machines)] == [Code.NO_PROGRAM, Code.OFFLINE, Code.UNMET]


def test_a_machine_that_only_has_to_be_waited_for_comes_before_one_that_somebody_has_to_prepare() -> None:
    """Whoever reads a command first types it."""
    one = replace(STEP, requires={"material": "PETG"})
    busy = replace(MACHINE, id="prn-2", busy_with="run-0", properties=by_site_toml(material="PETG"))
    found = waits(one, replace(MACHINE, properties=by_site_toml(material="PLA")), busy)
    assert [(code, command) for code, _, command in found] == [
        (Code.BUSY, ""),
        (Code.UNMET, "edge machine load prn-1 material=PETG"),
    ]


def test_what_a_machine_refuses_is_said_before_anybody_changes_what_is_loaded() -> None:
    one = replace(STEP, requires={"material": "PETG"})
    machine = replace(MACHINE, properties=by_site_toml(material="PLA"))
    refused = {("ab" * 32, "prn-1"): CheckResult(CheckState.REFUSED, "too wide")}
    assert [code for code, _, _ in waits(one, machine, checks=refused)] == [Code.REFUSED]


def test_nothing_to_do_is_an_empty_plan() -> None:
    made = plan([], [MACHINE], CHECKS, vouched(NOW))
    assert (made.assignments, made.waits) == ({}, {})


def test_nothing_begins_while_the_journal_waits_for_a_person() -> None:
    made = plan([STEP], [MACHINE], CHECKS, vouched(NOW), "it is new")
    assert made.assignments == {}
    (blocker,) = made.waits[STEP.key]
    assert (blocker.code, blocker.command) == (Code.JOURNAL, "edge journal confirm")
    assert "it is new" in blocker.text


def test_nothing_begins_before_the_centre_was_waited_for() -> None:
    made = plan([STEP], [MACHINE], CHECKS, vouched(NOW), too_early="the centre has not said yet")
    assert made.assignments == {}
    (blocker,) = made.waits[STEP.key]
    assert (blocker.code, blocker.command) == (Code.JOURNAL, "")
    assert blocker.text == "nothing begins yet: the centre has not said yet"


def test_what_needs_the_time_waits_while_nobody_vouches_for_the_clock() -> None:
    timely = replace(STEP, expires_at=NOW + timedelta(hours=1))
    made = plan([timely], [MACHINE], CHECKS, Now(NOW, NOW - timedelta(days=1), ClockTrust.UNKNOWN))
    assert made.assignments == {}
    assert [(blocker.code, blocker.command) for blocker in made.waits[STEP.key]] == [(Code.CLOCK, "edge time show")]
