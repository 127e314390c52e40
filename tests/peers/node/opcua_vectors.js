// Bodies of PublishResponses as node-opcua encodes them, for tests/opcua_vectors.py: `node opcua_vectors.js` prints a JSON
// object of name -> hex. The values are those of SCALARS there, each with a source time of 2026-01-02T03:04:05.678Z.
"use strict";

const {
  coerceNodeId,
  DataChangeNotification,
  DataType,
  DataValue,
  encodeExpandedNodeId,
  PublishResponse,
  QualifiedName,
  StatusCodes,
  Variant,
  VariantArrayType,
} = require("node-opcua");
const { BinaryStream } = require("node-opcua-binary-stream");

const SOURCE = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678));
const SERVER = new Date(Date.UTC(2026, 0, 2, 3, 4, 6, 789));

const SCALARS = {
  Boolean: true,
  SByte: -128,
  Byte: 255,
  Int16: -32768,
  UInt16: 65535,
  Int32: -2147483648,
  UInt32: 4294967295,
  Int64: [0x80000000, 0], // [high, low]: no JavaScript number holds it
  UInt64: [0xffffffff, 0xffffffff],
  Float: Math.fround(1234.567),
  Double: Math.PI,
  String: "press 7 · 压力机",
  DateTime: SOURCE,
  Guid: "72962B91-FA75-4AE6-8D28-B404DC7DAF63",
  ByteString: Buffer.from("00ff80", "hex"),
  XmlElement: "<a>ä</a>",
  NodeId: coerceNodeId("ns=2;s=Träger"),
  StatusCode: StatusCodes.BadSensorFailure,
  QualifiedName: new QualifiedName({ namespaceIndex: 2, name: "Träger" }),
  LocalizedText: { locale: "de", text: "läuft" },
};

function body(values) {
  const monitoredItems = values.map((value, at) => ({ clientHandle: at, value }));
  const response = new PublishResponse({
    subscriptionId: 7,
    availableSequenceNumbers: [4, 5],
    moreNotifications: true,
    notificationMessage: {
      sequenceNumber: 5,
      publishTime: SERVER,
      notificationData: [new DataChangeNotification({ monitoredItems })],
    },
    results: [StatusCodes.Good, StatusCodes.BadSequenceNumberUnknown],
  });
  const stream = new BinaryStream(Buffer.alloc(1 << 16));
  encodeExpandedNodeId(PublishResponse.encodingDefaultBinary, stream);
  response.encode(stream);
  return stream.buffer.subarray(0, stream.length).toString("hex");
}

const found = {};
for (const [name, value] of Object.entries(SCALARS)) {
  const dataType = DataType[name];
  const scalar = new Variant({ dataType, arrayType: VariantArrayType.Scalar, value });
  found[name] = body([new DataValue({ value: scalar, sourceTimestamp: SOURCE })]);
  const array = new Variant({ dataType, arrayType: VariantArrayType.Array, value: [value, value] });
  found[`${name}[]`] = body([new DataValue({ value: array, sourceTimestamp: SOURCE })]);
}
const one = new Variant({ dataType: DataType.Double, value: 1.5 });
found.stamps = body([
  new DataValue({ value: one }),
  new DataValue({ value: one, serverTimestamp: SERVER, serverPicoseconds: 12340 }), // in 10 ps units on the wire
  new DataValue({ value: one, sourceTimestamp: SOURCE, sourcePicoseconds: 12340, serverTimestamp: SERVER }),
  new DataValue({
    value: one,
    statusCode: StatusCodes.UncertainLastUsableValue,
    sourceTimestamp: SOURCE,
    sourcePicoseconds: 12340,
    serverTimestamp: SERVER,
    serverPicoseconds: 56780,
  }),
]);
process.stdout.write(`${JSON.stringify(found)}\n`);
