// An OPC UA server made with node-opcua: `node opcua_server.js PORT STORE [no-subscriptions|limited|history[:PAGE]|secure|secure-strict|many:N|mirror:MS]`. Prints "ready PORT" once it listens.
// `history`: the counter has one of its last 5000 values, PAGE of them at most in one answer.
// STORE is the directory for its certificates. `secure`: all current policies, no anonymous line without security; users
// are reader/s3cret, or have any certificate; every client's certificate is taken. `secure-strict`: only those that lie
// in STORE/pki/trusted/certs. The nodes and their values are listed in servers.py.
// `mirror:MS`: the counter was 0 at that time in ms, so that two servers with the same have the very same values.
// SIGUSR2: it forgets every subscription. SIGHUP: it closes every session as timed out, and keeps their subscriptions.
// Its ServiceLevel is the number in the file STORE/level, 255 without one.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const {
  DataType,
  MessageSecurityMode,
  OPCUACertificateManager,
  OPCUAServer,
  SecurityPolicy,
  ServiceFault,
  StatusCodes,
  Variant,
  VariantArrayType,
  standardUnits,
} = require("node-opcua");

const secure = (process.argv[4] || "").startsWith("secure");
const many = /^many:(\d+)$/.exec(process.argv[4] || "");
const limited = process.argv[4] === "limited";
const LIMITED = {
  maxSessions: 4,
  maxMonitoredItemsPerSubscription: 5,
  maxMonitoredItemsQueueSize: 100,
  minSupportedSampleRate: 500,
  operationLimits: { maxMonitoredItemsPerCall: 3, maxNodesPerRead: 50 },
};
const history = /^history(?::(\d+))?$/.exec(process.argv[4] || "");
const mirror = /^mirror:(\d+)$/.exec(process.argv[4] || "");
const PERIOD_MS = 100;
const port = Number(process.argv[2]);
const store = path.resolve(process.argv[3]);

const CONSTANTS = [
  ["Float", DataType.Float, Math.fround(1234.567)],
  ["Double", DataType.Double, Math.PI],
  ["Boolean", DataType.Boolean, true],
  ["String", DataType.String, "press 7 · 压力机"],
  ["UInt16", DataType.UInt16, 65535],
  ["Int64", DataType.Int64, [0xffdfffff, 0xffffffff]], // -(2^53 + 1) as [high, low]: no JavaScript number holds it
  ["UInt64", DataType.UInt64, [0xffffffff, 0xffffffff]],
  ["ByteString", DataType.ByteString, Buffer.from([0, 255, 254])],
];

const ARRAYS = [
  ["Bools", DataType.Boolean, [true, false, true]],
  ["Floats", DataType.Float, new Float32Array([1234.567, -0.5])],
  ["Int16s", DataType.Int16, new Int16Array([-32768, 0, 32767])],
  ["Bytes", DataType.Byte, new Uint8Array([0, 255])],
  ["Strings", DataType.String, ["press 7 · 压力机", ""]],
  ["ByteStrings", DataType.ByteString, [Buffer.from([255]), Buffer.from([])]],
  ["None", DataType.Double, new Float64Array([])],
];

function addVariables(server) {
  const space = server.engine.addressSpace;
  const ours = space.registerNamespace("urn:headrace:test");
  const device = ours.addObject({ organizedBy: space.rootFolder.objects, browseName: "Device", nodeId: "s=Device" });
  const variable = (name, dataType, valueRank = -1) =>
    ours.addVariable({
      componentOf: device,
      browseName: name,
      nodeId: `s=${name}`,
      dataType,
      valueRank,
      accessLevel: "CurrentRead",
      minimumSamplingInterval: 0, // changes are reported, not looked for: none is missed, however late a timer
    });

  const started = new Date();
  for (const [name, dataType, value] of CONSTANTS) {
    const scalar = new Variant({ dataType, arrayType: VariantArrayType.Scalar, value });
    variable(name, dataType).setValueFromSource(scalar, StatusCodes.Good, started);
  }
  for (const [name, dataType, value] of ARRAYS) {
    const array = new Variant({ dataType, arrayType: VariantArrayType.Array, value });
    variable(name, dataType, 1).setValueFromSource(array, StatusCodes.Good, started);
  }
  variable("Bad", DataType.Double).setValueFromSource(
    new Variant({ dataType: DataType.Null }),
    StatusCodes.BadSensorFailure,
    started,
  );
  const counter = variable("Counter", DataType.Int32);
  if (history) {
    space.installHistoricalDataNode(counter, { maxOnlineValues: 5000 });
    if (history[1]) keepPagesShort(counter, Number(history[1]));
  }
  count(counter, DataType.Int32);
  count(variable("Bare", DataType.Double), DataType.Double);
  const ramp = ours.addAnalogDataItem({
    componentOf: device,
    browseName: "Ramp",
    nodeId: "s=Ramp",
    dataType: DataType.Double,
    engineeringUnitsRange: { low: 0, high: 200 },
    minimumSamplingInterval: 0,
  });
  count(ramp, DataType.Double);
  if (many) addMany(space, ours, Number(many[1]));
  space.findNode("i=2267").bindVariable({ get: () => new Variant({ dataType: DataType.Byte, value: level() }) }, true);
}

// Whatever a client asks for: the rest is behind node-opcua's own continuation points.
function keepPagesShort(node, most) {
  const read = node._historyReadRaw;
  node._historyReadRaw = (context, details, ...rest) => {
    details.numValuesPerNode = Math.min(details.numValuesPerNode || most, most);
    return read.call(node, context, details, ...rest);
  };
}

function level() {
  const file = path.join(store, "level");
  return fs.existsSync(file) ? Number(fs.readFileSync(file, "utf8")) : 255;
}

// A folder "Many" with that many analog items, in areas of 2000 that have a reference back to it; and, for each name
// once, what a tag list does not take, or names doubly.
function addMany(space, ours, number) {
  const many = ours.addFolder(space.rootFolder.objects, { browseName: "Many", nodeId: "s=Many" });
  for (let n = 0, area; n < number; n++) {
    if (n % 2000 === 0) {
      area = ours.addFolder(many, { browseName: `Area ${n / 2000}`, nodeId: `s=Area${n / 2000}` });
      area.addReference({ referenceType: "Organizes", nodeId: many.nodeId, isForward: true });
    }
    ours.addAnalogDataItem({
      componentOf: area,
      browseName: `Temp/${n % 2000}`,
      nodeId: `s=Many;${n}`,
      description: `number ${n},\nof many`,
      dataType: "Float",
      engineeringUnits: standardUnits.degree_celsius,
      engineeringUnitsRange: { low: -10.5, high: 400 },
      value: { get: () => new Variant({ dataType: DataType.Float, value: 1 }) },
    });
  }
  ours.addVariable({ componentOf: many, browseName: "List", nodeId: "s=List", dataType: "Int32", valueRank: 1 });
  ours.addVariable({ componentOf: many, browseName: "State", nodeId: "s=State", dataType: "ServerState" });
  ours.addVariable({ componentOf: many, browseName: "Duration", nodeId: "s=Duration", dataType: "Duration" });
}

// Change n has the value n and the source time (first source time + n periods), also where a timer was late: whoever
// reads it can tell from a value which change it is, and from the time whether it is the right one.
function count(counter, dataType) {
  const first = mirror ? Number(mirror[1]) : Date.now();
  let change = Math.floor((Date.now() - first) / PERIOD_MS);
  const set = () => {
    const value = new Variant({ dataType, value: change });
    counter.setValueFromSource(value, StatusCodes.Good, new Date(first + change * PERIOD_MS));
    change += 1;
    setTimeout(set, Math.max(0, first + change * PERIOD_MS - Date.now()));
  };
  set();
}

async function main() {
  const server = new OPCUAServer({
    port,
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    allowAnonymous: true,
    securityPolicies: secure
      ? [SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep, SecurityPolicy.Aes256_Sha256_RsaPss]
      : [SecurityPolicy.None],
    securityModes: secure
      ? [MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt]
      : [MessageSecurityMode.None],
    userManager: { isValidUser: (name, password) => name === "reader" && password === "s3cret" },
    ...(secure && {
      certificateFile: path.join(store, "server.crt"),
      privateKeyFile: path.join(store, "server.pem"),
      serverInfo: { applicationUri: "urn:headrace:test:server" },
    }),
    ...(many && {
      serverCapabilities: { maxBrowseContinuationPoints: 2, operationLimits: { maxNodesPerBrowse: 50, maxNodesPerRead: 700 } },
    }),
    disableDiscovery: !secure,
    // Its own 10 and 10 leave no room for the session, or the line, that a client lost in the middle of its beginning.
    maxConnectionsPerEndpoint: 100,
    // A sampling rate of 0: else changes that follow each other closely become one.
    serverCapabilities: limited ? LIMITED : { maxSessions: 100, minSupportedSampleRate: 0 },
    serverCertificateManager: new OPCUACertificateManager({
      rootFolder: path.join(store, "pki"),
      automaticallyAcceptUnknownCertificate: process.argv[4] !== "secure-strict",
    }),
    userCertificateManager: new OPCUACertificateManager({
      rootFolder: path.join(store, "users"),
      automaticallyAcceptUnknownCertificate: true,
    }),
  });
  await server.initialize();
  addVariables(server);
  const sessions = () => Object.values(server.engine._sessions);
  process.on("SIGUSR2", () => {
    for (const session of sessions())
      for (const id of Object.keys(session.publishEngine._subscriptions)) session.deleteSubscription(Number(id));
    console.log("forgot");
  });
  process.on("SIGHUP", () => {
    for (const session of sessions()) server.engine.closeSession(session.authenticationToken, false, "Timeout");
    console.log("closed");
  });
  if (process.argv[4] === "no-subscriptions") {
    server._on_CreateSubscriptionRequest = (message, channel) => {
      const { requestHandle } = message.request.requestHeader;
      const responseHeader = { requestHandle, serviceResult: StatusCodes.BadServiceUnsupported, timestamp: new Date() };
      channel.send_response("MSG", new ServiceFault({ responseHeader }), message, () => {});
    };
  }
  await server.start();
  console.log(`ready ${port}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
