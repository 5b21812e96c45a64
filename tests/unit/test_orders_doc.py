"""docs/orders.md: its example is an order, and no field of an order file is left out."""

from __future__ import annotations

import re
from pathlib import Path

from edge.model.order import JobOrder, OnFailure, OnRestart, Step
from edge.trust import order_from_file
from tests.helpers.trust import AT

PAGE = (Path(__file__).parents[2] / "docs" / "orders.md").read_text()
FILLED_IN = {"job_id", "issued_at", "series", "sequence", "artifacts", "steps"}


def test_the_example_is_an_order(tmp_path: Path) -> None:
    found = re.search(r"<!-- order example -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "order.toml").write_text(found[1])
    (tmp_path / "bracket.gcode").write_text("G28\n")
    made = order_from_file(
        tmp_path / "order.toml", job_id="01J9ZK3V5Q8M2N4P6R7S9T0W1X", series="3f2a3f2a", sequence=1, now=AT, issuer="a"
    )
    (step,) = made.order.steps
    assert (step.on_restart, step.on_failure) == (OnRestart.RESUME, OnFailure.RETRY_BEFORE_MOTION)
    assert made.order.artifacts["bracket.gcode"].sources == ("https://files.acme/bracket.gcode",)


def test_every_field_and_every_word_has_its_line() -> None:
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("| "))
    fields = {*JobOrder.model_fields, *Step.model_fields} - FILLED_IN
    assert {name for name in fields if f"`{name}`" not in rows} == set()
    assert {word for word in (*OnRestart, *OnFailure) if f"`{word}`" not in rows} == set()
