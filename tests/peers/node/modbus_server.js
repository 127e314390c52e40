// A Modbus TCP device made with modbus-serial: `node modbus_server.js PORT`. Prints "ready PORT" once it listens.
// It serves the values that servers.py lists, the same as libmodbus_server.c.
"use strict";

const { ServerTCP } = require("modbus-serial");

const ITEMS = 200;
const COUNTER = 8;
const port = Number(process.argv[2]);

const registers = new Uint16Array(ITEMS);
registers.set([
  0x449a, 0x5225, 0x2552, 0x9a44, 0x9a44, 0x2552, 0x5225, 0x449a, 0, 0x000a, 0x0020, 0x0000, 0x0000, 0x0001, 0xfffe,
  0x1dc0, 0xfffe, 0x7072, 0x6573, 0x732d, 0x3700,
]);

function inside(address, length) {
  // The number of the Modbus exception, 02, is how this library is told to send it.
  if (address + length > ITEMS) throw Object.assign(new Error("illegal data address"), { modbusErrorCode: 2 });
}

const device = {
  getMultipleHoldingRegisters(address, length) {
    inside(address, length);
    registers[COUNTER] += 1;
    return Array.from(registers.subarray(address, address + length));
  },
  getHoldingRegister(address) {
    return device.getMultipleHoldingRegisters(address, 1)[0];
  },
  getMultipleInputRegisters(address, length) {
    inside(address, length);
    return Array.from({ length }, (_, i) => 1000 + address + i);
  },
  getInputRegister(address) {
    inside(address, 1);
    return 1000 + address;
  },
  getCoil(address) {
    inside(address, 1);
    return address % 3 === 0;
  },
  getDiscreteInput(address) {
    inside(address, 1);
    return address % 3 !== 0;
  },
};

const server = new ServerTCP(device, { host: "127.0.0.1", port });
server.on("initialized", () => console.log(`ready ${port}`));
server.on("serverError", (error) => {
  console.error(error);
  process.exit(1);
});
server.on("socketError", (error) => console.error(error.message));
