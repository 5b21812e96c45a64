"""A run that is held: on request by the driver, or by the printer itself, which waits for a person.

On request, the program is cut between two commands and its iterator kept. When all that was sent is acknowledged and
done, the printer must stand where the program has brought it; then the profile's macro takes it aside, with the counter
as the proof (`proven`). On resume the way back is proven in the same way, and the program goes on with its next command
and number.

By itself the printer holds in M0, M1, M600 and at a run-out. There it blocks in one command and takes no other: standby
is left to it. In M600 it has time-outs of its own for its heaters (PAUSE_PARK_NOZZLE_TIMEOUT,
Marlin/Configuration_adv.h), in M0 and M1 none. The run goes on by itself when a person has answered at the machine.

An answer from here goes past the queue, unchecked, so it can get lost. It is sent again only when the printer says,
well after the last one, that it waits for the same thing: a second answer to a first question would answer the next.
What ends the wait is what the printer says, never that the answer was sent.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable
from pathlib import Path

from drivers.gcode import macros
from drivers.gcode.device import Device, standing_in
from drivers.gcode.macros import FINAL, Place
from drivers.gcode.prompts import Prompts, Wish
from drivers.gcode.proven import Proven
from drivers.gcode.recovery import Keeper
from drivers.gcode.replies import Busy, Position, Reply, Temperatures
from drivers.gcode.resume import Standing, misplaced
from drivers.gcode.stopping import Stopping
from edge.driver import MachineError, MachineState, Message, NotAcceptableError, NotConfirmedError

AT_THE_PRINTER = "a person at the printer"

ANSWERS_MAX = 3
"""How often one question is answered: Marlin's queue of four (BUFSIZE) holds them all behind what it waits in."""

ANSWER_AGAIN_S = 1.5
"""What the printer says so soon after an answer may be of before it: longer than any link takes to and fro, and less
than the 2 s between Marlin's busy messages (DEFAULT_KEEPALIVE_INTERVAL)."""

LOOK_S = 5.0
"""How often a held printer that does not report its temperatures is asked for them; also what notices a dead one."""


class _Phase(enum.Enum):
    GOING = enum.auto()  # the program's commands go out
    PARKING = enum.auto()
    HELD = enum.auto()
    RETURNING = enum.auto()


class _CutShortError(Exception):
    """A stop has cut the macros: what they were for is of no use any more."""


class Holding:
    """Pause and resume of one printer, and what it asks of people."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.stopping = Stopping(device, self.wake)
        self._prompts = Prompts()
        self._phase = _Phase.GOING
        self._running = False
        self._sending = False  # the program has begun; before it, the modes are set
        self._asked = False  # the run is to be held, and to stay so
        self._by_printer = False  # it was the printer that asked
        self._why = ""  # and what for
        self._leaving = False  # the run is to be left standing
        self._answered: tuple[int, int] | None = None  # the printer's question that was answered from here
        self._answers = 0  # how often
        self._answered_s = 0.0  # and when last
        self._deaf = False  # and in vain
        self._shown = False  # as held by the printer
        self._over: Exception | None = None  # why nothing can be confirmed any more
        self._news = asyncio.Event()
        self._own = Proven(device, self._must_go_on)

    # The run

    @property
    def is_asked(self) -> bool:
        """Whether the program is not to go on."""
        return self._asked

    def begin_run(self) -> None:
        """A run begins."""
        self._running, self._phase, self._over = True, _Phase.GOING, None
        self._asked = self._by_printer = self._leaving = self._shown = False
        self._forget_answer()
        self._sending = False
        self._prompts.forget()
        self.stopping.begin_run()

    def begin_program(self) -> None:
        """Its program begins: from here on, what is sent may be cut for a pause."""
        self._sending = True

    def end_run(self, failure: BaseException | None) -> None:
        """It ended: whoever waits for it learns why."""
        self._running = False
        self._prompts.forget()
        self._show()
        if isinstance(failure, MachineError) or self.stopping.is_asked:
            self._over = NotConfirmedError(str(failure or "the run was stopped instead"))
        else:
            self._over = NotAcceptableError("the run", "asked to be held", "before its end")
        self.wake()

    def leave(self) -> None:
        """The run is to be left standing. Raises `MachineError` if it stands aside already."""
        if self._phase is not _Phase.GOING:
            raise MachineError("a held print stands aside, and nothing could prove afterwards where it was")
        self._leaving = True
        self._asked = False
        self.wake()

    def acknowledged(self) -> None:
        """A command of the program is done."""
        if self._shown:
            self._prompts.acknowledged()
            self._show()

    def wake(self) -> None:
        """Something has changed for whoever waits here."""
        self._news.set()

    # What is asked for

    async def pause(self, deadline_s: float) -> None:
        """As `Driver.pause`."""
        self._must_run("pause")
        macro = self._device.known_profile.macro
        if not (macro.pause and macro.resume):
            limit = f"a profile with macros for it; {self._device.profile_name} has none"
            raise NotAcceptableError("pause", "asked", limit)
        self._ask(by_printer=False)
        late = "the printer did not confirm the pause in time; it is held as soon as what it was sent is done"
        await self._until(lambda: self._phase is _Phase.HELD or self._shown, deadline_s, late)

    async def resume(self, deadline_s: float) -> None:
        """As `Driver.resume`."""
        self._must_run("resume")
        asked = self._prompts.question if self._shown else None
        if asked is not None:
            self._answer()
        self._asked = False
        self.wake()

        def goes_on() -> bool:
            if asked is not None and self._shown:
                self._must_be_heard(asked)
            return self._phase is _Phase.GOING and not self._shown

        await self._until(goes_on, deadline_s, "the printer did not confirm in time that it goes on")

    def _must_be_heard(self, asked: tuple[int, int]) -> None:
        """Raises `NotConfirmedError` if the printer does not go on after an answer to the question `asked`."""
        prompts = self._prompts
        if prompts.question != asked and not prompts.informs:
            raise NotConfirmedError(f"the printer has taken the answer, and asks once more: {prompts.words}")
        if self._deaf:
            told = f"the printer was told {self._answers} times to go on, and still waits"
            raise NotConfirmedError(f"{told}: {prompts.words}; push the button at the printer")

    def _must_run(self, what: str) -> None:
        self._device.session.check()
        if not self._running:
            raise NotAcceptableError(what, "asked", "while a run is carried out")
        if self.stopping.is_asked:
            raise NotAcceptableError(what, "asked", "not while the printer is being stopped")

    def _ask(self, *, by_printer: bool) -> None:
        # What was held from here is released from here.
        self._by_printer = by_printer and (self._by_printer or not self._asked)
        if not self._asked:
            self._asked = True
            if self._phase is _Phase.GOING and self._sending:
                self._device.session.cut()
            self.wake()

    async def _until(self, done: Callable[[], bool], deadline_s: float, late: str) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._device.clock.mono_s())):
                while not done():
                    if self._over is not None:
                        raise self._over
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise NotConfirmedError(late) from error

    # Held on request

    async def hold(self, path: Path, number: int, keeper: Keeper) -> None:
        """Stand aside after command `number`, until the run is to go on, to be stopped, or to be left standing.

        The program's last command sent is acknowledged. Raises `MachineError`; the printer is made safe then.
        """
        try:
            self._phase = _Phase.PARKING
            self._own.begin()
            self._prompts.acknowledged()
            keeper.suspend()
            where, before = await self._stand_aside(path, number)
            await self._stay(where)
            self._phase = _Phase.RETURNING
            await self._come_back(where, before)
            keeper.go_on()
        except _CutShortError:
            return
        except MachineError:
            self._device.wire_free.set()
            if self._device.session.failure is None:
                await self.stopping.quietly()
            raise
        finally:
            self._phase = _Phase.GOING
            self.wake()
        if not self._asked:
            self._device.see(MachineState.EXECUTE)

    async def _stand_aside(self, path: Path, number: int) -> tuple[Place, Standing]:
        """Still, where it should be, and then aside; where it was, counted and as the printer told it."""
        device = self._device
        expected = await asyncio.to_thread(standing_in, path, number)
        assert expected.at is not None
        await self._own.carry_out((FINAL,))
        seen = (await self._own.position()).axes_mm
        if wrong := misplaced(expected, seen):
            raise MachineError(f"the run was to be held after command {number}, but {wrong}")
        await self._own.look_at_heaters()
        nozzle_degc = device.heaters["T"][0] if "T" in device.heaters else None
        where = macros.place(expected.at, seen, expected.targets_degc, nozzle_degc, homed=expected.homed)
        await self._own.carry_out(macros.pausing(device.known_profile.macro.pause, where))
        return where, Standing(seen, expected.targets_degc, absolute=True)

    async def _stay(self, where: Place) -> None:
        """Held; after a while at a lower temperature."""
        device = self._device
        self._phase = _Phase.HELD
        reason = "paused on request"
        if self._by_printer:
            reason = f"paused by the printer: {self._why}" if self._why else f"paused by {AT_THE_PRINTER}"
        if not where.homed:
            reason += "; it has not moved aside, for its axes are not homed"
        device.see(MachineState.HELD, reason)
        self.wake()
        standby = macros.standby(device.known_profile.macro.standby, where)
        if standby and not await self._asked_to_end(device.machine.connection.standby_after_s):
            await self._own.carry_out(standby)
            device.see(MachineState.HELD, f"{reason}; the nozzle cools to {macros.STANDBY_DEGC:g} degC")
        await self._asked_to_end(None)

    async def _asked_to_end(self, within_s: float | None) -> bool:
        """Wait until the hold is to end, or that time is over; meanwhile look after the printer."""
        device = self._device
        until_s = math.inf if within_s is None else device.clock.mono_s() + within_s
        while True:
            before = device.reports
            if await self._ends(min(LOOK_S, max(0.0, until_s - device.clock.mono_s()))):
                return True
            if device.clock.mono_s() >= until_s:
                return False
            if device.reports == before:
                await self._own.look_at_heaters()

    async def _ends(self, within_s: float) -> bool:
        """Whether the hold is to end before that time is over."""
        lost = asyncio.create_task(self._device.session.lost(), name=f"hold {self._device.machine.id}")
        lost.add_done_callback(lambda task: self.wake())
        try:
            async with asyncio.timeout(within_s):
                while self._asked and not lost.done():
                    self._must_go_on()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        finally:
            lost.cancel()
            await asyncio.wait([lost])
        self._device.session.check()
        self._must_go_on()
        return True

    async def _come_back(self, where: Place, before: Standing) -> None:
        """Warm, to where it was, and with the program's modes; the printer itself must say so."""
        device = self._device
        await self._own.look_at_heaters()
        targets = {name: target for name, (_, target) in device.heaters.items()}
        # Not only after standby: firmware switches heaters off by itself when nobody moves for long.
        reheat = any(targets.get(name, 0.0) != target for name, target in where.targets_degc.items())
        await self._own.carry_out(macros.resuming(device.known_profile.macro.resume, where, reheat=reheat))
        if wrong := misplaced(before, (await self._own.position()).axes_mm):
            raise MachineError(f"the printer did not come back to where it was held: {wrong}")

    def _must_go_on(self) -> None:
        if self.stopping.is_asked or self._leaving:
            raise _CutShortError

    # Held by the printer

    def heard(self, reply: Reply) -> None:
        """Something that the printer said beside answers to requests."""
        if isinstance(reply, Position | Temperatures):
            self._own.heard(reply)
            return
        wish = self._prompts.hear(reply)
        self._show()
        if isinstance(reply, Busy):
            self._answer_again()
        if wish is not None and self._running and not self.stopping.is_asked:
            self._wished(wish)

    def _wished(self, wish: Wish) -> None:
        macro = self._device.known_profile.macro
        match wish:
            case Wish.CANCEL:
                self.stopping.stop_for(f"stopped by {AT_THE_PRINTER}")
            case Wish.PAUSE if macro.pause and macro.resume:
                self._why = self._prompts.reason
                self._ask(by_printer=True)
            case Wish.PAUSE:
                self._device.context.emit(Message("the printer asks to be held, and its profile has no macros for it"))
            case Wish.RESUME if self._asked and self._by_printer:
                self._asked = False
                self.wake()
            case Wish.RESUME if self._asked:
                # Whoever held the run may have a reason that nobody at the printer can see.
                self._device.context.emit(Message("the printer asks to go on; release the job"))
            case _:
                pass

    def _show(self) -> None:
        """Tell whether the printer waits for a person, when that changes."""
        # Standing aside, the printer has nothing to wait for: what it still shows is of before.
        # And what it asks while no run goes on is no business of ours.
        held = self._running and self._prompts.held and self._phase is _Phase.GOING
        profile = self._device.profile
        self._device.session.be_patient(held and profile is not None and not profile.wire.busy_interval_s)
        if held:
            self._device.see(MachineState.HELD, self._prompts.words)
        elif self._shown and self._running and self._phase is _Phase.GOING:
            self._device.see(MachineState.EXECUTE)
        if held != self._shown:
            self._shown = held
            self._forget_answer()
        self.wake()

    def _answer(self) -> None:
        """Let the printer go on. Raises `NotAcceptableError` where only a person there can."""
        device, prompts = self._device, self._prompts
        if self._answered == prompts.question and not self._deaf:
            # A printer that never says that it is busy cannot say either that it still waits: the person has seen it.
            soon = device.clock.mono_s() - self._answered_s < ANSWER_AGAIN_S
            if soon or device.known_profile.wire.busy_interval_s:
                return
        if not device.acts_at_once or (prompts.buttons and prompts.choice is None):
            # Without an emergency parser the answer waits in the queue behind the command that it answers.
            raise NotAcceptableError("resume", prompts.words, "push the button at the printer")
        self._forget_answer()
        self._answered = prompts.question
        self._send_answer()

    def _send_answer(self) -> None:
        device, choice = self._device, self._prompts.choice
        asks = choice is not None and device.firmware.has("PROMPT_SUPPORT")
        self._answers += 1
        self._answered_s = device.clock.mono_s()
        device.session.interject(f"M876 S{choice}" if asks else "M108")

    def _answer_again(self) -> None:
        """The printer has said whether it waits: if it is still for what was answered, the answer has got lost."""
        if self._answered is None or self._deaf:
            return
        if self._answered != self._prompts.question or not self._prompts.waits:
            return
        if self._device.clock.mono_s() - self._answered_s < ANSWER_AGAIN_S:
            return
        if self._answers < ANSWERS_MAX:
            self._send_answer()
        else:
            self._deaf = True
            self.wake()

    def _forget_answer(self) -> None:
        self._answered, self._answers, self._deaf = None, 0, False
