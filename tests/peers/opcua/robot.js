// A robot: OPC 40010-1 1.02 with SystemOperation and TaskControlOperation, and a directory for its programs.

import fs from "node:fs";
import path from "node:path";

import { Files } from "./files.js";
import { DataType, DI, MACHINERY, refuse, ROBOTICS, StatusCodes, States } from "./model.js";
import { Operation, Reason, Robot as Program, Status } from "./robot_program.js";

const NAME = Object.fromEntries(Object.entries(Operation).map(([name, number]) => [number, name]));
const STOP_MODES = ["OnPath", "EndOfCycle", "ProcessStop", "QuickStop", "EndOfInstruction"]; // values from 1
const OFFERED = [1, 4];
const ODD = [
  "status-as-text",
  "program-as-number",
  "mode-as-text",
  "stops-as-text",
  "unknown-states",
  "starts-late",
  "reason-of-ends-only",
];
const LATE_MS = 500;
const MODE = ["OTHER", "MANUAL_REDUCED_SPEED", "MANUAL_HIGH_SPEED", "AUTOMATIC", "AUTOMATIC_EXTERNAL"];
const STATUS = [{ dataType: DataType.Int32 }];

export class Robot {
  /** `number` tells it from others of its kind; `odd` is in what it is not as the specifications have it. */
  constructor(model, { name, number, folder, odd }) {
    this._model = model;
    this._folder = folder;
    this._odd = odd;
    model.checkOdd(odd, ODD);
    this._build(name, `R-${String(814 + number).padStart(4, "0")}`);
    this._programs = this._r(this._controller, "Programs");
    this.files = new Files(model, () => {});
    this.files.directory(this._programs, folder);
    this.program = new Program({ programOf: (name) => this._lines(name), changed: () => this._show() });
    this._states();
    this._redeclare();
    this._bind();
    this._alarm = this._makeAlarm();
    this._show();
  }

  get alarmIsAcknowledged() {
    return this._alarm.ackedState.getValue();
  }

  tick(now) {
    this.program.tick(now);
  }

  get carriedOut() {
    return { lines: this.program.lastCarriedOut, acts: this.program.acts, starts: this.program.startsCount };
  }

  set blocksPerSecond(blocks) {
    this.program.linesPerSecond = blocks;
  }

  loseState() {
    this.program.loseState();
  }

  reset() {
    this.program.reset();
    this._model.forgetAlarm(this._alarm);
    this.files.clear(this._programs);
  }

  setEmergencyStop(on) {
    this.program.setEmergencyStop(on);
    this._condition(on, "emergency stop");
  }

  setProtectiveStop(on) {
    this.program.setProtectiveStop(on);
    this._condition(on, "protective stop");
  }

  _r(from, ...names) {
    return this._model.at(from, ...names.map((name) => (name.includes(":") ? name : `${ROBOTICS}:${name}`)));
  }

  _build(browseName, serial) {
    const model = this._model;
    const type = (name) => model.type(name, ROBOTICS);
    // 40010-1, 5.2: the motion device systems are below DI's DeviceSet; as a machine it is in Machines, too.
    this._system = type("MotionDeviceSystemType").instantiate({
      browseName,
      organizedBy: model.at(model.space.rootFolder.objects, `${MACHINERY}:Machines`),
    });
    const set = model.at(model.space.rootFolder.objects, `${DI}:DeviceSet`);
    set.addReference({ referenceType: "HasComponent", nodeId: this._system });
    const system = (name) => `SystemOperation.SystemOperationStateMachine.${name}`;
    this._controller = type("ControllerType").instantiate({
      browseName: "Controller",
      componentOf: this._r(this._system, "Controllers"),
      optionals: [
        "Programs",
        "SystemOperation.Conditions",
        ...["GetReady", "StandDown", "Start", "Stop"].map(system),
        ...["PossibleStopModes", "ConfiguredDefaultStopMode"].map(system),
        ...["IdleSubstateMachine", "ExecutingSubstateMachine"].map(system),
      ],
    });
    const task = (name) => `TaskControlOperation.TaskControlStateMachine.${name}`;
    this._task = type("TaskControlType").instantiate({
      browseName: "TaskControl",
      componentOf: this._r(this._controller, "TaskControls"),
      optionals: [
        "ParameterSet.ExecutionMode",
        ...["LoadByName", "LoadByNodeId", "UnloadProgram", "UnloadByName", "UnloadByNodeId", "Start", "Stop"].map(task),
        ...["PossibleStopModes", "ConfiguredDefaultStopMode", "ReadySubstateMachine"].map(task),
        task("ReadySubstateMachine.ResetToProgramStart"),
      ],
    });
    this._safety = type("SafetyStateType").instantiate({
      browseName: "Safety",
      componentOf: this._r(this._system, "SafetyStates"),
    });
    const arm = type("MotionDeviceType").instantiate({
      browseName: "Arm",
      componentOf: this._r(this._system, "MotionDevices"),
    });
    for (const node of [arm, this._controller]) {
      model.set(model.at(node, `${DI}:Manufacturer`), { text: "Peer Robots" });
      model.set(model.at(node, `${DI}:Model`), { text: "P6" });
      model.set(model.at(node, `${DI}:ProductCode`), "P6-900");
      model.set(model.at(node, `${DI}:SerialNumber`), serial);
    }
    this._software();
    model.set(model.at(this._task, `${DI}:ComponentName`), { text: "Main" });
  }

  /** `Software` holds at least one SoftwareType, which says what the controller runs. */
  _software() {
    const model = this._model;
    const software = model.type("SoftwareType", DI).instantiate({
      browseName: "Firmware",
      componentOf: this._r(this._controller, "Software"),
    });
    model.set(model.at(software, `${DI}:Manufacturer`), { text: "Peer Robots" });
    model.set(model.at(software, `${DI}:Model`), { text: "PeerOS" });
    model.set(model.at(software, `${DI}:SoftwareRevision`), "6.1");
  }

  _states() {
    const model = this._model;
    this._systemNode = this._r(this._controller, "SystemOperation", "SystemOperationStateMachine");
    this._taskNode = this._r(this._task, "TaskControlOperation", "TaskControlStateMachine");
    this._systemState = new States(model, this._systemNode);
    this._idle = new States(model, this._r(this._systemNode, "IdleSubstateMachine"));
    this._executing = new States(model, this._r(this._systemNode, "ExecutingSubstateMachine"));
    this._taskState = new States(model, this._taskNode);
    this._ready = new States(model, this._r(this._taskNode, "ReadySubstateMachine"));
    if (this._odd.has("unknown-states")) this._taskState.replace("Executing", "Churning", 99);
    for (const node of [this._systemNode, this._taskNode]) {
      const modes = OFFERED.map((value) => ({
        value,
        displayName: { text: STOP_MODES[value - 1] },
        description: { text: STOP_MODES[value - 1] },
      }));
      const variable = this._r(node, "PossibleStopModes");
      const type = model.space.findDataType("EnumValueType", 0);
      model.setArray(variable, modes.map((mode) => model.space.constructExtensionObject(type, mode)));
      model.set(this._r(node, "ConfiguredDefaultStopMode"), OFFERED[0]);
    }
  }

  _bind() {
    const program = this.program;
    const asText = this._odd.has("status-as-text");
    const status = asText ? [{ dataType: DataType.String }] : STATUS;
    const bind = (node, name, body) =>
      this._model.method(this._r(node, name), status, (...inputs) => {
        const said = body(...inputs);
        return [asText ? String(said) : said];
      });
    bind(this._systemNode, "GetReady", () => program.getReady());
    bind(this._systemNode, "StandDown", () => program.standDown());
    for (const node of [this._systemNode, this._taskNode]) {
      bind(node, "Start", () => {
        if (!this._odd.has("starts-late")) return program.start();
        setTimeout(() => program.start(), LATE_MS);
        return Status.OK;
      });
      bind(node, "Stop", (mode) => {
        this._checkStopMode(mode);
        return program.stop(); // the same ramp in every mode
      });
    }
    bind(this._taskNode, "LoadByName", (name) => program.load(name));
    bind(this._taskNode, "LoadByNodeId", (id) => program.load(this._nameOf(id)));
    bind(this._taskNode, "UnloadProgram", () => program.unload());
    bind(this._taskNode, "UnloadByName", (name) => program.unload(name ?? ""));
    bind(this._taskNode, "UnloadByNodeId", (id) => program.unload(this._nameOf(id)));
    bind(this._r(this._taskNode, "ReadySubstateMachine"), "ResetToProgramStart", () => program.resetToProgramStart());
    this._model.takeAway(this._controller, this._odd);
  }

  /** StopMode is 0, which is the configured default, or one of PossibleStopModes (40010-1, 7.12.2 and 7.16.8). */
  _checkStopMode([high, low]) {
    if (high !== 0 || ![0, ...OFFERED].includes(low)) refuse(StatusCodes.BadInvalidArgument);
  }

  _nameOf(nodeId) {
    const place = this.files.place(nodeId);
    return place ? path.relative(this._folder, place) : "";
  }

  _lines(name) {
    const place = path.join(this._folder, path.normalize(`/${name ?? ""}`));
    if (!fs.existsSync(place) || !fs.statSync(place).isFile() || this.files.isOpenForWriting(place)) return null;
    const lines = fs.readFileSync(place, "utf8").split(/\r?\n/);
    return lines.map((line) => line.trim()).filter((line) => line !== "");
  }

  /** Variables that are not of the types that the specification has. */
  _redeclare() {
    const way = [`${DI}:ParameterSet`, `${ROBOTICS}:`];
    const declare = (node, name, type) => this._model.declareAs(this._model.at(node, way[0], way[1] + name), type);
    if (this._odd.has("program-as-number")) declare(this._task, "TaskProgramName", "Int32");
    if (this._odd.has("mode-as-text")) declare(this._safety, "OperationalMode", "String");
    if (this._odd.has("stops-as-text")) {
      for (const name of ["EmergencyStop", "ProtectiveStop"]) declare(this._safety, name, "String");
    }
  }

  _show() {
    if (!this._ready) return;
    const { system, task } = this.program;
    const parameter = (node, name) => this._model.at(node, `${DI}:ParameterSet`, `${ROBOTICS}:${name}`);
    const name = this._odd.has("program-as-number") ? task.name.length : task.name;
    const mode = this._odd.has("mode-as-text") ? MODE[this.program.mode] : this.program.mode;
    const stop = (on) => (this._odd.has("stops-as-text") ? (on ? "yes" : "no") : on);
    this._model.set(parameter(this._task, "TaskProgramName"), name);
    this._model.set(parameter(this._task, "TaskProgramLoaded"), task.state !== Operation.Idle);
    this._model.set(parameter(this._task, "ExecutionMode"), 1); // CONTINUOUS
    this._model.set(parameter(this._safety, "EmergencyStop"), stop(this.program.emergencyStop));
    this._model.set(parameter(this._safety, "ProtectiveStop"), stop(this.program.protectiveStop));
    this._model.set(parameter(this._safety, "OperationalMode"), mode);
    this._ready.set(task.state === Operation.Ready ? (task.suspended ? "Suspended" : "AtProgramStart") : null);
    const told = !this._odd.has("reason-of-ends-only") || task.reason === Reason.Application;
    this._taskState.set(NAME[task.state], told ? task.reason : null);
    this._idle.set(system.state === Operation.Idle ? system.substate : null);
    this._executing.set(system.state === Operation.Executing ? system.substate : null);
    this._systemState.set(NAME[system.state], system.reason);
  }

  _condition(on, text) {
    if (on) {
      this._alarm.activateAlarm();
      this._alarm.raiseNewCondition({ message: text, severity: 900, quality: StatusCodes.Good, retain: true });
    } else if (!this.program.emergencyStop && !this.program.protectiveStop) {
      this._model.clearAlarm(this._alarm);
    }
  }

  _makeAlarm() {
    const model = this._model;
    const server = model.space.rootFolder.objects.server;
    server.addReference({ referenceType: "HasEventSource", nodeId: this._controller });
    this._controller.setEventNotifier(1);
    const alarm = model.own.instantiateAlarmCondition(
      "AlarmConditionType",
      {
        browseName: "Stop",
        conditionName: "Stop",
        componentOf: this._r(this._controller, "SystemOperation", "Conditions"),
        conditionSource: this._controller,
        inputNode: model.at(this._safety, `${DI}:ParameterSet`, `${ROBOTICS}:EmergencyStop`),
      },
      {},
    );
    alarm.setEnabledState(true);
    alarm.on("acknowledged", () => this.program.acknowledge());
    return alarm;
  }
}
