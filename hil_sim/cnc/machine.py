"""The mill behind its nodes: job orders in, motion, and what clients see of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hil_sim.cnc import nodes
from hil_sim.cnc.jobs import Job, Jobs, JobState, Status
from hil_sim.cnc.methods import JobMethods
from hil_sim.cnc.mill import Happening, Mill, ProgramState
from hil_sim.cnc.program import TRAVEL_MM
from hil_sim.faults import FaultError
from hil_sim.opcua.alarms import Alarms
from hil_sim.opcua.carried_out import CarriedOut
from hil_sim.opcua.control import number, switch
from hil_sim.opcua.files import FileSystem
from hil_sim.opcua.host import unknown
from hil_sim.opcua.library import Variant
from hil_sim.opcua.names import ENUMERATIONS
from hil_sim.opcua.space import BOOLEAN, DOUBLE, STRING, UINT16, UINT32, Space

FAULTS = (
    "alarm",
    "reset",
    "estop",
    "door",
    "mode",
    "cycle-start",
    "override",
    "tool-broken",
    "tool-used",
    "corrupt-upload",
    "disk-bytes",
)
ALARMS = ("ProgramAlarm", "OperatorAlarm", "ToolAlarm", "EmergencyStopAlarm")
MODES = ENUMERATIONS["mt:65"][1]
AUTOMATIC = 1

_ITEM_STATES = {"NotAvailable": (5005, 0), "OutOfService": (5004, 1), "NotExecuting": (5007, 2), "Executing": (5006, 3)}
_OPERATION_MODES = {"None": (5024, 0), "Maintenance": (5025, 1), "Setup": (5027, 2), "Processing": (5026, 3)}
_MODE_IS = {"Automatic": "Processing", "Setup": "Setup", "Manual": "Setup", "Service": "Maintenance"}
_PROGRAM_STATES = {
    0: ("Initializing", 135),
    1: ("Running", 138),
    2: ("Ended", 140),
    3: ("Interrupted", 139),
    4: ("Aborted", 141),
}
UNKNOWN_PROGRAM_STATE = 77


class Machine:
    """One simulated mill."""

    application_uri = "urn:hil-sim:cnc"

    def __init__(
        self, name: str, folder: Path | None, record: Callable[[float, str, str], None], variants: frozenset[str]
    ) -> None:
        """`record`: told what is carried out. `variants`: of `hil_sim.opcua.host.VARIANTS`."""
        self._name = name
        self._folder = folder
        self.carried_out = CarriedOut(record)
        self._variants = variants
        self.mill = Mill(self.carried_out.record)
        self.jobs = Jobs()
        self.door_closed = True
        self.estop = False
        self.mode = AUTOMATIC
        self.now_s = 0.0
        self._programs_changed = True

    async def build(self, space: Space) -> None:
        travel = dict(zip("XYZ", TRAVEL_MM, strict=True))
        self._space = space
        self._nodes = await nodes.build(space, self._name, travel)
        self.files = FileSystem(space, self._nodes.file_system, self._folder, self._note_programs)
        sources = (self._nodes.messages, self._nodes.machine)
        self._alarms = Alarms(space, self._nodes.messages, "mt:39", ALARMS, sources)
        self._methods = JobMethods(space, self._nodes, self.jobs, self, self._variants)
        await self._publish()

    def _note_programs(self) -> None:
        self._programs_changed = True

    # -- what the job methods need

    def programs(self) -> list[str]:
        """Names that a job order may carry."""
        return self.files.names()

    def ready(self) -> str:
        """Why nothing may begin or go on; empty if it may."""
        if self.estop:
            return "emergency stop"
        if self._alarms.active():
            return self._alarms.active()[0].text
        if not self.door_closed:
            return "door open"
        return "" if self.mode == AUTOMATIC else f"mode {MODES[self.mode]}"

    async def act(self, job: Job, verb: str) -> Status:
        """Carry out Pause, Resume, Stop or Abort of a job that the machine has in its hands, then move the job."""
        match verb:
            case "Pause":
                self.mill.hold(self.now_s, "Pause")
            case "Resume":
                if self.ready():
                    return Status.CANNOT_ACCEPT
                self.mill.resume(self.now_s)
            case _:
                self.mill.end(ProgramState.ABORTED, self.now_s, verb)
        return self.jobs.move(job.job_id, verb, datetime.now(UTC))

    async def settle(self) -> None:
        """Begin what may begin, and show everything."""
        self._begin()
        await self._publish()

    # -- time

    async def advance(self, now_s: float) -> None:
        self.now_s = max(self.now_s, now_s)
        self.mill.advance(self.now_s)
        happenings, self.mill.happenings = self.mill.happenings, []
        for each in happenings:
            await self._happened(each)
        await self.settle()

    async def _happened(self, happening: Happening) -> None:
        verbs = {ProgramState.ENDED: "ends", ProgramState.INTERRUPTED: "is interrupted", ProgramState.ABORTED: "Abort"}
        if happening.alarm:
            name = "ToolAlarm" if happening.state is ProgramState.INTERRUPTED else "ProgramAlarm"
            await self._alarms.raise_(name, happening.alarm, clears_itself=True)
        self._move_active(verbs[happening.state])

    def _move_active(self, verb: str) -> None:
        if self.jobs.active:
            self.jobs.move(self.jobs.active.job_id, verb, datetime.now(UTC))

    def _begin(self) -> None:
        job = self.jobs.find(JobState.ALLOWED_TO_START)
        if job is None or self.jobs.active or self.ready():
            return
        content = self.files.content(job.work_master) or b""
        self.jobs.move(job.job_id, "begins", datetime.now(UTC))
        self.mill.start(job.work_master, io.TextIOWrapper(io.BytesIO(content), "latin-1"), self.now_s)

    # -- faults

    async def say(self, name: str, argument: str) -> Any:
        match name:
            case "alarm":
                self._interrupt(argument or "alarm")
                await self._alarms.raise_("OperatorAlarm", argument or "something is wrong")
            case "reset":
                for alarm in self._alarms.active():
                    if alarm.name != "EmergencyStopAlarm" or not self.estop:
                        await self._alarms.clear(alarm.name)
            case "estop":
                await self._estop(pressed=switch(name, argument, "on", "off"))
            case "door":
                self.door_closed = not switch(name, argument, "open", "closed")
                if not self.door_closed:
                    self._interrupt("door open")
            case "mode":
                if argument not in MODES:
                    raise FaultError(f"mode is one of {', '.join(MODES)}")
                self.mode = MODES.index(argument)
                if self.mode != AUTOMATIC:
                    self._interrupt(f"mode {argument}")
            case "cycle-start":
                if self.jobs.active and self.jobs.active.state is JobState.INTERRUPTED:
                    await self.act(self.jobs.active, "Resume")
            case _:
                return self._set(name, argument)
        return None

    def _set(self, name: str, argument: str) -> Any:
        match name:
            case "override":
                self.mill.override = min(150.0, number(name, argument))
            case "tool-broken":
                self.mill.broken.add(int(number(name, argument)))
            case "tool-used":
                tool, _, minutes = argument.partition(":")
                if int(number(name, tool)) not in self.mill.used_min:
                    raise FaultError(f"{name} is TOOL:MINUTES, like {name}=1:59.5")
                self.mill.used_min[int(tool)] = number(name, minutes)
            case "corrupt-upload":
                self.files.corrupts = switch(name, argument, "on", "off")
            case "disk-bytes":
                self.files.disk_bytes = int(number(name, argument))
            case "state":
                return self._state()
            case _:
                raise unknown(name, FAULTS)
        return None

    def _state(self) -> dict[str, Any]:
        return {
            "program": self.mill.program,
            "program_state": self.mill.state.name,
            "line": self.mill.line,
            "position_mm": list(self.mill.position()),
            "tool": self.mill.tool,
            "jobs": {job.job_id: job.state.name for job in self.jobs.jobs.values()},
            "ready": self.ready(),
        }

    def _interrupt(self, why: str) -> None:
        if self.mill.running:
            self.mill.hold(self.now_s, why)
            self._move_active("is interrupted")

    async def _estop(self, *, pressed: bool) -> None:
        self.estop = pressed
        if pressed:
            self.mill.end(ProgramState.ABORTED, self.now_s, "emergency stop")
            self._move_active("Abort")
            await self._alarms.raise_("EmergencyStopAlarm", "emergency stop", 1000)

    async def power_cycle(self, now_s: float) -> None:
        await self.advance(now_s)
        self.carried_out.record(now_s, "!", "power-cycle")
        self.mill.power_up()
        self.jobs.forget()
        self.estop = False
        await self._alarms.forget()
        await self._publish()

    def wipe(self) -> None:
        self.files.clear()
        self.carried_out.clear()

    def session_closed(self, session_id: Any) -> None:
        self.files.close_of(session_id)

    # -- what clients see

    async def _publish(self) -> None:
        await self._publish_states()
        await self._publish_motion()
        await self.files.publish()
        programs_changed, self._programs_changed = self._programs_changed, False
        await self._methods.publish(programs_changed=programs_changed)

    async def _publish_states(self) -> None:
        space, at, mill = self._space, self._nodes, self.mill
        wrong = "wrong-types" in self._variants
        item = "Executing" if mill.running else "NotExecuting"
        if self.estop or self._alarms.active():
            item = "OutOfService"
        node, state_number = _ITEM_STATES[item]
        await at.item_state.show(item, f"machinery:{node}", state_number, as_string=wrong)
        mode = _MODE_IS.get(MODES[self.mode], "None")
        node, state_number = _OPERATION_MODES[mode]
        await at.operation_mode.show(mode, f"machinery:{node}", state_number, as_string=wrong)
        text, node = _PROGRAM_STATES[mill.state]
        if "unknown-states" in self._variants and mill.running:
            await at.program_state.show("Churning", "", UNKNOWN_PROGRAM_STATE)
        else:
            await at.program_state.show(text, f"mt:{node}", mill.state, as_string=wrong)
        await space.write(at.program_name, STRING, mill.program)
        programs = self.programs()
        listed = programs.index(mill.program) + 1 if mill.program in programs else 0
        await space.write(at.program_number, UINT16, listed)
        await space.write(at.program_job, STRING, self.jobs.active.job_id if self.jobs.active else "")
        shown: Any = Variant(MODES[self.mode]) if wrong else self.mode
        await space.write(at.mode, "mt:65", shown)
        await space.write(at.channel_mode, "mt:67", 0 if self.mode == AUTOMATIC else 2)
        channel = {ProgramState.RUNNING: 0, ProgramState.INTERRUPTED: 1}.get(mill.state, 2)
        await space.write(at.channel_state, "mt:64", channel)
        await space.write(at.door_closed, BOOLEAN, self.door_closed)
        await space.write(at.emergency_stop, BOOLEAN, self.estop)
        await space.write(at.power_on, UINT32, int(self.now_s / 3600.0))

    async def _publish_motion(self) -> None:
        space, at, mill = self._space, self._nodes, self.mill
        override: Any = Variant(f"{mill.override:g} %") if "wrong-types" in self._variants else mill.override
        await space.write(at.feed_override, DOUBLE, override)
        await space.write(at.channel_override, DOUBLE, override)
        await space.write(at.feed, DOUBLE, mill.feed_mm_per_min())
        await space.write(at.block, STRING, mill.block)
        await space.write(at.spindle_rotates, BOOLEAN, bool(mill.rpm))
        await space.write(at.spindle_speed, DOUBLE, abs(mill.rpm))
        await space.write(at.spindle_load, DOUBLE, mill.load_percent())
        for letter, mm in zip("XYZ", mill.position(), strict=True):
            await space.write(at.positions[letter], DOUBLE, round(mm, 6))
        await space.write(at.tool_number, UINT32, mill.tool)
        for tool, variables in at.tools.items():
            usable = mill.tool_usable(tool)
            await space.write(variables.locked, BOOLEAN, not usable)
            await space.write(variables.reason, "mt:66", 1 if tool in mill.broken else 4 if usable else 2)
            await space.write(variables.used_min, DOUBLE, mill.used_min[tool])
