"""grblHAL without its wire: bytes and simulated time in, bytes out. No I/O, reads no clock.

Rules (grblHAL core 20260817: protocol.c, motion_control.c, state_machine.c, report.c)

1. ``?``, ``!``, ``~``, Ctrl-X and bytes above 127 are picked out as they arrive and need no room. Everything else goes
   into the receive ring (1023 bytes); a full ring loses bytes in silence.
2. A line is read, carried out and answered, ``ok`` or ``error:n``, one after the other; an empty one is answered, too.
   A move is answered when the planner has taken it. What waits (full planner, dwell, spindle, M0, homing) holds back
   the answer and every line behind it.
3. After an ``error:n`` the following lines of G-code get the same error and are not carried out, until an empty line,
   a ``$`` command or a reset.
4. Real-time requests are served between lines and when the bytes of one `feed` are used up. A report is printed before
   a hold begins and before queued moves are started, so it may say ``Idle`` although moves wait.
5. While the machine is held nothing is read from the ring.
6. Ctrl-X empties ring and planner and shows the banner. In motion the position is lost: ``ALARM:3`` (``ALARM:6`` while
   homing), and G-code gets ``error:9`` until ``$X`` or ``$H``.
7. A target outside of the travel of a homed machine is ``ALARM:2``: nothing is answered any more but ``?`` and ``$``
   commands, until Ctrl-X.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from hil_sim.faults import Faults
from hil_sim.grbl import gcode, texts
from hil_sim.grbl.motion import MAX_MM_PER_S, Motion, Position

LINE_BYTES = 256
STATUS_REFRESH = 10
"""Every so many reports show overrides and accessories, those between do not."""

Record = Callable[[float, str, str], None]
"""Called with simulated seconds, `-` or `!`, and the command or what happened."""

Waiting = Iterator[float]
"""A command that blocks: it yields the simulated second to be woken at, and may be woken earlier."""

_SETTINGS = {
    "$0": "10.0",
    "$1": "25",
    "$10": "511",
    "$13": "0",
    "$20": "1",
    "$21": "0",
    "$22": "1",
    "$110": "5000.000",
    "$111": "5000.000",
    "$112": "5000.000",
    "$120": "500.000",
    "$121": "500.000",
    "$122": "500.000",
}


@dataclass(frozen=True)
class Options:
    """How this machine was built and configured, and what a person has done at it. Home is at 0, travel is positive.

    `homed`: a person has homed it since it was switched on; `locked`: it is locked by an alarm until somebody does.
    `g54_mm` is where the work zero lies in machine coordinates. `reports_work`: WPos in the place of MPos.
    `plain`: grbl 1.1 in the place of grblHAL. It has smaller buffers, does not say whether it is homed, and carries out
    what stands behind a refused line.
    """

    info: str = ""
    size_mm: Position = (300.0, 200.0, 80.0)
    rx_bytes: int = texts.RX_BYTES - 1
    reports_buffers: bool = True
    reports_work: bool = False
    homed: bool = False
    locked: bool = False
    g54_mm: Position = (0.0, 0.0, 0.0)
    plain: bool = False

    @property
    def blocks(self) -> int:
        """Moves that the planner holds."""
        return texts.PLAIN_BLOCKS if self.plain else texts.PLANNER_BLOCKS

    @property
    def line_bytes(self) -> int:
        """The longest line."""
        return texts.PLAIN_LINE_BYTES if self.plain else LINE_BYTES


class State(Enum):
    """As the status report names it."""

    IDLE = "Idle"
    RUN = "Run"
    HOLD = "Hold"
    HOME = "Home"
    ALARM = "Alarm"


class Firmware:
    """One machine. Time arguments are simulated seconds and never go back."""

    def __init__(self, options: Options, record: Record, faults: Faults | None = None) -> None:
        """`record` is told each line that is carried out, each start and each alarm. `boot` comes first."""
        self._options = options
        self._record = record
        self._now_s = 0.0
        self._motion = Motion(self._options.blocks)
        self._homed = options.homed
        self._locked = options.locked
        self._faults = faults or Faults()
        self._blocks = self._oks = 0
        self._mute = self._booted = False
        self._out: list[str] = []
        self._reset()

    def boot(self, now_s: float) -> bytes:
        """Power-up or reset button: forget everything, the position and the alarm, too."""
        self._now_s = max(self._now_s, now_s)
        if self._booted:
            self._homed = self._mute = False  # what a person has done at it was before the first time
            self._locked = self._options.locked
        self._booted = True
        self._motion = Motion(self._options.blocks)
        self._start()
        return self._sent()

    def feed(self, data: bytes, now_s: float) -> bytes:
        """Bytes from the wire; what the firmware sends up to `now_s`, these bytes included."""
        self._run_until(now_s)
        for byte in data:
            self._arrive(byte)
        self._breathe()
        return self._sent()

    def advance(self, now_s: float) -> bytes:
        """What the firmware sends up to `now_s`."""
        self._run_until(now_s)
        return self._sent()

    def next_wakeup_s(self) -> float | None:
        """When `advance` has something to do; None if nothing happens without further bytes."""
        next_s = min(self._resume_at_s, self._motion.changes_at_s())
        return next_s if next_s < math.inf else None

    # -- life

    def _reset(self) -> None:
        self._ring = bytearray()
        self._line = bytearray()
        self._line_end = 0
        self._last_error = 0
        self._modes = gcode.Modes()
        self._modes.zeros_mm["G54"] = self._options.g54_mm
        self._asked = self._hold_asked = self._start_asked = False
        self._held = self._homing = self._critical = False
        self._reports = 0
        self._not_waiting()

    def _not_waiting(self) -> None:
        self._waiting: Waiting | None = None
        self._resume_at_s = math.inf

    def _start(self) -> None:
        self._reset()
        self._record(self._now_s, "!", "boot")
        self._say(texts.PLAIN_BANNER if self._options.plain else texts.BANNER)
        if self._locked:
            self._say(texts.message(texts.LOCKED))

    def _soft_reset(self) -> None:
        if self._homing:
            self._alarm(6)
        elif self._motion.running:
            self._alarm(3)
        self._motion.clear(self._now_s)
        self._start()

    def _alarm(self, code: int) -> None:
        self._locked = True
        if code in (1, 3, 6):
            self._homed = False
        self._say(texts.alarm(code))
        self._record(self._now_s, "!", f"alarm {code}")

    def _state(self) -> State:
        if self._locked and not self._homing:
            return State.ALARM
        if self._held:
            return State.HOLD
        if self._homing:
            return State.HOME
        return State.RUN if self._motion.running else State.IDLE

    def _say(self, text: str) -> None:
        self._out.append(text)

    def _sent(self) -> bytes:
        data = "".join(self._out).encode("latin-1", "replace")
        self._out.clear()
        return data

    # -- time

    def _run_until(self, now_s: float) -> None:
        while (next_s := self.next_wakeup_s()) is not None and next_s <= now_s:
            self._now_s = max(self._now_s, next_s)
            self._motion.advance(self._now_s)
            self._resume_at_s = math.inf
            self._go_on()
            self._breathe()
        self._now_s = max(self._now_s, now_s)
        self._motion.advance(self._now_s)

    def _go_on(self) -> None:
        """Let the blocking command go on; it may wait again."""
        if self._waiting is None or self._held or self._critical:
            return
        resume_at_s = next(self._waiting, None)
        if resume_at_s is None:
            self._not_waiting()
            self._answer(0)
        else:
            self._resume_at_s = resume_at_s

    # -- bytes

    def _arrive(self, byte: int) -> None:
        if self._mute:
            return
        match byte:
            case 0x18:
                self._soft_reset()
            case 0x3F | 0x80:  # ?
                self._asked = True
            case 0x21 | 0x82:  # !
                self._hold_asked = True
            case 0x7E | 0x81:  # ~
                self._start_asked = True
            case _ if byte < 0x80 and len(self._ring) < self._options.rx_bytes:
                self._ring.append(byte)
                if byte in b"\r\n":
                    self._work()

    def _breathe(self) -> None:
        """What the main loop does when it has read everything: requests, then start what is queued."""
        self._serve()
        self._work()
        if self._motion.waiting and not (self._held or self._locked):
            self._motion.start(self._now_s)

    def _serve(self) -> None:
        if self._asked:
            self._asked = False
            self._report()
        if self._hold_asked:
            self._hold_asked = False
            if self._state() in (State.IDLE, State.RUN):
                self._held = True
                self._motion.hold(self._now_s)
        if self._start_asked:
            self._start_asked = False
            if self._held and not self._motion.running:
                self._held = False
                self._motion.start(self._now_s)
                self._go_on()

    def _work(self) -> None:
        """Read and carry out lines until one blocks, the machine is held, or no whole line is left."""
        while self._ring and not self._held and self._waiting is None:
            byte = self._ring.pop(0)
            if byte not in b"\r\n":
                if byte >= 0x20 and len(self._line) <= self._options.line_bytes:
                    self._line.append(byte)
                continue
            if not self._line and self._line_end and self._line_end != byte:
                self._line_end = 0
                continue  # the other half of CR LF
            self._line_end = byte
            self._serve()
            if self._state() is State.HOLD:
                self._ring.insert(0, byte)
                self._line_end = 0
                return
            text = self._line.decode("ascii")
            self._line.clear()
            self._carry_out(text)

    # -- lines

    def _carry_out(self, text: str) -> None:
        if len(text) > self._options.line_bytes:
            self._answer(11)
        elif not (line := gcode.bare(text)):
            self._answer(0)
        elif line.startswith("$"):
            self._system(line)
        elif self._locked:
            self._answer(9)
        elif self._last_error:
            self._answer(self._last_error)
        else:
            self._block(line, text.strip())

    def _answer(self, error: int) -> None:
        self._last_error = 0 if self._options.plain else error
        if error:
            self._line_end = 0
        else:
            self._oks += 1
            if self._oks == self._faults.drop_ok:
                return
        self._say(texts.error(error) if error else texts.OK)

    def _block(self, line: str, text: str) -> None:
        try:
            block = gcode.take(line, self._modes, self._motion.planned)
        except gcode.RefusedError as error:
            self._answer(error.code)
            return
        if block.target and self._homed and not self._reaches(block.target):
            self._stop_for_good(2)
            return
        self._record(self._now_s, "-", text)
        self._blocks += 1
        if self._blocks == self._faults.alarm_after:
            self._stop_for_good(1)
            return
        if self._blocks == self._faults.silent_after:
            self._mute = True
            return
        if self._blocks == self._faults.die_after:
            self._out.append(self.boot(self._now_s).decode("latin-1"))
            return
        self._waiting = self._do(block)
        self._go_on()

    def _stop_for_good(self, alarm: int) -> None:
        """Stand at once, and take nothing until Ctrl-X."""
        self._motion.clear(self._now_s)
        self._alarm(alarm)
        self._say(texts.message(texts.CRITICAL))
        self._critical = True
        self._ring.clear()

    def _reaches(self, target: Position) -> bool:
        return all(0.0 <= mm <= size for mm, size in zip(target, self._options.size_mm, strict=True))

    def _do(self, block: gcode.Block) -> Waiting:
        if block.synchronises:
            yield from self._standstill()
        if block.dwell_s is not None:
            until_s = self._now_s + block.dwell_s
            while self._now_s < until_s:
                yield until_s
        if block.target is not None:
            while self._motion.blocks_free() == 0:
                self._motion.start(self._now_s)
                yield self._motion.changes_at_s()
            speed = MAX_MM_PER_S if block.rapid else self._modes.feed_mm_per_min / 60.0
            self._motion.add(block.target, speed, block.path_mm)
        if block.pauses:
            yield from self._standstill()
            self._held = True
            yield math.inf
        if block.ends:
            yield from self._standstill()
            self._modes.end_program()
            self._say(texts.message(texts.PROGRAM_END))

    def _standstill(self) -> Waiting:
        while self._motion.waiting or self._motion.running:
            if not self._motion.running:
                self._motion.start(self._now_s)
            yield self._motion.changes_at_s()

    def _system(self, line: str) -> None:
        state = self._state()
        if state not in (State.IDLE, State.ALARM) and line not in ("$", "$G", "$X"):
            self._answer(8)
            return
        match line:
            case "$":
                self._say(texts.HELP)
            case "$I":
                self._say(texts.identity(self._options.info, plain=self._options.plain))
            case "$$":
                sizes = {f"$13{i}": f"{mm:.3f}" for i, mm in enumerate(self._options.size_mm)}
                self._say("".join(f"{name}={value}{texts.END}" for name, value in (_SETTINGS | sizes).items()))
            case "$#":
                self._say(texts.offsets(self._modes.zeros_mm, self._modes.offset_mm))
            case "$G":
                self._say(f"[GC:{self._parser_state()}]{texts.END}")
            case "$X" | "$H" if self._critical:
                self._answer(79)
                return
            case "$X":
                if self._locked:
                    self._locked = False
                    self._say(texts.message(texts.UNLOCKED))
            case "$H":
                self._record(self._now_s, "-", line)
                self._waiting = self._home()
                self._go_on()
                return
            case _:
                self._answer(3)
                return
        self._answer(0)

    def _home(self) -> Waiting:
        self._homing = True
        until_s = self._now_s + self._motion.homing_s()
        while self._now_s < until_s:
            yield until_s
        self._homing = self._locked = False
        self._homed = True
        self._motion.place((0.0, 0.0, 0.0))

    def _parser_state(self) -> str:
        modes = self._modes
        coolant = " ".join(modes.coolant) or "M9"
        chosen = " ".join(modes.chosen[group] for group in ("motion", "system", "plane", "units", "distance", "feed"))
        return f"{chosen} {modes.spindle} {coolant} T{modes.tool} F{modes.feed_mm_per_min:g} S{modes.rpm:g}"

    # -- report

    def _report(self) -> None:
        state = self._state()
        name = state.value
        if state is State.HOLD:
            name += ":1" if self._motion.running else ":0"
        place, shift = self._motion.position(self._now_s), self._modes.shift_mm()
        fields = [name, f"MPos:{texts.numbers(place)}"]
        if self._options.reports_work:
            fields[1] = f"WPos:{texts.numbers(mm - by for mm, by in zip(place, shift, strict=True))}"
        if self._options.reports_buffers:
            fields.append(f"Bf:{self._motion.blocks_free()},{self._options.rx_bytes - len(self._ring)}")
        speed = self._modes.feed_mm_per_min if state is State.RUN else 0.0
        fields.append(f"FS:{speed:.0f},{0.0 if self._modes.spindle == 'M5' else self._modes.rpm:.0f}")
        if self._reports % STATUS_REFRESH == 0:
            fields.append(f"WCO:{texts.numbers(shift)}")
        elif self._reports % STATUS_REFRESH == 1:
            spindle = {"M3": "S", "M4": "C"}.get(self._modes.spindle, "")
            coolant = "".join(letter for code, letter in (("M8", "F"), ("M7", "M")) if code in self._modes.coolant)
            fields += ["Ov:100,100,100", f"A:{spindle}{coolant}"]
            if not self._options.plain:
                fields.append(f"H:{int(self._homed)}")
        self._reports += 1
        self._say(f"<{'|'.join(fields)}>{texts.END}")
