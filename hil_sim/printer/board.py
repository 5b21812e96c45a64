"""What the command handlers act on: plant, modes, and the lines to be sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from hil_sim.plant import BED_RISE_DEGC, BED_TAU_S, HOTEND_RISE_DEGC, HOTEND_TAU_S, Axes, Heater, Position
from hil_sim.printer import texts

MIN_EXTRUSION_DEGC = 170.0
"""EXTRUDE_MINTEMP of Marlin's default configuration."""

DEFAULT_FEED_MM_PER_S = 25.0
"""Before the first F; 1500 mm/min in Marlin."""

HOTEND_MAX_TARGET_DEGC = 260.0
"""HEATER_0_MAXTEMP 275 less its overshoot of 15."""
BED_MAX_TARGET_DEGC = 140.0
"""BED_MAXTEMP 150 less its overshoot of 10."""


@dataclass(frozen=True)
class Options:
    """How this printer was built and configured."""

    uuid: str = texts.DEFAULT_UUID
    advanced_ok: bool = False
    emergency_parser: bool = True
    prompts: bool = True
    asks_for_more: bool = False
    """M600 asks whether enough filament has come out (M600_PURGE_MORE_RESUMABLE)."""
    thermal_protection: bool = True
    rx_bytes: int = 128
    sd_card: bool = False
    sd_paused: bool = False
    """Somebody has paused a print from its card, and ends it at the display ten minutes after the start."""
    size_mm: tuple[float, float, float] = (200.0, 200.0, 200.0)


class Busy(Enum):
    """What a blocking command says every two seconds."""

    PROCESSING = texts.BUSY_PROCESSING
    PAUSED_FOR_USER = texts.BUSY_PAUSED


@dataclass
class Modes:
    """The firmware's modal state; a reset makes it anew."""

    absolute: bool = True
    absolute_e: bool = True
    feed_mm_per_s: float = DEFAULT_FEED_MM_PER_S
    feed_percent: float = 100.0
    flow_percent: float = 100.0
    homed: set[str] = field(default_factory=set)
    shift_mm: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Logical less native position of X, Y, Z; G92 sets it."""


class Board:
    """One printer without its command queue. Temperatures outlive a reset, everything else does not."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.now_s = 0.0
        self.hotend = Heater(HOTEND_RISE_DEGC, HOTEND_TAU_S, HOTEND_MAX_TARGET_DEGC)
        self.bed = Heater(BED_RISE_DEGC, BED_TAU_S, BED_MAX_TARGET_DEGC)
        self.out: list[str] = []
        self.reset()

    def reset(self) -> None:
        """As after power-up: heaters off, position 0, nothing homed."""
        self.axes = Axes()
        self.modes = Modes()
        self.busy = Busy.PROCESSING
        self.reply: str | None = None
        """What a handler puts in the place of its plain `ok`."""
        self.new_line_number: int | None = None
        """What an executed M110 sets the counter to."""
        self.resend_asked = False
        self.heatup_cancelled = False
        self.user_released = False
        self.asks_to_continue = False
        """A prompt is shown whose answer ends the wait (PROMPT_USER_CONTINUE)."""
        self.out_of_filament = False
        self.sd_print_began_s = math.inf
        self.report_every_s = 0.0
        self.next_report_s = math.inf
        self.heaters_off()

    def heaters_off(self) -> None:
        """Targets to 0, as a reset and a kill do."""
        self.hotend.set_target(0.0, self.now_s)
        self.bed.set_target(0.0, self.now_s)

    def say(self, text: str) -> None:
        """Queue `text`, whole lines with their ends."""
        self.out.append(text)

    def prompt(self, text: str, *buttons: str, asks: bool = False) -> None:
        """Show a prompt at the host, if this firmware can. `asks`: an answer ends the wait."""
        self.asks_to_continue = asks
        if self.options.prompts:
            self.say(texts.prompt(text, *buttons))

    def temperatures(self) -> str:
        """The part of M105, M109 and M155 that they share, with its leading space."""
        now_s, hotend, bed = self.now_s, self.hotend, self.bed
        return (
            f" T:{hotend.degc(now_s):.2f} /{hotend.target_degc:.2f} B:{bed.degc(now_s):.2f} /{bed.target_degc:.2f}"
            f" @:{hotend.power(now_s)} B@:{bed.power(now_s)}"
        )

    def logical(self, native: Position) -> Position:
        """Machine coordinates as the program sees them, after G92."""
        x, y, z = (mm + shift for mm, shift in zip(native[:3], self.modes.shift_mm, strict=True))
        return x, y, z, native[3]

    def say_position(self, native: Position | None = None) -> None:
        """The position line; without `native` that of the end of all queued moves."""
        native = native or self.axes.planned
        self.say(texts.position(self.logical(native), native))


Waiting = Iterator[float]
"""A command that blocks: it yields the simulated second to be woken at, and may be woken earlier."""

Handler = Callable[[Board, str], Waiting | None]
"""Carries out one command: the board, and the text after the code. A handler that blocks gives a `Waiting`."""


def finish_moves(board: Board) -> Waiting:
    """Wait until the planner is empty (Marlin's `planner.synchronize`)."""
    while (idle_s := board.axes.idle_at_s(board.now_s)) > board.now_s:
        yield idle_s


def wait_for_user(board: Board, until_s: float = math.inf) -> Waiting:
    """Wait until a person has answered, at most until then."""
    board.user_released = False
    board.busy = Busy.PAUSED_FOR_USER
    while not board.user_released and board.now_s < until_s:
        yield until_s
    board.busy = Busy.PROCESSING
    board.asks_to_continue = False
