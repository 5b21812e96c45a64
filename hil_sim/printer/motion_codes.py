"""Commands that move, or say how to move."""

from __future__ import annotations

import math
import re
from collections.abc import Generator

from hil_sim.plant import Position
from hil_sim.printer import texts
from hil_sim.printer.board import MIN_EXTRUSION_DEGC, Board, Handler, Waiting, finish_moves

_WORD = re.compile(r"([A-Z]) *([-+]?(?:\d+\.?\d*|\.\d+))")


def words(arguments: str) -> dict[str, float]:
    """Letters with a number after them; a letter without one is not here, as for Marlin's `seenval`."""
    return {letter: float(value) for letter, value in _WORD.findall(arguments)}


def _linear(board: Board, arguments: str) -> Waiting | None:
    if board.axes.moves_free(board.now_s) > 0:
        _move(board, words(arguments))
        return None
    return _linear_later(board, arguments)


def _linear_later(board: Board, arguments: str) -> Waiting:
    if (yield from _room(board)):
        _move(board, words(arguments))


def _room(board: Board) -> Generator[float, None, bool]:
    """Wait for room in the planner; False if a quick stop came first, which drops the waiting move, too."""
    stops = board.axes.stops
    while (room_s := board.axes.room_at_s(board.now_s)) > board.now_s:
        yield room_s
    return board.axes.stops == stops


def _arc(clockwise: bool) -> Handler:
    def handler(board: Board, arguments: str) -> Waiting:
        if (yield from _room(board)):
            given = words(arguments)
            _move(board, given, _arc_mm(board, given, clockwise))

    return handler


def _arc_mm(board: Board, given: dict[str, float], clockwise: bool) -> float | None:
    """Length of the arc in X and Y; None if it has no radius. The simulated tool takes the chord, in the arc's time."""
    x, y = board.axes.planned[:2]
    end_x, end_y = _target(board, given)[:2]
    if "R" in given:
        radius_mm = abs(given["R"])
        half = math.hypot(end_x - x, end_y - y) / 2.0
        if radius_mm <= 0.0 or half <= 0.0:
            return None
        angle = 2.0 * math.asin(min(1.0, half / radius_mm))
        return radius_mm * (2.0 * math.pi - angle if given["R"] < 0.0 else angle)
    i_mm, j_mm = given.get("I", 0.0), given.get("J", 0.0)
    radius_mm = math.hypot(i_mm, j_mm)
    if radius_mm <= 0.0:
        return None
    start = math.atan2(-j_mm, -i_mm)
    end = math.atan2(end_y - y - j_mm, end_x - x - i_mm)
    angle = (start - end if clockwise else end - start) % (2.0 * math.pi)
    return radius_mm * (angle or 2.0 * math.pi)


def _target(board: Board, given: dict[str, float]) -> Position:
    """Machine coordinates of the end of a move, inside the software end stops of the axes that are homed."""
    modes = board.modes
    x, y, z, e = board.axes.planned
    xyz = [x, y, z]
    for i, letter in enumerate("XYZ"):
        value = given.get(letter)
        if value is not None:
            native = value - modes.shift_mm[i] if modes.absolute else xyz[i] + value
            if letter in modes.homed:
                native = min(max(native, 0.0), board.options.size_mm[i])
            xyz[i] = native
    value = given.get("E")
    if value is not None:
        e = value if modes.absolute_e else e + value
    return xyz[0], xyz[1], xyz[2], e


def _move(board: Board, given: dict[str, float], path_mm: float | None = None) -> None:
    modes, axes = board.modes, board.axes
    feed = given.get("F")
    if feed is not None and feed > 0.0:
        modes.feed_mm_per_s = feed / 60.0
    target = _target(board, given)
    if target[3] != axes.planned[3] and board.hotend.degc(board.now_s) < MIN_EXTRUSION_DEGC:
        # Marlin counts the E of a refused extrusion as done and makes the rest of the move.
        axes.set_planned((*axes.planned[:3], target[3]))
        board.say(texts.COLD_EXTRUSION)
    axes.add_move(target, modes.feed_mm_per_s * modes.feed_percent / 100.0, board.now_s, path_mm)


def _dwell(board: Board, arguments: str) -> Waiting:
    given = words(arguments)
    yield from finish_moves(board)
    end_s = board.now_s + (given["S"] if "S" in given else given.get("P", 0.0) / 1000.0)
    while board.now_s < end_s:
        yield end_s


def _home(board: Board, arguments: str) -> Waiting:
    chosen = "".join(letter for letter in "XYZ" if letter in arguments) or "XYZ"
    yield from finish_moves(board)
    end_s = board.now_s + board.axes.homing_s(chosen)
    while board.now_s < end_s:
        yield end_s
    x, y, z = (0.0 if letter in chosen else mm for letter, mm in zip("XYZ", board.axes.planned[:3], strict=True))
    board.axes.set_planned((x, y, z, board.axes.planned[3]))
    for letter in chosen:
        board.modes.shift_mm["XYZ".index(letter)] = 0.0
    board.modes.homed.update(chosen)
    board.say_position()


def _set_position(board: Board, arguments: str) -> None:
    given = words(arguments)
    axes = board.axes
    for i, letter in enumerate("XYZ"):
        if letter in given:
            board.modes.shift_mm[i] = given[letter] - axes.planned[i]
    if "E" in given:
        axes.set_planned((*axes.planned[:3], given["E"]))
    board.say_position()


def _mode(absolute: bool) -> Handler:
    def handler(board: Board, _arguments: str) -> None:
        # G90 and G91 take E along and undo an M82 or M83 before them.
        board.modes.absolute = absolute
        board.modes.absolute_e = absolute

    return handler


def _mode_e(absolute: bool) -> Handler:
    def handler(board: Board, _arguments: str) -> None:
        board.modes.absolute_e = absolute

    return handler


def _report_position(board: Board, arguments: str) -> None:
    board.say_position(board.axes.position(board.now_s) if "R" in arguments else None)


def _set_per_axis(board: Board, arguments: str, values: list[float]) -> None:
    given = words(arguments)
    for i, letter in enumerate("XYZE"):
        if letter in given:
            values[i] = given[letter]


def _set_max_acceleration(board: Board, arguments: str) -> None:
    _set_per_axis(board, arguments, board.axes.limits.max_mm_per_s2)


def _set_max_feed(board: Board, arguments: str) -> None:
    _set_per_axis(board, arguments, board.axes.limits.max_mm_per_s)


def _set_acceleration(board: Board, arguments: str) -> None:
    given, limits = words(arguments), board.axes.limits
    both = given.get("S")
    limits.print_mm_per_s2 = given.get("P", both or limits.print_mm_per_s2)
    limits.travel_mm_per_s2 = given.get("T", both or limits.travel_mm_per_s2)
    limits.retract_mm_per_s2 = given.get("R", limits.retract_mm_per_s2)


def _feed_percent(board: Board, arguments: str) -> None:
    given = words(arguments)
    if "S" in given:
        board.modes.feed_percent = given["S"]
    else:
        board.say(f"FR:{board.modes.feed_percent:.0f}%\n")


def _flow_percent(board: Board, arguments: str) -> None:
    given = words(arguments)
    if "S" in given:
        board.modes.flow_percent = given["S"]
    else:
        board.say(f"echo:E0 Flow: {board.modes.flow_percent:.0f}%\n")


def _finish(board: Board, _arguments: str) -> Waiting:
    return finish_moves(board)


HANDLERS: dict[str, Handler] = {
    "G0": _linear,
    "G1": _linear,
    "G2": _arc(clockwise=True),
    "G3": _arc(clockwise=False),
    "G4": _dwell,
    "G28": _home,
    "G90": _mode(absolute=True),
    "G91": _mode(absolute=False),
    "G92": _set_position,
    "M18": _finish,
    "M82": _mode_e(absolute=True),
    "M83": _mode_e(absolute=False),
    "M84": _finish,
    "M114": _report_position,
    "M201": _set_max_acceleration,
    "M203": _set_max_feed,
    "M204": _set_acceleration,
    "M220": _feed_percent,
    "M221": _flow_percent,
    "M400": _finish,
}
