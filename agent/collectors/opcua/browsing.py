"""Walks a server's address space: what `headrace browse` shows. Bounded in what it asks at once, whatever the server
has: loops, 100,000 nodes, few continuation points, or small limits."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIdNames, ObjectIds
from asyncua.ua.status_codes import StatusCodes

from agent.address import NodeAddress
from agent.collectors.opcua.link import Link
from agent.collectors.opcua.reads import chunks, read_request
from agent.collectors.opcua.structures import Structures, Unclear
from agent.collectors.opcua.transport import MESSAGE
from agent.model import ValueType

AT_ONCE = 4
"""Requests that wait for their answers."""
BATCH = 200
"""Nodes in one request, where the server states no lower limit."""
MOST_REFERENCES = 1000
"""Of one node in one answer; more come with BrowseNext."""
MOST_NODES = 1_000_000
_TYPES = {
    1: ValueType.BOOL, 2: ValueType.INT8, 3: ValueType.UINT8, 4: ValueType.INT16, 5: ValueType.UINT16,
    6: ValueType.INT32, 7: ValueType.UINT32, 8: ValueType.INT64, 9: ValueType.UINT64, 10: ValueType.FLOAT32,
    11: ValueType.FLOAT64, 12: ValueType.STRING, 29: ValueType.INT32,
}  # fmt: skip
"""By the number of the standard's data type; 29 is every enumeration."""
_NO_POINT = (StatusCodes.BadNoContinuationPoints, StatusCodes.BadContinuationPointInvalid)
_ABSTRACT = (24, 26, 27, 28)
"""BaseDataType, Number, Integer, UInteger: only the value tells."""
_KEYS: dict[Any, Literal["i", "s", "g", "b"]] = {
    ua.NodeIdType.TwoByte: "i", ua.NodeIdType.FourByte: "i", ua.NodeIdType.Numeric: "i", ua.NodeIdType.String: "s",
    ua.NodeIdType.Guid: "g", ua.NodeIdType.ByteString: "b",
}  # fmt: skip


@dataclass(slots=True)
class Found:
    """One object or variable."""

    id: str
    """With the URI of its namespace: `nsu=urn:plant;s=Temp`."""
    path: tuple[str, ...]
    """Browse names from below the root down to its own."""
    variable: bool
    type: ValueType | None = None
    """None where no tag can hold it."""
    type_name: str = ""
    array: bool = False
    unit: str = ""
    low: float | None = None
    high: float | None = None
    description: str = ""


@dataclass(slots=True)
class _Open:
    """A node whose references are to be asked for."""

    node: Any
    found: Found | None
    path: tuple[str, ...]


class Browser:
    """One walk over one connection. `found` grows while it goes on, so that a walk that is stopped leaves something."""

    def __init__(self, link: Link, progress: Callable[[int, int], None], *, server_node: bool = False) -> None:
        self.found: list[Found] = []
        self._link = link
        link.answer_bytes = MESSAGE
        self._progress = progress
        self._skipped = set() if server_node else {_standard(ObjectIds.Server)}
        self.refused = 0
        """Nodes whose references the server does not give."""
        self._queue: deque[_Open] = deque()
        self._alone: deque[_Open] = deque()
        """What needs a continuation point that it does not get, or loses, while other nodes are asked for."""
        self._seen: set[Any] = set()
        self._spaces: list[str] = []
        self._batch = self._read = BATCH
        self._types: dict[Any, int] = {}

    async def walk(self, root: NodeAddress, depth: int, stop: asyncio.Event) -> bool:
        """Everything below the root, breadth first. False where `stop` ended it before. Raises FAULTS, ValueError."""
        await self._look()
        self._queue.append(_Open(self._node(root), None, ()))
        working: set[asyncio.Task[None]] = set()
        try:
            while (self._queue or self._alone or working) and not stop.is_set():
                while self._queue and len(working) < AT_ONCE:
                    batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
                    working.add(asyncio.create_task(self._step(batch, depth)))
                if self._alone and not working:
                    working.add(asyncio.create_task(self._step([self._alone.popleft()], depth, alone=True)))
                done, working = await asyncio.wait(working, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
                self._progress(len(self.found), len(self._queue) + len(self._alone))
        finally:
            for each in working:
                each.cancel()
            if working:
                await asyncio.wait(working)
        return not stop.is_set()

    async def _look(self) -> None:
        limits = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse
        reads = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead
        nodes = [_standard(each) for each in (ObjectIds.Server_NamespaceArray, limits, reads)]
        results = (await self._link.ask(read_request(nodes, ua.TimestampsToReturn.Neither), ua.ReadResponse)).Results
        names, browse, read = (each.Value.Value if each.Value is not None else None for each in results)
        self._spaces = [str(each) for each in names or ()]
        self._batch = min(BATCH, browse or BATCH)
        self._read = min(5 * BATCH, read or 5 * BATCH)
        self._structures = Structures(self._link, self._read)

    def _node(self, address: NodeAddress) -> Any:
        index = address.namespace
        if isinstance(index, str):
            if index not in self._spaces:
                raise ValueError(f"the server has no namespace {index}")
            index = self._spaces.index(index)
        if address.kind == "path":
            raise ValueError("a browse path can't be a root; write a node id")
        key: Any = address.key
        return ua.NodeId(key, ua.Int16(index))

    async def _step(self, batch: list[_Open], depth: int, *, alone: bool = False) -> None:
        request: Any = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = MOST_REFERENCES
        request.Parameters.View.Timestamp = ua.get_win_epoch()  # of no view
        request.Parameters.NodesToBrowse = [_wish(each.node) for each in batch]
        results = (await self._link.ask(request, ua.BrowseResponse)).Results
        fresh: list[tuple[Any, Found]] = []
        ranges: list[tuple[Any, Found]] = []
        for each, result in zip(batch, results, strict=True):
            references = list(result.References or ())
            while result.StatusCode.is_good() and result.ContinuationPoint and len(references) < MOST_NODES:
                result = await self._next(result.ContinuationPoint)  # noqa: PLW2901
                references += result.References or ()
            # A server may free the continuation points of one request for another (OPC 10000-4, 7.9).
            if result.StatusCode.value in _NO_POINT and not alone:
                self._alone.append(each)
                continue
            if not result.StatusCode.is_good():
                if not each.path:
                    raise ValueError(f"the server does not show the root: {result.StatusCode.name}")
                self.refused += 1
            fresh += self._enter(each, references, ranges, depth)
        await self._describe(fresh)
        await self._ranges(ranges)

    async def _next(self, point: bytes) -> Any:
        request: Any = ua.BrowseNextRequest()
        request.Parameters.ReleaseContinuationPoints = False  # asyncua would let go of it, and get nothing
        request.Parameters.ContinuationPoints = [point]
        (result,) = (await self._link.ask(request, ua.BrowseNextResponse)).Parameters.Results
        return result

    def _enter(
        self, parent: _Open, references: Sequence[Any], ranges: list[tuple[Any, Found]], depth: int
    ) -> Iterator[tuple[Any, Found]]:
        """The variables among a node's children; all children are noted, and what is below them comes next."""
        for each in references:
            node, name = each.NodeId, str(each.BrowseName.Name or "")
            if each.ReferenceTypeId == _standard(ObjectIds.HasProperty):
                if parent.found is not None and name in ("EURange", "EngineeringUnits"):
                    ranges.append((node, parent.found))
                continue
            if node in self._seen or node in self._skipped or len(self._seen) >= MOST_NODES:
                continue
            self._seen.add(node)
            variable = each.NodeClass == ua.NodeClass.Variable
            found = Found(self._text(node), (*parent.path, name or self._text(node)), variable)
            self.found.append(found)
            if len(found.path) < depth or variable:  # a variable's range is below it
                self._queue.append(_Open(node, found if variable else None, found.path))
            if variable:
                yield node, found

    def _text(self, node: Any) -> str:
        index = node.NamespaceIndex
        space = self._spaces[index] if index and index < len(self._spaces) else index
        key = node.Identifier
        return NodeAddress(space, _KEYS[node.NodeIdType], key).text

    async def _describe(self, fresh: Sequence[tuple[Any, Found]]) -> None:
        wanted = (AttributeIds.DataType, AttributeIds.ValueRank, AttributeIds.Description)
        unclear: list[tuple[Any, Found]] = []
        for chunk in chunks(fresh, max(1, self._read // len(wanted))):
            values = await self._attributes([(node, each) for node, _ in chunk for each in wanted])
            for at, (node, found) in enumerate(chunk):
                kind, rank, text = values[3 * at : 3 * at + 3]
                found.description = " ".join(str(getattr(text, "Text", None) or "").split())
                found.array = isinstance(rank, int) and rank >= 0
                number = await self._builtin(kind) if isinstance(kind, ua.NodeId) else 0
                found.type, found.type_name = _TYPES.get(number), ObjectIdNames.get(number, str(kind))
                if number in _ABSTRACT:
                    unclear.append((node, found))
                elif number == ObjectIds.Structure and not found.array:
                    self.found += await self._fields(kind, found)
        for chunk in chunks(unclear, self._read):
            request = read_request([node for node, _ in chunk], ua.TimestampsToReturn.Neither)
            results = (await self._link.ask(request, ua.ReadResponse)).Results
            for (_, found), result in zip(chunk, results, strict=True):
                if result.Value is not None and isinstance(result.Value.VariantType, ua.VariantType):
                    number = result.Value.VariantType.value
                    found.type, found.array = _TYPES.get(number), bool(result.Value.is_array)
                    found.type_name = ObjectIdNames.get(number, found.type_name)

    async def _fields(self, kind: Any, whole: Found) -> list[Found]:
        """The fields of a variable with a structure, each as one that a tag can be."""
        try:
            leaves = (await self._structures.layout(kind)).leaves()
        except Unclear:
            return []
        return [
            Found(
                f"{whole.id}#{text}",
                (*whole.path, *text.split(".")),
                variable=True,
                type=_TYPES.get(number),
                type_name=ObjectIdNames.get(number, ""),
                array=array,
                description=whole.description,
            )
            for text, number, array in leaves
        ]

    async def _builtin(self, kind: Any) -> int:
        """The standard's type that a data type is made from, or 0: up the tree of types, which is asked once."""
        if kind not in self._types:
            self._types[kind] = 0  # should the types go in a circle
            number = int(kind.Identifier) if kind.NamespaceIndex == 0 and isinstance(kind.Identifier, int) else 0
            if number not in _TYPES and number not in _ABSTRACT and number != ObjectIds.Structure:
                above = await self._above(kind)
                number = await self._builtin(above) if above is not None else 0
            self._types[kind] = number
        return self._types[kind]

    async def _above(self, kind: Any) -> Any:
        request = ua.BrowseRequest()
        request.Parameters.View.Timestamp = ua.get_win_epoch()
        wish: Any = _wish(kind)
        wish.BrowseDirection, wish.ReferenceTypeId = ua.BrowseDirection.Inverse, _standard(ObjectIds.HasSubtype)
        wish.NodeClassMask = ua.NodeClass.DataType
        request.Parameters.NodesToBrowse = [wish]
        (result,) = (await self._link.ask(request, ua.BrowseResponse)).Results
        return result.References[0].NodeId if result.References else None

    async def _ranges(self, ranges: Sequence[tuple[Any, Found]]) -> None:
        for chunk in chunks(ranges, self._read):
            values = await self._attributes([(node, AttributeIds.Value) for node, _ in chunk])
            for (_, found), value in zip(chunk, values, strict=True):
                if isinstance(value, ua.EUInformation):
                    found.unit = str(value.DisplayName.Text or "").strip()
                elif isinstance(value, ua.Range) and -math.inf < value.Low < value.High < math.inf:
                    found.low, found.high = float(value.Low), float(value.High)

    async def _attributes(self, wanted: Sequence[tuple[Any, int]]) -> list[Any]:
        request: Any = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
        request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=each) for node, each in wanted]
        results = (await self._link.ask(request, ua.ReadResponse)).Results
        return [each.Value.Value if each.Value is not None else None for each in results]


def _standard(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number))


def _wish(node: Any) -> Any:
    wish: Any = ua.BrowseDescription()  # asyncua's own types for numbers and bools are only their annotation
    wish.NodeId = node
    wish.BrowseDirection = ua.BrowseDirection.Forward
    wish.ReferenceTypeId = _standard(ObjectIds.HierarchicalReferences)
    wish.IncludeSubtypes = True
    wish.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    wish.ResultMask = ua.BrowseResultMask.All
    return wish
