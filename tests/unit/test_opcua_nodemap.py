"""Places in an address space: how they are written, and what is wrong with those that are not places."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.opcua.nodemap import BASE_URI, Name, check_aliases, indices, place

SPACES = {"mt": "http://opcfoundation.org/UA/MachineTool/", "sin": "SinumerikVarProvider"}


def test_names_have_the_namespace_of_their_alias_and_the_base_namespace_without_one() -> None:
    found = place("mt:Monitoring/CurrentState/*/mt:Name", SPACES)
    assert found.names == (
        Name(SPACES["mt"], "Monitoring"),
        Name(BASE_URI, "CurrentState"),
        Name("", "", any=True),
        Name(SPACES["mt"], "Name"),
    )


def test_a_node_is_named_by_its_identifier_in_a_namespace() -> None:
    found = place("sin;s=/Channel/State/chanStatus[u1]", SPACES)
    assert (found.uri, found.kind, found.identifier) == (SPACES["sin"], "s", "/Channel/State/chanStatus[u1]")
    assert place("i=2258", SPACES).uri == BASE_URI


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("xx:Name", "no namespace 'xx' in [namespaces]; there are: mt, sin"),
        ("mt:A//mt:B", "a name between two '/' is missing"),
        ("mt:", "a name between two '/' is missing"),
        ("i=abc", "i= is followed by a number"),
        ("xx;i=1", "no namespace 'xx'"),
    ],
)
def test_what_is_no_place_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        place(text, SPACES)
    with pytest.raises(ValueError, match="there are: none"):
        place("xx:Name", {})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_any_name_can_be_written_with_escapes(names: list[str]) -> None:
    def escaped(name: str) -> str:
        return "".join(f"&{char}" if char in "/:*;&=" else char for char in name)

    text = "/".join(escaped(name) for name in names)
    assert [name.text for name in place(text, {}).names] == names


def test_an_alias_is_letters_and_digits() -> None:
    check_aliases(SPACES)
    with pytest.raises(ValueError, match="other characters"):
        check_aliases({"a b": "x"})


def test_of_two_equal_namespaces_the_first_counts() -> None:
    assert indices(["a", "b", "a"]) == {"a": 0, "b": 1}
