"""Write the diagram of `edge.jobstate` into docs/states.md: `python docs/make_states.py`."""

from __future__ import annotations

from pathlib import Path

from edge.jobstate import diagram

BEGIN, END = "```mermaid\n", "```\n"


def main() -> None:
    page = Path(__file__).with_name("states.md")
    before, rest = page.read_text(encoding="utf-8").split(BEGIN, 1)
    _, after = rest.split(END, 1)
    page.write_text(before + BEGIN + diagram() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
