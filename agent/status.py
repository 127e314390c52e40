"""The agent's face for machines: /metrics (Prometheus), /healthz and /readyz over HTTP.

Off unless the config has [status]. Everything is read from the running agent's facts when it is asked for: nothing is
counted twice, and nothing is paid for while nobody asks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from agent.errors import HeadraceError
from agent.health import Facts, health

log = logging.getLogger("headrace.status")

READ_SECONDS = 5.0
"""How long one HTTP request may take to arrive."""

MOST_REQUESTS = 8
"""At once; whoever comes beyond is hung up on."""

_GAUGES = {
    "pending_readings": "Readings in the open block.",
    "pending_bytes": "Memory of the open block.",
}
_COUNTERS = {
    "accepted": ("readings_accepted", "Readings that the buffer took, filtered ones included."),
    "filtered": ("readings_filtered", "Readings that their tag's filter held back."),
    "refused": ("readings_refused", "Readings lost because the buffer was full."),
    "mistyped": ("readings_mistyped", "Readings whose value did not fit their tag's type."),
    "sealed_readings": ("readings_sealed", "Readings sealed in blocks."),
    "sealed_blocks": ("blocks_sealed", "Blocks sealed."),
}
_OUTBOX = {
    "entries": "Blocks and gaps that wait for their receipt.",
    "readings": "Readings that wait for their receipt.",
    "bytes": "Bytes of what waits.",
    "disk_bytes": "Bytes of the outbox on disk.",
}
_CLOCK = {"synchronized": "Whether the clock of this machine is known to be right."}
_UPLINK = {
    "connected": "Whether the broker is connected.",
    "in_flight": "Entries sent and not acknowledged by the broker.",
    "rejected": "Entries that the broker will not take.",
    "unreceipted": "Entries sent, for which no receipt has come.",
    "not_taken": "Entries sent again and again that the data center does not take.",
    "backlog_bytes": "Bytes of old blocks that wait behind live ones.",
    "backlog_seconds": "About how many seconds until they are gone; -1 where nobody can know.",
}


class CannotListen(HeadraceError):
    """The status address can't be listened at. The message says why and what to set."""


class _Metrics(Collector):
    """Turns facts into metrics at each scrape."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        facts = self._facts()
        yield _gauge("collecting", "Whether readings are taken.", facts["collecting"])
        yield _gauge("since_seal_seconds", "Seconds since the open block was last looked after.", facts["since_seal"])
        for name, text in _GAUGES.items():
            yield _gauge(name, text, facts[name])
        for name, (as_name, text) in _COUNTERS.items():
            yield _counter(as_name, text, facts[name])
        yield from _part("outbox", _OUTBOX, facts["outbox"])
        yield from _part("uplink", _UPLINK, facts["uplink"])
        yield from _egress(facts["egress"])
        yield from _part("clock", _CLOCK, facts["clock"])
        yield from _devices(facts["devices"])


def _part(part: str, gauges: dict[str, str], facts: dict[str, Any]) -> Iterator[Metric]:
    """The gauges of a part; every other number of it is a counter."""
    for name, value in facts.items():
        if name in gauges:
            yield _gauge(f"{part}_{name}", gauges[name], value)
        elif isinstance(value, int | float):
            yield _counter(f"{part}_{name}", f"{name.replace('_', ' ').capitalize()}, since the start.", value)


def _egress(facts: dict[str, Any]) -> Iterator[Metric]:
    yield from _part("egress", {}, facts)
    for decision in ("allowed", "withheld"):
        text = f"Readings {decision} by the egress policy, by where they go or by what forbids them."
        metric = CounterMetricFamily(f"headrace_egress_{decision}_by", text, labels=["by"])
        for reason, readings in facts[f"{decision}_by"].items():
            metric.add_metric([reason], float(readings))
        yield metric


def _devices(devices: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    connected = GaugeMetricFamily("headrace_device_connected", "Whether the device is connected.", labels=["device"])
    events = CounterMetricFamily("headrace_device_events", "What a collector counts.", labels=["device", "event"])
    for device, facts in devices.items():
        connected.add_metric([device], float(bool(facts["connected"])))
        for name, value in facts.items():
            if isinstance(value, int) and not isinstance(value, bool):
                events.add_metric([device, name], float(value))
    yield connected
    yield events


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"headrace_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"headrace_{name}", text, value=float(value))


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request, so that a client that says nothing holds nobody else up; but no more than a few at once."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, *args: Any) -> None:
        self._room = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to tell."""


class _Handler(WSGIRequestHandler):
    timeout = READ_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Scrapes are not logged."""


class Status:
    """The HTTP server. `open` listens, in a thread of its own; `close` ends it."""

    def __init__(self, http: str, facts: Facts, seal_after: float) -> None:
        """`http` is "host:port". Raises CannotListen."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Metrics(facts))
        self._metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._facts = facts
        self._seal_after = seal_after
        self.ready = False
        host, _, port = http.rpartition(":")
        try:
            self._server = make_server(host.strip("[]"), int(port), self._answer, _Server, _Handler)
        except OSError as reason:
            text = f"can't listen at {http}: {reason.strerror or reason}; set another [status] http"
            raise CannotListen(text) from reason
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="status", daemon=True)

    def open(self) -> None:
        self._thread.start()
        log.info("status at port %d", self.port, extra={"event": "status_ready", "port": self.port})

    def close(self) -> None:
        """Returns within a second, whatever a client does."""
        stopping = threading.Thread(target=self._server.shutdown, daemon=True)
        stopping.start()
        stopping.join(1.0)
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO"), environ.get("REQUEST_METHOD")
        if method not in ("GET", "HEAD"):
            return _json(start, "405 Method Not Allowed", {"status": "write GET"})
        if path == "/metrics":
            return self._metrics(environ, start)
        if path not in ("/healthz", "/readyz"):
            return _json(start, "404 Not Found", {"status": "there are /metrics, /healthz and /readyz"})
        if not self.ready:
            # Starting is healthy, and not ready.
            return _json(start, "200 OK" if path == "/healthz" else "503 Service Unavailable", {"status": "starting"})
        fine, found = health(self._facts(), self._seal_after)
        return _json(start, "200 OK" if fine else "503 Service Unavailable", found)


def _json(start: Callable[..., Any], status: str, body: dict[str, Any]) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [orjson.dumps(body)]
