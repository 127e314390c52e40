"""Modbus TCP. The only file that imports pymodbus.

pymodbus makes the frames and matches transactions; the registers of a response stay bytes (`_Registers`), and the core
decodes them in one call. Each response gets one time: the middle between its request's departure and its arrival.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from agent.collectors.base import Inlet
from agent.collectors.requests import Request, requests
from agent.config import ModbusDevice
from agent.errors import NotConnected
from agent.model import StatusCode

log = logging.getLogger("headrace.collector")
# What pymodbus logs as errors are single lost responses; they are counted here, and told once by the supervisor.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

TRIES = 2
"""How often a request is sent before its device counts as lost."""
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
REFUSALS = {
    1: StatusCode.BAD_NOT_READABLE,
    ILLEGAL_ADDRESS: StatusCode.BAD_NODE_ID_UNKNOWN,
    ILLEGAL_VALUE: StatusCode.BAD_NODE_ID_UNKNOWN,
    4: StatusCode.BAD_DEVICE_FAILURE,
    10: StatusCode.BAD_NOT_CONNECTED,
    11: StatusCode.BAD_NOT_CONNECTED,
}
"""Exception codes (V1.1b3, 7) as qualities. Any other is a communication error. None is ever a value."""


class _Registers(ModbusPDU):
    """A response to a read whose payload stays bytes."""

    payload: bytes = b""

    def decode(self, data: bytes) -> None:
        # A byte count that disagrees with what came leaves the payload empty: the core refuses it for its length.
        if data and data[0] == len(data) - 1:
            self.payload = data[1:]


class _Coils(_Registers):
    function_code = 1
    rtu_byte_count_pos = 2


class _Inputs(_Registers):
    function_code = 2
    rtu_byte_count_pos = 2


class _Holding(_Registers):
    function_code = 3
    rtu_byte_count_pos = 2


class _Input(_Registers):
    function_code = 4
    rtu_byte_count_pos = 2


_ASK: dict[int, type[ModbusPDU]] = {
    1: ReadCoilsRequest,
    2: ReadDiscreteInputsRequest,
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}


@dataclass(slots=True)
class _Poll:
    """A request, its plan in the core, and the status that its device last refused it with (0: answered)."""

    request: Request
    plan: int
    refused: int = 0


class ModbusCollector:
    """Reads all tags of one Modbus TCP device every `poll` seconds."""

    def __init__(self, device: ModbusDevice, inlet: Inlet) -> None:
        self.device = device
        self.counters: dict[str, int] = {"requests": 0, "overruns": 0, "discarded": 0}
        self._inlet = inlet
        self._client: AsyncModbusTcpClient | None = None
        self._polls = [self._poll(request) for request in requests(device.tags, device.limits, device.poll)]
        self._next = 0.0

    def _poll(self, request: Request) -> _Poll:
        return _Poll(request, self._inlet.modbus_plan(request.fields(), bits=request.bits))

    async def connect(self) -> None:
        parts = urlsplit(self.device.url)
        # One owner of reconnecting, and of retrying: the supervisor, and `_ask`.
        client = AsyncModbusTcpClient(
            str(parts.hostname), port=parts.port or 502, timeout=self.device.timeout, retries=0, reconnect_delay=0
        )
        for response in (_Coils, _Inputs, _Holding, _Input):
            client.register(response)
        self._client = client
        try:
            connected = await client.connect()
        except (OSError, ModbusException) as reason:
            raise NotConnected(str(reason)) from reason
        if not connected:
            raise NotConnected(f"no answer from {self.device.url}")
        self._next = asyncio.get_running_loop().time()
        for poll in self._polls:
            poll.refused = 0

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        period = self.device.poll
        missed = int((loop.time() - self._next) / period)
        if missed > 0:
            # A poll that is late is not doubled: the next one keeps to the clock.
            self.counters["overruns"] += missed
            self._next += missed * period
        await asyncio.sleep(self._next - loop.time())
        self._next += period
        for poll in tuple(self._polls):
            await self._read(poll)

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _read(self, poll: _Poll) -> None:
        response, time_ns = await self._ask(poll.request)
        if isinstance(response, _Registers):
            try:
                self._inlet.push_registers(poll.plan, response.payload, time_ns)
            except ValueError as reason:
                self.counters["discarded"] += 1
                raise NotConnected(f"a response that does not fit its request: {reason}") from reason
            poll.refused = 0
            return
        code = response.exception_code
        if code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE) and len(parts := poll.request.split()) > 1:
            # One bad address refuses a whole request. Ask for each place by itself from here on.
            log.warning(
                "%s: refused to read %d tags at once (exception %d); reading them one by one",
                self.device.name,
                len(poll.request.tags),
                code,
                extra={"event": "request_split", "device": self.device.name},
            )
            index = self._polls.index(poll)
            self._polls[index : index + 1] = polls = [self._poll(part) for part in parts]
            for part in polls:
                await self._read(part)
            return
        self._refuse(poll, REFUSALS.get(code, StatusCode.BAD_COMMUNICATION_ERROR), code, time_ns)

    def _refuse(self, poll: _Poll, status: StatusCode, code: int, time_ns: int) -> None:
        """Bad readings, once for as long as the device goes on refusing in the same way."""
        if poll.refused == status:
            return
        poll.refused = status
        names = ", ".join(f"{tag.name} ({tag.address})" for tag in poll.request.tags)
        facts = {"event": "read_refused", "device": self.device.name, "exception": code}
        log.warning("%s: exception %d reading %s", self.device.name, code, names, extra=facts)
        self._inlet.push([(tag.index, time_ns, None, status) for tag in poll.request.tags])

    async def _ask(self, request: Request) -> tuple[ModbusPDU, int]:
        """One request and its response, with the middle of the two times. Raises NotConnected."""
        client = self._connected()
        reason: Exception | None = None
        for _ in range(TRIES):
            ask = _ASK[request.function](address=request.address, count=request.count, dev_id=self.device.unit)
            self.counters["requests"] += 1
            sent, started = time.time_ns(), time.perf_counter_ns()
            try:
                response = await client.execute(False, ask)
            except (OSError, ModbusException) as lost:
                reason = lost
                self._connected()
                continue
            time_ns = sent + (time.perf_counter_ns() - started) // 2
            # pymodbus lets a transaction id of 0 pass, and looks at no function code.
            if response.transaction_id != ask.transaction_id or response.function_code & 0x7F != request.function:
                self.counters["discarded"] += 1
                raise NotConnected("a response to another request")
            return response, time_ns
        raise NotConnected(f"no response: {reason}")

    def _connected(self) -> AsyncModbusTcpClient:
        if self._client is None or not self._client.connected:
            raise NotConnected("the connection was closed")
        return self._client
