// A machine tool: OPC 40501-1 1.02 with the job management of OPC 40001-3 1.01 and a FileSystem for its programs.

import fs from "node:fs";
import path from "node:path";

import { Files } from "./files.js";
import { JobOrders, State } from "./job_orders.js";
import { DI, JOBS, JOB_CONTROL, MACHINE_TOOL, MACHINERY } from "./model.js";
import { DataType, StatusCodes, States, VariantArrayType } from "./model.js";

const ORDER_METHODS = ["Store", "StoreAndStart", "Update"];
const ID_METHODS = ["Start", "RevokeStart", "Pause", "Resume", "Stop", "Abort", "Cancel", "Clear"];
const ODD = [
  "status-as-number",
  "status-as-text",
  "list-as-text",
  "response-as-text",
  "mode-as-text",
  "unknown-states",
];
const UNKNOWN_STATE = { text: "Churning", number: 99 };
const MODES = { Manual: 0, Automatic: 1, Setup: 2, AutoWithManualIntervention: 3, Service: 4, Other: 5 };
const STATE_TEXT = Object.fromEntries(Object.entries(State).map(([name, number]) => [number, name]));
const PROGRAM_STATE = {
  [State.Running]: "Running",
  [State.Interrupted]: "Interrupted",
  [State.Ended]: "Ended",
  [State.Aborted]: "Aborted",
};

export class MachineTool {
  /** `number` tells it from others of its kind; `odd` is in what it is not as the specifications have it. */
  constructor(model, { name, number, folder, odd }) {
    this._model = model;
    this._odd = odd;
    this._serial = String(4710 + number);
    model.checkOdd(odd, ODD);
    this._node = this._instantiate(name);
    this._find();
    this.files = new Files(model, () => this._workMasters());
    this.files.directory(this._fileSystem, folder);
    this._folder = folder;
    this.orders = new JobOrders({
      programOf: (order) => this._programOf(order),
      changed: (entry) => this._show(entry),
    });
    this._bind();
    this.setMode("Automatic");
    this._workMasters();
    this._show(null);
    this._alarm = this._makeAlarm();
  }

  tick(now) {
    this.orders.tick(now);
  }

  get carriedOut() {
    return { lines: this.orders.lastCarriedOut, acts: this.orders.acts, starts: this.orders.starts };
  }

  set blocksPerSecond(blocks) {
    this.orders.blocksPerSecond = blocks;
  }

  loseState() {
    this.orders.loseState();
  }

  setMode(name) {
    this.orders.automatic = name === "Automatic";
    this._model.set(this._operationMode, this._odd.has("mode-as-text") ? name : MODES[name]);
    this._machineryMode.set({ Automatic: "Processing", Setup: "Setup", Service: "Maintenance" }[name] ?? "None");
  }

  raiseAlarm(text, effect) {
    this.orders.raiseAlarm(effect);
    const alarm = this._alarm;
    alarm.setEnabledState(true);
    alarm.activateAlarm();
    alarm.raiseNewCondition({ message: text, severity: 700, quality: StatusCodes.Good, retain: true });
    this._show(null);
  }

  clearAlarm() {
    this.orders.alarm = false;
    this._model.clearAlarm(this._alarm);
    this._show(null);
  }

  reset() {
    this.clearAlarm();
    this._model.forgetAlarm(this._alarm);
    this.orders.reset();
    this.setMode("Automatic");
    this.files.clear(this._fileSystem);
  }

  get alarmIsAcknowledged() {
    return this._alarm.ackedState.getValue();
  }

  _instantiate(browseName) {
    const below = (parent, names) => names.map((name) => `${parent}.${name}`);
    const blocks = "MachineryBuildingBlocks";
    const management = `${blocks}.JobManagement`;
    return this._model.type("MachineToolType", MACHINE_TOOL).instantiate({
      browseName,
      // OPC 40001-1, 7: all machines of a server are found in this folder.
      organizedBy: this._model.at(this._model.space.rootFolder.objects, `${MACHINERY}:Machines`),
      optionals: [
        "FileSystem",
        blocks,
        management,
        ...below(`${management}.JobOrderControl`, [...ORDER_METHODS, ...ID_METHODS]),
        `${management}.JobOrderResults.JobOrderResponseList`,
        ...below(blocks, ["MachineryItemState", "MachineryOperationMode"]),
        "Notification.Messages",
        "Monitoring.MachineTool.FeedOverride",
        "Production.ActiveProgram.JobIdentifier",
      ],
    });
  }

  _find() {
    const model = this._model;
    const at = (...way) => model.at(this._node, ...way);
    const management = [`${MACHINERY}:MachineryBuildingBlocks`, `${JOBS}:JobManagement`];
    this._control = at(...management, `${JOBS}:JobOrderControl`);
    this._results = at(...management, `${JOBS}:JobOrderResults`);
    this._fileSystem = at("FileSystem");
    const monitoring = [`${MACHINE_TOOL}:Monitoring`, `${MACHINE_TOOL}:MachineTool`];
    this._operationMode = at(...monitoring, `${MACHINE_TOOL}:OperationMode`);
    if (this._odd.has("mode-as-text")) model.declareAs(this._operationMode, "String");
    this._orderList = at(...management, `${JOBS}:JobOrderControl`, `${JOB_CONTROL}:JobOrderList`);
    if (this._odd.has("list-as-text")) model.declareAs(this._orderList, "String");
    const blocks = `${MACHINERY}:MachineryBuildingBlocks`;
    model.set(at(...monitoring, `${MACHINE_TOOL}:FeedOverride`), 100);
    this._itemState = new States(model, at(blocks, `${MACHINERY}:MachineryItemState`));
    this._machineryMode = new States(model, at(blocks, `${MACHINERY}:MachineryOperationMode`));
    // The state machine of JobOrderControl is meta data for the entries of its list: it has no state (10031-4, 6.2.1).
    new States(model, this._control);
    const program = [`${MACHINE_TOOL}:Production`, `${MACHINE_TOOL}:ActiveProgram`];
    this._programName = at(...program, `${MACHINE_TOOL}:Name`);
    this._programState = new States(model, at(...program, `${MACHINE_TOOL}:State`));
    const identification = (name) => at(`${DI}:Identification`, `${DI}:${name}`);
    model.set(identification("Manufacturer"), { text: "Peer Machines" });
    model.set(identification("ProductInstanceUri"), `urn:peer-machines:mill:${this._serial}`);
    model.set(identification("SerialNumber"), this._serial);
    const space = model.space;
    this._node.addReference({ referenceType: "HasEventSource", nodeId: this._control });
    space.rootFolder.objects.server.addReference({ referenceType: "HasEventSource", nodeId: this._node });
    this._node.setEventNotifier(1);
    this._control.setEventNotifier(1);
  }

  _bind() {
    const model = this._model;
    const control = (name) => model.at(this._control, `${JOB_CONTROL}:${name}`);
    const status = [{ dataType: this._odd.has("status-as-text") ? DataType.String : DataType.UInt64 }];
    for (const name of [...ORDER_METHODS, ...ID_METHODS]) {
      model.method(control(name), status, (argument) => [this._status(this.orders.call(name, argument))]);
    }
    for (const name of ["EquipmentID", "MaterialClassID", "MaterialDefinitionID", "PersonnelID", "PhysicalAssetID"]) {
      model.setArray(control(name), []);
    }
    model.set(control("MaxDownloadableJobOrders"), this.orders.max);
    const results = (name) => model.at(this._results, `${JOB_CONTROL}:${name}`);
    const asText = this._odd.has("response-as-text");
    const one = [{ dataType: asText ? DataType.String : DataType.ExtensionObject }, ...status];
    model.method(results("RequestJobResponseByJobOrderID"), one, (id) => {
      const entry = this.orders.find(id);
      if (!entry) return [null, this._status(1n << 1n)];
      if (!entry.started) return [null, this._status(1n << 3n)];
      return [asText ? `${entry.id} is ${STATE_TEXT[entry.state]}` : this._response(entry), this._status(1n)];
    });
    const many = [{ dataType: DataType.ExtensionObject, arrayType: VariantArrayType.Array }, ...status];
    model.method(results("RequestJobResponseByJobOrderState"), many, (states) => {
      const numbers = (states ?? []).map((state) => state.stateNumber);
      const asked = this.orders.entries.filter((entry) => entry.started && numbers.includes(entry.state));
      return [asked.map((entry) => this._response(entry)), this._status(1n)];
    });
    model.takeAway(this._node, this._odd);
  }

  /** A bit map (10031-4, B.2), or what some servers return: the number of the bit, and 0 for no error. */
  _status(bits) {
    if (this._odd.has("status-as-text")) return bits === 1n ? "OK" : "error";
    const value = this._odd.has("status-as-number") ? BigInt(bits.toString(2).length - 1) : bits;
    return [Number(value >> 32n), Number(value & 0xffffffffn)];
  }

  /** WorkMasterID[0]: its ID is a path below FileSystem, or its parameter LocalPath or FileNodeId says which file. */
  _programOf(order) {
    const [master] = order.workMasterID ?? [];
    if (!master) return null;
    const parameter = (id) => master.parameters?.find(({ ID }) => ID === id)?.value?.value;
    const nodeId = parameter("FileNodeId");
    const below = path.join(this._folder, path.normalize(`/${parameter("LocalPath") ?? master.ID}`));
    const place = nodeId ? this.files.place(nodeId) : below;
    if (!place || !fs.existsSync(place) || !fs.statSync(place).isFile()) return null;
    if (this.files.isOpenForWriting(place)) return null;
    const lines = fs.readFileSync(place, "utf8").split(/\r?\n/);
    return lines.map((line) => line.trim()).filter((line) => line !== "");
  }

  _workMasters() {
    if (!this._folder) return;
    const programs = fs.readdirSync(this._folder, { recursive: true, withFileTypes: true });
    const masters = programs
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(this._folder, path.join(entry.parentPath ?? entry.path, entry.name)))
      .map((name) => this._model.structure("ISA95WorkMasterDataType", JOB_CONTROL, { ID: name }));
    this._model.setArray(this._model.at(this._control, `${JOB_CONTROL}:WorkMaster`), masters);
  }

  /** Bring what clients see up to date; `entry` is the order whose state has changed, if one has. */
  _show(entry) {
    if (!this.orders) return;
    const model = this._model;
    const current = this.orders.current;
    this._itemState.set(this.orders.alarm ? "OutOfService" : current ? "Executing" : "NotExecuting");
    if (entry && PROGRAM_STATE[entry.state] && entry.started) {
      model.set(this._programName, entry.order.workMasterID[0].ID);
      this._programState.set(PROGRAM_STATE[entry.state]);
    }
    const list = this.orders.entries.map((each) =>
      model.structure("ISA95JobOrderAndStateDataType", JOB_CONTROL, { jobOrder: each.order, state: this._state(each) }),
    );
    const started = this.orders.entries.filter((each) => each.started).map((each) => this._response(each));
    const responses = this._results.getChildByName("JobOrderResponseList", model.index(JOB_CONTROL));
    if (responses) model.setArray(responses, started);
    const texts = this.orders.entries.map(({ id, state }) => `${id} is ${STATE_TEXT[state]}`);
    model.setArray(this._orderList, this._odd.has("list-as-text") ? texts : list);
    if (entry) this._tell(entry);
  }

  _tell(entry) {
    const model = this._model;
    const type = model.space.findEventType("ISA95JobOrderStatusEventType", model.index(JOB_CONTROL));
    const value = (value, arrayType) => ({ dataType: DataType.ExtensionObject, arrayType, value });
    this._control.raiseEvent(type, {
      message: { dataType: DataType.LocalizedText, value: { text: `${entry.id} is ${STATE_TEXT[entry.state]}` } },
      severity: { dataType: DataType.UInt16, value: 100 },
      sourceName: { dataType: DataType.String, value: "JobOrderControl" },
      jobOrder: value(entry.order),
      jobState: value(this._state(entry), VariantArrayType.Array),
      jobResponse: value(this._response(entry)),
    });
  }

  _state({ state, substate }) {
    const model = this._model;
    const one = (text, stateNumber, elements = []) =>
      model.structure("ISA95StateDataType", JOB_CONTROL, {
        browsePath: { elements },
        stateText: { text },
        stateNumber,
      });
    const strange = this._odd.has("unknown-states") && state === State.Running;
    const states = [strange ? one(UNKNOWN_STATE.text, UNKNOWN_STATE.number) : one(STATE_TEXT[state], state)];
    if (substate) {
      const targetName = { namespaceIndex: model.index(JOB_CONTROL), name: substate.machine };
      const step = { referenceTypeId: "i=47", isInverse: false, includeSubtypes: true, targetName };
      states.push(one(substate.text, substate.number, [step]));
    }
    return states;
  }

  _response(entry) {
    const parameter = (ID, dataType, value) =>
      this._model.structure("ISA95ParameterDataType", JOB_CONTROL, { ID, value: { dataType, value } });
    return this._model.structure("ISA95JobResponseDataType", JOB_CONTROL, {
      jobResponseID: `response-${entry.id}`,
      jobOrderID: entry.id,
      startTime: entry.started ?? undefined,
      endTime: entry.ended ?? undefined,
      jobState: this._state(entry),
      jobResponseData: [
        parameter("JobResult", DataType.Int32, entry.result ?? 0), // 40001-3, table 1
        parameter("BlocksCarriedOut", DataType.UInt32, entry.done), // this machine's own
      ],
    });
  }

  _makeAlarm() {
    const model = this._model;
    const messages = model.at(this._node, `${MACHINE_TOOL}:Notification`, `${MACHINE_TOOL}:Messages`);
    const alarm = model.own.instantiateAlarmCondition(
      model.type("AlertType", MACHINE_TOOL),
      {
        browseName: "Alert",
        conditionName: "Alert",
        componentOf: messages,
        conditionSource: this._node,
        inputNode: this._operationMode,
      },
      {},
    );
    model.set(model.at(alarm, `${MACHINE_TOOL}:ErrorCode`), "4711");
    return alarm;
  }
}
