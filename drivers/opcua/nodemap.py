"""Where things are in a server's address space: by namespace URI and browse path, never by index. PURE.

A place is written as in ``machinery:Components/di:Identification/Model``: names with the alias of their namespace
before the colon (``[namespaces]`` of the profile says its URI), without one where the base namespace is meant. ``*`` is
any object; what follows decides which. A node can be named instead: ``sin;s=/Channel/State/chanStatus``. ``&`` before
``/``, ``:``, ``*``, ``;`` or ``&`` takes that character as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BASE_URI = "http://opcfoundation.org/UA/"

_NODE = re.compile(r"(?:(?P<alias>\w+);)?(?P<kind>[isgb])=(?P<identifier>.+)", re.DOTALL)
_ALIAS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Name:
    """One step down: a browse name; `any` is the star."""

    uri: str
    text: str
    any: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A browse path of `names`, or with `kind` (``i``, ``s``, ``g``, ``b``) the one node `identifier` of `uri`."""

    text: str
    names: tuple[Name, ...] = ()
    uri: str = ""
    kind: str = ""
    identifier: str = ""


def place(text: str, namespaces: Mapping[str, str]) -> Place:
    """What `text` names. Raises `ValueError` with what would be right."""
    if match := _NODE.fullmatch(text):
        alias, kind, identifier = match["alias"], match["kind"], match["identifier"]
        if kind == "i" and not identifier.isdecimal():
            raise ValueError(f"{text!r}: i= is followed by a number")
        return Place(text, uri=_uri(alias or "", namespaces, text), kind=kind, identifier=identifier)
    return Place(text, tuple(_name(part, namespaces, text) for part in _split(text, "/")))


def _name(part: str, namespaces: Mapping[str, str], text: str) -> Name:
    if part == "*":
        return Name("", "", any=True)
    alias, *rest = _split(part, ":")
    bare = ":".join(rest) if rest else alias
    name = re.sub(r"&(.)", r"\1", bare)
    if not name:
        raise ValueError(f"{text!r}: a name between two '/' is missing")
    return Name(_uri(alias if rest else "", namespaces, text), name)


def _uri(alias: str, namespaces: Mapping[str, str], text: str) -> str:
    if not alias:
        return BASE_URI
    if alias not in namespaces:
        known = ", ".join(namespaces) or "none"
        raise ValueError(f"{text!r}: there is no namespace {alias!r} in [namespaces]; there are: {known}")
    return namespaces[alias]


def _split(text: str, at: str) -> list[str]:
    """`text` in parts; what has ``&`` before it does not part."""
    parts, part, escaped = [], "", False
    for char in text:
        if char == at and not escaped:
            parts.append(part)
            part = ""
        else:
            part += char
        escaped = char == "&" and not escaped
    return [*parts, part]


def check_aliases(namespaces: Mapping[str, str]) -> None:
    """Raises `ValueError` for an alias that no place could name."""
    for alias in namespaces:
        if not _ALIAS.fullmatch(alias):
            raise ValueError(f"the alias {alias!r} has other characters than letters, digits and _")


def indices(array: Sequence[str]) -> dict[str, int]:
    """Namespace URI to index, as this server counts today (`Server_NamespaceArray`). The first of two equal ones."""
    found: dict[str, int] = {}
    for index, uri in enumerate(array):
        found.setdefault(uri, index)
    return found
