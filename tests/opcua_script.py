"""An OPC UA server that does what a test tells it, also what no server may: security None, one subscription."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from asyncua import ua as typed
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary

from tests.peers.servers import OPCUA_NAMESPACE

ua: Any = typed  # asyncua's own types for numbers are only their annotation
SERVICES = (
    *("GetEndpoints", "CreateSession", "ActivateSession", "CreateSubscription", "CreateMonitoredItems", "Read"),
    *("DeleteSubscriptions", "TransferSubscriptions", "Publish", "Republish", "HistoryRead"),
)
BY_ID = {getattr(ua.ObjectIds, f"{name}Request_Encoding_DefaultBinary"): name for name in SERVICES}
SUBSCRIPTION = 7
MOST = 65_536


def message(body: bytes, request: int, sequence: int, kind: bytes = b"MSGF") -> bytes:
    """One chunk. `kind` has its last letter: F final, C to be continued."""
    security = struct.pack("<II", 1, 1)
    if kind.startswith(b"OPN"):
        uri = b"http://opcfoundation.org/UA/SecurityPolicy#None"
        security = struct.pack("<Ii", 1, len(uri)) + uri + struct.pack("<ii", -1, -1)
    whole = security + struct.pack("<II", sequence, request) + body
    return kind + struct.pack("<I", 8 + len(whole)) + whole


class ScriptedServer:
    """Listens at a free port. `hostile` maps a service to what is written, instead of its answer, for a request id."""

    def __init__(self) -> None:
        self.namespaces = ["http://opcfoundation.org/UA/", "urn:server", OPCUA_NAMESPACE]
        self.hostile: dict[str, Callable[[int], bytes | Iterator[bytes]]] = {}
        self.most_publishes = 100
        self.sequence = 0
        """Of the last notification."""
        self.kept: dict[int, Any] = {}
        self.asked: list[int] = []
        """Numbers of Republish."""
        self.refused = 0
        self.nodes: list[Any] = []
        self.items: list[int] = []
        """The client handles of the subscription's items: one that is there twice has two items."""
        self.unknown: set[str] = set()
        """Names of nodes that it refuses."""
        self.session = True
        """Whether it knows the session that a client had before."""
        self.keep_alive_count = 10
        self.started = datetime.now(UTC)
        self.values: dict[str, int] = {}
        """What is read of a node."""
        self.refuses_once = False
        """Whether the next PublishRequest with acknowledgements is refused."""
        self.channel_ms = 3_600_000
        self.history: list[tuple[datetime, int]] = []
        """(source time, value) of every node."""
        self.page = 1000
        """Values of one answer."""
        self.most_points = 1000
        self.points: dict[bytes, int] = {}
        """Continuation points, and where in the history they go on."""
        self.silent = 0
        """Which HistoryRead is not answered, though its points are left as they are: 1 is the next one."""
        self.reads: list[list[bytes]] = []
        """The continuation points of each HistoryRead."""
        self._waiting: asyncio.Queue[tuple[Any, int, Any]] = asyncio.Queue()
        self._chunks = 0
        self._known = False
        """Whether there is the subscription."""
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def idle(self) -> bool:
        """Whether no PublishRequest waits."""
        return self._waiting.empty()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.drop()

    def restart(self) -> None:
        """Ends every connection, and forgets the subscription."""
        self._known = False
        self.drop()

    def drop(self) -> None:
        """Ends every connection."""
        for writer in self._writers:
            writer.close()

    async def publish(
        self,
        value: int,
        *,
        lost: bool = False,
        forgotten: bool = False,
        at: datetime | None = None,
        large: bool = False,
        structures: int = 0,
        overflow: bool = False,
        handle: int = 0,
        aborted: bool = False,
    ) -> None:
        """One notification with one value, or with so many `structures`.

        `lost`: it never arrives; `forgotten`: nor can it be republished; `large`: the server says that it is too large
        to be sent. `at` is its source time. `overflow`: the queue of the item with this `handle` dropped values.
        `aborted`: the server begins to send it, and gives up.
        """
        while not self._known:  # noqa: ASYNC110  (a subscription that comes tells nobody)
            await asyncio.sleep(0.005)
        self.sequence = 1 if self.sequence == 2**32 - 1 else self.sequence + 1
        value_of = ua.DataValue(ua.Variant(value, ua.VariantType.Int32), SourceTimestamp=at or datetime.now(UTC))
        if overflow:
            value_of.StatusCode = ua.StatusCode(0x0000_0480)
        if structures:
            value_of = ua.DataValue(ua.Variant(ua.Range(value, value + 1.0)), SourceTimestamp=datetime.now(UTC))
        items = [ua.MonitoredItemNotification(handle, value_of)] * max(1, structures)
        changed = ua.DataChangeNotification(MonitoredItems=items)
        found = ua.NotificationMessage(self.sequence, datetime.now(UTC), [changed])
        if not forgotten:
            self.kept[self.sequence] = found
        if not lost:
            result = ua.PublishResult(SUBSCRIPTION, list(self.kept), False, found, [])
            writer, number, request = await self._waiting.get()
            answer = ua.PublishResponse(Parameters=result)
            if aborted:
                writer.write(self.abortion(number))
                return
            if large:
                answer = self.fault(ua.StatusCodes.BadResponseTooLarge)
            writer.write(self._answer(number, request, answer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._chunks = 0
        while not self._waiting.empty():
            self._waiting.get_nowait()
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                head = await reader.readexactly(8)
                body = await reader.readexactly(struct.unpack("<I", head[4:])[0] - 8)
                if head[:3] == b"CLO":
                    break
                for part in self._take(writer, head[:3], body):
                    writer.write(part)
                    await writer.drain()
        writer.close()

    def _take(self, writer: asyncio.StreamWriter, kind: bytes, body: bytes) -> Iterator[bytes]:
        if kind == b"HEL":
            number, name = 0, "Hello"
        elif kind == b"OPN":
            start = body.index(b"#None") + len(b"#None") + 8
            number, name = struct.unpack_from("<II", body, start)[1], "OpenSecureChannel"
            body = body[start + 8 :]
        else:
            number, body = struct.unpack_from("<I", body, 12)[0], body[16:]
            name = BY_ID[nodeid_from_binary(Buffer(body)).Identifier]
        if name in self.hostile:
            says = self.hostile[name](number)
            return iter([says] if isinstance(says, bytes) else says)
        if name == "Hello":
            return iter([b"ACKF" + struct.pack("<IIIIII", 28, 0, MOST, MOST, 0, 0)])
        request = struct_from_binary(getattr(ua, f"{name}Request"), Buffer(body))
        found = getattr(self, f"_{name}")(writer, number, request)
        return iter([] if found is None else [self._answer(number, request, found)])

    def _answer(self, number: int, request: Any, found: Any) -> bytes:
        found.ResponseHeader.Timestamp = datetime.now(UTC)
        found.ResponseHeader.RequestHandle = request.RequestHeader.RequestHandle
        self._chunks += 1
        opens = isinstance(found, ua.OpenSecureChannelResponse)
        return message(struct_to_binary(found), number, self._chunks, b"OPNF" if opens else b"MSGF")

    def _OpenSecureChannel(self, *_: object) -> Any:
        token = ua.ChannelSecurityToken(1, 1, datetime.now(UTC), self.channel_ms)
        return ua.OpenSecureChannelResponse(Parameters=ua.OpenSecureChannelResult(0, token, b""))

    def abortion(self, number: int) -> bytes:
        """The last chunk of an answer that can't be sent."""
        self._chunks += 1
        return message(struct.pack("<Ii", ua.StatusCodes.BadResponseTooLarge, -1), number, self._chunks, b"MSGA")

    def refusal(self, number: int, code: int) -> bytes:
        """A ServiceFault."""
        self._chunks += 1
        return message(struct_to_binary(self.fault(code)), number, self._chunks)

    def fault(self, code: int) -> Any:
        found = ua.ServiceFault()
        found.ResponseHeader.ServiceResult = ua.StatusCode(code)
        return found

    def _endpoint(self) -> Any:
        anonymous = ua.UserTokenPolicy("anonymous", ua.UserTokenType.Anonymous)
        return ua.EndpointDescription(
            self.url,
            SecurityMode=ua.MessageSecurityMode.None_,
            SecurityPolicyUri="http://opcfoundation.org/UA/SecurityPolicy#None",
            UserIdentityTokens=[anonymous],
            TransportProfileUri="http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary",
        )

    def _GetEndpoints(self, *_: object) -> Any:
        return ua.GetEndpointsResponse(Endpoints=[self._endpoint()])

    def _CreateSession(self, *_: object) -> Any:
        self.session = True
        result = ua.CreateSessionResult(
            ua.NodeId(1, 0), ua.NodeId(2, 0), 120_000.0, b"n" * 32, b"", [self._endpoint()], [], ua.SignatureData(), 0
        )
        return ua.CreateSessionResponse(Parameters=result)

    def _ActivateSession(self, *_: object) -> Any:
        if not self.session:
            return self.fault(ua.StatusCodes.BadSessionIdInvalid)
        return ua.ActivateSessionResponse(Parameters=ua.ActivateSessionResult(b"n" * 32, [], []))

    def _CreateSubscription(self, *_: object) -> Any:
        self._known, self.sequence, self.kept, self.items = True, 0, {}, []
        result = ua.CreateSubscriptionResult(SUBSCRIPTION, 100.0, 10_000, self.keep_alive_count)
        return ua.CreateSubscriptionResponse(Parameters=result)

    def _CreateMonitoredItems(self, _writer: object, _number: int, request: Any) -> Any:
        asked = request.Parameters.ItemsToCreate
        self.nodes = [item.ItemToMonitor.NodeId for item in asked]
        results = []
        for item in asked:
            known = item.ItemToMonitor.NodeId.Identifier not in self.unknown
            if known:
                self.items.append(item.RequestedParameters.ClientHandle)
            status = ua.StatusCode(0 if known else ua.StatusCodes.BadNodeIdUnknown)
            results.append(ua.MonitoredItemCreateResult(status, len(self.items), 0.0, 100))
        return ua.CreateMonitoredItemsResponse(Results=results)

    def _Read(self, _writer: object, _number: int, request: Any) -> Any:
        known = {
            ua.ObjectIds.Server_NamespaceArray: ua.Variant(self.namespaces, ua.VariantType.String),
            ua.ObjectIds.Server_ServerStatus_StartTime: ua.Variant(self.started, ua.VariantType.DateTime),
        }
        found = []
        for each in request.Parameters.NodesToRead:
            value = known.get(each.NodeId.Identifier, ua.Variant(None))
            if each.NodeId.Identifier in self.values:
                value = ua.Variant(self.values[each.NodeId.Identifier], ua.VariantType.Int32)
            if each.AttributeId == ua.AttributeIds.UserAccessLevel:
                value = ua.Variant(5, ua.VariantType.Byte)  # CurrentRead, HistoryRead
            found.append(ua.DataValue(value))
        return ua.ReadResponse(Results=found)

    def _HistoryRead(self, _writer: object, _number: int, request: Any) -> Any:
        asked, details = request.Parameters, request.Parameters.HistoryReadDetails
        self.reads.append([each.ContinuationPoint for each in asked.NodesToRead if each.ContinuationPoint])
        self.silent -= 1
        if self.silent == 0:
            return None
        results = []
        for each in asked.NodesToRead:
            start, point = self.points.pop(each.ContinuationPoint, None), None
            if asked.ReleaseContinuationPoints:
                results.append(ua.HistoryReadResult(ua.StatusCode(0)))
                continue
            values = [reading for reading in self.history if reading[0] <= details.EndTime]
            if start is None and each.ContinuationPoint:
                results.append(ua.HistoryReadResult(ua.StatusCode(ua.StatusCodes.BadContinuationPointInvalid)))
                continue
            if start is None:
                start = sum(at < details.StartTime for at, _ in values)
            end = start + min(self.page, details.NumValuesPerNode or self.page)
            if end < len(values):
                if len(self.points) >= self.most_points:
                    results.append(ua.HistoryReadResult(ua.StatusCode(ua.StatusCodes.BadNoContinuationPoints)))
                    continue
                point = b"point %d" % (len(self.reads) * 1000 + len(results))
                self.points[point] = end
            page = [
                ua.DataValue(ua.Variant(value, ua.VariantType.Int32), SourceTimestamp=at)
                for at, value in values[start:end]
            ]
            results.append(ua.HistoryReadResult(ua.StatusCode(0), point, ua.HistoryData(page)))
        return ua.HistoryReadResponse(Results=results)

    def _TransferSubscriptions(self, *_: object) -> Any:
        code = 0 if self._known else ua.StatusCodes.BadSubscriptionIdInvalid
        return ua.TransferSubscriptionsResponse(
            Parameters=ua.TransferSubscriptionsResult([ua.TransferResult(ua.StatusCode(code), list(self.kept))])
        )

    def _DeleteSubscriptions(self, *_: object) -> Any:
        return ua.DeleteSubscriptionsResponse(Results=[ua.StatusCode(ua.StatusCodes.BadSubscriptionIdInvalid)])

    def _Publish(self, writer: object, number: int, request: Any) -> Any:
        if self.refuses_once and request.Parameters.SubscriptionAcknowledgements:
            self.refuses_once = False
            return self.fault(ua.StatusCodes.BadTooManyPublishRequests)
        for each in request.Parameters.SubscriptionAcknowledgements:
            self.kept.pop(each.SequenceNumber, None)
        if self._waiting.qsize() >= self.most_publishes:
            self.refused += 1
            return self.fault(ua.StatusCodes.BadTooManyPublishRequests)
        self._waiting.put_nowait((writer, number, request))
        return None

    def _Republish(self, _writer: object, _number: int, request: Any) -> Any:
        self.asked.append(request.Parameters.RetransmitSequenceNumber)
        if not self._known:
            return self.fault(ua.StatusCodes.BadSubscriptionIdInvalid)
        found = self.kept.get(self.asked[-1])
        if found is None:
            return self.fault(ua.StatusCodes.BadMessageNotAvailable)
        return ua.RepublishResponse(NotificationMessage=found)
