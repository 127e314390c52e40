"""The tags of a config: the rows of its tag lists, bound to their devices; and what the catalog says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import overload

from agent import units
from agent.devices import Device, ModbusDevice
from agent.labels import LabelRules
from agent.model import Tag
from agent.taglist import Row, TagList
from agent.wire import CatalogTag, without_password


def tags(
    devices: Sequence[Device], lists: Sequence[TagList], identifiers: Sequence[str], rules: LabelRules
) -> Iterator[tuple[Tag, ...]]:
    """The tags of each device; `identifiers` has one for every row of all lists, in order."""
    indexes, names = count(), iter(identifiers)
    for device, listed in zip(devices, lists, strict=True):
        found = (_tag(next(indexes), device, row, next(names), rules) for row in listed.rows)
        if isinstance(device, ModbusDevice):
            yield tuple(device.on_wire(tag, row.modbus) for tag, row in zip(found, listed.rows, strict=True))
        else:
            yield tuple(found)


def _tag(index: int, device: Device, row: Row, identifier: str, rules: LabelRules) -> Tag:
    traits = row.traits
    return Tag(
        index=index,
        device=device.name,
        name=row.name,
        address=row.address,
        type=traits.type.type,
        identifier=identifier,
        order=traits.order or (device.order if isinstance(device, ModbusDevice) else "ABCD"),
        unit=traits.unit,
        scale=traits.scale,
        offset=traits.offset,
        low=traits.low,
        high=traits.high,
        filter=traits.filter,
        domain=traits.domain or device.domain or rules.domain or "",
        level=traits.level or device.level or rules.level,
        category=traits.category or device.category or rules.category or "",
        redundant=traits.redundant,
        description=row.description,
        length=traits.type.length,
        form=traits.type.form,
        invalid=traits.invalid,
        poll=traits.poll,
        together=traits.together,
        alone=traits.alone,
    )


class CatalogTags(Sequence[CatalogTag]):
    """What a catalog says of each tag, made when it is asked for: it is asked seldom, and would take more memory than
    the tags themselves."""

    def __init__(self, devices: Sequence[Device], tags: Sequence[Tag]) -> None:
        self._tags = tags
        self._sources = {
            device.name: {"protocol": device.protocol, "url": without_password(device.url)} for device in devices
        }

    def __len__(self) -> int:
        return len(self._tags)

    @overload
    def __getitem__(self, at: int) -> CatalogTag: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[CatalogTag]: ...
    def __getitem__(self, at: int | slice) -> CatalogTag | Sequence[CatalogTag]:
        return [self._made(tag) for tag in self._tags[at]] if isinstance(at, slice) else self._made(self._tags[at])

    def __iter__(self) -> Iterator[CatalogTag]:
        return map(self._made, self._tags)

    def _made(self, tag: Tag) -> CatalogTag:
        return CatalogTag(
            tag=tag.index,
            device=tag.device,
            name=tag.name,
            identifier=tag.identifier,
            type=tag.reading_type.value,
            unit=tag.unit,
            unit_code=units.code(tag.unit),
            low=tag.low,
            high=tag.high,
            domain=tag.domain,
            level=tag.level,
            category=tag.category,
            redundant=tag.redundant,
            description=tag.description,
            source={**self._sources[tag.device], "address": tag.address},
        )
