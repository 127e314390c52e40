"""Fields of structures as tags: which types a server's structures are made of (OPC 10000-3, 8.48 to 8.52).

A node's definition is asked for once a connection. The core then finds the fields in each value, so that there is one
monitored item for a node, however many of its fields are tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import nodeid_to_binary

from agent.collectors.opcua.link import Link
from agent.collectors.opcua.reads import chunks, read_request

MOST_FIELDS = 256
MOST_OF_ALL = 2048
MOST_LEVELS = 16
MOST_STEPS = 32
"""Up the tree of types."""
_PLAIN = {0: "plain", 1: "optional", 2: "union"}
_ENUMERATION, _STRUCTURE, _INT32, _VARIANT = 29, 22, 6, 24
_ABSTRACT = (26, 27, 28)
"""Number, Integer, UInteger: any of them, so it comes as a Variant."""
_STANDARD: dict[int, tuple[int, list[tuple[str, int]]]] = {
    884: (886, [("Low", 11), ("High", 11)]),  # Range
    887: (889, [("NamespaceUri", 12), ("UnitId", 6), ("DisplayName", 21), ("Description", 21)]),  # EUInformation
}
"""Types that servers use and may not define: the numbers of their encodings, and the fields with built-in types."""

CoreField = tuple[int, bool, bool]
CoreType = tuple[str, list[CoreField]]


class Unclear(Exception):
    """A structure whose fields can't be told."""


@dataclass(slots=True)
class Layout:
    """A structure as the core takes it: the last of `types` is the node's."""

    encoding: bytes = b""
    types: list[CoreType] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    """Of the fields of each type."""
    sizes: list[int] = field(default_factory=list)
    """How many fields each type has, with those of the structures in it: they double with each level, if they like."""

    def path(self, text: str) -> list[int] | None:
        """The places of a field such as `Position.X`; None where there is none such."""
        at, found = len(self.types) - 1, list[int]()
        steps = text.split(".")
        for step, name in enumerate(steps):
            if at < 0 or name not in self.names[at]:
                return None
            place = self.names[at].index(name)
            found.append(place)
            number, array, _ = self.types[at][1][place]
            last = step == len(steps) - 1
            if (number < 0 and not array) == last:
                return None
            at = -1 - number if number < 0 and not array else -1
        return found

    def leaves(self) -> list[tuple[str, int, bool]]:
        """Every field that a tag could be: its text, its built-in type, and whether it is an array."""
        return self._below(len(self.types) - 1, "")

    def _below(self, at: int, before: str) -> list[tuple[str, int, bool]]:
        found: list[tuple[str, int, bool]] = []
        for name, (number, array, _) in zip(self.names[at], self.types[at][1], strict=True):
            if number >= 0:
                found.append((before + name, number, array))
            elif not array and len(found) < MOST_FIELDS:
                found += self._below(-1 - number, f"{before}{name}.")
        return found[:MOST_FIELDS]


class Structures:
    """The types of one connection's server. Raises FAULTS of the link wherever it asks."""

    def __init__(self, link: Link, most: int) -> None:
        self._link = link
        self._most = most
        self._definitions: dict[Any, Any] = {}
        self._kinds: dict[Any, int] = {}
        self._layouts: dict[Any, Layout | str] = {}

    async def types_of(self, nodes: Sequence[Any]) -> list[Any]:
        """The data type of each node; None where the server does not say."""
        found: list[Any] = []
        for chunk in chunks(nodes, self._most):
            request = read_request(chunk, ua.TimestampsToReturn.Neither, AttributeIds.DataType)
            results = (await self._link.ask(request, ua.ReadResponse)).Results
            values = [each.Value.Value if each.Value is not None else None for each in results]
            found += [each if isinstance(each, ua.NodeId) else None for each in values]
        return found

    async def layout(self, kind: Any) -> Layout:
        """Raises Unclear with what is not clear."""
        if kind not in self._layouts:
            try:
                self._layouts[kind] = await self._layout(kind)
            except Unclear as reason:
                self._layouts[kind] = str(reason)
        found = self._layouts[kind]
        if isinstance(found, str):
            raise Unclear(found)
        return found

    async def _layout(self, kind: Any) -> Layout:
        if kind is None or await self._kind(kind) != _STRUCTURE:
            raise Unclear("its type is no structure")
        layout = Layout()
        await self._add(layout, kind, {}, 0)
        definition = await self._definition(kind)
        encoding = definition.DefaultEncodingId
        if not encoding or encoding.is_null():
            raise Unclear("its type says no encoding")
        layout.encoding = nodeid_to_binary(encoding)
        return layout

    async def _add(self, layout: Layout, kind: Any, known: dict[Any, int], level: int) -> int:
        """Adds a type behind those of its fields; its place."""
        if kind in known:
            return known[kind]
        definition = await self._definition(kind)
        form = _PLAIN.get(int(definition.StructureType)) if isinstance(definition, ua.StructureDefinition) else None
        if form is None:
            raise Unclear("its type has no definition, or one with fields of any type")
        if level >= MOST_LEVELS or len(definition.Fields or ()) > MOST_FIELDS:
            raise Unclear("its type is nested too deep, or has too many fields")
        fields: list[CoreField] = []
        for each in definition.Fields or ():
            if each.ValueRank not in (-1, 1):
                raise Unclear(f"its field {each.Name} is a matrix, or may be one")
            number = await self._kind(each.DataType)
            if number == _STRUCTURE and each.DataType != _standard(_STRUCTURE):
                number = -1 - await self._add(layout, each.DataType, known, level + 1)
            fields.append((number, each.ValueRank == 1, bool(each.IsOptional)))
        size = 1 + len(fields) + sum(layout.sizes[-1 - number] for number, _, _ in fields if number < 0)
        if size > MOST_OF_ALL or len(layout.types) >= MOST_FIELDS:
            raise Unclear("its type has too many fields, with those of the structures in it")
        layout.sizes.append(size)
        layout.types.append((form, fields))
        layout.names.append([str(each.Name) for each in definition.Fields or ()])
        known[kind] = len(layout.types) - 1
        return known[kind]

    async def _definition(self, kind: Any) -> Any:
        if kind not in self._definitions:
            request = read_request([kind], ua.TimestampsToReturn.Neither, AttributeIds.DataTypeDefinition)
            (result,) = (await self._link.ask(request, ua.ReadResponse)).Results
            found = result.Value.Value if result.Value is not None else None
            number = kind.Identifier if kind.NamespaceIndex == 0 else None
            if not isinstance(found, ua.StructureDefinition | ua.EnumDefinition) and number in _STANDARD:
                found = _known(number)
            self._definitions[kind] = found
        return self._definitions[kind]

    async def _kind(self, kind: Any) -> int:
        """The built-in type that a data type is made from; 22 for a structure."""
        asked = kind
        if asked in self._kinds:
            return self._kinds[asked]
        for _ in range(MOST_STEPS):
            number = int(kind.Identifier) if kind.NamespaceIndex == 0 and isinstance(kind.Identifier, int) else 0
            if 1 <= number <= _ENUMERATION:
                break
            if (above := await self._above(kind)) is None:
                raise Unclear(f"nothing tells what {kind.to_string()} is made from")
            kind = above
        else:
            raise Unclear(f"the types above {asked.to_string()} go in a circle")
        self._kinds[asked] = _INT32 if number == _ENUMERATION else _VARIANT if number in _ABSTRACT else number
        return self._kinds[asked]

    async def _above(self, kind: Any) -> Any:
        request = ua.BrowseRequest()
        request.Parameters.View.Timestamp = ua.get_win_epoch()
        wish: Any = ua.BrowseDescription()  # asyncua's own types for numbers and bools are only their annotation
        wish.NodeId, wish.BrowseDirection = kind, ua.BrowseDirection.Inverse
        wish.ReferenceTypeId, wish.IncludeSubtypes = _standard(ObjectIds.HasSubtype), True
        wish.NodeClassMask, wish.ResultMask = ua.NodeClass.DataType, ua.BrowseResultMask.All
        request.Parameters.NodesToBrowse = [wish]
        (result,) = (await self._link.ask(request, ua.BrowseResponse)).Results
        return result.References[0].NodeId if result.References else None


def _standard(number: int) -> Any:
    return ua.NodeId(ua.Int32(number))


def _known(number: int) -> ua.StructureDefinition:
    encoding, fields = _STANDARD[number]
    found: Any = ua.StructureDefinition()
    found.DefaultEncodingId, found.StructureType = _standard(encoding), ua.StructureType.Structure
    found.Fields = [ua.StructureField(Name=name, DataType=_standard(kind), ValueRank=-1) for name, kind in fields]
    return found  # type: ignore[no-any-return]
