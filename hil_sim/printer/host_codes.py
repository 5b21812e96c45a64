"""Commands for heaters, and those that talk with host and operator."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from hil_sim.plant import Heater
from hil_sim.printer import texts
from hil_sim.printer.board import Board, Handler, Waiting, finish_moves, wait_for_user
from hil_sim.printer.motion_codes import words

RESIDENCY_S = 10.0
"""How long a temperature must hold before M109 and M190 end (TEMP_RESIDENCY_TIME)."""
WINDOW_DEGC = 1.0
"""How near the target counts as reached (TEMP_WINDOW)."""
SD_PRINT_S = 600.0
"""How long the print from the SD card takes."""
SD_PRINT_DEGC = 200.0
MAX_REPORT_S = 60.0
"""The longest interval of M155."""

_TIME = re.compile(r" *([PS])([0-9.]+)$")
_TOOL_PARAMETER = re.compile(r" *([AEP])(\d)(?: +|$)")


def _nothing(_board: Board, _arguments: str) -> None:
    """Accepted, without an effect that the serial port could show."""


def _heater(board: Board, bed: bool) -> Heater:
    return board.bed if bed else board.hotend


def _set_heater(bed: bool) -> Handler:
    def handler(board: Board, arguments: str) -> None:
        given = words(arguments)
        if "S" in given:
            _heater(board, bed).set_target(given["S"], board.now_s)

    return handler


def _wait_heater(bed: bool) -> Handler:
    def handler(board: Board, arguments: str) -> Waiting:
        given = words(arguments)
        heater = _heater(board, bed)
        target_degc = given.get("S", given.get("R"))
        if target_degc is not None:
            heater.set_target(target_degc, board.now_s)
        cooling = heater.degc(board.now_s) > heater.target_degc
        if heater.target_degc <= 0.0 or (cooling and "R" not in given):
            return
        yield from _reach(board, heater)

    return handler


def _reach(board: Board, heater: Heater) -> Waiting:
    """A line each second: `W:?` until the target is reached, then the seconds it must still hold."""
    board.heatup_cancelled = False
    tick_s = board.now_s
    reached_s: float | None = None
    while reached_s is None or tick_s - reached_s < RESIDENCY_S:
        if reached_s is None and abs(heater.degc(board.now_s) - heater.target_degc) < WINDOW_DEGC:
            reached_s = tick_s
        tick_s += 1.0
        while board.now_s < tick_s:
            yield tick_s
            if board.heatup_cancelled:
                return
        left = "?" if reached_s is None else f"{RESIDENCY_S - (tick_s - reached_s):.0f}"
        board.say(f"{board.temperatures()} W:{left}\n")


def _temperatures(board: Board, _arguments: str) -> None:
    board.reply = f"ok{board.temperatures()}"


def _auto_report(board: Board, arguments: str) -> None:
    given = words(arguments)
    if "S" in given:
        board.report_every_s = min(max(given["S"], 0.0), MAX_REPORT_S)
        board.next_report_s = board.now_s + board.report_every_s if board.report_every_s else math.inf


def _set_line_number(board: Board, arguments: str) -> None:
    given = words(arguments)
    if "N" in given:
        board.new_line_number = int(given["N"])


def _identify(board: Board, _arguments: str) -> None:
    options = board.options
    built = {
        "EMERGENCY_PARSER": options.emergency_parser,
        "PROMPT_SUPPORT": options.prompts,
        "SDCARD": options.sd_card,
        "THERMAL_PROTECTION": options.thermal_protection,
    }
    board.say(texts.identity(options.uuid, built, options.size_mm))


def _say_to_host(board: Board, arguments: str) -> None:
    prefix = ""
    while parameter := _TOOL_PARAMETER.match(arguments):
        if parameter[2] == "1":
            prefix = {"A": "//", "E": "echo:"}.get(parameter[1], prefix)
        arguments = arguments[parameter.end() :]
    board.say(f"{prefix}{arguments.lstrip(' ')}\r\n")


def _stop_for_user(code: str) -> Handler:
    def handler(board: Board, arguments: str) -> Waiting:
        yield from finish_moves(board)
        given = _TIME.match(arguments)
        until_s = math.inf if given is None else board.now_s + float(given[2]) / (1000.0 if given[1] == "P" else 1.0)
        board.say(f"echo:{arguments.strip(' ') or 'Click please'}\r\n")
        board.prompt(f"{code} Stop", "Continue", asks=True)
        yield from wait_for_user(board, until_s)

    return handler


def _change_filament(board: Board, _arguments: str) -> Waiting:
    """M600 without its moves: wait for the filament, load it, and ask for more until that is enough."""
    board.say("//action:paused\n")
    board.prompt("Pause", "Dismiss")
    yield from finish_moves(board)
    board.say(texts.INSERT_FILAMENT)
    board.prompt("Nozzle Parked", "Continue", asks=True)
    yield from wait_for_user(board)
    board.out_of_filament = False
    if board.options.asks_for_more:
        board.prompt("Paused", "PurgeMore", "Continue", asks=True)
        yield from wait_for_user(board)
    if board.options.prompts:
        board.say(texts.PROMPT_END)
    board.say("//action:resumed\n")
    board.prompt("Resuming", "Dismiss")


def _prompt_response(board: Board, arguments: str) -> None:
    """M876 without the emergency parser: its turn comes when nothing waits any more."""
    if not board.options.emergency_parser and "S" in words(arguments):
        respond(board)


def _sd_status(board: Board, arguments: str) -> None:
    done_s = board.now_s - board.sd_print_began_s
    printing = done_s >= 0.0
    if "C" in arguments:
        paused = board.options.sd_paused and board.now_s < SD_PRINT_S
        board.say(texts.sd_file(is_open=printing or paused))
        return
    board.say(texts.sd_printing(int(texts.SD_FILE_BYTES * done_s / SD_PRINT_S)) if printing else texts.SD_NOT_PRINTING)


def start_sd_print(board: Board) -> None:
    """Somebody chooses a file at the display."""
    board.say(texts.SD_OPENED)
    board.sd_print_began_s = board.now_s
    board.hotend.set_target(SD_PRINT_DEGC, board.now_s)


def end_sd_print(board: Board) -> None:
    """The file has come to its end, which switches the heaters off."""
    board.sd_print_began_s = math.inf
    board.heaters_off()
    board.say(texts.SD_DONE)


def _ask_resend(board: Board, arguments: str) -> None:
    board.resend_asked = words(arguments).get("S") != 1.0


def release(board: Board) -> None:
    """M108: end a wait for the user or for a temperature."""
    board.user_released = True
    board.heatup_cancelled = True


def respond(board: Board) -> None:
    """M876 S: the answer to a prompt; to one that does not wait, nothing."""
    if board.asks_to_continue:
        board.asks_to_continue = False
        board.user_released = True


def end_heatup(board: Board) -> None:
    """M108 as read without the emergency parser, and without a display: only a wait for a temperature ends."""
    board.heatup_cancelled = True


def quick_stop(board: Board) -> None:
    """M410: drop all queued moves."""
    board.axes.stop(board.now_s)


def _unless_done(act: Callable[[Board], None]) -> Handler:
    """With the emergency parser the command has acted when it arrived, and its turn in the queue does nothing."""

    def handler(board: Board, _arguments: str) -> None:
        if not board.options.emergency_parser:
            act(board)

    return handler


HANDLERS: dict[str, Handler] = {
    "G21": _nothing,
    "M0": _stop_for_user("M0"),
    "M1": _stop_for_user("M1"),
    "M17": _nothing,
    "M27": _sd_status,
    "M104": _set_heater(bed=False),
    "M105": _temperatures,
    "M106": _nothing,
    "M107": _nothing,
    "M108": _unless_done(release),
    "M109": _wait_heater(bed=False),
    "M110": _set_line_number,
    "M115": _identify,
    "M117": _nothing,
    "M118": _say_to_host,
    "M140": _set_heater(bed=True),
    "M155": _auto_report,
    "M190": _wait_heater(bed=True),
    "M205": _nothing,
    "M410": _unless_done(quick_stop),
    "M600": _change_filament,
    "M876": _prompt_response,
    "M999": _ask_resend,
    "T0": _nothing,
}
