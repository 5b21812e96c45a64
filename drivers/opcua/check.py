"""What can be said of a program before it goes to a controller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drivers.analysis import analyse, command_on
from drivers.opcua.config import OpcUaMachine
from drivers.opcua.equipment import PROGRAM_PARAMETER
from edge.driver import NotAcceptableError, Prediction, Program, Step, Value


def check_program(machine: OpcUaMachine, step: Step, program: Program) -> Prediction:
    """Hold the program against the machine's limits. Raises `NotAcceptableError`."""
    limits = machine.limits
    if program.size_bytes > limits.program_max_bytes:
        raise NotAcceptableError(f"{program.name}: size", program.size_bytes, limits.program_max_bytes, "bytes")
    facts: dict[str, Value] = {"checked_by": limits.checked_by}
    if isinstance(named := step.parameters.get(PROGRAM_PARAMETER), str):
        facts[PROGRAM_PARAMETER] = named
    if limits.checked_by == "controller":
        return Prediction(None, facts)
    with program.path.open(encoding="utf-8", errors="replace") as file:
        found = analyse(_commands(file))
    if found.unknowable is not None:
        limit = 'commands whose place is known beforehand (or say checked_by = "controller")'
        raise NotAcceptableError(f"line {found.unknowable.line}", found.unknowable.code, limit)
    for axis, allowed in (("X", limits.x_mm), ("Y", limits.y_mm), ("Z", limits.z_mm)):
        extent = found.extents_mm[axis]
        for extreme in (extent.least, extent.greatest):
            if extreme is None or allowed is None or allowed[0] <= extreme.value <= allowed[1]:
                continue
            limit = f"{allowed[0]:g} to {allowed[1]:g}"
            raise NotAcceptableError(f"line {extreme.line}: {axis}", f"{extreme.value:g}", limit, "mm")
    timeline = tuple((done, round(seconds, 1)) for done, seconds in found.timeline)
    return Prediction(round(found.duration_s, 1), {**facts, "commands": found.commands}, timeline)


def _commands(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Without blank lines, comments in brackets, the tape marks and program numbers that controllers begin with."""
    for number, line in enumerate(lines, 1):
        text = command_on(_without_brackets(line))
        if text and not text.startswith(("%", "O")):
            yield number, text


def _without_brackets(line: str) -> str:
    kept, depth = "", 0
    for char in line:
        if char == "(":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif not depth:
            kept += char
    return kept
