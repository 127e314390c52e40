"""Structures of a virtual OPC UA server: tags that are fields (`nsu=urn:plant;s=Machine#Position.X`) make nodes with
types of their own, each with just the fields that tags name, in the order of the tag list (OPC 10000-3, 8.48).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import pack_uatype, pack_uatype_array

from agent.address import NodeAddress
from agent.model import Tag, Value, ValueType

VARIANTS = {
    ValueType.BOOL: ua.VariantType.Boolean,
    ValueType.INT8: ua.VariantType.SByte,
    ValueType.INT16: ua.VariantType.Int16,
    ValueType.INT32: ua.VariantType.Int32,
    ValueType.INT64: ua.VariantType.Int64,
    ValueType.UINT8: ua.VariantType.Byte,
    ValueType.UINT16: ua.VariantType.UInt16,
    ValueType.UINT32: ua.VariantType.UInt32,
    ValueType.UINT64: ua.VariantType.UInt64,
    ValueType.FLOAT32: ua.VariantType.Float,
    ValueType.FLOAT64: ua.VariantType.Double,
    ValueType.STRING: ua.VariantType.String,
    ValueType.BYTES: ua.VariantType.ByteString,
}
SCALAR, ONE_DIMENSION = -1, 1
"""Of ValueRank."""


@dataclass(slots=True)
class Type:
    """One structure: its fields are tags, or structures in it."""

    fields: dict[str, Tag | Type] = field(default_factory=dict)
    name: str = ""
    id: ua.NodeId = field(default_factory=ua.NodeId)
    encoding: ua.NodeId = field(default_factory=ua.NodeId)

    def put(self, path: list[str], tag: Tag) -> bool:
        """Makes a tag the field at a path. False where another field is there: nothing is changed then."""
        name, *rest = path
        found = self.fields.get(name)
        if rest:
            below = Type() if found is None else found
            if not isinstance(below, Type) or not below.put(rest, tag):
                return False
            self.fields[name] = below
            return True
        if found is not None:  # twice in one list is one field
            return isinstance(found, Tag) and (found.device, found.type) == (tag.device, tag.type)
        self.fields[name] = tag
        return True

    def tags(self) -> Iterator[Tag]:
        """Of all fields, in the order in which they are encoded."""
        for each in self.fields.values():
            if isinstance(each, Tag):
                yield each
            else:
                yield from each.tags()

    def types(self) -> Iterator[Type]:
        """Those in it, then itself."""
        for each in self.fields.values():
            if isinstance(each, Type):
                yield from each.types()
        yield self

    def call(self, name: str, space: int, taken: set[str]) -> None:
        """Gives this type and those in it names that no other one has, and node ids of them."""
        self.name = next(each for n in range(len(taken) + 1) if (each := f"{name}{n or ''}Type") not in taken)
        taken.add(self.name)
        index = ua.Int16(space)
        self.id = ua.NodeId(f"headrace:type:{self.name}", index)  # type: ignore[arg-type]
        self.encoding = ua.NodeId(f"headrace:encoding:{self.name}", index)  # type: ignore[arg-type]
        for each, below in self.fields.items():
            if isinstance(below, Type):
                below.call(f"{name}_{each}", space, taken)

    def definition(self) -> ua.StructureDefinition:
        """As its DataTypeDefinition says it."""
        found = ua.StructureDefinition()
        found.DefaultEncodingId = self.encoding
        found.BaseDataType = ua.NodeId(ua.Int32(ObjectIds.Structure))
        found.StructureType = ua.StructureType.Structure
        found.Fields = [_field(name, each) for name, each in self.fields.items()]
        return found


@dataclass(slots=True)
class Structure:
    """A node whose value is a structure."""

    address: NodeAddress
    """Of the node, without a field."""
    type: Type = field(default_factory=Type)
    tags: tuple[Tag, ...] = ()
    """In the order of their encoding; once `grouped` returned."""

    def value(self, raws: Iterable[Value]) -> ua.ExtensionObject:
        """Of what each tag has: fields, also those of structures in it, stand one behind the other
        (OPC 10000-6, 5.2.6)."""
        body = b"".join(_packed(tag.type, raw) for tag, raw in zip(self.tags, raws, strict=True))
        return ua.ExtensionObject(self.type.encoding, body)  # type: ignore[arg-type]


def grouped(tags: Iterable[Tag], spaces: Mapping[str | int | None, int]) -> tuple[list[Structure], int]:
    """The nodes that tags with a field belong to, and how many fields can't be, since another one is there.

    `spaces`: as `Nodes` has it. A type is in its node's namespace: after a reboot its encoding has another index too.
    """
    found: dict[NodeAddress, Structure] = {}
    left_out, taken = 0, set[str]()
    for tag in tags:
        address = NodeAddress.parse(tag.address)
        node = replace(address, field="")
        structure = found.setdefault(node, Structure(node))
        left_out += not structure.type.put(address.field.split("."), tag)
    for node, structure in found.items():
        structure.tags = tuple(structure.type.tags())
        structure.type.call(called(node), spaces[node.namespace] or spaces[None], taken)
    return list(found.values()), left_out


def called(node: NodeAddress) -> str:
    """A name for a node, and for its type."""
    if node.kind == "path":
        return node.steps[-1][1]
    return node.key.hex() if isinstance(node.key, bytes) else str(node.key)


def _field(name: str, each: Tag | Type) -> ua.StructureField:
    found = ua.StructureField(Name=name)
    scalar = isinstance(each, Type) or not each.type.is_array
    found.ValueRank = ua.Int32(SCALAR if scalar else ONE_DIMENSION)
    found.DataType = each.id if isinstance(each, Type) else ua.NodeId(ua.Int32(VARIANTS[each.type.element].value))
    found.IsOptional = False
    if isinstance(each, Tag):
        found.Description = ua.LocalizedText(each.description or each.name)
    return found


def _packed(kind: ValueType, raw: Value) -> bytes:
    variant = VARIANTS[kind.element]
    return pack_uatype_array(variant, raw) if isinstance(raw, tuple | list) else pack_uatype(variant, raw)
