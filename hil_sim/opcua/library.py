"""The OPC UA library as this package uses it.

Its own annotations want its number and text classes where it takes plain ones at run time, so `ua` is untyped here;
the classes beside it are for annotations.
"""

from __future__ import annotations

from typing import Any

import asyncua.common.event_objects
import asyncua.ua

ua: Any = asyncua.ua
events: Any = asyncua.common.event_objects

NodeId = asyncua.ua.NodeId
Variant = asyncua.ua.Variant


class RefusedError(Exception):
    """What a client asks for is refused with this OPC UA status code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status code {code:#010x}")
        self.code = code
