"""asyncua as this family uses it.

Its own annotations ask for its number and text classes where it takes plain ones, and it does not mark what it exports;
so `ua` is untyped here, and the classes beside it are for annotations.
"""

from __future__ import annotations

import logging
from typing import Any

import asyncua.client.client
import asyncua.ua
import asyncua.ua.uaerrors

__all__ = [
    "Client",
    "DataValue",
    "ExtensionObject",
    "LocalizedText",
    "NodeId",
    "StructureDefinition",
    "StructureField",
    "UaError",
    "Variant",
    "VariantType",
    "ua",
]

ua: Any = asyncua.ua

Client = asyncua.client.client.Client
DataValue = asyncua.ua.DataValue
ExtensionObject = asyncua.ua.ExtensionObject
LocalizedText = asyncua.ua.LocalizedText
NodeId = asyncua.ua.NodeId
StructureDefinition = asyncua.ua.StructureDefinition
StructureField = asyncua.ua.StructureField
UaError = asyncua.ua.uaerrors.UaError
Variant = asyncua.ua.Variant
VariantType = asyncua.ua.VariantType

# asyncua logs each failure with a traceback. Who uses it here says it in words, so the library stays quiet.
logging.getLogger("asyncua").addHandler(logging.NullHandler())
logging.getLogger("asyncua").propagate = False
