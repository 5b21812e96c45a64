// An OPC UA server with a machine tool and a robot. README.md has the options and what it can be told on stdin.

import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

// stdout is for the tests: one JSON a line. node-opcua's own words go to stderr.
console.log = console.info = console.warn = console.error;

const require = createRequire(import.meta.url);
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { nodesets } = require("node-opcua-nodesets");
const { MessageSecurityMode, SecurityPolicy } = require("node-opcua-secure-channel");
const { Model } = await import("./model.js");
const { MachineTool } = await import("./machine_tool.js");
const { Robot } = await import("./robot.js");

const TICK_MS = 10;

const { values: options } = parseArgs({
  options: {
    folder: { type: "string" },
    port: { type: "string", default: "0" },
    security: { type: "string", default: "all" },
    user: { type: "string", default: "edge" },
    password: { type: "string", default: "secret" },
    "no-anonymous": { type: "boolean", default: false },
    sessions: { type: "string", default: "10" },
    "blocks-per-s": { type: "string", default: "100" },
    mills: { type: "string", default: "1" },
    robots: { type: "string", default: "1" },
    odd: { type: "string", multiple: true, default: [] },
    "namespaces-reversed": { type: "boolean", default: false },
  },
});
if (!options.folder) {
  console.error("server.js: --folder is missing: where programs and certificates are kept");
  process.exit(2);
}

const COMPANIONS = [
  nodesets.di,
  nodesets.ia,
  nodesets.machinery,
  nodesets.isa95JobControl,
  nodesets.machineryJobs,
  nodesets.machineTool,
  nodesets.robotics,
];

const MODES = {
  all: [MessageSecurityMode.None, MessageSecurityMode.SignAndEncrypt],
  none: [MessageSecurityMode.None],
  encrypt: [MessageSecurityMode.SignAndEncrypt],
};

const certificates = new OPCUACertificateManager({
  rootFolder: path.join(options.folder, "pki"),
  automaticallyAcceptUnknownCertificate: false,
});
await certificates.initialize();

const server = new OPCUAServer({
  host: "127.0.0.1",
  hostname: "127.0.0.1",
  port: Number(options.port),
  // node-opcua counts namespaces as they stand here, and loads each after those that it needs.
  nodeset_filename: options["namespaces-reversed"]
    ? [nodesets.standard, nodesets.amb, ...[...COMPANIONS].reverse()]
    : [nodesets.standard, ...COMPANIONS],
  securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256],
  securityModes: MODES[options.security],
  allowAnonymous: !options["no-anonymous"],
  userManager: { isValidUser: (user, password) => user === options.user && password === options.password },
  serverCertificateManager: certificates,
  serverInfo: { applicationUri: "urn:opcua-peer:machines", applicationName: { text: "Peer machines" } },
  serverCapabilities: { maxSessions: Number(options.sessions) },
  buildInfo: { productName: "opcua-peer", softwareVersion: "1.0.0", manufacturerName: "Peer Machines" },
});
await server.initialize();
// Without it neither ConditionRefresh nor the types' own Acknowledge is there.
server.engine.addressSpace.installAlarmsAndConditionsService();
const model = new Model(server.engine.addressSpace);
// In the order in which they were made: "mill", "mill2", ..., "robot", ...
const machines = new Map();
const odd = options.odd.map((each) => each.split("="));
for (const [kind, Machine, count] of [["Mill", MachineTool, options.mills], ["Robot", Robot, options.robots]]) {
  for (let number = 1; number <= Number(count); number += 1) {
    const name = number === 1 ? kind : `${kind}${number}`;
    const own = new Set(odd.filter(([of]) => of === name).map(([, what]) => what));
    const folder = path.join(options.folder, name.toLowerCase());
    machines.set(name.toLowerCase(), new Machine(model, { name, number, folder, odd: own }));
  }
}
const nobody = odd.find(([name]) => !machines.has(name.toLowerCase()));
if (nobody) throw new Error(`--odd ${nobody.join("=")}: there is no such machine`);
const setSpeed = (blocksPerSecond) => {
  for (const machine of machines.values()) Object.assign(machine, { blocksPerSecond });
};
setSpeed(Number(options["blocks-per-s"]));
const sessions = new Set();
server.on("create_session", (session) => sessions.add(session));
server.on("session_closed", (session) => {
  sessions.delete(session);
  for (const machine of machines.values()) machine.files.sessionClosed(session.nodeId.toString());
});
await server.start();

const sockets = new Set();
let refuseUntil = 0;
for (const endpoint of server.endpoints) {
  endpoint._server.on("connection", (socket) => {
    if (performance.now() < refuseUntil) return socket.destroy();
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
}

setInterval(() => {
  for (const machine of machines.values()) machine.tick(performance.now());
}, TICK_MS);

const trusted = async () => {
  const folder = certificates.rejectedFolder;
  const rejected = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  for (const name of rejected) {
    const pem = fs.readFileSync(path.join(folder, name), "utf8");
    await certificates.trustCertificate(Buffer.from(pem.replace(/-----[^-]*-----|\s/g, ""), "base64"));
  }
  return { trusted: rejected };
};

const COMMANDS = {
  carried_out: ({ machine = "mill" }) => machines.get(machine).carriedOut,
  orders: ({ machine = "mill" }) => ({
    orders: machines.get(machine).orders.entries.map(({ id, state, done }) => ({ id, state, done })),
  }),
  speed: ({ blocks_per_s }) => setSpeed(blocks_per_s),
  mode: ({ machine = "mill", mode }) => machines.get(machine).setMode(mode),
  alarm: ({ machine = "mill", text = "spindle overload", effect = "abort" }) =>
    machines.get(machine).raiseAlarm(text, effect),
  clear_alarm: ({ machine = "mill" }) => machines.get(machine).clearAlarm(),
  acknowledged: ({ machine = "mill" }) => ({ acknowledged: machines.get(machine).alarmIsAcknowledged }),
  estop: ({ machine = "robot", on }) => machines.get(machine).setEmergencyStop(on),
  protective_stop: ({ machine = "robot", on }) => machines.get(machine).setProtectiveStop(on),
  operational_mode: ({ machine = "robot", mode }) => machines.get(machine).program.setMode(mode),
  lose_state: () => {
    for (const machine of machines.values()) machine.loseState();
  },
  reset: () => {
    for (const session of [...sessions]) server.engine.closeSession(session.authenticationToken, true, "Terminated");
    for (const socket of sockets) socket.destroy();
    for (const machine of machines.values()) machine.reset();
  },
  sessions: ({ limit }) => {
    server.engine.serverCapabilities.maxSessions = limit;
  },
  trust: trusted,
  drop: ({ for_s = 0 }) => {
    refuseUntil = performance.now() + for_s * 1000;
    for (const socket of sockets) socket.destroy();
  },
  // The whole process stands still, as under SIGSTOP, for a known time.
  freeze: ({ for_s }) => {
    setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, for_s * 1000));
  },
};

const say = (words) => process.stdout.write(`${JSON.stringify(words)}\n`);
say({ endpoint: `opc.tcp://127.0.0.1:${server.endpoints[0].port}`, certificate: server.certificateFile });

for await (const line of readline.createInterface({ input: process.stdin })) {
  let command;
  try {
    command = JSON.parse(line);
  } catch {
    say({ error: `not JSON: ${line}` });
    continue;
  }
  const body = Object.hasOwn(COMMANDS, command.do) ? COMMANDS[command.do] : null;
  say(body ? { ok: true, ...(await body(command)) } : { error: `unknown: ${command.do}` });
}
// The end of stdin is the end of the server: no test leaves one behind.
process.exit(0);
