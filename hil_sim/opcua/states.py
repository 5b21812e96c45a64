"""Finite state machines as clients see them."""

from __future__ import annotations

from typing import Any

from hil_sim.opcua.library import NodeId, ua
from hil_sim.opcua.space import Space


class StateMachine:
    """A finite state machine's instance: its current state, and the state's node and number."""

    def __init__(self, space: Space, at: NodeId, current: NodeId) -> None:
        self.at = at
        self._space = space
        self._current = current
        self._id = space.variable(current, "Id", "17", ua.NodeId())
        self._number: NodeId | None = None

    def with_number(self) -> StateMachine:
        """Shows CurrentState/Number, too."""
        self._number = self._space.variable(self._current, "Number", "7", ua.Variant(0, ua.VariantType.UInt32))
        return self

    async def show(self, text: str, node: str, state_number: int, *, as_string: bool = False) -> None:
        """`node`: the state in its type; `as_string`: CurrentState has the wrong data type."""
        value: Any = ua.Variant(text, ua.VariantType.String) if as_string else ua.LocalizedText(text)
        await self._space.write(self._current, "21", value)
        await self._space.write(self._id, "17", self._space.node(node) if node else ua.NodeId())
        if self._number is not None:
            await self._space.write(self._number, "7", state_number)


def state_machine(space: Space, parent: NodeId, name: str, type_: str, **more: Any) -> StateMachine:
    """An instance of a finite state machine with its mandatory variables."""
    at = space.object(parent, name, type_, **more)
    return StateMachine(space, at, space.variable(at, "CurrentState", "21", ua.LocalizedText(""), "2760"))
