"""Reading values instead of subscribing: for servers without subscriptions, and where the config says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asyncua import ua
from asyncua.ua.ua_binary import struct_from_binary

from agent._native import Published
from agent.clock import now_ns
from agent.collectors.base import Inlet
from agent.collectors.opcua.items import Items, Server
from agent.collectors.opcua.link import FAULTS, Link
from agent.collectors.opcua.publishing import TOO_MANY
from agent.collectors.opcua.reads import chunks, read_request
from agent.errors import NotConnected
from agent.model import Tag


class Poller:
    """The nodes of one connection, read again and again. A reading's time is when the server read it."""

    def __init__(self, inlet: Inlet, items: Items, leftover: Callable[[Published, int], None]) -> None:
        self._inlet = inlet
        self._items = items
        self._leftover = leftover
        self._nodes: list[tuple[Tag, ua.NodeId]] = []
        self._link: Link
        self._server: Server

    async def begin(self, link: Link, server: Server, tags: Sequence[Tag], *, register: bool = True) -> None:
        """Finds the nodes and leaves out those that the server refuses. Raises FAULTS."""
        self._link, self._server = link, server
        bad: dict[int, int] = {}
        found = await self._items.resolve(link, server, tags, bad)
        readable = await self._items.readable(link, server, found, bad)
        self._items.note_bad(bad, {tag.index for tag in tags})
        self._nodes += await self._registered(readable) if register else readable

    async def read(self) -> None:
        """Reads every node once. Raises NotConnected and FAULTS."""
        for chunk in chunks(self._nodes, self._server.limits.read):
            body = await self._link.raw(read_request([node for _, node in chunk], ua.TimestampsToReturn.Server))
            received_ns = now_ns()
            try:
                found = self._inlet.push_read([tag.index for tag, _ in chunk], bytes(body), received_ns)
            except ValueError as reason:
                struct_from_binary(ua.ReadResponse, body).ResponseHeader.ServiceResult.check()
                raise NotConnected(f"a ReadResponse that can't be read: {reason}") from reason
            if found.dropped:
                self._inlet.lost(received_ns, received_ns, found.dropped, f"{self._items.device}: {TOO_MANY}")
            if found.undecoded:
                self._leftover(found, received_ns)

    async def _registered(self, nodes: Sequence[tuple[Tag, ua.NodeId]]) -> Sequence[tuple[Tag, ua.NodeId]]:
        """The same under the server's short names for them, which are good for this session."""
        found: list[tuple[Tag, ua.NodeId]] = []
        for chunk in chunks(nodes, self._server.limits.register):
            request = ua.RegisterNodesRequest()
            request.Parameters.NodesToRegister = [node for _, node in chunk]
            try:
                names = (await self._link.ask(request, ua.RegisterNodesResponse)).Parameters.RegisteredNodeIds
            except FAULTS:  # an optional service: the long names do as well
                return nodes
            found += [(tag, name) for (tag, _), name in zip(chunk, names, strict=True)]
        return found
