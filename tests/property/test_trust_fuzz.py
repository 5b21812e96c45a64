"""Hostile bytes at every door: nothing but the documented answers, and never an acceptance of what was not signed.

The seeds are validly signed; what comes in is them with bytes changed, cut, doubled and moved, JSON values replaced,
and signatures mixed. Half of it goes through the parser, so the checks behind it are met too.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import RootError
from edge.model.fields import time_text
from edge.trust import (
    CommandReason,
    CurrentRoot,
    PayloadType,
    Reason,
    RootReason,
    admit,
    admit_command,
    judge_root,
    judge_time,
    load_root,
    payload_digest,
    time_bytes,
    verify_successor,
)
from tests.helpers.trust import (
    AT,
    ISSUER,
    NOW,
    OPERATOR,
    Ceremony,
    command_document,
    order_document,
    root_document,
    signed_root,
)

BOUNDED = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

TIME_KEY, NONCE = "time@acme", "0123456789abcdef" * 2
MADE = Ceremony(issuers=(ISSUER, "b"), threshold=2, operators=(OPERATOR,), times=(TIME_KEY,))
ORDER = MADE.order(signers=(ISSUER, "b"))
COMMAND = MADE.command()
CURRENT = signed_root(root_document(roots=("r1", "r2"), root_threshold=2), ("r1", "r2"))
NEXT = signed_root(root_document(roots=("r1", "r2"), root_threshold=2, version=2), ("r1", "r2"))
IN_FORCE = CurrentRoot(load_root(CURRENT), payload_digest(CURRENT))
TIME = MADE.sign(time_bytes(AT, NONCE), (TIME_KEY, OPERATOR), PayloadType.TIME)
SEEDS = (ORDER, COMMAND, CURRENT, NEXT, TIME)
SIGNED = {(json.loads(seed)["payloadType"], json.loads(seed)["payload"]) for seed in SEEDS}
"""What somebody with a right to has put a name to; nothing else may ever be accepted."""

ODD_NUMBERS = (0, -1, 2**53, 2**64, 10**18, 1e308, -0.0, 1e-320)
ODD_TEXTS = ("", "\x00", "\x1b[2J", "../../etc/passwd", "é" * 300, "\ud7ff", "null", "1970-01-01T00:00:00Z", "a" * 5000)
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=20),
    st.sampled_from(([], {}, [[]], {"": {}}, [None] * 300, {"any": []}, {"min": 2, "max": 1})),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON document."""
    found = [path]
    if isinstance(document, list):
        document = dict(enumerate(document))
    for key, value in document.items() if isinstance(document, dict) else ():
        found += places(value, (*path, key))
    return found


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a JSON document with another value at one place."""
    if not path:
        return value
    copied = document.copy()
    copied[path[0]] = replaced(document[path[0]], path[1:], value)
    return copied


@st.composite
def mangled_bytes(draw: st.DrawFn) -> bytes:
    """A seed with bytes changed, cut out, put in, doubled or moved."""
    raw = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        if not raw:
            break
        start = draw(st.integers(0, len(raw) - 1))
        end = min(len(raw), start + draw(st.integers(0, 40)))
        middle = draw(st.sampled_from(("flip", "drop", "double", "put")))
        match middle:
            case "flip":
                piece = bytes([raw[start] ^ draw(st.integers(1, 255))]) + raw[start + 1 : end]
            case "drop":
                piece = b""
            case "double":
                piece = raw[start:end] * 2
            case _:
                piece = draw(st.binary(max_size=8))
        raw = raw[:start] + piece + raw[max(end, start + 1) :]
    return raw


@st.composite
def mangled_documents(draw: st.DrawFn) -> bytes:
    """An envelope whose payload or frame has another value somewhere, with signatures of this or another seed."""
    envelope = json.loads(draw(st.sampled_from(SEEDS)))
    if draw(st.booleans()):
        payload = json.loads(base64.b64decode(envelope["payload"]))
        payload = replaced(payload, draw(st.sampled_from(places(payload))), draw(ODD))
        envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    if draw(st.booleans()):
        others = [signature for seed in SEEDS for signature in json.loads(seed)["signatures"]]
        envelope["signatures"] = draw(st.lists(st.sampled_from(others), max_size=33))
    if draw(st.booleans()):
        envelope["payloadType"] = draw(st.sampled_from(list(PayloadType)))
    if draw(st.integers(0, 3)) == 0:
        envelope = replaced(envelope, draw(st.sampled_from(places(envelope))), draw(ODD))
    return json.dumps(envelope).encode()


@st.composite
def signed_nonsense(draw: st.DrawFn) -> tuple[str, bytes]:
    """A payload that somebody with every right has signed, and that has an odd value somewhere."""
    kind, document = draw(
        st.sampled_from(
            (
                (PayloadType.JOB, order_document()),
                (PayloadType.COMMAND, command_document()),
                (PayloadType.ROOT, root_document(roots=("r1", "r2"), root_threshold=2, version=2)),
                (PayloadType.TIME, {"at": time_text(AT), "nonce": NONCE}),
            )
        )
    )
    document = replaced(document, draw(st.sampled_from(places(document))), draw(ODD))
    return kind, MADE.sign(json.dumps(document).encode(), (ISSUER, "b", OPERATOR, "r1", "r2", TIME_KEY), kind)


def was_signed(raw: bytes) -> bool:
    document = json.loads(raw)
    return (document["payloadType"], document["payload"]) in SIGNED


def knock(raw: bytes) -> set[str]:
    """Take `raw` to every door; where it was accepted."""
    accepted = set()
    for name, verdict, reasons in (
        ("order", admit(raw, MADE.snapshot(), NOW), Reason),
        ("command", admit_command(raw, MADE.command_snapshot(), NOW), CommandReason),
        ("root", judge_root(raw, IN_FORCE), RootReason),
        ("time", judge_time(raw, MADE.root, {NONCE}), Reason),
    ):
        assert verdict.accepted == (verdict.reason is None)
        assert verdict.accepted or verdict.reason in reasons
        assert verdict.detail.isprintable()
        assert verdict.accepted or verdict.detail
        assert not (verdict.accepted and not verdict.signed) or (name, verdict.repeated) == ("root", True)
        if verdict.accepted:
            accepted.add(name)
    for load in (load_root, lambda raw: verify_successor(IN_FORCE.root, raw)):
        complaint = ""
        try:
            load(raw)
            accepted.add("loaded")
        except RootError as error:
            complaint = str(error)
        assert complaint.isprintable()
    return accepted


def test_the_seeds_are_accepted_where_they_belong():
    assert [knock(seed) for seed in SEEDS] == [
        {"order"},
        {"command"},
        {"root", "loaded"},
        {"root", "loaded"},
        {"time"},
    ]


@BOUNDED
@given(mangled_bytes())
def test_changed_bytes_are_never_accepted_as_something_else(raw):
    if knock(raw):
        assert was_signed(raw)


@BOUNDED
@given(mangled_documents())
def test_changed_documents_are_never_accepted_as_something_else(raw):
    if knock(raw):
        assert was_signed(raw)


@BOUNDED
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_refused(raw):
    assert knock(raw) == set()


@BOUNDED
@given(signed_nonsense())
def test_what_is_signed_and_odd_gets_a_documented_answer(made):
    kind, raw = made
    doors = {
        PayloadType.JOB: {"order"},
        PayloadType.COMMAND: {"command"},
        PayloadType.ROOT: {"root", "loaded"},
        PayloadType.TIME: {"time"},
    }
    assert knock(raw) <= doors[kind]
