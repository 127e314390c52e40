"""The tags of one device that are fields of structures (`nsu=urn:plant;s=Machine#Speed`), and which node has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes

from agent.address import NodeAddress
from agent.collectors.base import Inlet
from agent.collectors.opcua.link import Link
from agent.collectors.opcua.structures import Layout, Structures, Unclear
from agent.config import OpcUaDevice
from agent.model import Tag

log = logging.getLogger("headrace.collector")

Node = tuple[Tag, ua.NodeId]


class Fields:
    """Which tags are fields. Of a node with some of them one tag stands for all: the one that is monitored."""

    def __init__(self, device: OpcUaDevice, inlet: Inlet) -> None:
        self._name = device.name
        self._inlet = inlet
        self._fields: dict[int, str] = {}
        for tag in device.tags:
            if "#" in tag.address and (field := NodeAddress.parse(tag.address).field):
                self._fields[tag.index] = field
        self._carried: dict[int, list[int]] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._fields

    def __bool__(self) -> bool:
        return bool(self._fields)

    @property
    def known(self) -> set[int]:
        """The tags of which the core knows where they are."""
        return {each for tags in self._carried.values() for each in tags}

    @property
    def silent(self) -> set[int]:
        """The tags for which another one stands."""
        return self.known.difference(self._carried)

    def share(self, bad: dict[int, int]) -> None:
        """What a node is refused for, all of its fields are."""
        for carrier, tags in self._carried.items():
            if carrier in bad:
                bad |= dict.fromkeys(tags, bad[carrier])

    async def arrange(
        self, link: Link, most: int, nodes: Sequence[Node], bad: dict[int, int], told: set[int]
    ) -> list[Node]:
        """Leaves one tag for each node with a structure, and tells the core where its fields are. A field that is none
        is one bad tag, warned of unless it was `told`. Raises FAULTS."""
        parts: dict[ua.NodeId, list[Tag]] = {}
        for tag, node in nodes:
            if tag.index in self._fields:
                parts.setdefault(node, []).append(tag)
        found = [(tag, node) for tag, node in nodes if tag.index not in self._fields]
        structures, wrong = Structures(link, most), list[str]()
        for (node, tags), kind in zip(parts.items(), await structures.types_of(list(parts)), strict=True):
            wanted: dict[Tag, list[int]] = {}
            try:
                layout = await structures.layout(kind)
                why = "its structure has no such field, or it is a structure itself"
            except Unclear as reason:
                layout, why = Layout(), str(reason)
            for tag in tags:
                if (path := layout.path(self._fields[tag.index])) is not None:
                    wanted[tag] = path
                    continue
                bad[tag.index] = StatusCodes.BadNoMatch
                if tag.index not in told:
                    wrong.append(f"{tag.name} (#{self._fields[tag.index]}): {why}")
            if wanted:
                carrier = next(iter(wanted))
                places = [(tag.index, path) for tag, path in wanted.items()]
                self._inlet.opcua_structure(carrier.index, types=layout.types, encoding=layout.encoding, fields=places)
                self._carried[carrier.index] = [index for index, _ in places]
                found.append((carrier, node))
        if wrong:
            more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
            facts = {"event": "no_fields", "device": self._name, "count": len(wrong)}
            log.warning("%s: no fields: %s%s", self._name, "; ".join(wrong[:10]), more, extra=facts)
        return found
