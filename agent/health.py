"""Whether the agent is well, from its facts; and how systemd is told."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

log = logging.getLogger("headrace.status")

Facts: TypeAlias = Callable[[], dict[str, Any]]

STUCK = 10.0
"""Seconds without a seal, beyond the configured age of a block, after which an agent counts as stuck."""


def health(facts: dict[str, Any], seal_after: float) -> tuple[bool, dict[str, Any]]:
    """Whether the agent does its work, and what is wrong where it does not. `seal_after` is in seconds."""
    wrong = []
    if facts["since_seal"] > seal_after + STUCK:
        wrong.append(f"no seal for {facts['since_seal']:.0f} s")
    if not facts["collecting"]:
        wrong.append("collection waits for room in the outbox")
    return not wrong, {"status": ", ".join(wrong) or "ok", "agent": facts["agent"], "stream": facts["stream"]}


async def notify(facts: Facts, seal_after: float) -> None:
    """Tells systemd that the agent is ready, then feeds its watchdog while the agent is not stuck (sd_notify(3)).

    Returns at once where nobody listens; otherwise runs until it is cancelled, and then says that the agent stops.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    _say(address, "READY=1")
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pause = int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else 3600.0
    try:
        while True:
            await asyncio.sleep(pause)
            now = facts()
            _, found = health(now, seal_after)
            # A full outbox is no reason to start again: only what is stuck is.
            stuck = now["since_seal"] > seal_after + STUCK
            _say(address, f"STATUS={found['status']}" + ("" if stuck else "\nWATCHDOG=1"))
    finally:
        _say(address, "STOPPING=1")


def _say(address: str, text: str) -> None:
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as there:
            there.sendto(text.encode(), target)
    except OSError as reason:
        log.warning("systemd does not listen: %s", reason, extra={"event": "notify_failed"})
