"""Job orders by OPC 10031-4 (ISA-95 Job Control 2.0): return statuses, states, and what an order consists of. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NOT_ALLOWED_TO_START, ALLOWED_TO_START, RUNNING, INTERRUPTED, ENDED, ABORTED = range(1, 7)
"""StateNumber of ISA95JobOrderReceiverObjectType's states (table of the node set, i=1002)."""

STATE_NAMES = {
    NOT_ALLOWED_TO_START: "NotAllowedToStart",
    ALLOWED_TO_START: "AllowedToStart",
    RUNNING: "Running",
    INTERRUPTED: "Interrupted",
    ENDED: "Ended",
    ABORTED: "Aborted",
}

_BITS = {
    1: "it does not know this order",
    3: "the order's state does not allow it",
    4: "it cannot take the order",
    32: "the request is invalid",
}
"""Bits of ReturnStatus (OPC 10031-4, B.2); bit 0 is 'no error'."""


@dataclass(frozen=True, slots=True)
class Status:
    """A ReturnStatus: `done` is None where it says neither yes nor no."""

    done: bool | None
    words: str


def read_status(value: Any, kind: Literal["bits", "number"]) -> Status:
    """What a method's ReturnStatus means."""
    if isinstance(value, bool) or not isinstance(value, int):
        return Status(None, f"the machine answers with the status {value!r}, which is no number")
    if kind == "number":
        return Status(value == 0, "" if value == 0 else f"the machine answers with the status {value}")
    if value & 1:
        return Status(True, "")
    if value == 0:
        hint = "the machine answers with the status 0, which says nothing"
        return Status(None, f'{hint}; if it means no error, the profile needs return_status = "number"')
    said = [words for bit, words in _BITS.items() if value >> bit & 1]
    return Status(False, f"the machine says: {', '.join(said) or 'an error'} (status {value})")


@dataclass(frozen=True, slots=True)
class OrderState:
    """State of an order: its number, and the name of the substate in lower case (``completed``), empty if none."""

    number: int
    substate: str = ""
    text: str = ""

    @property
    def words(self) -> str:
        """For people."""
        name = STATE_NAMES.get(self.number, f"a state {self.number} that is not understood")
        return f"{name} ({self.substate})" if self.substate else name


def read_state(states: Any) -> OrderState | None:
    """An ISA95StateDataType[], the outermost state first by its path; None if it is none."""
    if not isinstance(states, Sequence) or not states or not all(isinstance(state, Mapping) for state in states):
        return None
    ordered = sorted(states, key=_depth)
    number = ordered[0].get("StateNumber")
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    below = _text(ordered[1].get("StateText")) if len(ordered) > 1 else ""
    text = _text(ordered[0].get("StateText"))
    if not below and text.lower() in _SUBSTATES:
        below = text  # one entry alone, whose text is the substate's
    return OrderState(number, below.rpartition(".")[2].strip().lower(), text)


_SUBSTATES = frozenset({"completed", "closed", "held", "suspended", "waiting", "ready", "loaded"})


def response_number(response: Mapping[str, Any], key: str) -> float | None:
    """The value of the parameter `key` in an ISA95JobResponseDataType's JobResponseData, if it is one number."""
    parameters = response.get("JobResponseData")
    for each in parameters if key and isinstance(parameters, Sequence) else ():
        if isinstance(each, Mapping) and each.get("ID") == key:
            value = getattr(each.get("Value"), "Value", each.get("Value"))
            if not isinstance(value, bool) and isinstance(value, int | float):
                return float(value)
    return None


def _depth(state: Mapping[str, Any]) -> int:
    path = state.get("BrowsePath")
    return len(getattr(path, "Elements", None) or ())


def _text(value: Any) -> str:
    return str(getattr(value, "Text", None) or "")


def state_in_list(entries: Any, job_order_id: str) -> OrderState | None:
    """The state of one order in a JobOrderList; None if it is not there, or not readable."""
    for entry in entries if isinstance(entries, Sequence) else ():
        if isinstance(entry, Mapping) and _id_of(entry) == job_order_id:
            return read_state(entry.get("State"))
    return None


def running(entries: Any) -> dict[str, str]:
    """Orders that a JobOrderList shows as begun and not ended: ID to an empty text, or to what is not understood.

    A state that is not in the specification may be one in which the machine moves.
    """
    found: dict[str, str] = {}
    for name, state in _states(entries):
        if state is None:
            found[name] = "a state that is not understood"
        elif state.number not in _AT_REST:
            found[name] = "" if state.number in STATE_NAMES else state.words
    return found


def finished(entries: Any) -> list[str]:
    """IDs of orders that a JobOrderList shows as Ended or Aborted."""
    return [name for name, state in _states(entries) if state is not None and state.number in (ENDED, ABORTED)]


_AT_REST = (NOT_ALLOWED_TO_START, ALLOWED_TO_START, ENDED, ABORTED)


def _states(entries: Any) -> list[tuple[str, OrderState | None]]:
    return [
        (_id_of(entry), read_state(entry.get("State")))
        for entry in (entries if isinstance(entries, Sequence) else ())
        if isinstance(entry, Mapping)
    ]


def _id_of(entry: Mapping[str, Any]) -> str:
    order = entry.get("JobOrder")
    return str(order.get("JobOrderID")) if isinstance(order, Mapping) else ""


def job_order(
    run_id: str, program: str, how: Literal["work_master", "parameter"], parameter_id: str, description: Any
) -> dict[str, Any]:
    """An ISA95JobOrderDataType as a mapping of its fields."""
    order: dict[str, Any] = {"JobOrderID": run_id, "Description": [description]}
    if how == "work_master":
        return {**order, "WorkMasterID": [{"ID": program}]}
    return {**order, "JobOrderParameters": [{"ID": parameter_id, "Value": program}]}
