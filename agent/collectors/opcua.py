"""OPC UA subscriptions. The only file that imports asyncua.

asyncua keeps the channel, the session and the publish loop; a whole PublishResponse reaches `_published`, which is the
seam for the undecoded body: rows to the core in one call, then wait until they are durable, then let the loop
acknowledge (OPC 10000-4, 5.14.5). Reconnecting is the supervisor's alone: every `connect` makes a new client.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError

from agent.address import NodeAddress
from agent.collectors.base import Inlet, Row
from agent.config import OpcUaDevice
from agent.errors import NotConnected
from agent.model import StatusCode, Tag

log = logging.getLogger("headrace.collector")
# asyncua logs each failed request of a lost connection; the supervisor says once that it is lost.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)

APPLICATION_URI = "urn:headrace:agent"
PROBE = 10.0
"""Seconds between asyncua's reads of the server's state."""
KEEP_ALIVE = 5.0
"""Seconds after which a server with nothing to report says so."""
LIFETIME = 600.0
"""Seconds that a server keeps a subscription whose client is silent."""
COVERED = 60.0
"""Seconds of changes that a server is asked to queue for each item."""
RETRY_BAD = 60.0
"""Seconds between attempts to subscribe a node that the server refused."""
CHUNK = 1000
"""Items a call where the server states no limit of its own."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
OVERFLOW = 0x480
"""InfoType DataValue and the overflow bit (OPC 10000-4, 7.39): the server's queue was full, and it dropped values."""
_ID_TYPES = {
    "i": ua.NodeIdType.Numeric,
    "s": ua.NodeIdType.String,
    "g": ua.NodeIdType.Guid,
    "b": ua.NodeIdType.ByteString,
}


class OpcUaCollector:
    """Subscribes to all tags of one OPC UA server."""

    def __init__(self, device: OpcUaDevice, inlet: Inlet) -> None:
        self.device = device
        self.counters: dict[str, int] = {"publishes": 0, "overflows": 0, "bad_nodes": 0}
        self._inlet = inlet
        self._tags = {tag.index: tag for tag in device.tags}
        self._client: Client | None = None
        self._subscription = 0
        self._bad: dict[int, Tag] = {}
        # Tags whose first value after (re)subscribing has not come: it may be one that was read before.
        self._fresh: set[int] = set()
        self._newest: dict[int, Row] = {}
        self._silent_after = 0.0
        self._heard: float | None = None
        self._fault: asyncio.Future[str]

    async def connect(self) -> None:
        if self.device.security != "None":
            # Never the open line instead of the one that was asked for.
            raise NotConnected(f"security {self.device.security} is not in this version of Headrace")
        loop = asyncio.get_running_loop()
        self._fault = loop.create_future()
        client = Client(self.device.url, timeout=self.device.timeout, watchdog_intervall=PROBE)
        client.application_uri, client.name = APPLICATION_URI, "Headrace"
        client.connection_lost_callback = self._lost
        if self.device.username:
            client.set_user(self.device.username)
            client.set_password(self.device.password or "")
        self._client = client
        try:
            # Four round trips to connect and three to subscribe, each with its own deadline inside this one.
            await _within(10 * self.device.timeout, self._open(client))
        except (OSError, UaError, TimeoutError, ValueError) as reason:
            raise NotConnected(str(reason) or type(reason).__name__) from reason
        self._heard = loop.time()

    async def read(self) -> None:
        """Values arrive by themselves (`_published`); this watches that they, or the keep-alives, go on arriving."""
        client, loop = self._client, asyncio.get_running_loop()
        if client is None:
            raise NotConnected("the connection was closed")
        wait = RETRY_BAD if self._bad else self._silent_after
        await asyncio.wait([self._fault], timeout=min(wait, self._silent_after))
        if self._fault.done():
            raise NotConnected(self._fault.result())
        if self._heard is not None and loop.time() - self._heard > self._silent_after:
            raise NotConnected(f"no notification and no keep-alive for {self._silent_after:.1f} s")
        if self._bad:
            try:
                await _within(10 * self.device.timeout, self._retry_bad(client))
            except (OSError, UaError, TimeoutError) as reason:
                raise NotConnected(str(reason) or type(reason).__name__) from reason

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        client.connection_lost_callback = None
        try:
            await _within(1.5, client.disconnect())
        except (OSError, UaError, TimeoutError):
            client.disconnect_socket()

    async def _open(self, client: Client) -> None:
        await client.connect()
        self._must_be(client)
        await self._subscribe(client)

    def _must_be(self, client: Client) -> None:
        """A connection that was given up may still come about: its readings would come twice beside its successor's."""
        if self._client is not client:
            raise NotConnected("this connection was given up")

    async def _retry_bad(self, client: Client) -> None:
        await self._monitor(client, list(self._bad.values()), await client.get_namespace_array())

    async def _lost(self, reason: Exception) -> None:
        self._fail(str(reason) or type(reason).__name__)

    def _fail(self, reason: str) -> None:
        if not self._fault.done():
            self._fault.set_result(reason)

    async def _subscribe(self, client: Client) -> None:
        interval = self.device.publish
        asked = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=interval * 1000,
            RequestedMaxKeepAliveCount=max(1, math.ceil(KEEP_ALIVE / interval)),
            RequestedLifetimeCount=math.ceil(LIFETIME / interval),
            MaxNotificationsPerPublish=0,
            PublishingEnabled=True,
            Priority=0,
        )
        given = await client.uaclient.session.create_subscription(asked, lambda result: self._published(client, result))
        self._must_be(client)
        self._subscription = given.SubscriptionId
        keep_alive = given.RevisedPublishingInterval / 1000 * given.RevisedMaxKeepAliveCount
        self._silent_after = 1.5 * keep_alive + self.device.timeout
        self._bad.clear()
        await self._monitor(client, self.device.tags, await client.get_namespace_array())

    async def _monitor(self, client: Client, tags: tuple[Tag, ...] | list[Tag], namespaces: list[str]) -> None:
        """Creates the monitored items. A node that can't be is one bad tag, tried again by itself."""
        # Indexes of namespaces may change whenever a server starts: they are looked up after every connect.
        indexes = {uri: index for index, uri in enumerate(namespaces)}
        bad: dict[int, int] = {}
        wanted: list[tuple[Tag, ua.NodeId]] = []
        for tag in tags:
            if (node := _node_id(NodeAddress.parse(tag.address), indexes)) is None:
                bad[tag.index] = StatusCode.BAD_NODE_ID_UNKNOWN
            else:
                wanted.append((tag, node))
        self._fresh.update(tag.index for tag, _ in wanted)
        size = await self._limit(client)
        for start in range(0, len(wanted), size):
            chunk = wanted[start : start + size]
            asked = ua.CreateMonitoredItemsParameters(
                SubscriptionId=self._subscription,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=[self._item(tag, node) for tag, node in chunk],
            )
            results = await client.uaclient.session.create_monitored_items(asked)
            for (tag, _), result in zip(chunk, results, strict=True):
                if not result.StatusCode.is_good():
                    bad[tag.index] = result.StatusCode.value
        self._tell_bad(bad)
        for tag in tags:
            self._bad.pop(tag.index, None)
        self._bad.update((index, self._tags[index]) for index in bad)
        self.counters["bad_nodes"] = len(self._bad)

    def _tell_bad(self, bad: dict[int, int]) -> None:
        new = {index: status for index, status in bad.items() if index not in self._bad}
        if not new:
            return
        now = time.time_ns()
        self._inlet.push([(index, now, None, status) for index, status in new.items()])
        names = ", ".join(f"{self._tags[index].name} ({self._tags[index].address})" for index in list(new)[:10])
        more = f" and {len(new) - 10} more" if len(new) > 10 else ""
        facts = {"event": "bad_nodes", "device": self.device.name, "count": len(new)}
        log.warning("%s: the server has no such nodes: %s%s", self.device.name, names, more, extra=facts)

    async def _limit(self, client: Client) -> int:
        limit = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
        node = ua.NodeId(ua.Int32(limit), ua.Int16(0))
        try:
            stated = await client.get_node(node).read_value()
        except UaError:  # an optional node: a small server has none
            stated = 0
        return min(CHUNK, stated) if isinstance(stated, int) and stated > 0 else CHUNK

    def _item(self, tag: Tag, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        sampling = self.device.sampling
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=tag.index,
                SamplingInterval=sampling * 1000,
                QueueSize=min(1000, math.ceil(COVERED / max(sampling, 0.1))),
                DiscardOldest=True,
            ),
        )

    async def _published(self, client: Client, result: ua.PublishResult) -> None:
        """Everything of one PublishResponse. When this returns, asyncua acknowledges it."""
        if self._client is not client:
            await asyncio.Event().wait()
        self._heard = None
        try:
            self.counters["publishes"] += 1
            rows = [row for part in result.NotificationMessage.NotificationData or () for row in self._rows(part)]
            if rows:
                self._inlet.push(rows)
                # Commit, then acknowledge. A server that hears nothing keeps its notifications for us.
                await self._inlet.durable()
            await self._inlet.room()
            self._heard = asyncio.get_running_loop().time()
        except Exception as reason:
            # asyncua would log this and acknowledge all the same. So: never return; `close` cancels the loop.
            self._fail(f"{type(reason).__name__}: {reason}")
            await asyncio.Event().wait()

    def _rows(self, part: object) -> Iterator[Row]:
        if isinstance(part, ua.StatusChangeNotification):
            raise NotConnected(f"the server ended the subscription: {part.Status}")
        if not isinstance(part, ua.DataChangeNotification):
            return
        for item in part.MonitoredItems:
            tag = item.ClientHandle
            if tag not in self._tags:
                continue
            row = _row(tag, item.Value)
            if row[3] & OVERFLOW == OVERFLOW:
                self._overflow(tag)
            if tag in self._fresh:
                self._fresh.discard(tag)
                if self._newest.get(tag) == row:
                    # Read before the connection was lost, and still so: say that it holds now, not a second time.
                    row = (tag, time.time_ns(), row[2], row[3])
            self._newest[tag] = row
            yield row

    def _overflow(self, tag: int) -> None:
        self.counters["overflows"] += 1
        if self.counters["overflows"] == 1:
            facts = {"event": "queue_overflow", "device": self.device.name, "tag": self._tags[tag].name, "lost": -1}
            log.error(
                "%s: the server's queue for %s overflowed; readings carry the overflow bit from here on",
                self.device.name,
                self._tags[tag].name,
                extra=facts,
            )


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Waits for `work`, and no longer. asyncua may swallow a cancellation and go on waiting for an answer that never
    comes: so it runs in a task of its own, which is left to itself where it does not end. Raises TimeoutError."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody else asks for it
            task.cancel()
    if not task.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    task.result()


def _node_id(address: NodeAddress, indexes: dict[str, int]) -> ua.NodeId | None:
    namespace = address.namespace if isinstance(address.namespace, int) else indexes.get(address.namespace)
    # asyncua's own types for keys are only their annotation: it takes what `NodeAddress` has.
    key: Any = address.key
    return None if namespace is None else ua.NodeId(key, ua.Int16(namespace), _ID_TYPES[address.kind])


def _row(tag: int, value: ua.DataValue) -> Row:
    stamp = value.SourceTimestamp or value.ServerTimestamp
    variant = value.Value
    status = value.StatusCode.value if value.StatusCode is not None else StatusCode.GOOD
    return tag, _ns(stamp) if stamp else time.time_ns(), variant.Value if variant is not None else None, status


def _ns(stamp: datetime) -> int:
    aware = stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND * 1000
