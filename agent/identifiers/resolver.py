"""The resolver: what is known of every identifier, and the work in the background that keeps it fresh.

Nothing waits for it. Collection starts with what the cache holds; an answer that is new or other than before is told
of, and whoever is told decides when a new epoch begins. Each identifier is asked for once at a time, whoever wants it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from agent import backoff
from agent._native import Identifier
from agent.config import Config
from agent.errors import HeadraceError
from agent.identifiers.cache import Cache, Known, Row
from agent.identifiers.chain import Chain
from agent.identifiers.dialects import DAILY_LIMIT, NOT_FOUND, Answer, Dialect, dialect
from agent.identifiers.facts import ATTRIBUTES, MAX_TEXT, USABLE, Resolved, State
from agent.identifiers.node import Node, Unreachable
from agent.identifiers.record import PUBLIC_READ, Record
from agent.identifiers.signature import Signature, Untrue, roots, signatures

log = logging.getLogger("headrace.resolver")

REFRESH = 0.8
"""Of the time that an answer holds, so much passes before it is asked for again."""
NEGATIVE = (300.0, 3600.0)
"""Seconds that "unknown" holds: at first, and at most; it doubles each time."""
RETRY = (5.0, 300.0)
"""Seconds until a node that failed is asked again for the same identifier: at first, and at most."""
NEVER = 366 * 86400.0
BATCH_SECONDS = 1.0
STEP = 60.0
"""Seconds by which the wall clock may go back unnoticed."""


class Unresolved(HeadraceError):
    """Mode strict: an identifier that was never resolved. The message names it."""


class Resolver:
    """Of one node: `load`, then `run`; `of` and `facts` at any time. `told` is called where an answer is another."""

    def __init__(
        self,
        node: Node,
        dialect: Dialect,
        cache: Cache,
        *,
        roots: Iterable[RSAPublicKey] = (),
        max_stale: float = 30 * 86400.0,
        concurrency: int = 4,
        told: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_stale` is in seconds, `clock` gives the wall clock's in seconds since 1970."""
        self._node, self._dialect, self._cache = node, dialect, cache
        self._roots = list(roots)
        self._chain = Chain(self._roots, self._record)
        self._max_stale = max_stale
        self._concurrency = concurrency
        self._told = told
        self._clock = clock
        self._known: dict[str, Row] = {}
        self._states: dict[str, State] = {}
        self._texts: dict[str, str] = {}
        """Key -> how the config spells it."""
        self._due: list[tuple[float, str]] = []
        self._latest = 0.0
        """The wall clock's latest time, as far as it was seen here."""
        self._more = asyncio.Event()
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._failures: Counter[str] = Counter()
        self._fresh: dict[str, Known] = {}
        self._counts: Counter[str] = Counter()
        self._told_away = self._told_unkept = False
        self._lies: set[str] = set()

    @staticmethod
    def key(text: str) -> str | None:
        """What an identifier is known by here; None for one that this node can't be asked for."""
        try:
            found = Identifier(text)
        except ValueError:
            return None
        return found.key if found.scheme == "handle" else None

    async def load(self, identifiers: Iterable[str]) -> None:
        """Takes what is asked for from now on, and what the cache has of it. Reads the cache only; asks nobody."""
        wanted, states, due = await asyncio.to_thread(self._prepare, list(identifiers))
        self._texts, self._states, self._due = wanted, states, due
        self._more.set()

    def of(self, text: str) -> Resolved:
        """What is known of an identifier, now."""
        key = text if text in self._states and _plain(text) else self.key(text)
        if key is None:
            with suppress(ValueError):
                return Resolved("static" if Identifier(text).scheme else "opaque")
            return Resolved("opaque")
        known = self._known.get(key)
        return Resolved(self._states.get(key, "unresolved"), orjson.loads(known[2]) if known else {})

    def facts(self) -> dict[str, Any]:
        """Counters since the start, and how many identifiers are in each state."""
        states = Counter(self._states.values())
        return {
            "requests": self._node.requests,
            "failures": self._node.failures,
            "circuit_open": self._node.is_open,
            "answers": self._counts["answers"],
            "lies": self._counts["lies"],
            "changes": self._counts["changes"],
            "states": dict(states),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Asks for what is due until `stop` is set; the node's rate bounds how fast. Raises nothing of the node's."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._work(), name="resolver") for _ in range(self._concurrency)]
                tasks.append(group.create_task(self._write_batches(), name="resolver cache"))
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await asyncio.gather(*self._flights.values(), return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._write)
        await self._node.close()
        await asyncio.to_thread(self._cache.close)

    async def resolve(self, text: str) -> Resolved:
        """Asks for one identifier now, unless somebody is asking already. Raises Unreachable."""
        key = self.key(text)
        if key is None:
            return self.of(text)
        self._texts.setdefault(key, text)
        await self._ask(key)
        return self.of(text)

    async def settle(self, seconds: float) -> None:
        """Waits until each identifier has been resolved at some time. Raises Unresolved after so many seconds."""
        deadline = time.monotonic() + seconds
        while missing := [key for key, state in self._states.items() if state not in USABLE]:
            final = [key for key in missing if self._states[key] in ("unknown", "refused")]
            if final or time.monotonic() > deadline:
                first = (final or missing)[0]
                raise Unresolved(
                    f"{len(missing)} identifiers are not resolved, the first is {first!r} ({self._states[first]}); "
                    'register them, or write [resolver] mode = "cached"'
                )
            await asyncio.sleep(0.05)

    def _prepare(self, texts: list[str]) -> tuple[dict[str, str], dict[str, State], list[tuple[float, str]]]:
        """What is wanted, in which state it is, and when each is to be asked for: all that takes long, in a thread."""
        now = self._clock()
        known = {row[0]: row for row in self._cache.read()}
        wanted = self._wanted(texts, known)
        known |= self._known
        if unwanted := known.keys() - wanted.keys():
            self._cache.forget(unwanted)
            known = {key: known[key] for key in known.keys() & wanted.keys()}
        self._known = known
        # Two hundred thousand calls would take longer than all the rest: what `_state` and `_when` say of an answer
        # that holds is said here.
        states: dict[str, State] = {key: state for key, state in self._states.items() if key in wanted}
        due, failures, dice = [], self._failures, random.random
        for key in wanted:
            row = known.get(key)
            if row is not None and 0 <= now - row[4] <= row[5] and key not in failures:
                states.setdefault(key, row[1])  # type: ignore[arg-type]
                due.append((row[4] + row[5] * REFRESH * (0.9 + 0.1 * dice()), key))
            else:
                states[key] = states.get(key) or self._state(key, now)
                due.append((self._when(key, now), key))
        heapq.heapify(due)
        return wanted, states, due

    @staticmethod
    def _wanted(texts: list[str], known: Container[str]) -> dict[str, str]:
        found = {}
        for text in texts:
            if text in known and _plain(text):
                found[text] = text
                continue
            try:
                identifier = Identifier(text)
            except ValueError:
                continue
            if identifier.scheme == "handle":
                found[identifier.key] = text
        return found

    async def _work(self) -> None:
        while True:
            now = self._clock()
            if now < self._latest - STEP:
                # The clock went back: what was to be asked for soon would wait until it is there again.
                self._due = [(self._when(key, now), key) for _, key in self._due]
                heapq.heapify(self._due)
                self._latest = now
            self._latest = max(self._latest, now)
            if not self._due or self._due[0][0] > now or self._node.is_open:
                self._more.clear()
                pause = min(1.0, self._due[0][0] - now) if self._due and not self._node.is_open else 1.0
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.01, pause)):
                        await self._more.wait()
                continue
            _, key = heapq.heappop(self._due)
            if key not in self._texts:
                continue
            try:
                await self._ask(key)
                self._told_away = False
            except Unreachable as reason:
                if not self._told_away:
                    self._told_away = True
                    text = "%s; what is known is used, and the node is tried again"
                    log.warning(text, reason, extra={"event": "resolver_away"})
            heapq.heappush(self._due, (self._when(key, self._clock()), key))

    async def _ask(self, key: str) -> None:
        """Single flight: who comes second waits for the first."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fetch(key))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        await asyncio.shield(flight)

    async def _fetch(self, key: str) -> None:
        identifier = Identifier(self._texts[key])
        try:
            answer = await self._dialect.ask(self._node, identifier)
            state, facts, holds = await self._judge(identifier, answer)
        except Unreachable:
            self._failures[key] += 1
            self._mark(key)
            raise
        except ValueError as reason:
            self._lie(key, str(reason))
            return
        self._counts["answers"] += 1
        del self._failures[key]
        before = self._row(key)
        if state == "unknown":
            # The longer it stays unknown, the less often it is asked for.
            longer = 2 * before.holds if before and before.state == "unknown" else 0.0
            holds = min(max(holds, longer), NEGATIVE[1])
        known = Known(key, state, orjson.dumps(facts).decode(), answer.code, self._clock(), holds)
        self._known[key] = self._fresh[key] = known
        if before is None or (before.state, before.facts) != (state, known.facts) or self._states.get(key) != state:
            self._counts["changes"] += 1
            self._states[key] = state
            self._told()

    async def _judge(self, identifier: Identifier, answer: Answer) -> tuple[State, dict[str, str], float]:
        if answer.record is None:
            if answer.code == NOT_FOUND:
                return "unknown", {}, NEGATIVE[0]
            if answer.code == DAILY_LIMIT:
                raise Unreachable("the node's daily limit is reached")
            return "refused", {}, NEVER if answer.final else RETRY[1]
        record = answer.record
        if self.key(record.handle) != identifier.key:
            raise ValueError(f"asked for {identifier.text}, the node answers of {record.handle[:80]!r}")
        now = self._clock()
        signed = signatures(record, now)
        parts = await self._proven(signed, record.handle, now) if self._roots else [each for each, _ in signed]
        covered = frozenset[int]().union(*parts)
        trusted = covered if covered or self._roots else frozenset(value.index for value in record.values)
        state: State = "verified" if self._roots else "resolved"
        return state, _attributes(record, trusted), record.holds(now)

    async def _proven(
        self, signed: list[tuple[frozenset[int], Signature]], handle: str, now: float
    ) -> list[frozenset[int]]:
        """What those signatures cover behind which a root stands. Raises Untrue where there is none, and what asking
        for certificates raises."""
        found, problem = [], Untrue("nobody signed it")
        for indexes, signature in signed:
            try:
                await self._chain.prove(signature, handle, now)
                found.append(indexes)
            except Untrue as reason:
                problem = reason
        if not found:
            raise problem
        return found

    async def _record(self, handle: str) -> Record | None:
        """A signer's own record, for the chain. Raises Unreachable, ValueError."""
        found = (await self._dialect.ask(self._node, Identifier(handle))).record
        if found is not None and self.key(found.handle) != self.key(handle):
            raise ValueError(f"asked for the signer {handle[:80]}, the node answers of {found.handle[:80]!r}")
        return found

    def _lie(self, key: str, text: str) -> None:
        """An answer that can't be true changes nothing: what was known before stays known."""
        self._counts["lies"] += 1
        self._failures[key] += 1
        if key not in self._lies:
            if len(self._lies) < 10_000:
                self._lies.add(key)
            facts = {"event": "record_refused", "identifier": key, "reason": text}
            log.error("The answer for %s is not used: %s.", key, text, extra=facts)
        if (known := self._row(key)) and known.state in USABLE:
            self._mark(key)
        elif self._states.get(key) != "refused":
            self._states[key] = "refused"
            self._told()

    def _mark(self, key: str) -> None:
        """What time makes of an answer that no new one replaces."""
        state = self._state(key, self._clock())
        if self._states.get(key, "unresolved") != state and self._states.get(key) != "refused":
            self._states[key] = state
            self._told()

    def _row(self, key: str) -> Known | None:
        row = self._known.get(key)
        return None if row is None else Known._make(row)

    def _state(self, key: str, now: float) -> State:
        known = self._row(key)
        if known is None:
            return "unresolved"
        age = now - known.fetched_at
        # A clock that went back makes an answer old, not young.
        if 0 <= age <= known.holds:
            return known.state  # type: ignore[return-value]
        if known.state in USABLE:
            return "stale" if age <= known.holds + self._max_stale else "unresolved"
        return "unresolved"

    def _when(self, key: str, now: float) -> float:
        """When to ask, in seconds since 1970."""
        if failures := self._failures[key]:
            return now + backoff.pause(failures, *RETRY)
        known = self._row(key)
        if known is None or not 0 <= now - known.fetched_at <= known.holds:
            return now
        return known.fetched_at + known.holds * REFRESH * random.uniform(0.9, 1.0)  # noqa: S311

    async def _write_batches(self) -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        fresh, self._fresh = self._fresh, {}
        if fresh:
            try:
                self._cache.write(fresh.values())
            except sqlite3.Error as reason:
                if not self._told_unkept:
                    self._told_unkept = True
                    facts = {"event": "cache_unwritable"}
                    log.warning("The resolver's cache can't be written: %s; collection goes on", reason, extra=facts)


def _plain(text: str) -> bool:
    """Whether a text that is a Handle's key is its own key, and need not be parsed for that: in no other scheme does it
    begin with a digit and have neither of these."""
    return text[:1].isdigit() and ":" not in text and "#" not in text


def of_config(config: Config, told: Callable[[], None] = lambda: None) -> Resolver:
    """The resolver of a config that has one; its cache lies in the agent's directory. Blocks.

    Raises ValueError, OSError, sqlite3.Error where something that it needs can't be read.
    """
    table = config.resolver
    if table is None:
        raise ValueError("the config has no [resolver]")
    ca = str(table.ca) if table.ca else None
    return Resolver(
        Node(table.url, rate=table.rate, concurrency=table.concurrency, timeout=table.timeout, ca=ca),
        dialect(table),
        Cache(config.agent.data_dir / "resolver.db", f"{table.dialect} {table.url}"),
        roots=roots(table.roots.read_bytes()) if table.roots else (),
        max_stale=table.max_stale,
        concurrency=table.concurrency,
        told=told,
    )


def _attributes(record: Record, trusted: frozenset[int]) -> dict[str, str]:
    """The attributes that are used, of values that everybody may read and that can be trusted."""
    found = {}
    for name in ATTRIBUTES:
        value = record.first(name)
        if value is None or value.index not in trusted or not value.permissions & PUBLIC_READ:
            continue
        text = value.text
        if text and len(text) <= MAX_TEXT and text.isprintable():
            found[name] = text
    return found
