"""An OPC UA server of the virtual plant, on asyncua: about 20,000 changes a second in one process."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds

from agent.address import NodeAddress
from agent.model import StatusCode, Tag
from simulators import opcua_limits
from simulators.mood import HIDING, Mood, Wrong
from simulators.opcua_access import APPLICATION_URI, Access
from simulators.opcua_history import EPOCH, LONGEST_NS, History
from simulators.opcua_nodes import Nodes, Raw, Variable
from simulators.opcua_space import Internal, Space, standard
from simulators.opcua_structures import grouped
from simulators.plant import Plant
from simulators.profiles import Profile

log = logging.getLogger("headrace.simulators")

_LOOK = 0.05
"""Seconds between two looks at what is wrong."""
_LONGEST_SLEEP = 1.0
"""Seconds; wall time is read again after it, so a clock that was set back stalls nothing for longer."""
_LATEST_NS = 300_000_000_000
"""What is later by the clock was not shown, as by a machine that slept: it would take too long to make up for."""
_STANDARD = "http://opcfoundation.org/UA/"


class OpcUaServer:
    """Serves the tags of one or more devices at `url`; `devices` are (name, tags).

    Every change of every step goes out in order, with `k * step_ns` as its source time, also when the server is late:
    a client that is owed a change can name it.
    """

    def __init__(
        self,
        url: str,
        devices: Sequence[tuple[str, Sequence[Tag]]],
        plant: Plant,
        clock: Callable[[], int] = time.time_ns,
        *,
        access: Access | None = None,
        limits: Profile | None = None,
        still: Callable[[int, int], None] = lambda _from_ns, _to_ns: None,
    ) -> None:
        """`access`: left out, everybody may come in, without security. `limits`: those of a small controller. `still`
        is told from when to when nothing was shown, since the clock was put on."""
        self.url = url
        self._access = access or Access()
        self._limits = limits
        self._still = still
        self.changes = 0
        """Changes written since the start, first values included."""
        self._devices = devices
        self._plant = plant
        self._clock = clock
        self._server: Server | None = None
        self._nodes: dict[int, list[Variable]] = {}
        """By the length of their steps."""
        self._by_id: dict[ua.NodeId, Variable] = {}
        self._born = 0
        """When it started first, in ns."""
        self._due: list[tuple[int, int]] = []
        self._set_back = False
        self.moods: dict[str, Mood] = {}
        """Of its devices, where anything may be wrong with them."""
        self._gone = False
        self._rebooted = False
        """Whether it is away for a reboot, or was for one while it is away."""
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
        await asyncio.to_thread(standard)
        internal = Internal(user_manager=self._access)  # type: ignore[arg-type]  # it has what is asked of one
        internal.subscription_service = opcua_limits.Keeping(internal.aspace, internal)
        internal.attribute_service = opcua_limits.Reading(internal.aspace, self._known)
        if self._limits is not None:
            opcua_limits.limit(internal, self._limits, self._known)
        server = Server(internal)
        server.allow_remote_admin(False)
        server.set_endpoint(self.url)
        # asyncua would take the port last and log a traceback
        if self._behind is not None:
            server.socket_address = (self.host, self._behind)
        else:
            await _probe(self.host, self.port)
        server.set_server_name("Headrace simulator")
        await server.init()
        await server.set_application_uri(APPLICATION_URI)
        if self._limits is not None:
            await opcua_limits.tell(internal, self._limits)
        await self._access.apply(server)
        self._server = server
        self._nodes, self._by_id, self._due = {}, {}, []
        await self._build(server)
        now = self._clock()
        self._born = self._born or now
        for step_ns, nodes in self._nodes.items():
            first = now - now % step_ns
            await self._write(server, nodes, first)
            self._due.append((first + step_ns, step_ns))
        heapq.heapify(self._due)
        history = History(self._change, self._step, self._reach)
        server.iserver.history_manager.set_storage(history)
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
            self._keep_up(self._clock())
            due, step_ns = self._due[0]
            wait = (due - self._clock()) / 1e9
            if wait > 0:
                await asyncio.sleep(min(wait, _LOOK if self.moods else _LONGEST_SLEEP))
                continue
            await self._write(server, self._nodes[step_ns], due)
            heapq.heapreplace(self._due, (due + step_ns, step_ns))
            await asyncio.sleep(0)

    def _keep_up(self, now_ns: int) -> None:
        """Goes on from a clock that was put on by a lot. Where it was set back, what was shown is not shown again."""
        due, step_ns = self._due[0]
        if now_ns - due > _LATEST_NS:
            text = "%s: the clock was put on by %d s, in which nothing was shown."
            facts = {"event": "clock_put_on", "url": self.url, "seconds": (now_ns - due) // 10**9}
            log.warning(text, self.url, facts["seconds"], extra=facts)
            self._still(due, now_ns)
            self._due = [(now_ns - now_ns % step, step) for _, step in self._due]
            heapq.heapify(self._due)
        back_ns = due - now_ns - step_ns
        if back_ns > _LATEST_NS and not self._set_back:
            text = "%s: the clock was set back by %d s: values stand still for as long; start it anew to go on at once."
            facts = {"event": "clock_set_back", "url": self.url, "seconds": back_ns // 10**9}
            log.warning(text, self.url, facts["seconds"], extra=facts)
        self._set_back = back_ns > 0

    async def _suffer(self) -> None:
        """Goes away and comes back as the moods say. What it is back with is new: sessions and values."""
        away = any(mood.away for mood in self.moods.values())
        if away and not self._gone:
            self._gone, self._rebooted = True, False
            await self.stop()
        if away and not self._rebooted and any(mood.has(Wrong.REBOOT) for mood in self.moods.values()):
            self._turned, self._rebooted = not self._turned, True
        if self._gone and not away:
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
        space = server.iserver.aspace._nodes
        assert isinstance(space, Space)
        nodes = Nodes(space, server.iserver.node_mgt_service, spaces)
        fields = [tag for _, tags in self._devices for tag in tags if NodeAddress.parse(tag.address).field]
        structures, left_out = grouped(fields, spaces)
        for name, tags in self._devices:
            whole = [tag for tag in tags if not NodeAddress.parse(tag.address).field]
            found, odd = nodes.device(name, whole, [each for each in structures if each.tags[0].device == name])
            left_out += odd
            for each in found:
                self._by_id[each.id] = each
                self._nodes.setdefault(each.step_ns(self._plant), []).append(each)
        if left_out:
            log.warning(
                "Some nodes or fields are there already, from another tag or the standard: they keep their own values.",
                extra={"event": "tags_overlap", "url": self.url, "tags": left_out},
            )

    async def _namespaces(self, server: Server) -> dict[str | int | None, int]:
        """The index of every namespace that an address names, and of ours as None. Bare indexes keep theirs: spaces are
        made up to them."""
        addresses = [NodeAddress.parse(tag.address) for _, tags in self._devices for tag in tags]
        names = dict.fromkeys(each.namespace for each in addresses)
        steps = {index for each in addresses if each.kind == "path" for index, _ in each.steps if index is not None}
        indexes = {name for name in names if isinstance(name, int)} | steps
        uris = [_STANDARD, APPLICATION_URI]
        uris += [f"{APPLICATION_URI}:{index}" for index in range(2, max(indexes, default=0) + 1)]
        if self._turned and not indexes - {0, 1}:  # so that a single namespace has another index as well
            uris.append(f"{APPLICATION_URI}:rebooted")
        texts = [name for name in names if isinstance(name, str) and name not in uris]
        uris += reversed(texts) if self._turned else texts
        await server.nodes.namespace_array.write_value(uris)
        at = {uri: index for index, uri in enumerate(uris)}
        return (
            {None: 1}
            | {index: index for index in indexes}
            | {each: at[each] for each in names if isinstance(each, str)}
        )

    async def _write(self, server: Server, nodes: list[Variable], time_ns: int) -> None:
        write, space = server.iserver.aspace.write_attribute_value, server.iserver.aspace._nodes
        assert isinstance(space, Space)
        served = datetime.now(UTC)
        for node in nodes:
            node.written_ns = time_ns
            if node.shown.SourceTimestamp is not None and self._frozen(node.tag, time_ns):
                continue
            raw = None if self._bad(node.tag, time_ns) else node.at(self._plant, time_ns)
            if raw == node.raw and node.shown.SourceTimestamp is not None:
                continue
            node.raw = raw
            node.shown = _shown(node, raw, self._stamp(node.tag, time_ns), served)
            if space.made(node.id):
                (await write(node.id, AttributeIds.Value, node.shown)).check()
            self.changes += 1

    def _frozen(self, tag: Tag, time_ns: int) -> bool:
        """By the time of the step, not by now: the server may be late, and `simulators.oracle` knows times only."""
        mood = self.moods.get(tag.device)
        return mood is not None and mood.at(Wrong.FROZEN, time_ns)

    def _bad(self, tag: Tag, time_ns: int) -> bool:
        mood = self.moods.get(tag.device)
        return mood is not None and mood.at(Wrong.BAD, time_ns)

    def _stamp(self, tag: Tag, time_ns: int) -> int:
        """The source time of a step, by the device's clock."""
        mood = self.moods.get(tag.device)
        return time_ns if mood is None else mood.shown_ns(time_ns)

    def _known(self, node: ua.NodeId) -> datetime | None:
        """Until when a node of ours is as it shows: now, or the end of its step where the next one is late."""
        if (found := self._by_id.get(node)) is None:
            return None
        last_us = (found.written_ns + found.step_ns(self._plant)) // 1000 - 1
        return EPOCH + timedelta(microseconds=min(self._clock() // 1000, last_us))

    def _step(self, node: ua.NodeId) -> int | None:
        found = self._by_id.get(node)
        return None if found is None else found.step_ns(self._plant)

    def _reach(self) -> tuple[int, int]:
        now = self._clock()
        return max(self._born, now - LONGEST_NS), now

    def _change(self, node: ua.NodeId, time_ns: int) -> ua.DataValue | None:
        """What a node's step showed, as its history has it; None where it showed no change."""
        found = self._by_id[node]
        mood = self.moods.get(found.tag.device)
        if mood is not None and any(mood.at(kind, time_ns) for kind in HIDING):
            return None
        raw = found.at(self._plant, time_ns)
        if raw == found.at(self._plant, time_ns - 1):
            return None
        return _shown(found, raw, self._stamp(found.tag, time_ns), EPOCH + timedelta(microseconds=time_ns // 1000))


def _shown(node: Variable, raw: Raw, time_ns: int, served: datetime) -> ua.DataValue:
    return ua.DataValue(
        node.variant(raw) if raw is not None else None,
        ua.StatusCode(ua.UInt32(0 if raw is not None else StatusCode.BAD_SENSOR_FAILURE)),
        SourceTimestamp=EPOCH + timedelta(microseconds=time_ns // 1000),  # type: ignore[arg-type]
        ServerTimestamp=served,  # type: ignore[arg-type]
    )


async def _probe(host: str, port: int) -> None:
    """Raises OSError where the port is taken. It is bound and not listened at, so no client can slip in."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    server.close()
    await server.wait_closed()
