// Reads nodes with node-opcua's client: `node opcua_client.js URL` takes a JSON list of node ids from stdin (with
// `nsu=URI;` before those of a namespace, and `#Position.X` behind those of which a field is wanted), and prints a JSON
// list: type, whether it is an array, value, source time in ms, the same of its history. A field's type is that of its
// DataTypeDefinition.
"use strict";

const { AttributeIds, DataType, OPCUAClient, VariantArrayType, resolveNodeId } = require("node-opcua");

function plain(type, value) {
  if (type === DataType.Int64) return String(BigInt.asIntN(64, (BigInt(value[0]) << 32n) | BigInt(value[1])));
  if (type === DataType.UInt64) return String((BigInt(value[0]) << 32n) | BigInt(value[1]));
  if (type === DataType.ByteString) return value.toString("base64");
  return value;
}

// A field of a structure as a variant: node-opcua's names of fields begin with a small letter.
function inside(whole, field) {
  let at = whole;
  let schema = null;
  for (const step of field.split(".")) {
    const name = step[0].toLowerCase() + step.slice(1);
    schema = at.schema.fields.find((each) => each.name === name);
    at = at[name];
  }
  const arrayType = schema.isArray ? VariantArrayType.Array : VariantArrayType.Scalar;
  return { dataType: DataType[schema.fieldType], arrayType, value: at };
}

function told(found, field) {
  const { dataType, arrayType, value } = field ? inside(found.value.value, field) : found.value;
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
  const fields = names.map((name) => name.split("#")[1]);
  const nodes = names.map((name) => {
    const [, uri, rest] = /^nsu=([^;]*);([^#]*)/s.exec(name);
    return resolveNodeId(`ns=${spaces.indexOf(uri)};${rest}`);
  });
  if (fields.some(Boolean)) await session.extractNamespaceDataType();
  const now = await session.read(nodes.map((nodeId) => ({ nodeId, attributeId: AttributeIds.Value })));
  const pasts = new Map(); // of each node, however many of its fields are asked for
  const found = [];
  for (const [at, value] of now.entries()) {
    const end = value.sourceTimestamp;
    const node = nodes[at].toString();
    if (!pasts.has(node)) {
      const past = await session.readHistoryValue(nodes[at], new Date(end.getTime() - 60000), end);
      pasts.set(node, past.historyData.dataValues);
    }
    const history = pasts.get(node).map((each) => told(each, fields[at]));
    found.push({ ...told(value, fields[at]), history });
  }
  process.stdout.write(`${JSON.stringify(found)}\n`);
  await session.close();
  await client.disconnect();
}

main(process.argv[2], JSON.parse(require("fs").readFileSync(0, "utf8"))).catch((reason) => {
  console.error(reason);
  process.exit(1);
});
