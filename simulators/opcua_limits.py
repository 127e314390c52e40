"""The limits of a small controller, in an OPC UA server: it says them where a client can read them (OperationLimits,
OPC 10000-5, 6.3.11), revises what it is asked for, and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from asyncua import ua
from asyncua.common.node import Node
from asyncua.common.utils import ServiceError
from asyncua.server.address_space import AddressSpace, AttributeService
from asyncua.server.internal_server import InternalServer
from asyncua.server.subscription_service import SubscriptionService
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from simulators.profiles import Profile

_TOLD = ("Read", "Browse", "TranslateBrowsePathsToNodeIds", "RegisterNodes", "Write", "HistoryReadData")
_SERVER = (ua.TimestampsToReturn.Server, ua.TimestampsToReturn.Both)
_SOURCE = (ua.TimestampsToReturn.Source, ua.TimestampsToReturn.Both)
_PLACE = "Server_ServerCapabilities_OperationLimits_"


class Keeping(SubscriptionService):
    """asyncua's, which answers a Republish of what it does not have with an empty message and no error, and forgets
    what it has sent again. Here it is as OPC 10000-4, 5.14.6 has it."""

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        """Raises ServiceError."""
        if (found := self.subscriptions.get(params.SubscriptionId)) is None:
            raise ServiceError(StatusCodes.BadSubscriptionIdInvalid)
        if (result := found._not_acknowledged_results.get(params.RetransmitSequenceNumber)) is None:
            raise ServiceError(StatusCodes.BadMessageNotAvailable)
        message: ua.NotificationMessage = result.NotificationMessage
        return message


class Subscriptions(Keeping):
    """Within limits."""

    def __init__(self, space: AddressSpace, server: InternalServer, limits: Profile) -> None:
        super().__init__(space, server)
        self._limits = limits

    async def create_subscription(
        self, params: ua.CreateSubscriptionParameters, *others: Any, **more: Any
    ) -> ua.CreateSubscriptionResult:
        """Publishes no more often than the controller can."""
        wanted = max(params.RequestedPublishingInterval, self._limits.publishing * 1000)
        params.RequestedPublishingInterval = ua.Double(wanted)
        return await super().create_subscription(params, *others, **more)

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """Refuses what is too much, and deadbands. Raises ServiceError for a call with too many items."""
        limits, wanted = self._limits, params.ItemsToCreate
        if len(wanted) > limits.per_call:
            raise ServiceError(StatusCodes.BadTooManyOperations)
        room = limits.items - sum(len(each.monitored_item_srv._monitored_items) for each in self.subscriptions.values())
        fits = [
            StatusCodes.BadTooManyMonitoredItems
            if at >= room
            else StatusCodes.BadFilterNotAllowed
            if not limits.deadbands and _deadband(item.RequestedParameters.Filter)
            else 0
            for at, item in enumerate(wanted)
        ]
        params.ItemsToCreate = [item for item, wrong in zip(wanted, fits, strict=True) if not wrong]
        made = iter(await super().create_monitored_items(params) if params.ItemsToCreate else [])
        found = [next(made) if not wrong else _refused(wrong) for wrong in fits]
        for item, result in zip(wanted, found, strict=True):
            asked = item.RequestedParameters.SamplingInterval
            result.RevisedSamplingInterval = ua.Double(max(asked, limits.sampling * 1000))
        return found


class Reading(AttributeService):
    """asyncua's, which gives both time stamps to everybody, the server's as of the last change. Here it is when the
    value was known to be so last (OPC 10000-4, 7.11.4), so that a client which polls has a time of each poll."""

    def __init__(self, space: AddressSpace, known: Callable[[ua.NodeId], datetime | None]) -> None:
        super().__init__(space)
        self._known = known

    def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        wanted = params.TimestampsToReturn
        found = []
        for asked, value in zip(params.NodesToRead, super().read(params), strict=True):
            told: Any = replace(value)
            if asked.AttributeId == AttributeIds.Value:
                told.ServerTimestamp = self._known(asked.NodeId) or value.ServerTimestamp
            if wanted not in _SERVER:
                told.ServerTimestamp = None
            if wanted not in _SOURCE:
                told.SourceTimestamp = None
            found.append(told)
        return found


class Attributes(Reading):
    """Within limits."""

    def __init__(self, space: AddressSpace, known: Callable[[ua.NodeId], datetime | None], limits: Profile) -> None:
        super().__init__(space, known)
        self._limits = limits

    def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """Raises ServiceError for too many nodes."""
        if len(params.NodesToRead) > self._limits.per_call:
            raise ServiceError(StatusCodes.BadTooManyOperations)
        return super().read(params)


def limit(server: InternalServer, limits: Profile, known: Callable[[ua.NodeId], datetime | None]) -> None:
    """Before the server is initialised. `known`: as `Reading` has it."""
    server.subscription_service = Subscriptions(server.aspace, server, limits)
    server.attribute_service = Attributes(server.aspace, known, limits)
    server.max_connections = limits.sessions
    server.max_subscriptions = limits.subscriptions


async def tell(server: InternalServer, limits: Profile) -> None:
    """After it is."""
    names = [*(f"MaxNodesPer{each}" for each in _TOLD), "MaxMonitoredItemsPerCall"]
    for name in names:
        node = Node(server.isession, ua.NodeId(ua.Int32(getattr(ObjectIds, _PLACE + name))))
        await node.write_value(limits.per_call, ua.VariantType.UInt32)


def _deadband(asked: Any) -> bool:
    return bool(int(getattr(asked, "DeadbandType", 0)))


def _refused(code: int) -> ua.MonitoredItemCreateResult:
    return ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(ua.UInt32(code)))
