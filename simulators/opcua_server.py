"""An OPC UA server of the virtual plant, on asyncua: about 20,000 changes a second in one process."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from asyncua import ua
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds

from agent.address import NodeAddress
from agent.model import StatusCode, Tag, Value, ValueType
from simulators.mood import Mood, Wrong
from simulators.plant import Plant

log = logging.getLogger("headrace.simulators")

APPLICATION_URI = "urn:headrace:simulator"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOOK = 0.05
"""Seconds between two looks at what is wrong."""
_LONGEST_SLEEP = 1.0
"""Seconds; wall time is read again after it, so a clock that was set back stalls nothing for longer."""

_VARIANTS = {
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


_CODES = {
    "°C": "CEL", "K": "KEL", "bar": "BAR", "mbar": "MBR", "kN": "B47", "mm": "MMT", "mm/s": "C16", "%": "P1",
    "A": "AMP", "V": "VLT", "kW": "KWT", "Hz": "HTZ", "rpm": "RPM", "1/min": "C94", "kWh": "KWH", "m³": "MTQ",
    "l/min": "L2", "m³/h": "MQH", "°": "DD", "m/min": "2X", "pcs": "H87",
}  # fmt: skip
"""Units by their UNECE code (recommendation 20), of which EUInformation has the characters (OPC 10000-8, 5.6.3.3)."""


class _Users:
    """Who may come in; with `anonymous` also those without a name."""

    def __init__(self, passwords: Mapping[str, str], *, anonymous: bool) -> None:
        self._passwords = passwords
        self._anonymous = anonymous

    def get_user(
        self,
        iserver: object,  # noqa: ARG002  (asyncua calls it so)
        username: str | None = None,
        password: str | bytes | None = None,
        certificate: object = None,  # noqa: ARG002
    ) -> User | None:
        said = password.decode(errors="replace") if isinstance(password, bytes) else password
        known = self._anonymous if username is None else self._passwords.get(username) == said
        return User(role=UserRole.User, name=username) if known else None


@dataclass(slots=True)
class _Node:
    tag: Tag
    id: ua.NodeId
    variant: ua.VariantType
    raw: Value = None


class OpcUaServer:
    """Serves the tags of one or more devices at `url`; `devices` are (name, tags). Without encryption.

    Every change of every step goes out in order, with `k * step_ns` as its source time, also when the server is late:
    a client that is owed a change can name it.
    """

    def __init__(
        self,
        url: str,
        devices: Sequence[tuple[str, Sequence[Tag]]],
        plant: Plant,
        clock: Callable[[], int] = time.time_ns,
        users: Mapping[str | None, str] | None = None,
    ) -> None:
        """`users`: passwords by name, and None for those without one; left out, everybody may come in."""
        self.url = url
        self._users = {None: ""} if users is None else dict(users)
        self.changes = 0
        """Changes written since the start, first values included."""
        self._devices = devices
        self._plant = plant
        self._clock = clock
        self._server: Server | None = None
        self._nodes: dict[int, list[_Node]] = {}
        self._due: list[tuple[int, int]] = []
        self.moods: dict[str, Mood] = {}
        """Of its devices, where anything may be wrong with them."""
        self._gone = False
        self._turned = False
        """Whether the namespaces are in the other order."""
        self._behind: int | None = None
        """The port that it listens at in place of its own, once there is one."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 4840

    @property
    def clients(self) -> int:
        """Connected now."""
        return len(self._server.bserver.clients) if self._server is not None and self._server.bserver else 0

    async def start(self) -> None:
        """Builds the address space with the values of this moment, then listens. Raises OSError for a taken port."""
        names = {name: password for name, password in self._users.items() if name is not None}
        server = Server(user_manager=_Users(names, anonymous=None in self._users))  # type: ignore[arg-type]
        server.allow_remote_admin(False)
        server.set_endpoint(self.url)
        # asyncua would take the port last and log a traceback; and without these two it warns of missing certificates
        if self._behind is not None:
            server.socket_address = (self.host, self._behind)
        else:
            await _probe(self.host, self.port)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        tokens = [ua.AnonymousIdentityToken] if None in self._users else []
        server.set_identity_tokens([*tokens, *([ua.UserNameIdentityToken] if names else [])])
        server.set_server_name("Headrace simulator")
        await server.init()
        await server.set_application_uri(APPLICATION_URI)
        self._server = server
        self._nodes, self._due = {}, []
        await self._build(server)
        now = self._clock()
        for step_ns, nodes in self._nodes.items():
            first = now - now % step_ns
            await self._write(server, nodes, first)
            self._due.append((first + step_ns, step_ns))
        heapq.heapify(self._due)
        await server.start()

    async def listen_behind(self) -> tuple[str, int]:
        """`start` at a free port, while clients are told the url: something else is to listen there. Returns where."""
        self._behind = 0
        await self.start()
        assert self._server is not None
        assert self._server.bserver is not None
        self._behind = self._server.bserver.port
        return self.host, self._behind

    async def run(self) -> None:
        """Writes every change in its step's order, until cancelled."""
        server = self._server
        if server is None:
            raise RuntimeError("start() comes first")
        while self._due:
            if self.moods:
                await self._suffer()
                server = self._server or server
            if self._gone:
                await asyncio.sleep(_LOOK)
                continue
            due, step_ns = self._due[0]
            wait = (due - self._clock()) / 1e9
            if wait > 0:
                await asyncio.sleep(min(wait, _LOOK if self.moods else _LONGEST_SLEEP))
                continue
            await self._write(server, self._nodes[step_ns], due)
            heapq.heapreplace(self._due, (due + step_ns, step_ns))
            await asyncio.sleep(0)

    async def _suffer(self) -> None:
        """Goes away and comes back as the moods say. What it is back with is new: sessions and values."""
        away = any(mood.away for mood in self.moods.values())
        if away and not self._gone:
            self._turned ^= any(mood.has(Wrong.REBOOT) for mood in self.moods.values())
            self._gone = True
            await self.stop()
        elif self._gone and not away:
            try:
                await self.start()
            except OSError as reason:  # another program took the port meanwhile: it is tried again
                log.warning("%s can't be back: %s", self.url, reason, extra={"event": "port_taken", "url": self.url})
                await asyncio.sleep(_LONGEST_SLEEP)
                return
            self._gone = False

    async def stop(self) -> None:
        """Cuts every client and frees the port, within a second."""
        server, self._server = self._server, None
        if server is None:
            return
        clock, server.iserver.time_task = server.iserver.time_task, None
        if clock is not None:  # else asyncua waits out its one second
            clock.cancel()
            with suppress(asyncio.CancelledError):
                await clock
        try:
            async with asyncio.timeout(0.8):
                for transport in tuple(server.iserver.asyncio_transports):
                    transport.abort()
                await asyncio.sleep(0)
                # A session with subscriptions outlives its connection, and its tasks the server
                for session in tuple(server.iserver._external_sessions.values()):
                    await session.close_session(delete_subs=True)
                await server.stop()
        except TimeoutError:
            log.warning("The OPC UA server took too long to stop.", extra={"event": "slow_stop", "url": self.url})

    async def _build(self, server: Server) -> None:
        spaces = await self._namespaces(server)
        home = await server.register_namespace(APPLICATION_URI)
        left_out = 0
        for name, tags in self._devices:
            folder = await server.nodes.objects.add_folder(home, name)
            for tag in tags:
                address = NodeAddress.parse(tag.address)
                node = _Node(tag, _node_id(address.key, spaces[address.namespace]), _VARIANTS[tag.type.element])
                if server.iserver.aspace.get(node.id) is not None:
                    left_out += 1
                    continue
                value = self._plant.raw(tag, self._clock())
                title = ua.QualifiedName(tag.name, node.id.NamespaceIndex)
                made = await folder.add_variable(node.id, title, value, node.variant, _node_id(node.variant.value))
                await _describe(made, home, tag)
                self._nodes.setdefault(self._plant.step_ns(tag), []).append(node)
        if left_out:
            log.warning(
                "Some nodes are there already, from another tag or the standard: they keep their own values.",
                extra={"event": "tags_overlap", "url": self.url, "tags": left_out},
            )

    async def _namespaces(self, server: Server) -> dict[str | int, int]:
        """The index of every namespace that an address names. Bare indexes keep theirs: spaces are made up to them."""
        names = {NodeAddress.parse(tag.address).namespace: None for _, tags in self._devices for tag in tags}
        indexes = [name for name in names if isinstance(name, int)]
        for index in range(2, max(indexes, default=0) + 1):
            await server.register_namespace(f"{APPLICATION_URI}:{index}")
        spaces: dict[str | int, int] = {index: index for index in indexes}
        if self._turned and not indexes:  # so that a single namespace has another index as well
            await server.register_namespace(f"{APPLICATION_URI}:rebooted")
        texts = [name for name in names if isinstance(name, str)]
        for name in reversed(texts) if self._turned else texts:
            spaces[name] = await server.register_namespace(name)
        return spaces

    async def _write(self, server: Server, nodes: list[_Node], time_ns: int) -> None:
        write = server.iserver.aspace.write_attribute_value
        source = _EPOCH + timedelta(microseconds=time_ns // 1000)
        served = datetime.now(UTC)
        for node in nodes:
            mood = self.moods.get(node.tag.device)
            # By the time of the step, not by now: the server may be late, and `simulators.oracle` knows times only.
            if mood is not None and mood.at(Wrong.FROZEN, time_ns):
                continue
            bad = mood is not None and mood.at(Wrong.BAD, time_ns)
            raw = None if bad else self._plant.raw(node.tag, time_ns)
            if raw == node.raw:
                continue
            node.raw = raw
            value = ua.DataValue(
                ua.Variant(raw, node.variant) if raw is not None else None,
                ua.StatusCode(0 if raw is not None else StatusCode.BAD_SENSOR_FAILURE),  # type: ignore[arg-type]
                SourceTimestamp=source,  # type: ignore[arg-type]
                ServerTimestamp=served,  # type: ignore[arg-type]
            )
            (await write(node.id, AttributeIds.Value, value)).check()
            self.changes += 1


def _node_id(key: int | str | UUID | bytes, namespace: int = 0) -> ua.NodeId:
    return ua.NodeId(key, namespace)  # type: ignore[arg-type]  # asyncua's names for the same builtin types


async def _describe(node: Node, home: int, tag: Tag) -> None:
    """EURange, of what the node itself has, and EngineeringUnits (OPC 10000-8, 5.3.2.3), where the tag has them."""
    scale, offset = tag.scale or 1.0, tag.offset or 0.0
    if tag.low is not None and tag.high is not None:
        low, high = sorted(((tag.low - offset) / scale, (tag.high - offset) / scale))
        await node.add_property(_node_id(0, home), ua.QualifiedName("EURange", 0), ua.Range(low, high))
    if tag.unit:
        code = int.from_bytes(_CODES[tag.unit].encode(), "big") if tag.unit in _CODES else -1
        name = ua.LocalizedText(tag.unit)
        unit = ua.EUInformation("http://www.opcfoundation.org/UA/units/un/cefact", code, name, name)
        await node.add_property(_node_id(0, home), ua.QualifiedName("EngineeringUnits", 0), unit)


async def _probe(host: str, port: int) -> None:
    """Raises OSError where the port is taken. It is bound and not listened at, so no client can slip in."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    server.close()
    await server.wait_closed()
