"""Whatever people load and write into site.toml: who has spoken last counts, and no value changes its type."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UsageError
from edge.model.loaded import MAX_TEXT, Loaded, checked, counting, overtaken, typed
from edge.model.machine import Value, in_words, same

NAMES = ("material", "nozzle_mm", "enclosed")
texts = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=MAX_TEXT)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2.0**53) + 1, 2.0**53 - 1)
values = texts | numbers | st.booleans()
few = st.sampled_from(["PLA", "PETG", 0, 1, 1.0, 0.4, True, False])
tables = st.dictionaries(st.sampled_from(NAMES), few)


def told(value: Value, configured: Value) -> Loaded:
    return Loaded(value, configured, "user:ada", "2026-11-22T10:00:00.000Z")


@given(tables, st.lists(st.tuples(st.sampled_from(NAMES), few) | tables, max_size=30))
def test_who_has_spoken_last_counts(configured: dict[str, Value], words: list) -> None:
    """A pair loads a value, a table is a new site.toml with which the daemon starts again."""
    loaded: dict[str, Loaded] = {}
    last = dict(configured)
    for word in words:
        if isinstance(word, tuple):
            name, value = word
            if name in configured:
                loaded[name], last[name] = told(value, configured[name]), value
        else:
            kept = {name for name in word if name in configured and same(configured[name], word[name])}
            last = {name: last[name] if name in kept else own for name, own in word.items()}
            configured = word
            for name, says in overtaken(configured, loaded).items():
                del loaded[name]
                assert says is None or same(says, configured[name])
        counts = counting(configured, loaded)
        assert {name: one.value for name, one in counts.items()} == last
        assert all(same(one.configured, configured[name]) for name, one in counts.items())
        assert overtaken(configured, loaded) == {}, "what is written down once is not written down again"


@given(tables, st.dictionaries(st.sampled_from(NAMES), st.tuples(few, few)))
def test_the_commands_without_a_daemon_say_what_the_next_daemon_will_go_by(configured, said) -> None:
    loaded = {name: told(*pair) for name, pair in said.items()}
    left = {name: one for name, one in loaded.items() if name not in overtaken(configured, loaded)}
    assert counting(configured, loaded) == counting(configured, left)


def read(said: object, own: Value) -> tuple[Value | None, str]:
    """What a person's word on one property is, or the complaint."""
    try:
        return checked("prn-1", {"it": said}, {"it": own})["it"], ""
    except UsageError as error:
        return None, str(error)


@given(values, values)
def test_a_value_has_the_type_of_the_configured_one_or_is_refused(said: Value, own: Value) -> None:
    found, complaint = read(said, own)
    assert complaint.startswith("it is ") == (found is None)
    if found is not None:
        assert (isinstance(found, str), isinstance(found, bool)) == (isinstance(own, str), isinstance(own, bool))
        assert same(json.loads(json.dumps(found)), found), "an event says it as it is"


@given(values)
def test_what_is_typed_is_what_is_meant(value: Value) -> None:
    assert same(typed("it", in_words(value), value), value)
    assert same(typed("it", f"  {in_words(value)} ", value), value)
    assert same(typed("it", value, value), value)


@given(st.text() | st.none() | st.lists(st.none()) | st.floats() | st.integers(), st.sampled_from(["PLA", 0.4, True]))
def test_nonsense_is_one_sentence(said: object, own: Value) -> None:
    found, complaint = read(said, own)
    assert complaint.isprintable()
    assert len(complaint) < 300
    assert found == found, "and no value is no number"
