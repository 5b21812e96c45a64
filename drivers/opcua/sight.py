"""What of a machine is in sight: which one it is, what it says of the run under way, and what people are told of it."""

from __future__ import annotations

from collections.abc import Mapping

from drivers.opcua.client import Link
from drivers.opcua.config import OpcUaMachine
from drivers.opcua.equipment import Equipment, Phase, Seen, Work
from drivers.opcua.jobcontrol import JobMachine
from drivers.opcua.library import DataValue, NodeId
from drivers.opcua.mapped import MappedMachine
from drivers.opcua.pki import Pki
from drivers.opcua.places import locate
from drivers.opcua.profile import AnyProfile, JobsProfile, MappedProfile, RoboticsProfile
from drivers.opcua.robotics import RobotMachine
from drivers.opcua.session import Session
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import (
    STAGES,
    Conditions,
    DriverContext,
    IdentityError,
    MachineError,
    MachineState,
    Message,
    Motion,
    NotConfirmedError,
    Progress,
    StateSeen,
)

IDLE_LOOK_S = 5.0
"""How often values that have not changed are told again, as long as the server's clock goes on: they are not old."""

FRESH_S = 2.0
"""How long ago the server may have been heard of when they are told again."""

LAST_STAGE = 2
"""Of a machine that says no more than its state: begun, and ended."""


class Sight:
    """The session of one machine and what it shows. `going` is the run under way, `seen` what was last said of it."""

    def __init__(self, machine: OpcUaMachine, context: DriverContext, profiles: Mapping[str, AnyProfile]) -> None:
        self._machine = machine
        self._context = context
        self._profiles = profiles
        self.session = Session(
            machine.id,
            machine.connection,
            Pki(context.state_dir / "pki"),
            context.clock,
            self._attach,
            self._saw,
            self._unwatched,
            self._out_of_sight,
            context.emit,
        )
        self._found: Equipment | None = None
        self.going: Work | None = None
        self.seen: Seen | None = None
        self._shown: StateSeen | None = None
        self._told = Conditions(())
        self._percent = 0

    @property
    def equipment(self) -> Equipment:
        """The machine."""
        assert self._found is not None, "known from the first link on"
        return self._found

    def begin(self, work: Work) -> None:
        """Another run is under way, of which nothing was seen yet."""
        self.going, self.seen, self._percent = work, None, 0
        self.equipment.begins()

    async def _attach(self, link: Link) -> Mapping[NodeId, float]:
        found, root, beside = await self._locate(link)
        self._found = found
        if self.going is not None and self.going.begun:
            self.going.unbroken = False
        return await found.attach(link, root, beside)

    async def _locate(self, link: Link) -> tuple[Equipment, NodeId, list[NodeId]]:
        """The machine, its object, and those of machines beside it that the same profile finds."""
        wanted = self._machine.connection.machine
        there = {name: await locate(link, profile) for name, profile in self._profiles.items()}
        fits = [
            (name, profile, browse_name, node)
            for name, profile in self._profiles.items()
            for browse_name, node in there[name]
            if wanted is None or wanted == browse_name
        ]
        named = f" with the browse name {wanted!r}" if wanted else ""
        if not fits:
            places = "; ".join(
                f"{name} looks for {' and '.join([profile.machine.root, *profile.machine.requires])}"
                for name, profile in self._profiles.items()
            )
            words = f"the server has no machine{named} that fits a profile: {places}"
            if self._found is not None:
                raise LinkError(f"{words}; it has had one: not all of it may be up yet")
            raise IdentityError(words)
        if len(fits) > 1:
            choice = ", ".join(f"{browse_name!r} ({name})" for name, _, browse_name, _ in fits)
            raise IdentityError(f"several fit: {choice}; name one as connection.machine, or name the profile")
        name, profile, _, node = fits[0]
        return self._found or self._made(name, profile), node, [other for _, other in there[name] if other != node]

    def _made(self, name: str, profile: AnyProfile) -> Equipment:
        made: Equipment
        match profile:
            case JobsProfile():
                made = JobMachine(self._machine, name, profile, self._context)
            case RoboticsProfile():
                made = RobotMachine(self._machine, name, profile, self._context)
            case MappedProfile():
                made = MappedMachine(self._machine, name, profile, self._context)
        made.tell = self.session.tell
        return made

    async def ask(self, work: Work) -> Seen | None:
        """What the machine says of the run; None if it cannot be asked now."""
        share: float | None = None
        try:
            await self.equipment.alarms.take_in(self.session.link)  # they may say why the run has ended
            seen = work.over or await self.equipment.look(self.session.link, work)
            await self.equipment.catch_up(self.session.link)
            if seen.goes_on:
                share = await self.equipment.progress(self.session.link)
        except RefusedError as error:
            self._context.emit(Message(str(error)))
            seen = Seen(Phase.ABSENT, f"the machine cannot be asked about the run: {error}")
        except MachineError:
            return None
        work.ran = work.ran or seen.goes_on
        if work is self.going:
            self.seen = seen
            if seen.goes_on:
                self.progress(work, share)
            self.show()
        return seen

    def progress(self, work: Work, share: float | None) -> None:
        """Tell how much of the run is done: the share that the machine gives, or only that it has begun or ended."""
        percent = round(100 * share) if self.equipment.profile.tells_progress and share is not None else 0
        if percent:
            self._percent = max(self._percent, percent)
            self._context.emit(Progress(self._percent, 100, "percent"))
        elif not self._percent:
            self._context.emit(Progress(LAST_STAGE if share == 1.0 else 1, LAST_STAGE, STAGES))

    def check(self, motion: Motion = Motion.POSSIBLE) -> None:
        """Raises for a failed session: before a run has begun it has moved nothing."""
        failure = self.session.failure
        if failure is None:
            return
        if motion is Motion.NONE:
            raise MachineError(str(failure), Motion.NONE)
        raise NotConfirmedError(str(failure))

    def _saw(self, node: NodeId, value: DataValue) -> None:
        self.equipment.saw(node, value)

    def _unwatched(self, refused: Mapping[NodeId, str]) -> None:
        self.equipment.unwatched(refused)

    async def watch(self) -> None:
        """Show the machine's state whenever something is new."""
        looked_s = self._context.clock.mono_s()
        while True:
            count = self.session.count
            try:
                await self.equipment.catch_up(self.session.link)
                await self.equipment.ask_again(self.session.link)
                if self._context.clock.mono_s() - looked_s >= IDLE_LOOK_S:
                    looked_s = self._context.clock.mono_s()
                    await self.equipment.alarms.look(self.session.link)
                if self.session.silent_s < FRESH_S:
                    self.equipment.confirm()
                self.show()
            except MachineError:
                pass  # out of sight: that is shown already
            await self.session.news(count, IDLE_LOOK_S)

    def show(self) -> None:
        """Tell the machine's state and its open conditions, if they are others."""
        conditions = Conditions(self._found.alarms.open) if self._found is not None else Conditions(())
        if self.session.in_sight and conditions != self._told:
            self._told = conditions
            self._context.emit(conditions)
        if self.session.failure is not None:
            seen = StateSeen(MachineState.ABORTED, str(self.session.failure))
        elif not self.session.in_sight:
            return
        else:
            seen = StateSeen(*self.equipment.state(self.going, self.seen))
        if seen != self._shown:
            self._shown = seen
            self._context.emit(seen)

    def _out_of_sight(self, reason: str) -> None:
        self._shown = StateSeen(MachineState.OFFLINE, reason)
        self._told = Conditions(())  # those who look know of none any more
        self._context.emit(self._told)
        self._context.emit(self._shown)
