"""How the readings of one epoch are parted: which go to which uplink, by level, and which go nowhere.

A block holds one level only, and either what an exported file may hold or what it may not: each uplink has a group of
tags for each of these, and the core seals a group at a time. Tags that may not leave have a group for each reason: what
is sealed of it is counted and thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.policy import LEVEL3, MAIN, Policy, Way
from agent.wire import Catalog, CatalogTag, epoch_of

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
    bodies: Mapping[str, bytes]
    """The catalog of each uplink: only the tags that may leave there."""

    @classmethod
    def of(cls, catalog: Catalog, policy: Policy) -> Split:
        """Parts a catalog whose tags are in the order of the buffer."""
        ways = [policy.way(tag) for tag in catalog.tags]
        reasons = sorted({way.reason for way in ways if way.uplink is None})
        numbers: dict[Group, int] = {}
        groups = bytearray()
        for tag, way in zip(catalog.tags, ways, strict=True):
            level = tag.level or 0
            if way.uplink is None:
                group = Group(WITHHELD + reasons.index(way.reason), way, 0)
            else:
                group = Group(8 * (not way.portable) + 4 * (way.uplink == LEVEL3) + level, way, level)
            numbers[group] = group.number or 0
            groups.append(group.number or 0)
        parts = tuple(sorted(numbers, key=lambda group: numbers[group]))
        if len(parts) == 1:
            parts = (replace(parts[0], number=None),)
        bodies = {
            uplink: only(catalog, [tag for tag, way in zip(catalog.tags, ways, strict=True) if way.uplink == uplink])
            for uplink in (MAIN, LEVEL3)
        }
        return cls(catalog, bytes(groups), parts, bodies)

    def epoch(self, uplink: str) -> int:
        return epoch_of(self.bodies[uplink])


def only(catalog: Catalog, tags: list[CatalogTag]) -> bytes:
    """The encoded catalog of some tags of a catalog, and of the devices that they are read from."""
    devices = {tag.device for tag in tags}
    products = {device: product for device, product in catalog.products.items() if device in devices}
    return Catalog(catalog.agent, tuple(tags), products).encode()
