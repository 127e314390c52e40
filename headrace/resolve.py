"""`headrace resolve`: what an identifier is, and what a resolver says of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from agent import config as configs
from agent._native import Identifier
from agent.config import Config
from agent.errors import ConfigError, Problem
from agent.sharing import Resolver as Table

FOUND = ("resolved", "verified")


def main(options: argparse.Namespace) -> int:
    """Exit 0 where it is resolved, or nobody was to be asked; 1 where it is not; 2 where it is no identifier."""
    try:
        identifier = Identifier(options.identifier)
    except ValueError as reason:
        raise ConfigError(
            [Problem("headrace resolve", "IDENTIFIER", str(reason), "write it as it is registered")]
        ) from None
    table = _table(options)
    facts: dict[str, Any] = {
        "identifier": identifier.text,
        "scheme": identifier.scheme,
        "key": identifier.key,
        "path": identifier.path,
        "state": "static",
    }
    if table is not None:
        facts |= asyncio.run(_ask(table, identifier.text))
    if options.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        for name, value in facts.items():
            shown = ", ".join(f"{key} = {text}" for key, text in value.items()) if isinstance(value, dict) else value
            print(f"{name:<12} {shown}")
    if table is None:
        print("no resolver was asked; write --config CONFIG with a [resolver], or --url", file=sys.stderr)
    return 0 if table is None or facts["state"] in (*FOUND, "static") else 1


def _table(options: argparse.Namespace) -> Table | None:
    config: Config | None = configs.load(options.config) if options.config else None
    if options.url:
        try:
            return Table.model_validate({"url": options.url})
        except ValueError:
            wrong = Problem("headrace resolve", "--url", f"{options.url!r} is no resolver", "write http://host:8000")
            raise ConfigError([wrong]) from None
    if config is not None and config.resolver is None:
        hint = 'write [resolver] with url = "http://127.0.0.1:8000"'
        raise ConfigError([Problem(str(options.config), "resolver", "there is no [resolver]", hint)])
    return config.resolver if config else None


async def _ask(table: Table, text: str) -> dict[str, Any]:
    from agent.identifiers.cache import Cache
    from agent.identifiers.dialects import dialect
    from agent.identifiers.node import Node, Unreachable
    from agent.identifiers.resolver import Resolver
    from agent.identifiers.signature import roots

    # A cache of its own: the agent's may be in use, and holds only what the agent asks for.
    with tempfile.TemporaryDirectory() as place:
        ca = str(table.ca) if table.ca else None
        resolver = Resolver(
            Node(table.url, rate=table.rate, concurrency=1, timeout=table.timeout, ca=ca),
            dialect(table),
            Cache(Path(place, "resolver.db"), table.url),
            roots=roots(table.roots.read_bytes()) if table.roots else (),
        )
        try:
            found = await resolver.resolve(text)
        except Unreachable as reason:
            return {"state": "unresolved", "reason": str(reason)}
        finally:
            await resolver.close()
    return {"state": found.state, "facts": dict(found.facts)}
