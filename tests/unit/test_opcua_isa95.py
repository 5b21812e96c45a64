"""Job orders: return statuses as bits and bare numbers, states in any order, and what cannot be understood."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua

from drivers.opcua import isa95
from drivers.opcua.isa95 import OrderState


@pytest.mark.parametrize(
    ("value", "kind", "done", "words"),
    [
        (1, "bits", True, ""),
        (2, "bits", False, "it does not know this order"),
        (8 | 16, "bits", False, "the order's state does not allow it, it cannot take the order"),
        (1 << 32, "bits", False, "the request is invalid"),
        (1 << 40, "bits", False, "an error"),
        (0, "bits", None, 'return_status = "number"'),
        (0, "number", True, ""),
        (7, "number", False, "status 7"),
        ("0", "bits", None, "no number"),
        (True, "number", None, "no number"),
        (None, "number", None, "no number"),
    ],
)
def test_a_return_status_says_yes_no_or_neither(value: Any, kind: Any, done: bool | None, words: str) -> None:
    status = isa95.read_status(value, kind)
    assert status.done is done
    assert words in status.words


def state(number: Any, text: str = "", depth: int = 0) -> dict[str, Any]:
    path = SimpleNamespace(Elements=[None] * depth)
    return {"BrowsePath": path, "StateText": SimpleNamespace(Text=text), "StateNumber": number}


def test_the_outermost_state_is_the_one_with_the_shortest_path() -> None:
    found = isa95.read_state([state(1, "Completed", 2), state(5, "Ended", 1)])
    assert found == OrderState(5, "completed", "Ended")
    assert found.words == "Ended (completed)"
    assert isa95.read_state([state(5, "Closed")]) == OrderState(5, "closed", "Closed")
    assert isa95.read_state([state(5, "Ended"), state(1, "Ended.Completed", 1)]) == OrderState(5, "completed", "Ended")


@pytest.mark.parametrize("states", [None, [], "Ended", [3], [state("5")], [state(True)], [{}]])
def test_what_is_no_state_is_none(states: Any) -> None:
    assert isa95.read_state(states) is None


def test_a_number_that_is_not_in_the_specification_is_said() -> None:
    found = isa95.read_state([state(17, "Warming")])
    assert found is not None
    assert "17 that is not understood" in found.words


def test_a_list_tells_of_ours_and_of_others() -> None:
    entries = [
        {"JobOrder": {"JobOrderID": "a"}, "State": [state(3)]},
        {"JobOrder": {"JobOrderID": "b"}, "State": [state(4)]},
        {"JobOrder": {"JobOrderID": "c"}, "State": [state(6)]},
        {"JobOrder": {"JobOrderID": "d"}, "State": "strange"},
        {"JobOrder": None, "State": [state(1)]},
        "strange",
    ]
    assert isa95.state_in_list(entries, "a") == OrderState(3)
    assert isa95.state_in_list(entries, "x") is None
    assert isa95.state_in_list(None, "a") is None
    assert isa95.running(entries) == {"a": "", "b": "", "d": "a state that is not understood"}
    assert isa95.running(5) == {}
    assert isa95.finished(entries) == ["c"]
    assert isa95.finished(None) == []


def test_an_order_in_a_state_that_is_not_in_the_specification_may_move_the_machine() -> None:
    entries = [
        {"JobOrder": {"JobOrderID": name}, "State": [state(number)]}
        for name, number in [("a", 0), ("b", 1), ("c", 2), ("d", 5), ("e", 6), ("f", 99)]
    ]
    assert isa95.running(entries) == {
        "a": "a state 0 that is not understood",
        "f": "a state 99 that is not understood",
    }


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ([{"ID": "Done", "Value": 40}], 40.0),
        ([{"ID": "other", "Value": 1}, {"ID": "Done", "Value": ua.Variant(12.5)}], 12.5),
        ([{"ID": "Done", "Value": "40"}], None),
        ([{"ID": "Done", "Value": True}], None),
        ([{"ID": "Done"}], None),
        (["strange"], None),
        (None, None),
    ],
)
def test_a_response_says_how_much_is_done_under_the_key_of_the_profile(parameters: Any, found: float | None) -> None:
    assert isa95.response_number({"JobResponseData": parameters}, "Done") == found
    assert isa95.response_number({"JobResponseData": parameters}, "") is None


def test_an_order_names_its_program_as_the_profile_says() -> None:
    assert isa95.job_order("r", "p", "work_master", "", "d")["WorkMasterID"] == [{"ID": "p"}]
    parameter = isa95.job_order("r", "p", "parameter", "Program", "d")
    assert parameter["JobOrderParameters"] == [{"ID": "Program", "Value": "p"}]
    assert parameter["JobOrderID"] == "r"
