"""The text that Prometheus reads: version 0.0.4 of its exposition format. PURE.

    text = Exposition()
    text.add("edge_resends_total", "counter", "Lines sent again.", 3, machine="prn-1")
    text.render()

Rules (prometheus.io/docs/instrumenting/exposition_formats): one HELP and one TYPE line before all samples of a name,
the samples of a name together, no two with the same labels, and a line feed at the very end.
"""

from __future__ import annotations

import math
import re
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge"]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class Exposition:
    """Samples, gathered in any order. What breaks a rule of the format is a `ValueError`: our bug."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[Kind, str]] = {}
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}

    def add(self, name: str, kind: Kind, help: str, value: float | None, **labels: str) -> None:
        """One sample; None is no sample, but the name is there."""
        if not _NAME.fullmatch(name) or (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"{name} is no name for a {kind}")
        if self._heads.setdefault(name, (kind, help)) != (kind, help):
            raise ValueError(f"{name} has two meanings")
        samples = self._samples.setdefault(name, {})
        if value is None:
            return
        for label in labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"{label} is no label")
        key = tuple(sorted(labels.items()))
        if key in samples:
            raise ValueError(f"{name}{labels} is there twice")
        samples[key] = value

    def render(self) -> str:
        """The whole page."""
        lines: list[str] = []
        for name, (kind, help) in self._heads.items():
            escaped = help.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"]
            for labels, value in self._samples[name].items():
                inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
                lines.append(f"{name}{{{inner}}} {_number(value)}" if inner else f"{name} {_number(value)}")
        return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
