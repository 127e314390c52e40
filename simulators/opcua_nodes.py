"""The nodes of a virtual OPC UA server: a folder for each device, below it its tags as variables, or where their browse
paths say; with EURange and EngineeringUnits (OPC 10000-8, 5.3.2), and the types of structures; each planned in a
`Space`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import gcd
from typing import Any, TypeAlias
from uuid import UUID

from asyncua import ua
from asyncua.server.address_space import AttributeValue, NodeData, NodeManagementService
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from agent.address import NodeAddress
from agent.model import Tag, Value
from simulators.opcua_space import Space
from simulators.opcua_structures import ONE_DIMENSION, SCALAR, VARIANTS, Structure, Type, called
from simulators.plant import Plant

_CODES = {
    "°C": "CEL", "K": "KEL", "bar": "BAR", "mbar": "MBR", "kN": "B47", "mm": "MMT", "mm/s": "C16", "%": "P1",
    "A": "AMP", "V": "VLT", "kW": "KWT", "Hz": "HTZ", "rpm": "RPM", "1/min": "C94", "kWh": "KWH", "m³": "MTQ",
    "l/min": "L2", "m³/h": "MQH", "°": "DD", "m/min": "2X", "pcs": "H87",
}  # fmt: skip
"""Units by their UNECE code (recommendation 20), of which EUInformation has the characters (OPC 10000-8, 5.6.3.3)."""
_READ = ua.AccessLevel.CurrentRead.mask | ua.AccessLevel.HistoryRead.mask


Raw: TypeAlias = Value | tuple[Value, ...]
"""What a device holds: of a node with a structure, that of each of its tags."""


@dataclass(slots=True)
class Variable:
    """One node as its server has it: what it shows, and since when."""

    tag: Tag
    """Its tag; of a node with a structure the first of them."""
    id: ua.NodeId
    shown: ua.DataValue = field(default_factory=ua.DataValue)
    raw: Raw = None
    written_ns: int = 0
    """When its last step began that was looked at, changed or not."""
    structure: Structure | None = None

    def step_ns(self, plant: Plant) -> int:
        """How often it may change."""
        return plant.step_ns(self.tag) if self.structure is None else gcd(*map(plant.step_ns, self.structure.tags))

    def at(self, plant: Plant, time_ns: int) -> Raw:
        """What it has at a time."""
        if self.structure is None:
            return plant.raw(self.tag, time_ns)
        return tuple(plant.raw(tag, time_ns) for tag in self.structure.tags)

    def variant(self, raw: Raw) -> ua.Variant:
        """As its value says it."""
        if self.structure is None:
            return ua.Variant(raw, VARIANTS[self.tag.type.element])
        assert isinstance(raw, tuple)
        return ua.Variant(self.structure.value(raw), ua.VariantType.ExtensionObject)


@dataclass(frozen=True, slots=True)
class _Child:
    """What a parent says of a node below it."""

    id: ua.NodeId
    name: ua.QualifiedName
    kind: ua.NodeClass
    type: ua.NodeId | None = None
    """Its TypeDefinition; types have none."""
    reference: int = ObjectIds.HasComponent


class Nodes:
    """Plans nodes in a space. `spaces` has the index of each namespace that an address names, and of ours as None."""

    def __init__(self, space: Space, attributes: NodeManagementService, spaces: dict[str | int | None, int]) -> None:
        self._space = space
        self._attributes = attributes
        self._spaces = spaces
        self._below: dict[ua.NodeId, list[_Child]] = {}
        """Of each object of ours, what is below it."""
        self._objects: dict[tuple[ua.NodeId, int, str], ua.NodeId] = {}

    def device(
        self, name: str, tags: Sequence[Tag], structures: Sequence[Structure] = ()
    ) -> tuple[list[Variable], int]:
        """Plans a device. Returns its variables, and how many tags were left out since their node is there already."""
        home = self._spaces[None]
        folder = self._object(_standard(ObjectIds.ObjectsFolder), home, name, ObjectIds.FolderType)
        found, left_out = [], 0
        for tag in tags:
            if (variable := self._variable(folder, tag.name, NodeAddress.parse(tag.address), tag, None)) is None:
                left_out += 1
            else:
                found.append(variable)
        for each in structures:
            if (variable := self._variable(folder, called(each.address), each.address, each.tags[0], each)) is None:
                left_out += len(each.tags)
            else:
                found.append(variable)
        return found, left_out

    def _variable(
        self, folder: ua.NodeId, name: str, address: NodeAddress, tag: Tag, structure: Structure | None
    ) -> Variable | None:
        """Plans one; None where its node is there already."""
        space = self._spaces[address.namespace]
        parent, name_of = folder, ua.QualifiedName(name, ua.UInt16(space))
        if address.kind == "path":
            parent, name_of = self._way(address)
            id_ = self._child(parent, name_of) or node_id(address.text, space)
        else:
            id_ = node_id(address.key, space)
        if id_ in self._space:
            return None
        variable = Variable(tag, id_, structure=structure)
        if structure is not None:
            for each in structure.type.types():
                self._plan_type(each)
        self._plan(variable, parent, name_of)
        return variable

    def _plan_type(self, found: Type) -> None:
        """A data type below the standard's Structure, where clients look for types, and its encoding."""
        base, space = _standard(ObjectIds.Structure), ua.UInt16(found.id.NamespaceIndex)
        name = ua.QualifiedName(found.name, space)
        child = _Child(found.id, name, ua.NodeClass.DataType, reference=ObjectIds.HasSubtype)
        encoding = _Child(
            found.encoding,
            ua.QualifiedName("Default Binary", ua.UInt16(0)),
            ua.NodeClass.Object,
            _standard(ObjectIds.DataTypeEncodingType),
            ObjectIds.HasEncoding,
        )
        self._space.plan(found.id, partial(self._make_type, found, child, encoding))
        self._space.plan(found.encoding, partial(self._make_encoding, encoding, found.id))
        self._hang(base, child)

    def _way(self, address: NodeAddress) -> tuple[ua.NodeId, ua.QualifiedName]:
        """The last object of a browse path, with those before it, and the browse name below it."""
        space = self._spaces[address.namespace]
        steps = [(space if index is None else index, name) for index, name in address.steps]
        at = _standard(ObjectIds.RootFolder)
        for index, name in steps[:-1]:
            at = self._object(at, index, name, ObjectIds.BaseObjectType)
        return at, ua.QualifiedName(steps[-1][1], ua.UInt16(steps[-1][0]))

    def _child(self, parent: ua.NodeId, name: ua.QualifiedName) -> ua.NodeId | None:
        """The node below a parent that has this browse name."""
        below = self._below.get(parent)
        if below is not None:
            return next((each.id for each in below if each.name == name), None)
        references = self._space[parent].references
        return next((each.NodeId for each in references if each.IsForward and each.BrowseName == name), None)

    def _object(self, parent: ua.NodeId, space: int, name: str, kind: int) -> ua.NodeId:
        key = parent, space, name
        if (found := self._objects.get(key)) is not None:
            return found
        browse = ua.QualifiedName(name, ua.UInt16(space))
        if (found := self._child(parent, browse)) is None:
            found = node_id(f"headrace:{len(self._objects)}:{name}", self._spaces[None])
            self._below[found] = []
            child = _Child(found, browse, ua.NodeClass.Object, _standard(kind), ObjectIds.Organizes)
            self._space.plan(found, partial(self._make_object, child, parent))
            self._hang(parent, child)
        self._objects[key] = found
        return found

    def _hang(self, parent: ua.NodeId, child: _Child) -> None:
        below = self._below.get(parent)
        if below is not None:
            below.append(child)
        if below is None or self._space.made(parent):
            self._space[parent].references.append(_forward(child))

    def _plan(self, variable: Variable, parent: ua.NodeId, name: ua.QualifiedName) -> None:
        kind = ObjectIds.BaseDataVariableType
        if (properties := self._properties(variable)) and variable.tag.type.is_number:
            has_range = any(each.name.Name == "EURange" for each, _ in properties)
            kind = ObjectIds.AnalogItemType if has_range else ObjectIds.AnalogUnitType
        child = _Child(variable.id, name, ua.NodeClass.Variable, _standard(kind))
        below = [each for each, _ in properties]
        for each, value in properties:
            self._space.plan(each.id, partial(self._make_property, each, variable.id, value))
        self._space.plan(variable.id, partial(self._make_variable, variable, child, parent, below))
        self._hang(parent, child)

    def _properties(self, variable: Variable) -> list[tuple[_Child, Callable[[], Any]]]:
        tag = variable.tag
        found: list[tuple[str, Callable[[], Any]]] = []
        if variable.structure is not None:  # they are not said of a field
            return []
        if tag.low is not None and tag.high is not None:
            found.append(("EURange", partial(_range, tag)))
        if tag.unit:
            found.append(("EngineeringUnits", partial(_unit, tag)))
        place, home = f"headrace:{tag.device}:{tag.name}", self._spaces[None]
        return [
            (
                _Child(
                    node_id(f"{place}:{name}", home),
                    ua.QualifiedName(name, ua.UInt16(0)),
                    ua.NodeClass.Variable,
                    _standard(ObjectIds.PropertyType),
                    ObjectIds.HasProperty,
                ),
                value,
            )
            for name, value in found
        ]

    def _make_object(self, child: _Child, parent: ua.NodeId) -> NodeData:
        attributes = ua.ObjectAttributes(
            DisplayName=ua.LocalizedText(child.name.Name), Description=ua.LocalizedText(child.name.Name)
        )
        return self._made(child, parent, attributes, self._below[child.id])

    def _make_type(self, found: Type, child: _Child, encoding: _Child) -> NodeData:
        attributes = ua.DataTypeAttributes(
            DisplayName=ua.LocalizedText(found.name), Description=ua.LocalizedText(found.name)
        )
        attributes.IsAbstract = False
        made = self._made(child, _standard(ObjectIds.Structure), attributes, [encoding])
        definition = ua.Variant(found.definition(), ua.VariantType.ExtensionObject)
        made.attributes[AttributeIds.DataTypeDefinition] = AttributeValue(ua.DataValue(definition))
        return made

    def _make_encoding(self, child: _Child, parent: ua.NodeId) -> NodeData:
        name = ua.LocalizedText(child.name.Name)
        return self._made(child, parent, ua.ObjectAttributes(DisplayName=name, Description=name), ())

    def _make_variable(self, variable: Variable, child: _Child, parent: ua.NodeId, below: Sequence[_Child]) -> NodeData:
        tag, structure = variable.tag, variable.structure
        value = ua.Variant()  # in its place comes what the tag shows
        kind = _standard(VARIANTS[tag.type.element].value) if structure is None else structure.type.id
        about = tag.description or tag.name if structure is None else str(child.name.Name)
        attributes = _variable(child, kind, value, about)
        attributes.AccessLevel = attributes.UserAccessLevel = ua.Byte(_READ)
        attributes.Historizing = True
        attributes.ValueRank = ua.Int32(ONE_DIMENSION if tag.type.is_array and structure is None else SCALAR)
        made = self._made(child, parent, attributes, below)
        made.attributes[AttributeIds.Value].value = variable.shown
        return made

    def _make_property(self, child: _Child, parent: ua.NodeId, value: Callable[[], Any]) -> NodeData:
        variant = ua.Variant(found := value())
        kind = ObjectIds.Range if isinstance(found, ua.Range) else ObjectIds.EUInformation
        return self._made(child, parent, _variable(child, _standard(kind), variant, str(child.name.Name)), ())

    def _made(self, child: _Child, parent: ua.NodeId, attributes: Any, below: Sequence[_Child]) -> NodeData:
        item = ua.AddNodesItem(BrowseName=child.name, NodeClass=child.kind, NodeAttributes=attributes)
        made = NodeData(child.id)
        self._attributes._add_node_attributes(made, item, add_timestamps=True)
        # `_add_reference_no_check` only looks for names, which the two that it is given have.
        for kind, target, forward in (
            (child.reference, parent, False),
            (ObjectIds.HasTypeDefinition, child.type, True),
        ):
            if target is None:
                continue
            reference = ua.AddReferencesItem(ReferenceTypeId=_standard(kind))
            reference.IsForward = forward
            reference.TargetNodeId = target
            self._attributes._add_reference_no_check(made, reference)
        made.references += map(_forward, below)
        return made


def node_id(key: int | str | UUID | bytes, namespace: int = 0) -> ua.NodeId:
    """Of any kind: numeric, text, GUID or opaque."""
    return ua.NodeId(key, namespace)  # type: ignore[arg-type]  # asyncua's names for the same builtin types


@cache
def _standard(number: int) -> ua.NodeId:
    """One of the standard's."""
    return node_id(number)


def _variable(child: _Child, kind: ua.NodeId, value: ua.Variant, description: str) -> ua.VariableAttributes:
    found = ua.VariableAttributes(
        DisplayName=ua.LocalizedText(child.name.Name), Description=ua.LocalizedText(description), DataType=kind
    )
    found.Value = value
    found.ValueRank = ua.Int32(SCALAR)
    found.AccessLevel = found.UserAccessLevel = ua.Byte(ua.AccessLevel.CurrentRead.mask)
    return found


def _forward(child: _Child) -> ua.ReferenceDescription:
    found = ua.ReferenceDescription(ReferenceTypeId=_standard(child.reference), BrowseName=child.name)
    found.NodeId = child.id
    found.NodeClass = child.kind
    found.DisplayName = ua.LocalizedText(child.name.Name)
    if child.type is not None:
        found.TypeDefinition = child.type
    return found


def _range(tag: Tag) -> ua.Range:
    """EURange, of what the node itself has."""
    scale, offset = tag.scale or 1.0, tag.offset or 0.0
    low, high = sorted(((tag.low or 0.0) - offset, (tag.high or 0.0) - offset))
    low, high = sorted((low / scale, high / scale))
    return ua.Range(ua.Double(low), ua.Double(high))


def _unit(tag: Tag) -> ua.EUInformation:
    code = int.from_bytes(_CODES[tag.unit].encode(), "big") if tag.unit in _CODES else -1
    name = ua.LocalizedText(tag.unit)
    return ua.EUInformation("http://www.opcfoundation.org/UA/units/un/cefact", code, name, name)
