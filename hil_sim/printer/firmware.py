"""Marlin 2.1.2.1 without its wire: bytes and simulated time in, bytes out. No I/O, reads no clock.

Rules:

1. What arrives goes through the emergency parser, then into the receive ring. A full ring loses bytes in silence.
2. Lines are read from the ring while the command queue (4) has room; the command that is being carried out keeps its
   place. So four lines are taken while a command blocks, and only then does the ring fill.
3. Refusals are sent when a line is read, before the `ok`s of the commands queued ahead of it.
4. A refusal empties the ring. Bytes of one `feed` count as having arrived together: those that follow the refused
   line, up to a ring's size, are lost with it, and the rest of a line cut like this is carried out unchecked.
5. An `ok` is sent when a command is finished: a move when the planner has taken it.
6. Without the emergency parser M108, M112 and M410 act when their line is read, if it has no number; so only while the
   queue has room (`get_serial_commands`).
7. M112, and a fault that halts, kill: heaters off, motion stopped, silent until a reset.

A command takes no time of its own; only motion, heating and waiting do. For commands that do not wait, the answer to a
stream without refused lines does not depend on how it is split into `feed`s.
"""

from __future__ import annotations

import math
import re
import sys
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from hil_sim.faults import Faults, LineNoise
from hil_sim.printer import host_codes, motion_codes, texts
from hil_sim.printer.board import Board, Handler, Options, Waiting
from hil_sim.printer.reader import Command, LineReader, Refusal

QUEUE_COMMANDS = 4
"""BUFSIZE of Marlin's default configuration."""
KEEPALIVE_S = 2.0
"""DEFAULT_KEEPALIVE_INTERVAL: how often a blocking command says that it is busy."""
PRESSED_AFTER_S = 60.0
"""How long after Pause, by the fault `pause-after`, somebody presses Resume at the display."""

_PIECE = re.compile(rb"[^\r\n]*[\r\n]|[^\r\n]+")
_EMERGENCY = re.compile(rb" *(?:N[-0-9 ]*)?M *(108|112|410|876 *S *[0-9])")
_EARLY = re.compile(r"M(108|112|410)")
_EMERGENCY_BYTES = 96
"""How much of an unfinished line the emergency parser's memory is given here."""
_CODE = re.compile(r" *([GMT]) *(\d+)(?:\.\d+)?")

_HANDLERS: dict[str, Handler] = motion_codes.HANDLERS | host_codes.HANDLERS

Record = Callable[[float, str, str], None]
"""Called with simulated seconds, line number or `-` or `!`, and the command or what happened."""


class _Life(Enum):
    RUNNING = auto()
    HALTED = auto()
    """Killed: deaf and silent until a reset."""
    HUNG = auto()
    """The fault `silent-after`: the same from outside, but the heaters stay as they are."""


class Firmware:
    """One printer's firmware. Time arguments are simulated seconds and never go back."""

    def __init__(self, options: Options, faults: Faults, record: Record, seed: int = 0) -> None:
        """`record` is told each command when it is taken from the queue, and each start. `boot` comes first."""
        self._options = options
        self._faults = faults
        self._record = record
        self._board = Board(options)
        self._noise = LineNoise(faults.corrupt, seed) if faults.corrupt else None
        self._noise_back = LineNoise(faults.garble, seed) if faults.garble else None
        self._executed = 0
        self._answers_lost = 0
        self._numbered_oks = 0
        self._skip_bytes = 0
        self._power_up()

    def boot(self, now_s: float) -> bytes:
        """Power-up or reset button: forget everything but the temperatures, say the banner."""
        self._board.now_s = max(self._board.now_s, now_s)
        self._boot()
        return self._sent()

    def feed(self, data: bytes, now_s: float) -> bytes:
        """Bytes from the wire; what the firmware sends up to `now_s`, these bytes included."""
        self._run_until(now_s)
        if self._noise:
            data = self._noise.disturb(data)
        self._skip_bytes = 0
        lost_until = 0
        for match in _PIECE.finditer(data):
            if self._life is not _Life.RUNNING:
                break
            piece = match.group()
            if lost_until > match.start():
                piece = piece[lost_until - match.start() :]
                if not piece:
                    continue
            self._arrive(piece)
            if self._skip_bytes:
                lost_until = match.end() + self._skip_bytes
                self._skip_bytes = 0
        return self._sent()

    def advance(self, now_s: float) -> bytes:
        """What the firmware sends up to `now_s`."""
        self._run_until(now_s)
        return self._sent()

    def next_wakeup_s(self) -> float | None:
        """When `advance` has something to do; None if nothing happens without further bytes."""
        if self._life is not _Life.RUNNING:
            return None
        sd_end_s = self._board.sd_print_began_s + host_codes.SD_PRINT_S
        next_s = min(self._resume_at_s, self._busy_at_s, self._board.next_report_s, self._resume_pressed_at_s, sd_end_s)
        return next_s if next_s < math.inf else None

    # -- life

    def _power_up(self) -> None:
        self._life = _Life.RUNNING
        self._reader = LineReader()
        self._ring = bytearray()
        self._emergency_line = b""
        self._queue: deque[Command] = deque()
        self._resume_pressed_at_s = math.inf
        self._not_waiting()

    def _not_waiting(self) -> None:
        self._waiting: Waiting | None = None
        self._resume_at_s = math.inf
        self._busy_at_s = math.inf

    def _boot(self) -> None:
        self._power_up()
        self._board.reset()
        self._skip_bytes = sys.maxsize
        self._record(self._board.now_s, "!", "boot")
        self._board.say(texts.BANNER)

    def _die(self, life: _Life) -> None:
        self._life = life
        self._skip_bytes = sys.maxsize
        self._not_waiting()

    def _kill(self, text: str) -> None:
        self._board.heaters_off()
        self._board.axes.stop(self._board.now_s)
        self._board.say(text)
        self._record(self._board.now_s, "!", "halt")
        self._die(_Life.HALTED)

    def _sent(self) -> bytes:
        out = self._board.out
        if not out:
            return b""
        data = "".join(out).encode("latin-1", "replace")
        out.clear()
        return self._noise_back.disturb(data) if self._noise_back else data

    # -- time

    def _run_until(self, now_s: float) -> None:
        board = self._board
        while (next_s := self.next_wakeup_s()) is not None and next_s <= now_s:
            board.now_s = max(board.now_s, next_s)
            if next_s == self._resume_at_s:
                self._resume()
                self._work()
            elif next_s == self._busy_at_s:
                self._busy_at_s += KEEPALIVE_S
                board.say(board.busy.value)
            elif next_s == self._resume_pressed_at_s:
                self._resume_pressed_at_s = math.inf
                board.say(texts.RESUMED_AT_DISPLAY)
            elif next_s == board.sd_print_began_s + host_codes.SD_PRINT_S:
                host_codes.end_sd_print(board)
            else:
                board.next_report_s += board.report_every_s
                board.say(f"{board.temperatures()}\n")
        board.now_s = max(board.now_s, now_s)

    # -- bytes

    def _arrive(self, piece: bytes) -> None:
        if self._answers_lost < (self._faults.lose_answers or 0) and piece.startswith((b"M108", b"M876")):
            self._answers_lost += 1
            return
        self._watch_for_emergency(piece)
        if self._life is not _Life.RUNNING:
            return
        if len(self._queue) < QUEUE_COMMANDS:
            # With room in the queue the ring is empty: it is read as fast as it fills.
            self._read(piece)
            self._work()
        else:
            room = self._options.rx_bytes - 1 - len(self._ring)
            self._ring += piece[: max(room, 0)]

    def _watch_for_emergency(self, piece: bytes) -> None:
        if not self._options.emergency_parser:
            return
        line = self._emergency_line + piece
        if piece[-1] not in b"\r\n":
            self._emergency_line = line[:_EMERGENCY_BYTES]
            return
        self._emergency_line = b""
        found = _EMERGENCY.match(line)
        if not found:
            return
        match found[1]:
            case b"112":
                self._kill(texts.KILLED_BY_M112)
                return
            case b"108":
                host_codes.release(self._board)
            case b"410":
                host_codes.quick_stop(self._board)
            case _:
                host_codes.respond(self._board)
        if self._waiting is not None:
            self._resume()
            self._work()

    def _read(self, piece: bytes) -> None:
        """Read from the ring's end, at most one line."""
        taken = self._reader.take(piece)
        if isinstance(taken, Command):
            self._queue.append(taken)
            if not self._options.emergency_parser and taken.number is None:
                self._act_early(taken.text)
        elif isinstance(taken, Refusal):
            self._board.say(texts.refusal(taken.reason, self._reader.last_number))
            self._ask_resend()

    def _act_early(self, text: str) -> None:
        """What a firmware without the emergency parser does as soon as it has read it; its turn still comes."""
        found = _EARLY.match(text)
        match found[1] if found else "":
            case "112":
                self._kill(texts.KILLED_BY_M112)
                return
            case "108":
                host_codes.end_heatup(self._board)
            case "410":
                host_codes.quick_stop(self._board)
            case _:
                return
        if self._waiting is not None:
            self._resume()

    def _ask_resend(self) -> None:
        self._ring.clear()
        self._reader.forget_line()
        self._skip_bytes = self._options.rx_bytes - 1
        self._board.say(f"Resend: {self._reader.last_number + 1}\n")
        if not self._faults.no_ok_after_resend:
            self._board.say("ok\n")

    # -- commands

    def _work(self) -> None:
        """Carry out commands and read lines until a command blocks with a full queue, or nothing is left to read."""
        while self._life is _Life.RUNNING:
            if self._queue and self._waiting is None:
                self._begin(self._queue[0])
            elif self._ring and len(self._queue) < QUEUE_COMMANDS:
                found = _PIECE.match(self._ring)
                assert found is not None, "the ring is not empty"
                piece = found.group()
                del self._ring[: len(piece)]
                self._read(piece)
            else:
                return

    def _begin(self, command: Command) -> None:
        self._record(self._board.now_s, "-" if command.number is None else str(command.number), command.text)
        self._executed += 1
        found = _CODE.match(command.text)
        code = f"{found[1]}{int(found[2])}" if found else ""
        handler = _HANDLERS.get(code)
        if handler is not None and found is not None:
            waiting = handler(self._board, command.text[found.end() :])
            if waiting is None:
                self._finish()
            else:
                self._waiting = waiting
                self._busy_at_s = self._board.now_s + KEEPALIVE_S
                self._resume()
        elif code == "M112":
            self._kill(texts.KILLED_BY_M112)
        else:
            self._board.say(texts.unknown(command.text.lstrip(" ")))
            self._finish()

    def _resume(self) -> None:
        """Let the blocking command go on; it may wait again."""
        assert self._waiting is not None, "only a blocking command is resumed"
        resume_at_s = next(self._waiting, None)
        if resume_at_s is None:
            self._not_waiting()
            self._finish()
        else:
            self._resume_at_s = resume_at_s

    def _finish(self) -> None:
        """The command at the head of the queue is done: its `ok`, its place, and the faults that count commands."""
        board = self._board
        command = self._queue[0]
        if board.new_line_number is not None:
            self._reader.last_number = board.new_line_number
            board.new_line_number = None
        if board.resend_asked:
            board.resend_asked = False
            self._ask_resend()
        if not command.injected:
            self._say_ok(command)
        self._queue.popleft()
        self._go_wrong()

    def _go_wrong(self) -> None:
        """The faults that count commands."""
        board, faults = self._board, self._faults
        if self._executed == faults.die_after:
            self._boot()
        elif self._executed == faults.halt_after:
            self._kill(texts.KILLED_BY_RUNAWAY)
        elif self._executed == faults.silent_after:
            self._die(_Life.HUNG)
        elif self._executed == faults.run_out_after:
            board.out_of_filament = True
            board.prompt("FilamentRunout T0")
            board.say(f"//action:paused {texts.OUT_OF_FILAMENT}\n")
            self._queue.appendleft(Command(None, "M600", injected=True))
        elif self._executed == faults.sd_print_after:
            host_codes.start_sd_print(board)
        elif self._executed == faults.pause_after:
            board.say(texts.PAUSED_AT_DISPLAY)
            self._resume_pressed_at_s = board.now_s + PRESSED_AFTER_S
        elif self._executed == faults.cancel_after:
            board.say(texts.CANCELLED_AT_DISPLAY)

    def _say_ok(self, command: Command) -> None:
        board = self._board
        reply, board.reply = board.reply, None
        if command.number is not None:
            self._numbered_oks += 1
            if self._numbered_oks == self._faults.drop_ok:
                return
        if reply is not None:
            board.say(f"{reply}\n")
        elif self._options.advanced_ok:
            number = "" if command.number is None else f" N{command.number}"
            planner_free = board.axes.moves_free(board.now_s)
            board.say(f"ok{number} P{planner_free} B{QUEUE_COMMANDS - len(self._queue)}\n")
        else:
            board.say("ok\n")
