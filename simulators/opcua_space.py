"""The address space of a virtual OPC UA server: every node is made when somebody first looks at it.

asyncua builds the standard's 5,000 nodes for each server, in 1 s. Here they are built once for the process, and a
server has copies of those that were looked at; its own nodes are plans until then.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

from asyncua import ua
from asyncua.server.address_space import AddressSpace, NodeData, NodeManagementService
from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space import standard_address_space

Maker: TypeAlias = Callable[[], NodeData]
_PACKED: dict[ua.NodeId, bytes] = {}
"""The standard's nodes that any server was asked for."""


@cache
def standard() -> Mapping[ua.NodeId, NodeData]:
    """The standard's nodes, to be copied and never changed. Takes a second the first time."""
    space = AddressSpace()
    standard_address_space.fill_address_space(NodeManagementService(space))  # type: ignore[no-untyped-call]
    nodes: Mapping[ua.NodeId, NodeData] = space._nodes
    return nodes


class Space(MutableMapping[ua.NodeId, NodeData]):
    """What asyncua has a dict for. Nodes are in it from the start; looking at one makes it."""

    def __init__(self, common: Mapping[ua.NodeId, NodeData]) -> None:
        self._common = common
        self._plans: dict[ua.NodeId, Maker] = {}
        self._made: dict[ua.NodeId, NodeData] = {}

    def plan(self, node: ua.NodeId, maker: Maker) -> None:
        """Adds a node that `maker` makes once, when it is needed."""
        self._plans[node] = maker

    def made(self, node: ua.NodeId) -> bool:
        """Whether anybody has looked at the node."""
        return node in self._made

    def __getitem__(self, node: ua.NodeId) -> NodeData:
        found = self._made.get(node)
        if found is None:
            maker = self._plans.get(node)
            found = self._copy(node) if maker is None else maker()
            self._made[node] = found
        return found

    def _copy(self, node: ua.NodeId) -> NodeData:
        """Pickled rather than deep-copied, a tenth of the time; every server looks at the same few."""
        if (packed := _PACKED.get(node)) is None:
            packed = _PACKED[node] = pickle.dumps(self._common[node], pickle.HIGHEST_PROTOCOL)
        found: NodeData = pickle.loads(packed)  # noqa: S301
        return found

    def __setitem__(self, node: ua.NodeId, found: NodeData) -> None:
        self._made[node] = found

    def __delitem__(self, node: ua.NodeId) -> None:
        raise TypeError("a node of a virtual server is never deleted")

    def __contains__(self, node: object) -> bool:
        return node in self._made or node in self._plans or node in self._common

    def __iter__(self) -> Iterator[ua.NodeId]:
        return iter(dict.fromkeys([*self._made, *self._plans, *self._common]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Internal(InternalServer):
    """asyncua's, with a `Space`. The standard's nodes are built before: `standard` is called in a thread."""

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:  # noqa: ARG002
        self.aspace._nodes = Space(standard())  # type: ignore[assignment]
