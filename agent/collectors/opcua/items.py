"""Which nodes are monitored, and how: resolving, limits, monitored items, and the nodes that a server refuses."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from agent.address import NodeAddress
from agent.clock import now_ns
from agent.collectors.base import Inlet
from agent.collectors.opcua.fields import Fields
from agent.collectors.opcua.link import Link, nanoseconds, session_seconds
from agent.collectors.opcua.memory import Memory
from agent.collectors.opcua.profile import (
    EVERY_CHANGE,
    Deadband,
    Limits,
    Range,
    deadband,
    of_readings,
    own_range,
    queue_size,
    share,
)
from agent.collectors.opcua.ranges import eu_ranges
from agent.collectors.opcua.reads import chunks, read_request
from agent.config import OpcUaDevice
from agent.model import StatusCode, Tag

log = logging.getLogger("headrace.collector")

MOST_NOTIFICATIONS = 2000
"""Values of one notification: some 64 KB, which is well below what servers and we take for a message."""
AT_ONCE = 5000
"""Tags whose node ids are in memory at a time: as objects of asyncua they take more than all else of a tag."""
LIFETIME = 600.0
"""Seconds that a server keeps a subscription whose client is silent, if it does as it is asked."""
_ID_TYPES = {
    "i": ua.NodeIdType.Numeric,
    "s": ua.NodeIdType.String,
    "g": ua.NodeIdType.Guid,
    "b": ua.NodeIdType.ByteString,
}
_TRIGGERS = {
    "status": ua.DataChangeTrigger.Status,
    "value": ua.DataChangeTrigger.StatusValue,
    "timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}
_FILTER_REFUSED = (
    StatusCodes.BadMonitoredItemFilterUnsupported,
    StatusCodes.BadFilterNotAllowed,
    StatusCodes.BadDeadbandFilterInvalid,
    StatusCodes.BadMonitoredItemFilterInvalid,
)
_NO_NODE = frozenset(
    {
        StatusCodes.BadNodeIdUnknown,
        StatusCodes.BadNodeIdInvalid,
        StatusCodes.BadAttributeIdInvalid,
        StatusCodes.BadNotReadable,
        StatusCodes.BadUserAccessDenied,
    }
)
_TOO_MANY = (StatusCodes.BadTooManyMonitoredItems, StatusCodes.BadTooManyOperations)
"""What a server says that has no room for the items of one call; it may have some for those of the next."""


@dataclass(slots=True)
class Server:
    """What one connection found out of its server."""

    namespaces: dict[str, int]
    limits: Limits
    product: str = ""
    started_ns: int = 0
    """When it was started; 0 where it does not say."""


class Items:
    """The nodes of one device's tags."""

    def __init__(self, device: OpcUaDevice, inlet: Inlet, memory: Memory, counters: dict[str, int]) -> None:
        self._device = device
        self._inlet = inlet
        self._memory = memory
        self._counters = counters
        self._told: set[int] = set()
        self._fields = Fields(device, inlet)
        self._ranges: dict[int, Range] = {}
        """The server's EURange of tags with a percentage, in its own unit."""

    @property
    def device(self) -> str:
        return self._device.name

    @property
    def fingerprint(self) -> str:
        """Changes with whatever a monitored item is made of: a subscription with another one is not ours to resume."""
        device = self._device
        known = [device.publish, device.sampling, device.outage, device.trigger, device.deadband, device.keep_alive]
        digest = hashlib.blake2b(repr(known).encode(), digest_size=16)
        for tag in device.tags:
            span = own_range(tag) if "%" in tag.filter else None
            digest.update(repr((tag.index, tag.address, tag.type, tag.filter, tag.scale, span)).encode())
        return digest.hexdigest()

    @property
    def handles(self) -> list[tuple[int, int]]:
        """(ClientHandle, tag), of every tag."""
        return [(tag.index, tag.index) for tag in self._device.tags]

    @property
    def carriers(self) -> set[int]:
        """The tags whose values come by themselves: of a node with a structure only one."""
        return {tag.index for tag in self._device.tags}.difference(self._fields.silent)

    @property
    def bad(self) -> list[Tag]:
        """Tags whose node the server refused, to be tried again."""
        return [tag for index in self._memory.bad if (tag := self._tag(index)) is not None]

    def _tag(self, index: int) -> Tag | None:
        """The tag of an index of the whole config; None where it is another device's."""
        tags = self._device.tags  # whose indexes follow each other
        at = index - tags[0].index if tags else -1
        return tags[at] if 0 <= at < len(tags) else None

    async def look(self, link: Link) -> Server:
        """Reads what has to be known first, in one call. Raises FAULTS."""
        ids = (
            ObjectIds.Server_NamespaceArray,
            ObjectIds.Server_ServerStatus_BuildInfo,
            ObjectIds.Server_ServerStatus_StartTime,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRegisterNodes,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIds,
        )
        request = read_request([_numeric(each) for each in ids], ua.TimestampsToReturn.Neither)
        found = (await link.ask(request, ua.ReadResponse)).Results
        names, build, started, *limits = (value.Value.Value if value.Value is not None else None for value in found)
        product = f"{getattr(build, 'ManufacturerName', '')} {getattr(build, 'ProductName', '')}".strip()
        spaces = {uri: index for index, uri in enumerate(names or ())}
        started_ns = nanoseconds(started) if isinstance(started, datetime) else 0
        return Server(spaces, Limits.stated(product, *limits), product, started_ns)

    async def subscribe(self, link: Link, server: Server) -> int:
        """A fresh subscription with all items. Returns the server's time of its beginning in ns. Raises FAULTS."""
        device, memory = self._device, self._memory
        interval, patience = device.publish, max(LIFETIME, session_seconds(device.outage))
        request = ua.CreateSubscriptionRequest()
        request.Parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=interval * 1000,
            RequestedMaxKeepAliveCount=max(1, math.ceil(device.keep_alive / interval)),
            RequestedLifetimeCount=math.ceil(patience / interval),
            MaxNotificationsPerPublish=MOST_NOTIFICATIONS,
            PublishingEnabled=True,
            Priority=0,
        )
        answer = await link.ask(request, ua.CreateSubscriptionResponse)
        given = answer.Parameters
        memory.forget_subscription()
        memory.subscription, memory.started_ns = given.SubscriptionId, server.started_ns
        memory.interval = given.RevisedPublishingInterval / 1000
        memory.keep_alive = max(0.1, memory.interval * given.RevisedMaxKeepAliveCount)
        self._told.clear()
        await self.monitor(link, server, device.tags)
        memory.items = self.fingerprint  # only now: a subscription with half of its items is not one to resume
        log.info(
            "%s: %d of %d nodes monitored, published each %g s, queues for %d s",
            device.name,
            len(device.tags) - len(memory.bad),
            len(device.tags),
            memory.interval,
            self._counters["covered_seconds"],
            extra={
                "event": "subscribed",
                "device": device.name,
                "publish_seconds": memory.interval,
                "keep_alive_seconds": memory.keep_alive,
                "lifetime_seconds": memory.interval * given.RevisedLifetimeCount,
                "covered_seconds": self._counters["covered_seconds"],
                "server": server.product,
            },
        )
        return nanoseconds(answer.ResponseHeader.Timestamp) or now_ns()

    async def monitor(self, link: Link, server: Server, tags: Sequence[Tag]) -> None:
        """Creates monitored items. A node that can't be is one bad tag, tried again by itself. Raises FAULTS."""
        bad: dict[int, int] = {}
        for some in chunks(tags, AT_ONCE):
            nodes = await self.resolve(link, server, some, bad)
            await self._create(link, server, nodes, bad, filtered=True)
        tried = {tag.index for tag in tags}
        self.note_bad(bad, tried)

    async def there(self, link: Link, server: Server, tags: Sequence[Tag]) -> list[Tag]:
        """Those of the tags whose node the server has. Raises FAULTS."""
        bad: dict[int, int] = {}
        nodes = await self.resolve(link, server, tags, bad)
        found = await self.readable(link, server, nodes, bad)
        return [tag for tag, _ in found]

    async def readable(
        self, link: Link, server: Server, nodes: Sequence[tuple[Tag, ua.NodeId]], bad: dict[int, int]
    ) -> list[tuple[Tag, ua.NodeId]]:
        """Those of the nodes that can be read; `bad` gets the others. Raises FAULTS."""
        found: list[tuple[Tag, ua.NodeId]] = []
        for chunk in chunks(nodes, server.limits.read):
            # Not the values, which may be of any size: what can be said of a node without them.
            request = read_request(
                [node for _, node in chunk], ua.TimestampsToReturn.Neither, AttributeIds.UserAccessLevel
            )
            results = (await link.ask(request, ua.ReadResponse)).Results
            for (tag, node), value in zip(chunk, results, strict=True):
                status = value.StatusCode.value if value.StatusCode is not None else 0
                if status in _NO_NODE:
                    bad[tag.index] = status
                else:
                    found.append((tag, node))
        return found

    def note_bad(self, bad: dict[int, int], tried: set[int]) -> None:
        """`bad` of the tags that were `tried` have this status, the others are well."""
        self._fields.share(bad)
        self._memory.bad = sorted({index for index in self._memory.bad if index not in tried}.union(bad))
        self._counters["bad_nodes"] = len(self._memory.bad)
        self._told &= set(self._memory.bad)
        new = {index: status for index, status in bad.items() if index not in self._told}
        if not new:
            return
        self._told.update(new)
        now = now_ns()
        self._inlet.push([(index, now, None, status) for index, status in new.items()])
        first = [tag for index in list(new)[:10] if (tag := self._tag(index)) is not None]
        names = ", ".join(f"{tag.name} ({tag.address})" for tag in first)
        more = f" and {len(new) - 10} more" if len(new) > 10 else ""
        facts = {"event": "bad_nodes", "device": self._device.name, "count": len(new)}
        log.warning("%s: the server refuses these nodes: %s%s", self._device.name, names, more, extra=facts)

    async def resolve(
        self, link: Link, server: Server, tags: Sequence[Tag], bad: dict[int, int]
    ) -> list[tuple[Tag, ua.NodeId]]:
        """The node of each tag that has one; `bad` gets the others. Raises FAULTS."""
        found: list[tuple[Tag, ua.NodeId]] = []
        paths: list[tuple[Tag, ua.BrowsePath]] = []
        for at, tag in enumerate(tags):
            if at % 500 == 499:  # 5 ms of work
                await asyncio.sleep(0)
            address = NodeAddress.parse(tag.address)
            # Indexes of namespaces may change whenever a server starts: they are looked up after every connect.
            named = address.namespace
            index = named if isinstance(named, int) else server.namespaces.get(named)
            if index is None:
                bad[tag.index] = StatusCode.BAD_NODE_ID_UNKNOWN
            elif address.kind == "path":
                paths.append((tag, _browse_path(address, index)))
            else:
                key: Any = address.key  # asyncua's own types for keys are only their annotation
                found.append((tag, ua.NodeId(key, ua.Int16(index), _ID_TYPES[address.kind])))
        for chunk in chunks(paths, server.limits.translate):
            request = ua.TranslateBrowsePathsToNodeIdsRequest()
            request.Parameters.BrowsePaths = [path for _, path in chunk]
            results = (await link.ask(request, ua.TranslateBrowsePathsToNodeIdsResponse)).Results
            for (tag, _), result in zip(chunk, results, strict=True):
                if result.StatusCode.is_good() and result.Targets:
                    found.append((tag, result.Targets[0].TargetId))
                else:
                    bad[tag.index] = result.StatusCode.value or StatusCode.BAD_NODE_ID_UNKNOWN
        found = await self._measured(link, server, found, bad)
        if not self._fields:
            return found
        return await self._fields.arrange(link, server.limits.read, found, bad, self._told)

    async def measure(self, link: Link, server: Server) -> None:
        """Finds out what only the server can tell, the ranges of percentages and the types of structures: before
        anything is decoded for a subscription that goes on. Raises FAULTS."""
        known = self._fields.known.union(self._ranges)
        unknown = [
            tag
            for tag in self._device.tags
            if tag.index not in known and (tag.index in self._fields or (share(tag) and not own_range(tag)))
        ]
        if unknown:
            await self.resolve(link, server, unknown, {})

    async def _measured(
        self, link: Link, server: Server, nodes: list[tuple[Tag, ua.NodeId]], bad: dict[int, int]
    ) -> list[tuple[Tag, ua.NodeId]]:
        """Reads the ranges of those that have a percentage; without any range such a tag is a bad one."""
        shares = [(tag, node) for tag, node in nodes if share(tag)]
        if not shares:
            return nodes
        rangeless: list[Tag] = []
        stated = await eu_ranges(link, server.limits, [node for _, node in shares])
        for (tag, _), found in zip(shares, stated, strict=True):
            self._ranges.pop(tag.index, None)
            if found is not None:
                self._ranges[tag.index] = found
            if own_range(tag) is None:
                if found is not None:
                    self._inlet.set_range(tag.index, *of_readings(tag, found))
                else:
                    bad[tag.index] = StatusCodes.BadDeadbandFilterInvalid
                    rangeless.append(tag)
        if new := [tag for tag in rangeless if tag.index not in self._told]:
            names = ", ".join(f"{tag.name} ({tag.filter})" for tag in new[:10])
            text = "%s: no range for the percentage of these tags: their nodes have no EURange; write low and high: %s"
            facts = {"event": "no_range", "device": self._device.name, "count": len(new)}
            log.warning(text, self._device.name, names, extra=facts)
        return [(tag, node) for tag, node in nodes if tag.index not in bad]

    async def _create(
        self,
        link: Link,
        server: Server,
        nodes: Sequence[tuple[Tag, ua.NodeId]],
        bad: dict[int, int],
        *,
        filtered: bool,
    ) -> None:
        again: list[tuple[Tag, ua.NodeId]] = []
        theirs: list[int] = []
        for chunk in chunks(nodes, server.limits.items):
            request = ua.CreateMonitoredItemsRequest()
            request.Parameters.SubscriptionId = self._memory.subscription
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.ItemsToCreate = [self._item(tag, node, filtered=filtered) for tag, node in chunk]
            try:
                results = (await link.ask(request, ua.CreateMonitoredItemsResponse)).Results
            except UaStatusCodeError as reason:
                if reason.code not in _TOO_MANY:
                    raise
                bad.update((tag.index, reason.code) for tag, _ in chunk)
                continue
            for (tag, node), result in zip(chunk, results, strict=True):
                if result.StatusCode.is_good():
                    self._revised(result)
                    if filtered and self._deadband(tag):
                        theirs.append(tag.index)
                elif filtered and result.StatusCode.value in _FILTER_REFUSED:
                    again.append((tag, node))  # the core's filter does it
                else:
                    bad[tag.index] = result.StatusCode.value
        self._inlet.set_filtering(theirs, theirs=True)
        ours = [tag.index for tag, _ in nodes] if not filtered else []
        self._inlet.set_filtering(ours, theirs=False)
        self._memory.ours = sorted({*self._memory.ours, *ours})
        if again:
            await self._create(link, server, again, bad, filtered=False)

    def _deadband(self, tag: Tag) -> Deadband | None:
        if tag.index in self._fields:  # a server has no deadband for structures
            return None
        return deadband(self._device, tag, self._ranges.get(tag.index))

    def filtering(self, *, subscribed: bool) -> None:
        """Tells the core who filters: of a subscription that goes on the server, but for those tags where it refused
        to; of a poll nobody but us."""
        ours = set(self._memory.ours)
        filtered = [tag for tag in self._device.tags if tag.filter]
        theirs = [tag.index for tag in filtered if subscribed and tag.index not in ours and self._deadband(tag)]
        self._inlet.set_filtering(theirs, theirs=True)
        known = set(theirs)
        self._inlet.set_filtering([tag.index for tag in filtered if tag.index not in known], theirs=False)

    def _item(self, tag: Tag, node: ua.NodeId, *, filtered: bool) -> ua.MonitoredItemCreateRequest:
        device = self._device
        band = self._deadband(tag) if filtered else None
        asked = None
        if band is not None:
            kind = ua.DeadbandType.Percent if band.percent else ua.DeadbandType.Absolute
            asked = ua.DataChangeFilter(_TRIGGERS[device.trigger], kind, band.size)
        elif filtered and device.trigger != "value":
            asked = ua.DataChangeFilter(_TRIGGERS[device.trigger], ua.DeadbandType.None_, 0.0)
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=tag.index,
                SamplingInterval=device.sampling * 1000,
                Filter=asked,
                QueueSize=queue_size(device.outage, device.sampling),
                DiscardOldest=True,
            ),
        )

    def _revised(self, result: ua.MonitoredItemCreateResult) -> None:
        """Keeps what the server makes of our wishes, where it is less."""
        sampling = max(result.RevisedSamplingInterval / 1000, 0.0)
        count = self._counters
        if sampling > self._device.sampling > 0:
            count["slowest_sampling_ms"] = max(count.get("slowest_sampling_ms", 0), round(sampling * 1000))
        covered = int(result.RevisedQueueSize * (sampling or EVERY_CHANGE))
        count["covered_seconds"] = min(count.get("covered_seconds") or covered, covered)


def _numeric(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number), ua.Int16(0))


def _browse_path(address: NodeAddress, index: int) -> ua.BrowsePath:
    backwards: Any = False  # asyncua's own types for bools are only their annotation
    narrower: Any = True
    elements = [
        ua.RelativePathElement(
            ReferenceTypeId=_numeric(ObjectIds.HierarchicalReferences),
            IsInverse=backwards,
            IncludeSubtypes=narrower,
            TargetName=ua.QualifiedName(name, ua.UInt16(index if space is None else space)),
        )
        for space, name in address.steps
    ]
    return ua.BrowsePath(_numeric(ObjectIds.RootFolder), ua.RelativePath(elements))


__all__ = ["Items", "Server", "UaError"]
