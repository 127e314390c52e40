"""The egress policy: may a tag's readings leave on an uplink, or in a file? Asked of every tag, never of a reading.

Deny by any rule wins; then the broker of level 3, the country, and TLS are asked for; then an allow, or the default,
decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import translate
from typing import Protocol, TypeAlias

from agent._native import Identifier
from agent.sharing import Egress, Rule
from agent.tables import Uplink
from agent.wire import Broker

MAIN, LEVEL3 = "main", "level3"
EXPORT = "export"
"""What `headrace outbox export` writes: a way out of its own, in the clear, for what may leave on an uplink too."""
WAYS = (MAIN, LEVEL3, EXPORT)
TLS = "no TLS"
NO_RULE = "no rule allows it"
HOME = "CN"
ABROAD = "important data stays in the country"
"""《数据出境安全评估办法》: it takes an assessment first, for which no config can stand."""


class Labelled(Protocol):
    """What is asked about: a tag of the config or of a catalog."""

    @property
    def identifier(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def level(self) -> int | None: ...
    @property
    def category(self) -> str: ...


Fits: TypeAlias = Callable[["_Asked"], bool]


@dataclass(frozen=True, slots=True)
class _Asked:
    texts: tuple[str, ...]
    key: str
    domain: str
    level: int
    category: str


@dataclass(frozen=True, slots=True)
class Way:
    """Where a tag's readings go. Without an uplink they go nowhere, and `reason` says why."""

    uplink: str | None
    reason: str = ""
    portable: bool = True
    """Whether they may go into an exported file as well."""


_FREE = Way(MAIN)


class Policy:
    """The policy of one config: of its [egress] and its [uplink].

    A tag without a level counts as level 1: `[labels] required = true` makes sure that there is none.
    """

    def __init__(self, egress: Egress | None, uplink: Uplink) -> None:
        level3 = egress.level3 if egress else None
        ways = {MAIN: uplink, **({LEVEL3: level3} if level3 else {})}
        self._uplinks = {name: _all_tls(each) for name, each in ways.items()}
        """The uplinks that there are, each with whether it uses TLS."""
        self._abroad = {name for name, each in ways.items() if each.country != HOME}
        self._default = egress.default == "allow" if egress else True
        self._tls_from = egress.tls_from_level if egress and egress.tls_from_level else 4
        rules = egress.rules if egress else ()
        self._deny = [(f"rule {at}", _compiled(rule)) for at, rule in enumerate(rules, 1) if rule.action == "deny"]
        self._allow = [_compiled(rule) for rule in rules if rule.action == "allow"]
        self._portable = [_compiled(rule) for rule in rules if rule.action == "allow" and EXPORT in rule.uplinks]
        bound = self._deny or self._abroad or self._tls_from <= 3 or LEVEL3 in self._uplinks
        self.open = self._default and not bound
        """Whether nothing can be denied."""

    def way(self, tag: Labelled) -> Way:
        """Where the tag's readings go: level 3 to its own broker where there is one, all else to the main one."""
        if self.open:
            return _FREE
        name = LEVEL3 if (tag.level or 1) >= 3 and LEVEL3 in self._uplinks else MAIN
        reason = self.refusal(tag, name)
        return Way(None, reason) if reason else Way(name, portable=not self.export_refusal(tag, name))

    def refusal(self, tag: Labelled, uplink: str) -> str:
        """Why a tag's readings must not leave on an uplink; empty where they may."""
        level = tag.level or 1
        asked = _asked(tag, level)
        if denied := self._denied(asked, uplink):
            return denied
        if LEVEL3 in self._uplinks and (level >= 3) != (uplink == LEVEL3):
            return f"not for the uplink {uplink}"
        if uplink in self._abroad and tag.category in ("important", "core"):
            return ABROAD
        if level >= self._tls_from and not self._uplinks[uplink]:
            return TLS
        return self._unless_allowed(asked, uplink)

    def export_refusal(self, tag: Labelled, uplink: str) -> str:
        """Why a tag's readings in the outbox of an uplink must not go into an exported file; empty where they may.

        A file has no TLS. Only a rule that allows the way `export` by its name lets out what the uplink would not.
        """
        asked = _asked(tag, tag.level or 1)
        if denied := self._denied(asked, EXPORT):
            return denied
        if any(fits[EXPORT](asked) for fits in self._portable):
            return ""
        if asked.level >= self._tls_from:
            return TLS
        return self._unless_allowed(asked, EXPORT) or self.refusal(tag, uplink)

    def _denied(self, asked: _Asked, way: str) -> str:
        return next((name for name, fits in self._deny if fits[way](asked)), "")

    def _unless_allowed(self, asked: _Asked, way: str) -> str:
        return "" if self._default or any(fits[way](asked) for fits in self._allow) else NO_RULE


def _all_tls(uplink: Uplink) -> bool:
    """A backup without TLS is a way out without TLS."""
    return all(Broker.parse(url).tls for url in (uplink.url, *uplink.backup))


def _asked(tag: Labelled, level: int) -> _Asked:
    try:
        found = Identifier(tag.identifier)
    except ValueError:
        return _Asked((tag.identifier,), tag.identifier, tag.domain, level, tag.category)
    key = found.key if found.scheme == "handle" else ""
    return _Asked((tag.identifier, found.text), key, tag.domain, level, tag.category)


def _compiled(rule: Rule) -> dict[str, Fits]:
    """The rule as a question, for each uplink."""
    plain = [re.compile(translate(pattern)) for pattern in rule.identifiers]
    # A Handle's prefix has no case: a deny must not be passed by writing it otherwise.
    folded = [re.compile(translate(_folded(pattern))) for pattern in rule.identifiers]

    def fits(asked: _Asked) -> bool:
        return (
            (not rule.domains or asked.domain in rule.domains)
            and (not rule.levels or asked.level in rule.levels)
            and (not rule.categories or (asked.category or "general") in rule.categories)
            and (
                not rule.identifiers
                or any(pattern.match(text) for pattern in plain for text in asked.texts)
                or any(pattern.match(asked.key) for pattern in folded)
            )
        )

    wanted = rule.uplinks or WAYS
    return {name: fits if name in wanted else _never for name in WAYS}


def _folded(pattern: str) -> str:
    prefix, slash, suffix = pattern.removeprefix("hdl:").partition("/")
    return prefix.upper() + slash + suffix if slash else pattern


def _never(_: _Asked) -> bool:
    return False
