"""What an agent really puts on the wire: a TCP relay that keeps every byte, and the MQTT publishes in them."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from agent._native import decode, header
from agent.wire import Catalog, CatalogTag, epoch_of


class Capture:
    """Listens at `port` of 127.0.0.1 and carries each connection to `target`. `sent` is what clients sent, of each."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sent: list[bytearray] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._threads.append(threading.Thread(target=self._accept, name="capture", daemon=True))
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread that waits in accept keeps the socket open after a close: it is woken first.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                kept = bytearray()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self.sent.append(kept)
                thread = threading.Thread(target=_serve, args=(near, far, kept), daemon=True)
                self._threads.append(thread)
                thread.start()

    def publishes(self) -> Iterator[tuple[str, bytes]]:
        """(topic, body) of every whole MQTT 3.1.1 publish, in order."""
        for stream in self.sent:
            yield from _publishes(bytes(stream))

    def readings(self) -> dict[str, list[tuple[int, object]]]:
        """(time, value) of every reading on the wire, by the identifier that a catalog on the wire gives its tag.

        Every block must be of a catalog that was sent before it, and hold one level only.
        """
        catalogs: dict[int, dict[int, CatalogTag]] = {}
        found: dict[str, list[tuple[int, object]]] = defaultdict(list)
        for topic, body in self.publishes():
            if topic.endswith("/catalog"):
                catalogs[epoch_of(body)] = {tag.tag: tag for tag in Catalog.decode(body).tags}
            elif topic.endswith("/data") and header(body).kind == "readings":
                tags = catalogs[header(body).epoch]
                rows = decode(body).rows()
                assert len({tags[tag].level for tag, *_ in rows}) == 1, "a block of two levels"
                for tag, time_ns, value, _ in rows:
                    found[tags[tag].identifier].append((time_ns, value))
        return found


def _serve(near: socket.socket, far: socket.socket, kept: bytearray) -> None:
    with near, far:
        back = threading.Thread(target=_carry, args=(far, near, bytearray()), daemon=True)
        back.start()
        _carry(near, far, kept)
        back.join()


def _carry(source: socket.socket, sink: socket.socket, keep: bytearray) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            keep += part
            sink.sendall(part)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _publishes(stream: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(stream):
        kind, length, shift, start = stream[at], 0, 0, at + 1
        while start < len(stream):
            length |= (stream[start] & 0x7F) << shift
            shift, start = shift + 7, start + 1
            if not stream[start - 1] & 0x80:
                break
        at = start + length
        if at > len(stream):
            return
        if kind >> 4 == 3:
            packet = stream[start:at]
            words = int.from_bytes(packet[:2])
            body = 2 + words + (2 if kind & 6 else 0)
            yield packet[2 : 2 + words].decode(), packet[body:]
