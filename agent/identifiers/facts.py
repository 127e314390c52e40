"""What of a record concerns a tag: its attributes, and what they do to it.

The config comes first, then the record, for every field. A label is never lowered by anybody but the config: of two
levels, or two categories, the stricter holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from agent import labels, units
from agent.wire import CatalogTag

State: TypeAlias = Literal["resolved", "verified", "stale", "unresolved", "unknown", "refused", "static", "opaque"]
"""resolved: by a record that nobody signed, or whose digests fit. verified: by one that a configured root signed.
stale: by an old one, whose node does not answer. unresolved: not answered yet. unknown: the node does not know it.
refused: the answer is not to be trusted, or the node will not say. static: of a scheme that the node does not resolve.
opaque: of no known scheme.
"""
USABLE = ("resolved", "verified", "stale")

ATTRIBUTES = ("name_zh", "name_en", "unit", "semantic_id", "domain", "level", "category")
"""The attributes of the metadata template (docs/identifiers.md) that are used; a value's type names its attribute."""
MAX_TEXT = 255


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is known of one identifier."""

    state: State
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that a record says and that is not done: `word` names it, for counters and the ledger."""

    identifier: str
    word: Literal["level_lowered", "category_lowered", "unit_conflict", "not_a_label"]
    text: str


def bound(tag: CatalogTag, found: Resolved) -> CatalogTag:
    """The tag with what its record adds to it."""
    facts = found.facts if found.state in USABLE else {}
    if not facts:
        return replace(tag, resolution=found.state)
    changed: dict[str, Any] = {"resolution": found.state}
    names = {tongue: facts[f"name_{tongue}"] for tongue in ("zh", "en") if f"name_{tongue}" in facts}
    if names:
        changed["names"] = names
    if "semantic_id" in facts:
        changed["semantic"] = facts["semantic_id"]
    if "unit" in facts and not tag.unit:
        changed |= {"unit": facts["unit"], "unit_code": units.code(facts["unit"])}
    domain, level, category = _labels(facts)
    if domain and not tag.domain:
        changed["domain"] = domain
    if level is not None and level > (tag.level or 0):
        changed["level"] = level
    if category and _rank(category) > _rank(tag.category):
        changed["category"] = category
    return replace(tag, **changed)


def refusals(tag: CatalogTag, found: Resolved) -> Iterator[Refusal]:
    """What a record says and the config does not let it: `tag` is as the config has it."""
    facts = found.facts if found.state in USABLE else {}
    domain, level, category = _labels(facts)
    if level is not None and tag.level is not None and level < tag.level:
        yield Refusal(tag.identifier, "level_lowered", f"its record says level {level}, and it stays at {tag.level}")
    if category and tag.category and _rank(category) < _rank(tag.category):
        text = f"its record says category {category}, and it stays {tag.category}"
        yield Refusal(tag.identifier, "category_lowered", text)
    if tag.unit and facts.get("unit") and not _same(tag.unit, facts["unit"]):
        text = f"its record says {facts['unit']!r}, and the config {tag.unit!r}, which holds: nothing is converted"
        yield Refusal(tag.identifier, "unit_conflict", text)
    for name, label in (("domain", domain), ("level", level), ("category", category)):
        if facts.get(name) and label is None:
            yield Refusal(tag.identifier, "not_a_label", f"its record says {name} {facts[name]!r}")


def _labels(facts: Mapping[str, str]) -> tuple[str | None, int | None, str | None]:
    return (
        _or_none(labels.domain, facts.get("domain")),
        _or_none(labels.level, facts.get("level")),
        _or_none(labels.category, facts.get("category")),
    )


def _or_none(read: Any, text: str | None) -> Any:
    try:
        return read(text) if text else None
    except ValueError:
        return None


def _rank(category: str) -> int:
    return ("", *labels.CATEGORIES).index(category)


def _same(one: str, other: str) -> bool:
    return one == other or (bool(units.code(one)) and units.code(one) == units.code(other))
