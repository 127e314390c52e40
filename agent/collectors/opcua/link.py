"""One secure channel and session to a server: asyncua's, without its supervisors, watchdogs and publish loop.

Every wait has a deadline. An answer that is not needed as objects stays bytes. How the channel is secured is asked of
`Security`, before there is one and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import nodeid_from_binary, nodeid_to_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from agent.collectors.opcua.memory import Memory
from agent.collectors.opcua.transport import ANSWER, bounded, small
from agent.config import OpcUaDevice
from agent.errors import NotConnected, spoken

if TYPE_CHECKING:
    from agent.collectors.opcua.security import Security

# asyncua logs each failed request of a lost connection; the supervisor says once that it is lost.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

FAULTS = (OSError, UaError, TimeoutError, ValueError)
"""What a request may end in. A UaStatusCodeError, with its `code`, is the server's own word."""
UNTOLD = 3600.0
"""Seconds that the keys of a channel are good for where the server says 0."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
Answer = TypeVar("Answer")
Body = asyncio.Future[Buffer]


class Link:
    """One connection. It is opened once; after `close` there is another one."""

    def __init__(self, device: OpcUaDevice, security: Security, lost: Callable[[str], None]) -> None:
        self.timeout = device.timeout
        self.session_seconds = session_seconds(device.outage)
        """How long the server keeps a session that is silent, as it revised it."""
        self.answer_bytes = ANSWER
        """The longest answer that becomes objects; who browses sets it higher."""
        self._device = device
        self._security = security
        self._lost = lost
        self._beside: list[asyncio.Task[None]] = []
        self._held: list[tuple[Any, float, Body]] | None = None
        """Requests that wait until the channel has its new keys; None while they are not being renewed."""
        # Its watchdog and its reconnecting are started by `Client.connect`, which is never called.
        self._client = client = bounded(Client(device.url, timeout=device.timeout))
        client.name = client.description = "Headrace"
        client.session_timeout = int(self.session_seconds * 1000)
        client.secure_channel_timeout = int(device.channel_lifetime * 1000)
        client.uaclient.pre_request_hook = None

    async def open(self) -> None:
        """Opens the channel; no session yet. Raises FAULTS, and NotConnected where security forbids it."""
        client = self._client
        await self._security.prepare(client)
        await dial(client, self.timeout)
        await within(self.timeout, client.send_hello())
        try:
            await within(self.timeout, client.open_secure_channel())
        except AssertionError as reason:  # asyncua expects no ServiceFault here
            raise self._security.not_opened(ConnectionError("the server refused")) from reason
        except FAULTS as reason:
            raise self._security.not_opened(reason) from reason
        protocol = client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the connection was lost at once")
        protocol.on_connection_lost = lambda reason: self._lost(str(reason or "the connection was lost"))
        beside = {"channel": self._renew(), "trust": self._security.watch(self._lost)}
        self._beside = [
            asyncio.create_task(work, name=f"opc ua {what} {self._device.name}") for what, work in beside.items()
        ]

    async def resume(self, memory: Memory) -> bool:
        """Activates the remembered session on this channel. False where the server does not have it any more."""
        client = self._client
        if not memory.token:
            return False
        try:
            # A new process does not know how users are named here; and it may not be asked without a session.
            endpoints = await within(self.timeout, client.get_endpoints())
            self._security.agreed(endpoints)
            policy = client.security_policy
            client._policy_ids = Client.find_endpoint(endpoints, policy.Mode, policy.URI).UserIdentityTokens
            client._server_nonce = memory.nonce or None  # type: ignore[assignment]
            client.uaclient.session.restore_authentication_token(nodeid_from_binary(Buffer(memory.token)))
            await within(self.timeout, self._activate())
        except UaError as reason:
            client.uaclient.session.reset_authentication_token()
            if self._ended:  # which says nothing of the session
                raise ConnectionError(said(reason)) from reason
            return False
        self._remember(memory)
        return True

    @property
    def _ended(self) -> bool:
        protocol = self._client.uaclient.protocol
        return protocol is None or protocol.transport is None or protocol.transport.is_closing()

    async def begin(self, memory: Memory) -> None:
        """A new session. Raises FAULTS."""
        client = self._client
        client._server_nonce = None
        answer = await within(self.timeout, self._security.proven(client.create_session()))
        self._security.agreed(answer.ServerEndpoints)
        await within(self.timeout, self._activate())
        self.session_seconds = client.session_timeout / 1000
        self._remember(memory)

    async def ask(self, request: Any, answer: type[Answer]) -> Answer:
        """One request and its whole answer, of at most `answer_bytes`. Raises FAULTS, also where the whole service
        failed."""
        body = await self.raw(request)
        small(body, self.answer_bytes)
        found: Any = _decoded(lambda: struct_from_binary(answer, body))
        found.ResponseHeader.ServiceResult.check()
        return found  # type: ignore[no-any-return]

    async def numbers(self, nodes: Sequence[int]) -> list[float | None]:
        """The values of nodes of the standard's namespace, by their numbers; None where there is no number. Raises
        FAULTS."""
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId=ua.NodeId(ua.Int32(each)), AttributeId=AttributeIds.Value) for each in nodes
        ]
        found = (await self.ask(request, ua.ReadResponse)).Results
        values = [each.Value.Value if each.Value is not None else None for each in found]
        return [each if isinstance(each, int | float) else None for each in values]

    async def raw(self, request: Any) -> Buffer:
        """The undecoded answer. Raises FAULTS."""
        future = self.send(request, self.timeout)
        await asyncio.wait({future}, timeout=self.timeout)
        if not future.done():
            future.cancel()
            raise TimeoutError(f"no answer to {type(request).__name__} within {self.timeout:g} s")
        return self.answer(future)

    def send(self, request: Any, hint: float = 0.0) -> Body:
        """Sends a request and gives the future of its answer. `hint` is how long it may take, in seconds; 0: for ever.
        Raises ConnectionError."""
        protocol = self._client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the connection was closed")
        future: Body
        if self._held is not None:
            future = asyncio.get_running_loop().create_future()
            self._held.append((request, hint, future))
        else:
            future = protocol._send_request(request, hint)
        return future

    def answer(self, future: Body) -> Buffer:
        """The answer of a future that is done. Raises FAULTS, and for a ServiceFault its UaStatusCodeError."""
        protocol = self._client.uaclient.protocol
        body = future.result()
        if protocol is not None:
            _decoded(lambda: protocol.check_answer(body, ""))
        return body

    async def leave(self) -> None:
        """Ends the session, for who will not come back to it. Raises FAULTS."""
        await self.ask(ua.CloseSessionRequest(), ua.CloseSessionResponse)

    async def close(self) -> None:
        """Lets go of the connection. The session stays with the server, for who resumes it."""
        for task in self._beside:
            task.cancel()
        protocol = self._client.uaclient.protocol
        if protocol is None:
            return
        protocol.on_connection_lost = None
        with contextlib.suppress(Exception):  # asyncua raises whatever comes up on a channel that has no keys yet
            await within(0.5, protocol.close_secure_channel())
        transport = protocol.transport
        self._client.disconnect_socket()
        if transport is not None:
            transport.abort()  # what is still to be written to a dead line would keep it open

    async def _activate(self) -> None:
        client = self._client
        self._security.allowed(client)
        name, password = client._username, client._password
        await client.activate_session(username=name, password=password, certificate=client.user_certificate)

    def _remember(self, memory: Memory) -> None:
        memory.token = nodeid_to_binary(self._client.uaclient.session.authentication_token)
        memory.nonce = self._client._server_nonce or b""

    async def _renew(self) -> None:
        """New keys at 75 % of the channel's lifetime (OPC 10000-4, 5.5.2.1)."""
        try:
            while True:
                seconds = self._client.secure_channel_timeout / 1000
                await asyncio.sleep(0.75 * (seconds or UNTOLD))  # as the server revised it
                # Some servers forget the old keys at once (async-opcua 0.19): nothing is sent with them any more.
                self._held = []
                try:
                    await within(self.timeout, self._client.open_secure_channel(renew=True))
                    self._client.uaclient.revolve_security_token()
                finally:
                    self._release()
                self._security.renewed()
        except AssertionError:  # asyncua expects no ServiceFault here
            self._lost("the secure channel could not be renewed: the server refused")
        except FAULTS as reason:
            self._lost(f"the secure channel could not be renewed: {said(reason)}")

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for request, hint, future in held:
            if future.done():
                continue
            try:
                self.send(request, hint).add_done_callback(partial(_hand_on, future))
            except ConnectionError as reason:
                future.set_exception(reason)


def _hand_on(future: Body, sent: Body) -> None:
    if sent.cancelled():
        future.cancel()
    elif reason := sent.exception():
        if not future.done():
            future.set_exception(reason)
    elif not future.done():
        future.set_result(sent.result())


def session_seconds(outage: float) -> float:
    """How long a session must live for a break of `outage` seconds to be bridged."""
    return max(120.0, 2 * outage)


def said(reason: BaseException) -> str:
    """An error in a few words."""
    if isinstance(reason, UaStatusCodeError):
        return str(ua.StatusCode(reason.code).name)
    return spoken(reason)


async def dial(client: Client, seconds: float) -> None:
    """Connects to its server. Raises NotConnected."""
    try:
        await within(seconds, client.connect_socket())
    except FAULTS as reason:
        place = client.server_url.netloc.rpartition("@")[2]
        raise NotConnected(f"no connection to {place}: {said(reason)}") from reason


def lost(reason: BaseException) -> NotConnected:
    """What the supervisor is told of a fault."""
    return NotConnected(said(reason))


def nanoseconds(stamp: datetime | None) -> int:
    """ns UTC of asyncua's time; 0 for none, and for one that 64 bits can't hold, such as 1601, its word for none."""
    if stamp is None:
        return 0
    aware = stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)
    found = (aware - EPOCH) // MICROSECOND * 1000
    return found if -(2**63) <= found < 2**63 else 0


def _decoded(work: Callable[[], Answer]) -> Answer:
    """What asyncua decodes. It raises whatever comes up on bytes that are no answer; here that is a ConnectionError."""
    try:
        return work()
    except (NotConnected, AssertionError, *FAULTS):  # an AssertionError has its meaning in `Link.open`
        raise
    except Exception as reason:
        raise ConnectionError(f"an answer that can't be read: {type(reason).__name__}: {reason}") from reason


async def within(seconds: float, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Waits for `work`, and no longer. asyncua may swallow a cancellation and go on waiting for an answer that never
    comes: so it runs in a task of its own, which is left to itself where it does not end. Raises TimeoutError."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody else asks for it
            task.cancel()
    if not task.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return _decoded(task.result)
