// Reads nodes with node-opcua's client: `node opcua_client.js URL` takes a JSON list of node ids from stdin (with
// `nsu=URI;` before those of a namespace), and prints a JSON list: type, whether it is an array, value, source time in
// ms, the same of its history.
"use strict";

const { AttributeIds, DataType, OPCUAClient, VariantArrayType, resolveNodeId } = require("node-opcua");

function plain(type, value) {
  if (type === DataType.Int64) return String(BigInt.asIntN(64, (BigInt(value[0]) << 32n) | BigInt(value[1])));
  if (type === DataType.UInt64) return String((BigInt(value[0]) << 32n) | BigInt(value[1]));
  if (type === DataType.ByteString) return value.toString("base64");
  return value;
}

function told(found) {
  const { dataType, arrayType, value } = found.value;
  const array = arrayType === VariantArrayType.Array;
  return {
    type: DataType[dataType],
    array,
    value: array ? Array.from(value, (each) => plain(dataType, each)) : plain(dataType, value),
    time: found.sourceTimestamp.getTime(),
  };
}

async function main(url, names) {
  const client = OPCUAClient.create({ endpointMustExist: false, connectionStrategy: { maxRetry: 1 } });
  await client.connect(url);
  const session = await client.createSession();
  const spaces = await session.readNamespaceArray();
  const nodes = names.map((name) => {
    const [, uri, rest] = /^nsu=([^;]*);(.*)$/s.exec(name);
    return resolveNodeId(`ns=${spaces.indexOf(uri)};${rest}`);
  });
  const now = await session.read(nodes.map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value })));
  const found = [];
  for (const [at, value] of now.entries()) {
    const end = value.sourceTimestamp;
    const past = await session.readHistoryValue(nodes[at], new Date(end.getTime() - 60000), end);
    found.push({ ...told(value), history: past.historyData.dataValues.map(told) });
  }
  process.stdout.write(`${JSON.stringify(found)}\n`);
  await session.close();
  await client.disconnect();
}

main(process.argv[2], JSON.parse(require("fs").readFileSync(0, "utf8"))).catch((reason) => {
  console.error(reason);
  process.exit(1);
});
