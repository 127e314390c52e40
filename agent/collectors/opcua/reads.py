"""Read requests, and calls of no more nodes than a server takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

Each = TypeVar("Each")


def chunks(items: Sequence[Each], size: int) -> Iterator[Sequence[Each]]:
    """The items in order, at most `size` at once."""
    return (items[start : start + size] for start in range(0, len(items), size))


def read_request(
    nodes: Sequence[ua.NodeId], stamps: ua.TimestampsToReturn, attribute: AttributeIds = AttributeIds.Value
) -> ua.ReadRequest:
    """A read of one attribute of each node."""
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = stamps
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes]
    return request
