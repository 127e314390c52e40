"""The simulated resolver of a config: at the address of its [resolver], with a record for each of its identifiers."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from agent.config import Config
from agent.errors import ConfigError, HeadraceError, Problem
from simulators.records import of_tags
from simulators.resolver import Fault, ResolverServer

log = logging.getLogger("headrace.simulators")

FAULTS = ("none", *(fault.value for fault in Fault))


class ResolverPortTaken(HeadraceError):
    """The resolver's address can't be listened at; the message says why."""


@contextlib.asynccontextmanager
async def resolving(config: Config, fault: str | None) -> AsyncIterator[None]:
    """Runs the resolver of a config, honest ("none") or with a fault; nothing where `fault` is None.

    Raises ConfigError where the config has no resolver that can be on this machine, ResolverPortTaken.
    """
    if fault is None:
        yield
        return
    host, port = _place(config)
    server = ResolverServer(of_tags(config.tags), host=host, port=port)
    server.fault = None if fault == "none" else Fault(fault)
    try:
        await server.open()
    except OSError as reason:
        raise ResolverPortTaken(f"the resolver can't listen at {host}:{port}: {reason.strerror or reason}") from reason
    facts = {"event": "resolver_ready", "url": server.url, "records": len(server.records)}
    log.info("A resolver with %d records listens at %s.", len(server.records), server.url, extra=facts)
    try:
        yield
    finally:
        await server.close()


def _place(config: Config) -> tuple[str, int]:
    field, wrong = "resolver", "there is no [resolver] to simulate"
    if config.resolver is not None:
        parts = urlsplit(config.resolver.url)
        host, port = parts.hostname or "", parts.port or 80
        with contextlib.suppress(ValueError):
            if parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback):
                return host, port
        field, wrong = "resolver.url", f"{config.resolver.url} is not plain HTTP on this machine"
    hint = 'write [resolver] with url = "http://127.0.0.1:8000"'
    raise ConfigError([Problem(str(config.path), field, wrong, hint)])
