"""How the readings of one epoch are parted: which go to which uplink, by level, and which go nowhere.

A block holds one level only, and either what an exported file may hold or what it may not: each uplink has a group of
tags for each of these, and the core seals a group at a time. Tags that may not leave have a group for each reason: what
is sealed of it is counted and thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from agent.policy import LEVEL3, MAIN, Policy, Way
from agent.wire import Catalog, CatalogTag

WITHHELD = 16
"""The first group of tags that go nowhere; there are as many as reasons, at most 203."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tags that share their blocks. `number` is None where they are all there are."""

    number: int | None
    way: Way
    level: int


@dataclass(frozen=True, slots=True)
class Split:
    """One epoch's tags, parted. `groups` has a byte for each tag, as the core's `regroup` takes it."""

    catalog: Catalog
    groups: bytes
    parts: tuple[Group, ...]
    bodies: Mapping[str, tuple[bytes, int]]
    """The packed catalog of each uplink, and its epoch: only the tags that may leave there."""

    @classmethod
    def of(cls, catalog: Catalog, policy: Policy) -> Split:
        """Parts a catalog whose tags are in the order of the buffer."""
        known: dict[Way, Way] = {}  # tags share what is said of them
        ways, levels = list[Way](), bytearray()
        for tag in catalog.tags:
            way = policy.way(tag)
            ways.append(known.setdefault(way, way))
            levels.append(tag.level or 0)
        reasons = sorted({way.reason for way in known if way.uplink is None})
        numbers: dict[Group, int] = {}
        groups = bytearray()
        for level, way in zip(levels, ways, strict=True):
            if way.uplink is None:
                group = Group(WITHHELD + reasons.index(way.reason), way, 0)
            else:
                group = Group(8 * (not way.portable) + 4 * (way.uplink == LEVEL3) + level, way, level)
            numbers[group] = group.number or 0
            groups.append(group.number or 0)
        parts = tuple(sorted(numbers, key=lambda group: numbers[group]))
        if len(parts) == 1:
            parts = (replace(parts[0], number=None),)
        bodies = {}
        for uplink in (MAIN, LEVEL3):
            wanted = [way.uplink == uplink for way in ways]
            tags: Sequence[CatalogTag] = catalog.tags if all(wanted) else ()
            if any(wanted) and not tags:
                tags = [*compress(catalog.tags, wanted)]
            bodies[uplink] = _only(catalog, tags).packed()
        return cls(catalog, bytes(groups), parts, bodies)

    def epoch(self, uplink: str) -> int:
        return self.bodies[uplink][1]


def only(catalog: Catalog, tags: Sequence[CatalogTag]) -> bytes:
    """The packed catalog of some tags of a catalog, and of the devices that they are read from."""
    return _only(catalog, tags).packed()[0]


def _only(catalog: Catalog, tags: Sequence[CatalogTag]) -> Catalog:
    devices = {tag.device for tag in tags} if catalog.products else set()
    products = {device: product for device, product in catalog.products.items() if device in devices}
    return Catalog(catalog.agent, tags, products)
