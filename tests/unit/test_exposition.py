"""The text that Prometheus reads, against the rules of its exposition format."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.serving.exposition import Exposition

SAMPLE = re.compile(
    r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$', re.ASCII
)
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"', re.ASCII)

PLAIN = {r"\\": "\\", r"\n": "\n", r"\"": '"'}


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """An independent reader, by the letter of the format."""
    assert text == "" or text.endswith("\n")
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    typed: set[str] = set()
    now = ""
    for line in text.split("\n")[:-1]:
        if line.startswith("# TYPE "):
            now = line.split(" ")[2]
            assert now not in typed
            typed.add(now)
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match is not None, line
            name, labels, value = match.groups()
            assert name == now, "samples of one name stand together, after their TYPE"
            pairs = tuple((k, re.sub(r"\\.", lambda m: PLAIN[m.group()], v)) for k, v in LABEL.findall(labels or ""))
            assert (name, pairs) not in found
            found[name, pairs] = float(value)
    return found


@example({("edge_a", "", str(value)): value for value in (math.nan, math.inf, -math.inf)})
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["edge_a", "edge_b"]), st.text(max_size=8), st.text(max_size=8)),
        st.floats() | st.integers(-(2**60), 2**60),
        max_size=12,
    )
)
def test_what_is_written_is_read_back(samples: dict[tuple[str, str, str], float]) -> None:
    out = Exposition()
    for (name, machine, heater), value in samples.items():
        out.add(name, "gauge", "a help\nwith \\ two lines", value, machine=machine, heater=heater)
    found = read(out.render())
    assert len(found) == len(samples)
    for (name, machine, heater), value in samples.items():
        seen = found[name, (("heater", heater), ("machine", machine))]
        assert seen == float(value) or (math.isnan(seen) and math.isnan(value))


def test_a_page_as_a_person_reads_it() -> None:
    out = Exposition()
    out.add("edge_up", "gauge", "1 while it is up.", True)
    out.add("edge_resends_total", "counter", "Lines sent again.", 3, machine='prn "1"\\')
    out.add("edge_resends_total", "counter", "Lines sent again.", None, machine="prn-2")
    assert out.render() == (
        "# HELP edge_up 1 while it is up.\n# TYPE edge_up gauge\nedge_up 1\n"
        "# HELP edge_resends_total Lines sent again.\n# TYPE edge_resends_total counter\n"
        'edge_resends_total{machine="prn \\"1\\"\\\\"} 3\n'
    )


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("edge-up", "gauge", {}),
        ("edge_resends", "counter", {}),
        ("edge_up_total", "gauge", {}),
        ("edge_up", "gauge", {"ma-chine": "x"}),
        ("edge_up", "gauge", {"__name": "x"}),
    ],
)
def test_what_breaks_the_format_is_our_bug(name: str, kind: str, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is no"):
        Exposition().add(name, kind, "help", 1, **labels)  # type: ignore[arg-type]


def test_a_name_has_one_meaning_and_a_sample_one_value() -> None:
    out = Exposition()
    out.add("edge_up", "gauge", "help", 1)
    with pytest.raises(ValueError, match="two meanings"):
        out.add("edge_up", "gauge", "another help", 1)
    with pytest.raises(ValueError, match="twice"):
        out.add("edge_up", "gauge", "help", 2)
