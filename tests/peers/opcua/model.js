// What the machines need of node-opcua: names by namespace URI, values, states, methods that return a status.

import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
export const { DataType, VariantArrayType, StatusCodes, coerceLocalizedText, NodeId } = {
  ...require("node-opcua-variant"),
  ...require("node-opcua-status-code"),
  ...require("node-opcua-data-model"),
  ...require("node-opcua-nodeid"),
};

const WITHOUT = "without-";
const FOUNDATION = "http://opcfoundation.org/UA/";
export const DI = "DI/";
export const MACHINERY = "Machinery/";
export const JOB_CONTROL = "ISA95-JOBCONTROL_V2/";
export const JOBS = "Machinery/Jobs/";
export const MACHINE_TOOL = "MachineTool/";
export const ROBOTICS = "Robotics/";

/** Ends a method with this status as the result of the call. */
export function refuse(status) {
  throw Object.assign(new Error(status.name), { refusal: status });
}

/** One address space, by browse paths. */
export class Model {
  constructor(addressSpace) {
    this.space = addressSpace;
    this.own = addressSpace.getOwnNamespace();
  }

  index(uri) {
    return uri === "" ? 0 : this.space.getNamespaceIndex(FOUNDATION + uri);
  }

  type(name, uri) {
    return this.space.findObjectType(name, this.index(uri));
  }

  /** The node at a path below `from`: "DI/:Identification" has its namespace before the last colon. */
  at(from, ...path) {
    return path.reduce((node, step) => {
      const [uri, name] = step.includes(":") ? step.split(/:(?=[^:]*$)/) : ["", step];
      const found = this.child(node, uri, name);
      if (!found) throw new Error(`${node.browseName} has no ${step}`);
      return found;
    }, from);
  }

  child(node, uri, name) {
    const index = this.index(uri);
    const children = node.findReferencesExAsObject("HierarchicalReferences");
    return children.find(({ browseName }) => browseName.name === name && browseName.namespaceIndex === index);
  }

  set(variable, value, arrayType = VariantArrayType.Scalar) {
    const dataType = variable.getBasicDataType();
    variable.setValueFromSource({ dataType, arrayType, value });
  }

  setArray(variable, values) {
    this.set(variable, values, VariantArrayType.Array);
  }

  /** Not the data type that the specification has. */
  declareAs(variable, dataType) {
    variable.dataType = this.space.findDataType(dataType).nodeId;
    variable._basicDataType = undefined; // node-opcua looks it up once
  }

  /** Ends the server for an oddity that the machine has not: a test of it would try nothing. */
  checkOdd(odd, known) {
    const strange = [...odd].find((each) => !known.includes(each) && !each.startsWith(WITHOUT));
    if (strange) throw new Error(`--odd ${strange}: it is one of ${known.join(", ")}, or ${WITHOUT}METHOD`);
  }

  /** Take away what `odd` says that the machine is without: `without-Pause` is any Pause below `node`. */
  takeAway(node, odd) {
    const gone = new Set();
    const below = (each) => {
      for (const child of each.findReferencesExAsObject("Aggregates")) {
        const what = WITHOUT + child.browseName.name;
        if (!odd.has(what)) {
          below(child);
          continue;
        }
        gone.add(what);
        this.space.deleteNode(child);
      }
    };
    below(node);
    const strange = [...odd].find((each) => each.startsWith(WITHOUT) && !gone.has(each));
    if (strange) throw new Error(`--odd ${strange}: there is none`);
  }

  structure(name, uri, fields) {
    return this.space.constructExtensionObject(this.space.findDataType(name, this.index(uri)), fields);
  }

  /** The cause of an alarm is gone: it is of interest (Retain) until somebody has acknowledged it. */
  clearAlarm(alarm) {
    if (alarm.activeState.getValue()) alarm.deactivateAlarm(!alarm.ackedState.getValue());
  }

  /** As if it had never been raised: ConditionRefresh does not tell it. */
  forgetAlarm(alarm) {
    alarm.deactivateAlarm(false);
    alarm.currentBranch().setAckedState(true);
  }

  /** Every method returns `Good` and its outputs, unless it refuses: with a Bad status there are no output arguments. */
  method(method, outputs, body) {
    method.bindMethod((inputs, context, callback) => {
      let values;
      try {
        values = body(...inputs.map((input) => input.value));
      } catch (error) {
        if (error.refusal) return callback(null, { statusCode: error.refusal });
        console.error(error); // a defect of this server: node-opcua itself would say nothing
        return callback(error);
      }
      const arrayType = VariantArrayType.Scalar; // unless the output says otherwise
      const outputArguments = outputs.map((output, n) => ({ arrayType, ...output, value: values[n] }));
      return callback(null, { statusCode: StatusCodes.Good, outputArguments });
    });
  }
}

/** A finite state machine whose states are those of its type (and of its supertypes). */
export class States {
  constructor(model, machine) {
    this.model = model;
    this.machine = machine;
    this._states = new Map();
    for (let type = machine.typeDefinitionObj; type; type = type.subtypeOfObj) {
      for (const child of type.findReferencesExAsObject("Aggregates")) {
        const name = child.browseName.name;
        if (!this._states.has(name)) this._states.set(name, child);
      }
    }
    this.name = null;
    this.set(null);
  }

  /** In the place of the state `name`: one that no specification has. */
  replace(name, text, number) {
    const { nodeId } = this.model.own.addObject({ browseName: text });
    const stateNumber = { readValue: () => ({ value: { value: number } }) };
    this._states.set(name, { nodeId, stateNumber, text });
  }

  /** `null`: the state machine is not active (a substate machine whose state is left). */
  set(name, reason = null) {
    if (name === this.name && name !== null) return;
    const { currentState, lastTransition } = this.machine;
    const state = name === null ? null : this._states.get(name);
    if (state === undefined) throw new Error(`${this.machine.browseName} has no state ${name}`);
    const status = state ? StatusCodes.Good : StatusCodes.BadStateNotActive;
    const text = state ? coerceLocalizedText(state.text ?? name) : null;
    // The details first: who is told of the new state finds them in place.
    currentState.id.setValueFromSource({ dataType: DataType.NodeId, value: state?.nodeId ?? new NodeId() }, status);
    const number = currentState.getPropertyByName("Number");
    if (number) this.model.set(number, state ? state.stateNumber.readValue().value.value : 0);
    if (reason !== null) this._because(reason);
    const transition = this._transition(this.name, name);
    if (lastTransition && transition) {
      lastTransition.id.setValueFromSource({ dataType: DataType.NodeId, value: transition.nodeId });
      const value = coerceLocalizedText(transition.browseName.name);
      lastTransition.setValueFromSource({ dataType: DataType.LocalizedText, value });
    }
    this.name = name;
    currentState.setValueFromSource({ dataType: DataType.LocalizedText, value: text }, status);
  }

  _because(reason) {
    const variable = this.machine.getChildByName("LastTransitionReason", this.model.index(ROBOTICS));
    variable.setValueFromSource({ dataType: DataType.Int16, value: reason });
  }

  _transition(from, to) {
    return this._states.get(`${from}To${to}`) ?? this._states.get(`From${from}To${to}`);
  }
}
