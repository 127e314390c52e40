"""EURange: the range of a node's values, as the server states it (OPC 10000-8, 5.3.2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds

from agent.collectors.opcua.link import Link
from agent.collectors.opcua.profile import Limits, Range
from agent.collectors.opcua.reads import chunks, read_request


async def eu_ranges(link: Link, limits: Limits, nodes: Sequence[ua.NodeId]) -> list[Range | None]:
    """The range of each node, in the unit of its values; None where it has none. Raises FAULTS."""
    found: list[Range | None] = [None] * len(nodes)
    properties: list[tuple[int, Any]] = []
    for start, chunk in zip(range(0, len(nodes), limits.translate), chunks(nodes, limits.translate), strict=True):
        request = ua.TranslateBrowsePathsToNodeIdsRequest()
        request.Parameters.BrowsePaths = [_property(node) for node in chunk]
        results = (await link.ask(request, ua.TranslateBrowsePathsToNodeIdsResponse)).Results
        properties += [
            (start + at, result.Targets[0].TargetId)
            for at, result in enumerate(results[: len(chunk)])
            if result.StatusCode.is_good() and result.Targets
        ]
    for some in chunks(properties, limits.read):
        read = read_request([node for _, node in some], ua.TimestampsToReturn.Neither)
        values = (await link.ask(read, ua.ReadResponse)).Results
        for (at, _), value in zip(some, values, strict=True):
            stated = value.Value.Value if value.Value is not None else None
            if isinstance(stated, ua.Range) and -math.inf < stated.Low < stated.High < math.inf:
                found[at] = (float(stated.Low), float(stated.High))
    return found


def _property(node: ua.NodeId) -> ua.BrowsePath:
    backwards: Any = False  # asyncua's own types for bools are only their annotation
    narrower: Any = True
    step = ua.RelativePathElement(
        ReferenceTypeId=ua.NodeId(ua.Int32(ObjectIds.HasProperty)),
        IsInverse=backwards,
        IncludeSubtypes=narrower,
        TargetName=ua.QualifiedName("EURange"),
    )
    return ua.BrowsePath(node, ua.RelativePath([step]))
