// The system and the one task control of a robot: OPC 40010-1 (Robotics) 1.02, sections 7.10 to 7.17.
// No OPC UA in here: what the methods do, and an arm that carries out one block after another.

/** The state numbers of OperationStateMachineType. */
export const Operation = { Idle: 1, Ready: 2, Executing: 3 };

/** Status of every method, as the node set describes it. */
export const Status = {
  OK: 0,
  SystemState: 1,
  UnexpectedError: 2,
  ActiveAlarm: 3,
  AcknowledgeRequired: 4,
  NoProgram: -1, // below 0: this machine's own
};

/** LastTransitionReason. */
export const Reason = { Unknown: 0, External: 1, Direct: 2, System: 3, Error: 4, Application: 5 };

export const AUTOMATIC = [3, 4]; // OperationalModeEnumeration AUTOMATIC, AUTOMATIC_EXTERNAL

export class Robot {
  /** @param programOf (name) -> lines or null; changed () whenever something that clients may see has changed */
  constructor({ programOf, changed, settleMs = 100 }) {
    this.system = { state: Operation.Idle, substate: "StandBy", reason: Reason.System };
    this.task = { state: Operation.Idle, suspended: false, reason: Reason.System, name: "" };
    this.emergencyStop = false;
    this.protectiveStop = false;
    this.mode = 4;
    this.needsAcknowledging = false;
    this.settleMs = settleMs;
    this.linesPerSecond = 100;
    this.lastCarriedOut = [];
    this.acts = 0;
    this.startsCount = 0;
    this._lines = [];
    this._done = 0;
    this._credit = 0;
    this._at = null;
    this._readyAt = null;
    this._stopAt = null;
    this._programOf = programOf;
    this._changed = changed;
  }

  // System

  getReady() {
    const refused = this._refused();
    if (refused !== Status.OK) return refused;
    if (this.system.state === Operation.Executing) return Status.SystemState;
    if (this.system.state === Operation.Idle && this._readyAt === null) {
      this.system.substate = "GettingReady";
      this._readyAt = (this._at ?? 0) + this.settleMs;
      this._changed();
    }
    return Status.OK;
  }

  standDown() {
    if (this.system.state === Operation.Executing) return Status.SystemState;
    this._readyAt = null;
    this._system(Operation.Idle, Reason.External);
    return Status.OK;
  }

  // Task control

  load(name) {
    if (this.task.state === Operation.Executing) return Status.SystemState;
    const lines = this._programOf(name);
    if (lines === null) {
      this._task(Operation.Idle, Reason.Error); // IdleToIdle: nothing is loaded any more
      return Status.NoProgram;
    }
    this._lines = lines;
    this._done = 0;
    this.task.name = name;
    this._task(Operation.Ready, Reason.External);
    return Status.OK;
  }

  unload(name = null) {
    if (this.task.state !== Operation.Ready || (name !== null && name !== this.task.name)) return Status.SystemState;
    this._task(Operation.Idle, Reason.External);
    return Status.OK;
  }

  start() {
    const refused = this._refused();
    if (refused !== Status.OK) return refused;
    if (this.task.state !== Operation.Ready || this.system.state !== Operation.Ready) return Status.SystemState;
    if (!this.task.suspended) {
      this._done = 0;
      this.lastCarriedOut = [];
      this.startsCount += 1;
    }
    this._credit = 0;
    this.acts += 1;
    this._task(Operation.Executing, Reason.External);
    this._system(Operation.Executing, Reason.External);
    return Status.OK;
  }

  /** The motion ramps down; the state follows when it stands. */
  stop() {
    if (this.task.state !== Operation.Executing) return Status.SystemState;
    if (this._stopAt === null) {
      this._stopAt = (this._at ?? 0) + this.settleMs;
      this.system.substate = "Stopping";
      this._changed();
    }
    return Status.OK;
  }

  resetToProgramStart() {
    if (this.task.state !== Operation.Ready) return Status.SystemState;
    this._done = 0;
    this.task.suspended = false;
    this._changed();
    return Status.OK;
  }

  // What people and the world do

  setEmergencyStop(on) {
    this.emergencyStop = on;
    if (on) this._halt(true);
    this._changed();
  }

  setProtectiveStop(on) {
    this.protectiveStop = on;
    if (on) this._halt(false);
    this._changed();
  }

  setMode(mode) {
    this.mode = mode;
    if (!AUTOMATIC.includes(mode)) this._halt(false);
    this._changed();
  }

  acknowledge() {
    this.needsAcknowledging = false;
  }

  loseState() {
    this._stopAt = this._readyAt = null;
    this.task = { state: Operation.Idle, suspended: false, reason: Reason.System, name: "" };
    this.system = { state: Operation.Idle, substate: "StandBy", reason: Reason.System };
    this._changed();
  }

  /** As new. */
  reset() {
    Object.assign(this, { emergencyStop: false, protectiveStop: false, needsAcknowledging: false, mode: 4 });
    Object.assign(this, { lastCarriedOut: [], acts: 0, startsCount: 0 });
    this.loseState();
  }

  tick(now) {
    const passed = this._at === null ? 0 : now - this._at;
    this._at = now;
    if (this._readyAt !== null && now >= this._readyAt) {
      this._readyAt = null;
      this._system(Operation.Ready, Reason.External);
    }
    if (this.task.state !== Operation.Executing) return;
    this._credit += (passed / 1000) * this.linesPerSecond;
    while (this._credit >= 1 && this._done < this._lines.length) {
      this._credit -= 1;
      this.lastCarriedOut.push(this._lines[this._done]);
      this._done += 1;
      this.acts += 1;
    }
    if (this._done >= this._lines.length) this._end(false, Reason.Application);
    else if (this._stopAt !== null && now >= this._stopAt) this._end(true, Reason.External);
  }

  _refused() {
    if (this.emergencyStop || this.protectiveStop) return Status.ActiveAlarm;
    if (this.needsAcknowledging) return Status.AcknowledgeRequired;
    return AUTOMATIC.includes(this.mode) ? Status.OK : Status.SystemState;
  }

  /** Standing, with power (a protective stop) or without (an emergency stop). */
  _halt(powerOff) {
    this._readyAt = null;
    this.needsAcknowledging ||= this.emergencyStop || this.protectiveStop;
    if (this.task.state === Operation.Executing) this._end(true, Reason.Error);
    if (powerOff) this._system(Operation.Idle, Reason.Error);
  }

  _end(suspended, reason) {
    this._stopAt = null;
    this._task(Operation.Ready, reason, suspended);
    this._system(Operation.Ready, reason);
    if (!suspended) this._done = 0;
  }

  _task(state, reason, suspended = false) {
    if (state === Operation.Idle) this.task.name = "";
    Object.assign(this.task, { state, reason, suspended });
    this._changed();
  }

  _system(state, reason) {
    const substate = { [Operation.Idle]: "StandBy", [Operation.Executing]: "Running" }[state] ?? null;
    Object.assign(this.system, { state, reason, substate });
    this._changed();
  }
}
