"""Job orders: what is one, the sentence for what is none, and what a machine must have for a step."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import FormatError
from edge.model.order import (
    AnyOf,
    JobOrder,
    OnFailure,
    OnRestart,
    Range,
    Step,
    order_bytes,
    parse_order,
    unmet,
)
from tests.helpers.trust import order_document, step_document


def parse(**fields: object) -> JobOrder:
    return parse_order(json.dumps(order_document(**fields)).encode())


def parse_step(**fields: object) -> JobOrder:
    return parse(steps=[step_document(**fields)])


def without(name: str) -> bytes:
    document = order_document()
    del document[name]
    return json.dumps(document).encode()


CELL = [
    step_document(on_restart="resume"),
    {"id": "unload", "process": "robot.tend", "after": ["print"], "tends": {"from": "print", "to": "face"}},
    step_document(id="face", process="mill", after=["unload"]),
]


def test_every_field_of_an_order_is_read():
    order = parse(steps=CELL, quantity=3, due_at="2026-11-25T08:00:00.5Z")
    assert order.job_id == "01J9ZK3V5Q8M2N4P6R7S9T0W1X"
    assert order.issued_at == datetime(2026, 11, 21, 11, tzinfo=UTC)
    assert order.due_at == datetime(2026, 11, 25, 8, 0, 0, 500_000, tzinfo=UTC)
    assert order.processes == {"fdm", "robot.tend", "mill"}
    assert order.total_bytes == 21
    first, unload, _ = order.steps
    assert first.on_restart is OnRestart.RESUME
    assert first.on_failure is OnFailure.HOLD
    assert first.requires == {"material": "PLA", "nozzle_mm": 0.4}
    assert unload.program is None
    assert (unload.tends.from_step, unload.tends.to_step) == ("print", "face")


def test_one_content_under_two_names_is_counted_once():
    body = order_document()["artifacts"]["body.gcode"]
    assert parse(artifacts={"body.gcode": body, "copy.gcode": body}).total_bytes == 21


@pytest.mark.parametrize(
    "steps",
    [
        CELL,
        [
            step_document(
                requires={"a": {"min": 1}, "b": {"max": 2.5}, "c": {"min": 0, "max": 0}, "d": {"any": ["x", 1]}}
            )
        ],
        [
            step_document(
                max_duration_s=60.5, on_failure="retry", max_attempts=2, parameters={"speed": 1.5, "dry": True}
            )
        ],
    ],
)
def test_an_order_comes_back_from_its_bytes(steps):
    order = parse(steps=steps)
    assert parse_order(order_bytes(order)) == order


def test_a_step_is_built_from_python_values():
    requires = {"bed_mm": Range(min=100), "material": AnyOf(any=("PLA", "PETG"))}
    step = Step(id="print", process="fdm", program="body.gcode", requires=requires)
    assert step.requires == requires


def test_an_order_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        parse().priority = 1


@pytest.mark.parametrize("name", ["job_id", "site", "issuer", "expires_at", "series", "sequence", "artifacts", "steps"])
def test_a_missing_field_is_named(name):
    with pytest.raises(FormatError, match=f"the order: {name} is missing"):
        parse_order(without(name))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"colour": "red"}, "colour is an unknown field"),
        ({"job_id": "01j9zk3v5q8m2n4p6r7s9t0w1x"}, "job_id is '01j9.*must be a ULID"),
        ({"job_id": "81J9ZK3V5Q8M2N4P6R7S9T0W1X"}, "must be a ULID"),
        ({"job_id": "01J9ZK3V5Q8M2N4P6R7S9T0W1X\n"}, "must be a ULID"),
        ({"site": "berlin/1"}, "site is 'berlin/1', must be 1 to 64 letters"),
        ({"site": "b" * 65}, "must be 1 to 64"),
        ({"site": 7}, "site is 7, must be a valid string"),
        ({"issuer": "a b"}, "issuer is 'a b'"),
        ({"issued_at": "2026-11-21T10:00:00+01:00"}, "issued_at is .* RFC 3339 time in UTC"),
        ({"issued_at": "2026-02-30T10:00:00Z"}, "RFC 3339"),
        ({"issued_at": 1}, "issued_at is 1, must be an RFC 3339"),
        ({"expires_at": "2026-11-21T11:00:00Z"}, "expires_at is not after issued_at"),
        ({"not_before": "2027-01-01T00:00:00Z"}, "not_before is not before expires_at"),
        ({"series": "XYZ"}, "series is 'XYZ', must be 8 to 64 lower-case hex"),
        ({"sequence": 0}, "sequence is 0, must be greater than or equal to 1"),
        ({"sequence": 2**53}, "sequence is 9007199254740992"),
        ({"sequence": True}, "sequence is True, must be a valid integer"),
        ({"sequence": 1.0}, "sequence is 1.0"),
        ({"quantity": 0}, "quantity is 0"),
        ({"quantity": 10_001}, "quantity is 10001, must be less than or equal to 10000"),
        ({"priority": 101}, "priority is 101"),
        ({"priority": "50"}, "priority is '50', must be a valid integer"),
        ({"product": "\x1b[2J"}, "product is '.x1b.*printable"),
        ({"product": "p" * 201}, "at most 200 printable"),
        ({"artifacts": {"../etc": {}}}, "the key artifacts.*must be 1 to 128"),
        ({"artifacts": {f"f{n}": order_document()["artifacts"]["body.gcode"] for n in range(257)}}, "at most 256"),
        ({"steps": []}, "must have at least 1"),
        ({"steps": "print"}, "steps is 'print'"),
        ({"steps": [step_document(), step_document()]}, "two steps have the same id"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_right(fields, says):
    with pytest.raises(FormatError, match=says):
        parse(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sha256": "AB"}, "artifacts.body.gcode.sha256 is 'AB', must be 64 lower-case"),
        ({"size_bytes": -1}, "size_bytes is -1"),
        ({"size_bytes": 2**40}, "size_bytes is 1099511627776"),
        ({"media_type": "gcode"}, "must be a media type"),
        ({"sources": ["http://x/y"]}, r"sources\[0\] is 'http://x/y', must be an https"),
        ({"sources": ["https://x/y"] * 9}, "at most 8"),
    ],
)
def test_a_wrong_artifact_is_named(fields, says):
    good = order_document()["artifacts"]["body.gcode"]
    with pytest.raises(FormatError, match=says):
        parse(artifacts={"body.gcode": good | fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"id": ""}, r"steps\[0\]\.id is ''"),
        ({"process": "FDM"}, "process is 'FDM', must be the name of a process"),
        ({"process": "a" * 65}, "must be the name of a process"),
        ({"program": None}, "step 'print' has no program"),
        ({"program": "face.nc"}, "program 'face.nc', must be the name of an artifact"),
        ({"after": ["print"]}, "'print' in 'after', must be another step"),
        ({"after": ["nix"]}, "'nix' in 'after', must be another step"),
        ({"tends": {"from": "print", "to": "face"}}, "'print' in 'tends'"),
        ({"tends": {"from": "print"}}, "tends.to is missing"),
        ({"tends": {"from_step": "a", "to": "b"}}, "tends.from is missing|unknown field"),
        ({"on_restart": "again"}, "on_restart is 'again', must be 'resume', 'hold' or 'abort'"),
        ({"on_failure": "retry"}, "must allow 2 attempts or more"),
        ({"on_failure": "retry_before_motion"}, "must allow 2 attempts or more"),
        ({"max_attempts": 11}, "max_attempts is 11"),
        ({"max_duration_s": 0}, "max_duration_s"),
        ({"requires": {"Nozzle": 1}}, "the key steps.0..requires.Nozzle"),
        ({"requires": {"a": None}}, "requires.a is None, must be text, a number"),
        ({"requires": {"a": []}}, "must be text, a number"),
        ({"requires": {"a": {}}}, "must be a value, "),
        ({"requires": {"a": {"least": 1}}}, "must be a value, "),
        ({"requires": {"a": {"min": 1, "any": []}}}, "must be a value, "),
        ({"requires": {"a": {"min": "1"}}}, "must be numbers"),
        ({"requires": {"a": {"min": True}}}, "must be numbers"),
        ({"requires": {"a": {"min": 2, "max": 1}}}, "not above its 'max'"),
        ({"requires": {"a": {"any": []}}}, "1 to 64 values"),
        ({"requires": {"a": {"any": "PLA"}}}, "1 to 64 values"),
        ({"requires": {"a": {"any": [{}]}}}, "must be text"),
        ({"requires": {"a": "\x07"}}, "printable"),
        ({"parameters": {"a": {"b": 1}}}, "must be text"),
    ],
)
def test_a_wrong_step_is_named(fields, says):
    with pytest.raises(FormatError, match=says):
        parse_step(**fields)


def test_steps_that_wait_for_each_other_are_refused():
    steps = [step_document(id="a", after=["c"]), step_document(id="b", after=["a"]), step_document(id="c", after=["b"])]
    with pytest.raises(FormatError, match="steps a, b, c wait for each other"):
        parse(steps=steps)


def test_one_content_has_one_size():
    body = order_document()["artifacts"]["body.gcode"]
    with pytest.raises(FormatError, match="same sha256 and different size_bytes"):
        parse(artifacts={"body.gcode": body, "small.gcode": body | {"size_bytes": 0}})


def test_a_step_names_a_predecessor_once():
    with pytest.raises(FormatError, match="twice in 'after'"):
        parse(steps=[step_document(), step_document(id="b", after=["print", "print"])])


def test_a_part_is_moved_between_two_steps():
    tends = {"id": "t", "process": "robot.tend", "tends": {"from": "print", "to": "print"}}
    with pytest.raises(FormatError, match="must be two steps"):
        parse(steps=[step_document(), tends])


@pytest.mark.parametrize(
    ("hostile", "says"),
    [
        (b"\xff", "not UTF-8"),
        (b"[1]", "must be a JSON object"),
        (b'{"site":"a","site":"b"}', "'site' stands twice"),
        (b'{"steps":' + b"[" * 20 + b"]" * 20 + b"}", "nested deeper"),
        (b" " * 300_000, "at most"),
        (b'{"a\\u0000":1, "steps": []}', "is missing|unknown field"),
    ],
)
def test_what_is_no_strict_json_is_no_order(hostile, says):
    with pytest.raises(FormatError, match=says):
        parse_order(hostile)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_order_or_a_format_error(raw):
    with pytest.raises(FormatError):
        parse_order(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(order_document())), JSON)
def test_any_value_in_any_field_is_an_order_or_a_format_error(name, value):
    complaint = None
    try:
        parse(**{name: value})
    except FormatError as error:
        complaint = str(error)
    assert complaint is None or complaint.isprintable()


@given(st.sampled_from([*sorted(step_document()), "tends"]), JSON)
def test_any_value_in_a_step_is_an_order_or_a_format_error(name, value):
    complaint = None
    try:
        order = parse_step(**{name: value})
        assert parse_order(order_bytes(order)) == order
    except FormatError as error:
        complaint = str(error)
    assert complaint is None or complaint.isprintable()


MACHINE = {"material": "PLA", "nozzle_mm": 0.6, "axes": 3, "enclosed": True, "bed_mm": 220.0}


@pytest.mark.parametrize(
    ("requires", "why"),
    [
        ({}, None),
        ({"material": "PLA"}, None),
        ({"material": "PETG"}, "material is PLA, needs PETG"),
        ({"nozzle_mm": 0.4}, "nozzle_mm is 0.6, needs 0.4"),
        ({"colour": "red"}, "colour is not known, needs red"),
        ({"axes": 3.0}, None),
        ({"bed_mm": 220}, None),
        ({"enclosed": True}, None),
        ({"enclosed": False}, "enclosed is true, needs false"),
        ({"enclosed": 1}, "enclosed is true, needs 1"),
        ({"axes": True}, "axes is 3, needs true"),
        ({"axes": "3"}, "axes is 3, needs 3"),
        ({"bed_mm": Range(min=200)}, None),
        ({"bed_mm": Range(min=220, max=220)}, None),
        ({"bed_mm": Range(min=250)}, "bed_mm is 220.0, needs at least 250"),
        ({"bed_mm": Range(max=200)}, "bed_mm is 220.0, needs at most 200"),
        ({"nozzle_mm": Range(min=0.2, max=0.5)}, "nozzle_mm is 0.6, needs 0.2 to 0.5"),
        ({"material": Range(min=1)}, "material is PLA, needs at least 1"),
        ({"enclosed": Range(min=0, max=1)}, "enclosed is true, needs 0 to 1"),
        ({"material": AnyOf(any=("PETG", "PLA"))}, None),
        ({"material": AnyOf(any=("PETG", "ABS"))}, "material is PLA, needs PETG or ABS"),
        ({"material": "PLA", "axes": 5}, "axes is 3, needs 5"),
        ({"material": "PETG", "axes": 5}, "material is PLA, needs PETG; axes is 3, needs 5"),
    ],
)
def test_unmet_says_what_a_machine_lacks(requires, why):
    assert unmet(requires, MACHINE) == why


def test_unmet_says_where_a_value_is_from_if_somebody_wants_to_know():
    said = unmet({"material": "PETG", "axes": 5, "colour": "red"}, MACHINE, {"material": "site.toml", "colour": "?"})
    assert said == "material is PLA (site.toml), needs PETG; axes is 3, needs 5; colour is not known, needs red"
