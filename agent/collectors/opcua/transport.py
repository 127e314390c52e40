"""What a server may send: asyncua's transport, with bounds that hold before anything is kept (OPC 10000-6, 7.1.2).

asyncua waits for as many bytes as a header promises, up to 4 GiB, and lets the server's Acknowledge lift every limit of
our own. Here a chunk, a message and their count have bounds that no server can change; past one the connection ends,
with the reason.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClient, UASocketProtocol
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import Primitives1, header_from_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

CHUNK = 65_536
"""Bytes of a chunk with its header. It is what our Hello says."""
MESSAGE = 8 * 1024 * 1024
"""Bytes of all chunks of a message: some 250,000 values."""
ANSWER = 256 * 1024
"""Bytes of an answer that asyncua decodes: an object of some 150 bytes for each byte, if it is made to harm."""
CHUNKS = 1024
HEAD = struct.Struct("<3scI")
_FAULT = b"\x01\x00\x8d\x01"  # ServiceFault_Encoding_DefaultBinary
_KINDS = (b"MSG", b"OPN", b"CLO", b"ACK", b"ERR")


class Refused(ConnectionError):
    """The server sent what no server may."""


class Limits(TransportLimits):
    """Bounds for what is received. The server's own are for what is sent to it."""

    def update_client_limits(self, msg: ua.Acknowledge) -> None:
        # At least 8,192 bytes (OPC 10000-6, 7.1.2.4): with less, a request would be cut into more and more chunks.
        self.max_send_buffer = max(8192, min(CHUNK, msg.ReceiveBufferSize))


@dataclass(frozen=True, slots=True)
class Aborted:
    """An answer that the server began, and could not send to its end."""

    request: int
    code: int


class Connection(SecureConnection):
    """asyncua passes over an aborted message, and whoever waits for it waits for ever."""

    def _receive(self, msg: Any) -> Any:  # a MessageChunk, of which asyncua declares half
        found = super()._receive(msg)
        if msg.MessageHeader.ChunkType != ua.ChunkType.Abort:
            return found
        (code,) = struct.unpack_from("<I", msg.Body)
        return Aborted(msg.SequenceHeader.RequestId, code)


class Transport(UASocketProtocol):
    """One TCP connection. What is received is held once, and no further than the end of a chunk."""

    def __init__(self, timeout: float, policy: Any) -> None:
        super().__init__(timeout, policy, Limits(CHUNK, CHUNK, CHUNKS, MESSAGE))
        # The base class takes a copy of other types.
        self._connection = Connection(policy, Limits(CHUNK, CHUNK, CHUNKS, MESSAGE))
        self._held = bytearray()

    def data_received(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        held = self._held
        held += data
        try:
            start = 0
            while len(held) - start >= HEAD.size:
                kind, _, size = HEAD.unpack_from(held, start)
                if kind not in _KINDS or not HEAD.size < size <= CHUNK:
                    raise Refused(f"the server sent a chunk of type {kind!r} and {size} bytes (at most {CHUNK})")
                if len(held) - start < size:
                    break
                end = start + size
                self._chunk(bytes(memoryview(held)[start:end]))
                start = end
            del held[:start]
        except Exception as reason:  # whatever asyncua's decoder stumbles over
            self._end(reason)

    async def send_request(self, request: Any, *rest: Any, **more: Any) -> Buffer:
        answer = await super().send_request(request, *rest, **more)
        small(answer)
        return answer

    def check_answer(self, data: Buffer, context: str) -> bool:
        if bytes(data.copy(4).read(4)) == _FAULT:
            small(data)
        return super().check_answer(data, context)

    def _chunk(self, chunk: bytes) -> None:
        buffer = Buffer(chunk)
        header = header_from_binary(buffer)
        message = self._connection.receive_from_header_and_body(header, buffer)
        if isinstance(message, Aborted):
            waiting = self._callbackmap.pop(message.request, None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(UaStatusCodeError(message.code))  # type: ignore[no-untyped-call]
            return
        self._process_received_message(message)
        if chunk.startswith(b"OPN"):
            self._opened(message)

    def _opened(self, message: Any) -> None:
        params = self._open_secure_channel_exchange
        if message is None or not isinstance(params, ua.OpenSecureChannelParameters):
            raise Refused("the server opened a channel that nobody asked for")
        response = struct_from_binary(ua.OpenSecureChannelResponse, message.body())
        response.ResponseHeader.ServiceResult.check()
        self._open_secure_channel_exchange = response
        self._connection.set_channel(response.Parameters, params.RequestType, params.ClientNonce)

    def _end(self, reason: Exception) -> None:
        """Ends the connection for what the server sent."""
        self._held.clear()
        told = reason if isinstance(reason, OSError | UaError) else Refused(f"what the server sent: {reason}")
        self._fail_all_pending(told)
        tell, self.on_connection_lost = self.on_connection_lost, None
        if self.transport is not None:
            self.transport.abort()
        if tell is not None:
            tell(told)


class _NoNulls:
    """An array of Nulls has no bytes, however long it says that it is: asyncua makes 2^31 objects of five bytes."""

    @staticmethod
    def unpack_array(_: object, length: int) -> list[None]:
        if length > 0:
            raise Refused("an array of Nulls")
        return []


Primitives1.Null = _NoNulls  # type: ignore[attr-defined]


def small(answer: Buffer, most: int = ANSWER) -> None:
    """Raises Refused for an answer of more bytes than `most`."""
    if len(answer) > most:
        raise Refused(f"an answer of {len(answer)} bytes (at most {most})")


def bounded(client: Client) -> Client:
    """Lets a client that is not connected yet use `Transport`."""
    uaclient: UaClient = client.uaclient

    def make() -> Transport:
        transport = Transport(uaclient._timeout, uaclient.security_policy)
        transport.pre_request_hook = uaclient.pre_request_hook
        transport.on_connection_lost = uaclient._on_transport_lost
        transport.is_session_closing = uaclient._is_session_closing
        uaclient.protocol = transport
        return transport

    uaclient._make_protocol = make  # type: ignore[method-assign]
    client.max_messagesize, client.max_chunkcount = MESSAGE, CHUNKS
    return client
