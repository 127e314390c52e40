"""The data center's metrics in the form of Prometheus, from what /healthz and /v1/summary say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_GAUGES = {
    "parked": "Blocks that wait for their catalog.",
    "queued": "Messages that wait to be committed.",
}
_COUNTERS = {
    "stored_blocks": "Blocks stored.",
    "duplicate_blocks": "Blocks that came again and were not stored again.",
    "quarantined": "Blocks that can't be read, set aside.",
    "refused": "Blocks for which there was no room; they come again.",
    "dropped": "Messages that found the queue full; they come again.",
    "catalogs": "Catalogs learned.",
    "commits": "Transactions committed.",
    "settled_readings": "Readings put in order by tag and time.",
    "unrecorded_queries": "Queries that could not be recorded, and so were not answered.",
}


class _Facts(Collector):
    def __init__(self, health: dict[str, Any], counters: dict[str, Any]) -> None:
        self._health = health
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        health = self._health
        for name, text, value in (
            ("healthy", "Whether all parts work.", health["status"] == "ok"),
            ("broker_connected", "Whether the broker is connected.", health["broker"]["connected"]),
            ("writable", "Whether the store takes readings.", health["ingest"]["writable"]),
        ):
            yield GaugeMetricFamily(f"headrace_datacenter_{name}", text, value=float(value))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"headrace_datacenter_{name}", text, value=float(self._counters[name]))
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"headrace_datacenter_{name}", text, value=float(self._counters[name]))


def page(health: dict[str, Any], counters: dict[str, Any]) -> bytes:
    """What a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Facts(health, counters))
    return generate_latest(registry)
