"""The subscription: the data center's side of the broker. The only file here that imports paho.

Messages are acknowledged by whoever took them, never on arrival; the session outlives connections, so what was not
acknowledged comes again. One reconnect loop, in `run`; every attempt is a new client object.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent import backoff
from agent.errors import NotConnected, spoken
from agent.tls import Credentials
from agent.wire import MAX_MESSAGE, Broker, Topics
from datacenter.message import Message

log = logging.getLogger("headrace.subscription")

KEEPALIVE = 20
RECEIVE_MAXIMUM = 512
SESSION_SECONDS = 30 * 24 * 3600
"""How long a broker of MQTT 5 keeps what waits for an absent data center."""
DEADLINE = 8.0
"""Seconds for each of: TCP and TLS, CONNACK, SUBACK."""
UNANSWERED_MS = 15_000
"""How long sent bytes may stay unacknowledged by the peer's TCP before the line counts as dead."""


class _OtherVersion(NotConnected):
    """The peer took the TCP connection and no CONNECT of this protocol version."""


class Subscription:
    """`deliver` is called in paho's thread and returns False where it has no room; `greet` after each (re)connect."""

    def __init__(
        self,
        *,
        broker: Broker,
        root: str,
        credentials: Credentials,
        mqtt: str,
        client: str,
        deliver: Callable[[Message], bool],
        greet: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._root = root
        self._credentials = credentials
        self._client = client
        self._deliver = deliver
        self._greet = greet
        self._link: _Link | None = None
        five, three = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
        self._versions = {"auto": [five, three], "5": [five], "3.1.1": [three]}[mqtt]
        self._told_lost = False

    @property
    def connected(self) -> bool:
        return self._link is not None

    def publish(self, topic: str, payload: bytes) -> None:
        """Sends at QoS 1, from any thread, without waiting. Nothing that goes out here is needed twice: what is lost
        with a connection is said again by the next commit or greeting."""
        link = self._link
        if link is not None:
            link.publish(topic, payload)

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps a connection until `stop`; reports a lost one once, and its return once."""
        failures = 0
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                started = monotonic()
                try:
                    reason = await self._stay(stopping)
                except NotConnected as why:
                    reason = str(why)
                if stop.is_set():
                    return
                self._report_lost(reason)
                failures = 0 if monotonic() - started > 10 else failures + 1
                first, most = (30.0, 30.0) if "taken over" in reason.lower() else (0.2, 10.0)
                await asyncio.wait([stopping], timeout=backoff.pause(1 + failures, first, most))
        finally:
            stopping.cancel()

    async def _stay(self, stopping: asyncio.Task[Any]) -> str:
        """Connects and stays connected. Returns why the connection ended; raises NotConnected where none came to be."""
        link = await self._connect()
        self._link = link
        try:
            self._report_back(link)
            self._greet()
            while not stopping.done() and not link.lost.done():
                waited: list[asyncio.Future[Any]] = [stopping, link.lost]
                await asyncio.wait(waited, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                link.check()
            return link.lost.result() if link.lost.done() else "stopped"
        finally:
            self._link = None
            await link.close()

    async def _connect(self) -> _Link:
        for version in list(self._versions):
            link = _Link(self._broker, version, self._client, self._deliver, self._root)
            try:
                await link.open(self._credentials)
            except _OtherVersion:
                await link.close()
                if version is self._versions[-1]:
                    self._versions.reverse()
                    raise
            except BaseException:
                await link.close()
                raise
            else:
                if version is not self._versions[0]:
                    self._versions.reverse()
                return link
        raise NotConnected("no protocol version to try")

    def _report_lost(self, reason: str) -> None:
        if not self._told_lost:
            self._told_lost = True
            where = f"{self._broker.host}:{self._broker.port}"
            log.warning(
                "no broker at %s: %s; trying again", where, reason, extra={"event": "broker_lost", "broker": where}
            )

    def _report_back(self, link: _Link) -> None:
        where = f"{self._broker.host}:{self._broker.port}"
        log.info(
            "subscribed at %s with MQTT %s", where, link.version_name, extra={"event": "broker_back", "broker": where}
        )
        self._told_lost = False


class _Link:
    """One paho client, for one connection."""

    def __init__(
        self,
        broker: Broker,
        version: MQTTProtocolVersion,
        client: str,
        deliver: Callable[[Message], bool],
        root: str,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._broker = broker
        self._version = version
        self._deliver = deliver
        self._root = root
        self._five = version is MQTTProtocolVersion.MQTTv5
        self._thread: threading.Thread | None = None
        self._closed = False
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client,
            clean_session=None if self._five else False,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._paho.connect_timeout = DEADLINE - 1
        self._paho.max_inflight_messages_set(100)
        self._paho.max_queued_messages_set(2000)
        self._paho.on_socket_open = self._on_socket_open
        self._paho.on_connect = self._on_connect
        self._paho.on_subscribe = self._on_subscribe
        self._paho.on_disconnect = self._on_disconnect
        self._paho.on_message = self._on_message
        if broker.username is not None:
            self._paho.username_pw_set(broker.username, broker.password)

    @property
    def version_name(self) -> str:
        return "5" if self._five else "3.1.1"

    async def open(self, credentials: Credentials) -> None:
        """Connects and subscribes. Raises NotConnected, and _OtherVersion where another version may do better."""
        try:
            async with asyncio.timeout(DEADLINE):
                await _in_thread(partial(self._dial, credentials))
        except (OSError, ssl.SSLError, ValueError) as reason:
            raise NotConnected(spoken(reason)) from reason
        self._paho.loop_start()
        try:
            async with asyncio.timeout(DEADLINE):
                first: list[asyncio.Future[Any]] = [self._accepted, self.lost]
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise _OtherVersion("connected, and got no answer") from None
        if self._accepted.done():
            return self._accepted.result()
        raise _OtherVersion(self.lost.result())

    def _dial(self, credentials: Credentials) -> None:
        if self._broker.tls:
            # Made anew for each connection: the files may have been replaced.
            self._paho.tls_set_context(credentials.context())
        properties = None
        if self._five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_SECONDS
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = MAX_MESSAGE + 1024
        try:
            self._paho.connect(
                self._broker.host,
                self._broker.port,
                keepalive=KEEPALIVE,
                clean_start=False if self._five else paho.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        finally:
            self._paho.on_socket_open = None
        if self._closed:
            # Nobody waits for this connection any more.
            self._paho.disconnect()

    def publish(self, topic: str, payload: bytes) -> None:
        with suppress(ValueError, OSError):
            self._paho.publish(topic, payload, qos=1)

    def check(self) -> None:
        """paho's thread may have died of a malformed packet, without a word."""
        if self._thread is not None and not self._thread.is_alive():
            self._lose("the network thread ended")

    async def close(self) -> None:
        """Disconnects, within about two seconds; the broker keeps the session."""
        self._closed = True
        with suppress(ValueError, OSError):
            self._paho.disconnect()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                await _in_thread(self._paho.loop_stop)
        # Else the client is in a cycle, and its sockets wait for the garbage collector.
        client = self._paho
        client.on_connect = client.on_subscribe = client.on_disconnect = client.on_message = None
        if self._accepted.done() and not self._accepted.cancelled() and (refusal := self._accepted.exception()):
            refusal.__traceback__ = None

    # What follows runs in paho's thread, or in the one that dials.

    def _on_socket_open(self, client: Any, userdata: Any, line: Any) -> None:  # noqa: ARG002
        if self._closed:  # while we dialled: a CONNECT now would take the session from the link that came after us
            with suppress(OSError):
                socket.socket.shutdown(line, socket.SHUT_RDWR)
            return
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:  # noqa: ARG002
        self._thread = threading.current_thread()
        if reason.is_failure:
            other = "protocol version" in str(reason).lower()
            self._fail(_OtherVersion(str(reason)) if other else NotConnected(f"the broker says: {reason}"))
            return
        topics = Topics("+", self._root)
        wanted = [topics.catalog, topics.state, topics.data]
        # paho wants options in version 5 and plain numbers before; its type hints know one at a time.
        filters: Any = [(topic, SubscribeOptions(qos=1) if self._five else 1) for topic in wanted]
        client.subscribe(filters)

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:  # noqa: ARG002
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._fail(NotConnected(f"the broker refuses the subscription to {self._root}/+: {refused[0]}"))
        else:
            self._call(self._accepted, None)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:  # noqa: ARG002
        self._lose(str(reason))

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:  # noqa: ARG002
        acknowledge = partial(self._acknowledge, message.mid, message.qos)
        try:
            agent, word = Topics.parse(message.topic, self._root)
        except ValueError:
            acknowledge()
            return
        if not self._deliver(Message(agent, word, bytes(message.payload), message.retain, acknowledge)):
            # A broker sends what was not acknowledged again to a new connection only.
            self._lose("more messages than there is room for")

    def _acknowledge(self, mid: int, qos: int) -> None:
        if qos and not self._closed:
            with suppress(ValueError, OSError):
                self._paho.ack(mid, qos)

    def _lose(self, reason: str) -> None:
        self._call(self.lost, reason)

    def _fail(self, reason: NotConnected) -> None:
        def settle() -> None:
            if not self._accepted.done():
                self._accepted.set_exception(reason)
                self._accepted.exception()

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)

    def _call(self, future: asyncio.Future[Any], result: Any) -> None:
        def settle() -> None:
            if not future.done():
                future.set_result(result)

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)


async def _in_thread(call: Callable[[], Any]) -> None:
    """Runs `call` in a daemon thread of its own: one that hangs in DNS must not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(reason: BaseException | None) -> None:
        if done.done():
            return
        if reason is None:
            done.set_result(None)
        else:
            done.set_exception(reason)

    def work() -> None:
        reason: BaseException | None = None
        try:
            call()
        except Exception as why:
            reason = why
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, reason)

    threading.Thread(target=work, name="dial", daemon=True).start()
    await done
