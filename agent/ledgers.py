"""What the agent has to be able to show later: what it collected, what it let out, and what it was told to do.

Three hash-chained ledgers (`agent.audit`) in the agent's directory: `collection` and `egress` get a record for each
hour, uplink and level, `configuration` one for each start, change, refusal and epoch. Nobody waits for them: what can't
be recorded is counted and said, and collection goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agent._native import Block, __version__
from agent.audit import AuditError
from agent.audit_file import AuditFile
from agent.audit_queue import AuditQueue
from agent.config import Config
from agent.opening import opened
from agent.split import Group
from agent.wire import without_password

log = logging.getLogger("headrace.audit")

PERIOD = 3600.0
"""Seconds that one record of the collection and egress ledgers stands for, at most."""
NAMES = ("collection", "egress", "configuration")


@dataclass(slots=True)
class _Sum:
    """What was sealed of a group since the last record. Times are ns UTC."""

    blocks: int = 0
    readings: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, block: Block) -> None:
        self.first_ns = min(self.first_ns, block.first_ns) if self.blocks else block.first_ns
        self.last_ns = max(self.last_ns, block.last_ns)
        self.blocks += 1
        self.readings += block.readings
        self.bytes += len(block)


class Ledgers:
    """`open`, then the events, then `close`, which writes what is not recorded yet."""

    def __init__(self) -> None:
        self._queues: dict[str, AuditQueue] = {}
        self._sums: dict[Group, _Sum] = {}
        self._sources: list[dict[str, Any]] = []
        self._targets: dict[str, str] = {}
        self._since = time.time_ns()
        self._next = time.monotonic() + PERIOD
        self._told = False
        self._early: list[tuple[str, Mapping[str, Any]]] = []

    async def open(self, config: Config) -> None:
        """Raises AuditError where a ledger can't be opened: an agent that can't account for itself does not start."""
        self._queues = await opened(asyncio.to_thread(_open, config), lambda queues: asyncio.to_thread(_close, queues))
        self._targets = {"main": without_password(config.uplink.url)}
        if config.egress and config.egress.level3:
            self._targets["level3"] = without_password(config.egress.level3.url)
        self._sources = [
            {"device": device.name, "protocol": device.protocol, "tags": len(device.tags)} for device in config.devices
        ]
        early, self._early = self._early, []
        self.configured("started", {"version": __version__, "config": str(config.path), **_policy(config)})
        for kind, facts in early:
            self.configured(kind, facts)

    def sealed(self, group: Group, block: Block) -> None:
        """Counts a block that was sealed, and writes the records of an hour that is over."""
        self._sums.setdefault(group, _Sum()).add(block)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PERIOD
            self._account()

    def configured(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Records a change of what the agent does, or one that was refused."""
        if self._queues:
            self._put("configuration", kind, facts)
        else:
            self._early.append((kind, facts))

    def reloaded(self, config: Config, changes: list[str]) -> None:
        self.configured("reloaded", {"changes": changes[:1000], "changed": len(changes), **_policy(config)})

    async def close(self) -> None:
        """Writes what waits, for two seconds at most."""
        if self._queues:
            self._account()
            self.configured("stopped", {})
        await asyncio.to_thread(_close, self._queues)

    def facts(self) -> dict[str, int]:
        return {"unrecorded": sum(queue.refused for queue in self._queues.values())}

    def _account(self) -> None:
        sums, self._sums = self._sums, {}
        since, self._since = self._since, time.time_ns()
        for group, found in sums.items():
            facts = {"level": group.level or None, "since_ns": since, **asdict(found)}
            uplink = group.way.uplink
            self._put("collection", "collected", {**facts, "uplink": uplink, "sources": self._sources})
            if uplink:
                self._put("egress", "allowed", {**facts, "uplink": uplink, "target": self._targets[uplink]})
            else:
                self._put("egress", "withheld", {**facts, "reason": group.way.reason})

    def _put(self, ledger: str, kind: str, facts: Mapping[str, Any]) -> None:
        try:
            self._queues[ledger].put(kind, facts)
        except AuditError as reason:
            if not self._told:
                self._told = True
                log.error("%s; collection goes on", reason, extra={"event": "audit_refused", "lost": 1})


def _open(config: Config) -> dict[str, AuditQueue]:
    """All of them, or none: a config that one of them refuses leaves none open."""
    folder, days, most = config.agent.data_dir / "audit", config.audit.keep / 86400, config.audit.max_bytes
    queues: dict[str, AuditQueue] = {}
    try:
        for name in NAMES:
            queues[name] = AuditQueue(AuditFile(folder, name, keep_days=days, max_bytes=most))
    except BaseException:
        _close(queues)
        raise
    return queues


def _close(queues: Mapping[str, AuditQueue]) -> None:
    for queue in queues.values():
        queue.close()


def _policy(config: Config) -> dict[str, Any]:
    """The egress policy as it is in force; without secrets."""
    if config.egress is None:
        return {"egress": None}
    egress = config.egress
    rules = [{name: value for name, value in rule.model_dump(mode="json").items() if value} for rule in egress.rules]
    return {"egress": {"default": egress.default, "tls_from_level": egress.tls_from_level, "rules": rules}}
