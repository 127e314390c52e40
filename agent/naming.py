"""Which identifier each tag gets, and what is wrong with it: one data item, one source (一数一源)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agent import quantity
from agent._native import Identifier
from agent.errors import Problem
from agent.tables import Agent, Identifiers
from agent.taglist import MAX_PROBLEMS, TagList
from agent.tagrow import TagRow
from agent.wording import halves

MAX_LENGTH = 255
"""Characters: what a second-level node takes."""


def parsed(text: str) -> Identifier | None:
    """The identifier of a text, None where no known scheme has such a one: then the text stands for itself."""
    try:
        return Identifier(text)
    except ValueError:
        return None


def key(text: str) -> tuple[str, str]:
    """What two tags' identifiers are compared by: (scheme, key); of a text of no known scheme the text itself."""
    found = parsed(text)
    return (found.scheme, found.key) if found else ("opaque", text)


@dataclass(slots=True)
class _Taken:
    """Where an identifier was seen first."""

    place: str
    text: str
    redundant: bool


@dataclass(slots=True)
class Names:
    """The identifiers of all good rows, and the problems and warnings that they give."""

    texts: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    _seen: dict[tuple[str, str], _Taken] = field(default_factory=dict)

    def read(
        self, devices: Iterator[tuple[str | None, TagList | None]], made: tuple[Agent, Identifiers] | None
    ) -> Names:
        """`devices` has each device's name and list in order. Without `made` no identifier comes from the template."""
        known: set[str] = set()
        for name, tags in devices:
            templated = made is not None and name is not None and name not in known
            known.add(str(name))
            strange: list[tuple[int, str, str]] = []
            for line, row in tags.rows if tags else ():
                text = row.identifier
                if not text and made and templated:
                    text = made[1].name(made[0].id, str(name), row.name)
                self.texts.append(text)
                if tags and text:
                    self._check(tags, line, row, text, strange)
            if tags and strange:
                self._warn(tags, strange)
        return self

    def _check(self, tags: TagList, line: int, row: TagRow, text: str, strange: list[tuple[int, str, str]]) -> None:
        if len(text) > MAX_LENGTH:
            self._wrong(tags, line, "the template makes more than 255 characters; write a short one here")
            return
        try:
            Identifier(text)
        except ValueError as reason:
            strange.append((line, text, str(reason)))
        this = _Taken(f"{tags.file}:{line}", text, row.redundant)
        before = self._seen.setdefault(key(text), this)
        if before is this:
            return
        if not (before.redundant and row.redundant):
            alias = "" if before.text == text else f", which is written {quantity.shown(before.text)} there"
            self._wrong(
                tags,
                line,
                f"{quantity.shown(text)} is taken by {before.place}{alias}; write another one here, or yes in the "
                "column redundant of both rows if both measure the same",
            )

    def _wrong(self, tags: TagList, line: int, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(tags.file, "identifier", *halves(text), line))

    def _warn(self, tags: TagList, strange: list[tuple[int, str, str]]) -> None:
        line, text, reason = strange[0]
        more = f", and {len(strange) - 1} more like it" if len(strange) > 1 else ""
        self.warnings.append(
            Problem(
                tags.file,
                "identifier",
                f"{quantity.shown(text)} is of no known scheme{more} ({reason}): it is kept as it is, and not resolved",
                'write a registered identifier, such as 88.118.8/press1.temp, or [identifiers] prefix = "88.118.8"',
                line,
            )
        )
