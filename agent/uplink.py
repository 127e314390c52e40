"""The line to the MQTT broker: connect, send, close. The only file of the agent that imports paho.

One paho client per connection, and nobody but our caller reconnects. paho's callbacks come in its own thread and only
hand over to the loop. What is here waits for a PUBACK, a few dozen messages at most: the queue is the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.errors import NotConnected, Rejected, spoken
from agent.probe import listens
from agent.tls import Credentials, Stamp
from agent.wire import Broker

log = logging.getLogger("headrace.uplink")

Version: TypeAlias = Literal["5", "3.1.1"]
Then: TypeAlias = Callable[[Rejected | None], None]

KEEPALIVE = 15
MAX_INBOUND = 64 * 1024
"""Bytes of a receipt or command. A longer message is none, and is not handed over."""
UNSUPPORTED_VERSION = 0x84
SESSION_TAKEN_OVER = 0x8E
KEEP_ALIVE_TIMEOUT = 0x8D
HEADER_BYTES = 16
"""At least what MQTT puts around topic and body of a publish."""
MAX_PACKET = 256 * 1024 * 1024 - 1
"""Bytes: what MQTT itself allows."""
WORD_SECONDS = 1.0
BESIDE = 32
"""Publishes beside the caller's `inflight` entries that may wait for their PUBACK: states and catalogs."""
PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


class TakenOver(NotConnected):
    """The broker gave the session to another client with the same id."""


class OtherVersion(NotConnected):
    """Something is there, but it does not take this version of MQTT."""


class HungUp(NotConnected):
    """The broker ended a connection that it had accepted."""


class Renewed(NotConnected):
    """The files of the TLS connection were replaced, and can be used: connect anew."""


class Uplink:
    """At most one connection at a time. Its methods are called on the loop; only `connect` and `close` wait."""

    def __init__(
        self,
        *,
        broker: Broker,
        client_id: str,
        mqtt: Literal["auto", "5", "3.1.1"] = "auto",
        credentials: Credentials | None = None,
        max_packet: int | None = None,
        inflight: int = 32,
        keepalive: int = KEEPALIVE,
        timeout: float = 10.0,
    ) -> None:
        """`timeout` is in seconds: for TCP, TLS and the broker's answer together, then for the subscription.

        `max_packet` is in bytes: the broker's limit, where it does not say one itself.
        """
        self.broker = broker
        self.inflight = inflight
        self.credentials = credentials or Credentials()
        self.keepalive = keepalive
        self.max_packet = max_packet or MAX_PACKET
        self._client_id = client_id
        self._timeout = timeout
        self._stamp: Stamp = ()
        self._told_broken = False
        self._versions: list[Version] = ["5", "3.1.1"] if mqtt == "auto" else [mqtt]
        self._link: _Link | None = None

    @property
    def protocol(self) -> str:
        """The MQTT version of the connection; empty where there is none."""
        return self._link.version if self._link else ""

    async def connect(
        self,
        *,
        will: tuple[str, bytes],
        subscribe: list[str],
        hear: Callable[[str, bytes], None],
        wake: Callable[[], None],
    ) -> None:
        """Connects with a retained last will (topic, body), a clean session, and subscriptions at QoS 1.

        `hear` gets every message (topic, body), `wake` is called when the line is lost. Raises NotConnected.
        """
        await self.close()
        if self.broker.tls:
            self._stamp = await asyncio.to_thread(self.credentials.stamp)
        for version in tuple(self._versions):
            link = _Link(self, version, will, hear, wake)
            try:
                await link.open(self._timeout)
                await link.subscribe(subscribe, self._timeout)
            except OtherVersion:
                await link.close()
                if version == self._versions[-1]:
                    raise
            except BaseException:
                await link.close()
                raise
            else:
                # What worked is tried first the next time.
                self._versions.sort(key=lambda one: one != version)
                self._link = link
                return

    def check(self) -> None:
        """Raises NotConnected (or TakenOver) where the line is lost, or silent for two keep-alives."""
        if self._link is None:
            raise NotConnected("there is no connection")
        self._link.check(2 * self.keepalive)

    async def check_credentials(self) -> None:
        """Raises Renewed where the files of the TLS connection have changed and can be used. Reads files: not often."""
        if not self.broker.tls or await asyncio.to_thread(self.credentials.stamp) == self._stamp:
            return
        try:
            await asyncio.to_thread(self.credentials.context)
        except (OSError, ValueError) as reason:
            # Perhaps half of them are written. The connection that we have is as good as it was.
            if not self._told_broken:
                self._told_broken = True
                log.warning(
                    "The new TLS files of the broker at %s can't be used: %s. The old connection stays.",
                    self.broker.host,
                    reason,
                    extra={"event": "credentials_unusable", "broker": self.broker.host},
                )
            return
        self._told_broken = False
        raise Renewed("the TLS files were replaced")

    async def last_word(self, reason: NotConnected) -> NotConnected:
        """Why the broker ended the connection, where it says more than `reason`. Takes a second at most.

        What is sent after paho closed the socket, and before it tells why, finds no connection and nothing else.
        """
        if (link := self._link) is None or not isinstance(reason, HungUp):
            return reason
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORD_SECONDS):
                await link.told.wait()
        return link.lost or reason

    async def answers(self) -> bool:
        """Whether the broker takes TCP connections now."""
        return await listens(self.broker.host, self.broker.port, min(self._timeout, 3.0))

    def room(self, topic: str) -> int:
        """Bytes of the largest body that the broker takes under a topic."""
        largest = self._link.max_packet if self._link else self.max_packet
        return largest - len(topic.encode()) - HEADER_BYTES

    def send(self, topic: str, body: bytes, *, retain: bool = False, then: Then | None = None) -> None:
        """Publishes at QoS 1 without waiting. `then` is called at the PUBACK, with Rejected where it is a refusal.

        Raises NotConnected, and Rejected where the broker said that it takes no message of this size. Where the line
        is lost before the PUBACK `then` is never called.
        """
        if self._link is None:
            raise NotConnected("there is no connection")
        self._link.send(topic, body, retain, then)

    async def close(self) -> None:
        """Says goodbye where the line still works, so that the last will is not sent. Takes a second at most."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def client(self, version: Version) -> paho.Client:
        """A new paho client for one connection."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if version == "5" else True,
            protocol=PROTOCOLS[version],
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timeout
        client.max_inflight_messages_set(self.inflight + BESIDE)
        client.max_queued_messages_set(2 * (self.inflight + BESIDE))
        client.username_pw_set(self.broker.username, self.broker.password)
        return client

    def dial(self, client: paho.Client, version: Version) -> None:
        """Connects `client`; blocks."""
        host, port, keepalive = self.broker.host, self.broker.port, self.keepalive
        if version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = 2 * MAX_INBOUND
            client.connect(host, port, keepalive, clean_start=True, properties=properties)
        else:
            client.connect(host, port, keepalive)


class _Link:
    """One connection, from dialling to its loss. Its paho thread ends by itself when the socket does."""

    def __init__(
        self,
        uplink: Uplink,
        version: Version,
        will: tuple[str, bytes],
        hear: Callable[[str, bytes], None],
        wake: Callable[[], None],
    ) -> None:
        self.version = version
        self._uplink = uplink
        self._hear = hear
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self.lost: NotConnected | None = None
        self.told = asyncio.Event()  # paho has said why
        self._closing = False
        self._socket: socket.socket | None = None
        self.max_packet = uplink.max_packet
        self._most_waiting = uplink.inflight + BESIDE
        self._held: deque[tuple[str, bytes, bool, Then | None]] = deque()
        self._waiting: dict[int, Then | None] = {}
        self._heard = time.monotonic()
        self._client = client = uplink.client(version)
        client.will_set(*will, qos=1, retain=True)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message

    async def open(self, seconds: float) -> None:
        # A thread of its own: a name server that does not answer would block one of the loop's few for minutes.
        threading.Thread(target=self._dial, name="uplink dial", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await self._opened
        except TimeoutError:
            raise NotConnected(f"no answer within {seconds:g} s") from None

    async def subscribe(self, topics: list[str], seconds: float) -> None:
        self._client.subscribe([(topic, 1) for topic in topics])
        try:
            async with asyncio.timeout(seconds):
                await self._subscribed
        except TimeoutError:
            raise NotConnected(f"no answer to the subscription within {seconds:g} s") from None

    def check(self, silence: float) -> None:
        if self.lost is not None:
            raise self.lost
        if self._waiting and time.monotonic() - self._heard > silence:
            raise NotConnected(f"the broker acknowledged nothing for {silence:g} s")

    def send(self, topic: str, body: bytes, retain: bool, then: Then | None) -> None:
        if self.lost is not None:
            raise self.lost
        size = len(topic.encode()) + len(body) + HEADER_BYTES
        if size > self.max_packet:
            raise Rejected(f"a message of {size} bytes; the broker takes {self.max_packet}")
        if len(self._held) > 2 * (self._uplink.inflight + BESIDE):
            raise NotConnected("the broker acknowledges nothing")
        if not self._waiting:
            self._heard = time.monotonic()
        self._held.append((topic, body, retain, then))
        self._release()

    def _release(self) -> None:
        while self._held and len(self._waiting) < self._most_waiting:
            topic, body, retain, then = self._held.popleft()
            sent = self._client.publish(topic, body, qos=1, retain=retain)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._fail(HungUp(paho.error_string(sent.rc)))
                return
            self._waiting[sent.mid] = then

    async def close(self) -> None:
        self._closing = True
        # A future that nobody waits for any more must not complain about it.
        self._opened.cancel()
        self._subscribed.cancel()
        if self._socket is not None and not self._ended.is_set():
            self._client.disconnect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._ended.wait()
            self._hang_up()
        # Else the client is in a cycle, and its sockets wait for the garbage collector.
        client = self._client
        client.on_connect = client.on_disconnect = None
        client.on_subscribe = client.on_publish = client.on_message = None
        if self.lost is not None:
            self.lost.__traceback__ = None  # its frames know us: another cycle

    def _hang_up(self) -> None:
        if self._socket is not None:
            # The plain shutdown, below TLS: it must neither wait nor touch what paho's thread is reading.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    # In the loop.

    def _fail(self, reason: NotConnected) -> None:
        if self.lost is None or isinstance(reason, TakenOver):
            self.lost = reason
        self._ended.set()
        for waiting in (self._opened, self._subscribed):
            if not waiting.done():
                waiting.set_exception(self.lost)
                waiting.exception()  # it may be that nobody waits for it
        if not self._closing:
            self._wake()

    def _accepted(self, max_packet: int, receive_maximum: int) -> None:
        self.max_packet = min(max_packet or MAX_PACKET, self._uplink.max_packet)
        self._most_waiting = min(self._most_waiting, receive_maximum)
        if not self._opened.done():
            self._opened.set_result(None)

    def _granted(self) -> None:
        self._heard = time.monotonic()
        if not self._subscribed.done():
            self._subscribed.set_result(None)

    def _acknowledged(self, mid: int, refusal: str) -> None:
        self._heard = time.monotonic()
        then = self._waiting.pop(mid, None)
        if then is not None and not self._closing:
            then(Rejected(refusal) if refusal else None)
        if self.lost is None:
            self._release()

    def _arrived(self, topic: str, body: bytes) -> None:
        if not self._closing:
            self._hear(topic, body)

    # In paho's thread, or the one that dials.

    def _tell(self, call: Callable[..., None], *facts: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(call, *facts)

    def _dial(self) -> None:
        try:
            if self._uplink.broker.tls:
                # Made anew for each connection: the files may have been replaced.
                self._client.tls_set_context(self._uplink.credentials.context())
            self._uplink.dial(self._client, self.version)
            if self._closing:
                self._hang_up()
            self._client.loop_start()
        except (OSError, ValueError, RuntimeError) as reason:
            self._tell(self._fail, NotConnected(spoken(reason)))
        finally:
            self._client.on_socket_open = None

    def _on_socket_open(self, _client: paho.Client, _userdata: Any, opened: Any) -> None:
        self._socket = opened
        if self._closing:  # while we dialled: a CONNECT now would take the session from the link that came after us
            self._hang_up()
            return
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._uplink.keepalive * 1000)

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: Any,
        _flags: paho.ConnectFlags,
        code: ReasonCode,
        facts: Properties | None,
    ) -> None:
        if code.is_failure:
            kind = OtherVersion if code.value == UNSUPPORTED_VERSION else NotConnected
            self._tell(self._fail, kind(f"the broker refused the connection: {code}"))
            return
        limits = getattr(facts, "MaximumPacketSize", 0), getattr(facts, "ReceiveMaximum", 65535)
        self._tell(self._accepted, *limits)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: Any,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _facts: Properties | None,
    ) -> None:
        self._tell(self._disconnected, flags.is_disconnect_packet_from_server, code.value, str(code))

    def _disconnected(self, said: bool, code: int, text: str) -> None:
        self.told.set()
        if said and code == SESSION_TAKEN_OVER:
            self._fail(TakenOver("session taken over"))
        elif not said and not self._opened.done():
            # A broker that knows only the other version may just hang up, as NATS does.
            self._fail(OtherVersion(f"the broker does not answer MQTT {self.version}"))
        else:
            kind = HungUp if self._opened.done() and code != KEEP_ALIVE_TIMEOUT else NotConnected
            self._fail(kind(f"the broker ended the connection: {text}" if said else f"the line is lost: {text}"))

    def _on_subscribe(
        self, _client: paho.Client, _userdata: Any, _mid: int, codes: list[ReasonCode], _facts: Properties | None
    ) -> None:
        refused = [code for code in codes if code.is_failure]
        if refused:
            self._tell(self._fail, NotConnected(f"the broker refused the subscription: {refused[0]}"))
        else:
            self._tell(self._granted)

    def _on_publish(
        self, _client: paho.Client, _userdata: Any, mid: int, code: ReasonCode, _facts: Properties | None
    ) -> None:
        self._tell(self._acknowledged, mid, str(code) if code.is_failure else "")

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        with contextlib.suppress(UnicodeDecodeError):
            if len(message.payload) <= MAX_INBOUND:
                self._tell(self._arrived, message.topic, bytes(message.payload))
