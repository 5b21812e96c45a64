// FileDirectoryType of OPC 10000-20 over a folder on disk; the files themselves are node-opcua-file-transfer's.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

import { DataType, NodeId, refuse, StatusCodes } from "./model.js";

const require = createRequire(import.meta.url);
const { installFileType } = require("node-opcua-file-transfer");

const [READ, WRITE] = [1, 2]; // bits of the mode of Open

export class Files {
  /** `changed` is called when a file has come, gone or been closed. */
  constructor(model, changed) {
    this._model = model;
    this._changed = changed;
    this._nodes = new Map(); // node id -> {node, place}
    this._handles = new Map(); // handle -> {node, session, writes}
  }

  /** Bind a directory object to a folder, with what is in it. */
  directory(node, place) {
    fs.mkdirSync(place, { recursive: true });
    this._nodes.set(node.nodeId.toString(), { node, place });
    const method = (name, body) =>
      node.getMethodByName(name).bindMethod((inputs, context, callback) => {
        const values = inputs.map((input) => input.value);
        this._answer(() => body(values, context)).then((answer) => callback(null, answer), callback);
      });
    method("CreateDirectory", ([name]) => this._createDirectory(node, place, name));
    method("CreateFile", ([name, open], context) => this._createFile(node, place, name, open, context));
    method("Delete", ([id]) => this._delete(id));
    method("MoveOrCopy", ([id, target, copy, name]) => this._moveOrCopy(id, target, copy, name));
    for (const name of fs.readdirSync(place)) this._addFile(node, path.join(place, name));
  }

  /** The place on disk of a file's node id. */
  place(nodeId) {
    return this._nodes.get(nodeId.toString())?.place;
  }

  isOpenForWriting(place) {
    return [...this._handles.values()].some(({ node, writes }) => writes && this.place(node.nodeId) === place);
  }

  /** All programs of a directory are gone, whoever has them open. */
  clear(directory) {
    this._handles.clear();
    for (const [id, { node, place }] of this._nodes) {
      if (!fs.existsSync(place) || !fs.statSync(place).isFile()) continue;
      if (path.dirname(place) !== this._nodes.get(directory.nodeId.toString()).place) continue;
      fs.rmSync(place);
      this._nodes.delete(id);
      this._model.space.deleteNode(node);
    }
    this._changed();
  }

  /** A handle is valid while its session is open (OPC 10000-20, 4.2.1). */
  sessionClosed(sessionId) {
    for (const [handle, { node, session }] of this._handles) {
      if (session !== sessionId) continue;
      this._handles.delete(handle);
      node.$fileData.openCount -= 1;
    }
    this._changed();
  }

  async _answer(body) {
    try {
      return { statusCode: StatusCodes.Good, outputArguments: await body() };
    } catch (error) {
      if (!error.refusal) throw error;
      return { statusCode: error.refusal };
    }
  }

  _createDirectory(parent, place, name) {
    const target = this._free(place, name);
    fs.mkdirSync(target);
    const type = this._model.type("FileDirectoryType", "");
    const node = type.instantiate({ browseName: name, organizedBy: parent });
    this.directory(node, target);
    return [{ dataType: DataType.NodeId, value: node.nodeId }];
  }

  async _createFile(parent, place, name, open, context) {
    const target = this._free(place, name);
    fs.writeFileSync(target, "");
    const node = this._addFile(parent, target);
    this._changed();
    const handle = open ? await this._openNow(node, context) : 0;
    return [
      { dataType: DataType.NodeId, value: node.nodeId },
      { dataType: DataType.UInt32, value: handle },
    ];
  }

  _openNow(node, context) {
    const mode = [{ dataType: DataType.Byte, value: READ | WRITE }];
    return new Promise((resolve, reject) => {
      node.open.execute(node, mode, context, (error, result) => {
        if (error || result.statusCode !== StatusCodes.Good) reject(error ?? new Error(result.statusCode.name));
        else resolve(result.outputArguments[0].value);
      });
    });
  }

  _delete(id) {
    const { node, place } = this._known(id);
    this._notOpen(node);
    fs.rmSync(place, { recursive: true });
    this._nodes.delete(id.toString());
    this._model.space.deleteNode(node);
    this._changed();
    return [];
  }

  /** What is moved gets another node id here, which the specification allows and a client must expect. */
  _moveOrCopy(id, targetId, copy, newName) {
    const { node, place } = this._known(id);
    const target = this._known(targetId);
    this._notOpen(node);
    const name = newName || path.basename(place);
    const free = this._free(target.place, name);
    if (copy) {
      fs.copyFileSync(place, free);
    } else {
      fs.renameSync(place, free);
      this._nodes.delete(id.toString());
      this._model.space.deleteNode(node);
    }
    const moved = this._addFile(target.node, free);
    this._changed();
    return [{ dataType: DataType.NodeId, value: moved.nodeId }];
  }

  _addFile(parent, place) {
    const type = this._model.type("FileType", "");
    const node = type.instantiate({ browseName: path.basename(place), organizedBy: parent });
    this._model.set(node.writable, true);
    this._model.set(node.userWritable, true);
    installFileType(node, { filename: place });
    this._watch(node);
    this._nodes.set(node.nodeId.toString(), { node, place });
    return node;
  }

  /** The package locks nothing and keeps handles for ever: what OPC 10000-20, 4.2.2 asks for is added here. */
  _watch(node) {
    const { open, close } = node;
    const [openIt, closeIt] = [open._asyncExecutionFunction, close._asyncExecutionFunction];
    open.bindMethod((inputs, context, callback) => {
      const writes = (inputs[0].value & WRITE) !== 0;
      const others = [...this._handles.values()].filter((other) => other.node === node);
      if (writes && others.length > 0) return callback(null, { statusCode: StatusCodes.BadNotWritable });
      if (others.some((other) => other.writes)) return callback(null, { statusCode: StatusCodes.BadNotReadable });
      return openIt.call(open, inputs, context, (error, result) => {
        if (!error && result.statusCode === StatusCodes.Good) {
          this._handles.set(result.outputArguments[0].value, { node, session: sessionOf(context), writes });
        }
        callback(error, result);
      });
    });
    close.bindMethod((inputs, context, callback) => {
      closeIt.call(close, inputs, context, (error, result) => {
        if (!error && result.statusCode === StatusCodes.Good) this._handles.delete(inputs[0].value);
        this._changed();
        callback(error, result);
      });
    });
  }

  _known(id) {
    const known = this._nodes.get(id.toString());
    if (!known) refuse(StatusCodes.BadNotFound);
    return known;
  }

  _notOpen(node) {
    if ([...this._handles.values()].some((handle) => handle.node === node)) refuse(StatusCodes.BadInvalidState);
  }

  _free(place, name) {
    if (!name || name !== path.basename(name) || name.startsWith(".")) refuse(StatusCodes.BadInvalidArgument);
    const target = path.join(place, name);
    if (fs.existsSync(target)) refuse(StatusCodes.BadBrowseNameDuplicated);
    return target;
  }
}

const sessionOf = (context) => context.session?.getSessionId().toString() ?? NodeId.nullNodeId.toString();
