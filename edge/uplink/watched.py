"""An uplink that remembers which topics the broker does not let the site write to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from edge.uplink.port import Message, Uplink, UplinkError


class Watched:
    """An uplink whose publishing is watched; nobody reads from it."""

    def __init__(self, uplink: Uplink, told: Callable[[str, UplinkError | None], None]) -> None:
        self._uplink = uplink
        self._told = told

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        """See `Uplink`."""
        try:
            await self._uplink.publish(topic, payload, retain=retain, sure=sure)
        except UplinkError as error:
            if not error.ends_the_connection:
                self._told(topic, error)
            raise
        self._told(topic, None)

    def messages(self) -> AsyncIterator[Message]:
        """See `Uplink`."""
        return self._uplink.messages()
