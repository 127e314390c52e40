"""Which identifier each tag gets, and what is wrong with it: one data item, one source (一数一源)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agent import quantity
from agent._native import Identifier
from agent.errors import Problem
from agent.tables import Agent, Identifiers
from agent.taglist import MAX_PROBLEMS, Row, TagList
from agent.wording import halves

MAX_LENGTH = 255
"""Characters: what a second-level node takes."""


@dataclass(slots=True)
class Names:
    """The identifiers of all good rows, and the problems and warnings that they give."""

    texts: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    _lists: list[TagList | None] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)
    """Where in `texts` a key is first."""

    def read(
        self, devices: Iterator[tuple[str | None, TagList | None]], made: tuple[Agent, Identifiers] | None
    ) -> Names:
        """`devices` has each device's name and list in order. Without `made` no identifier comes from the template."""
        known: set[str] = set()
        for name, tags in devices:
            self._lists.append(tags)
            named = made[1].names(made[0].id, name) if made and name is not None and name not in known else None
            known.add(str(name))
            strange: list[tuple[int, str, str]] = []
            for row in tags.rows if tags else ():
                text = row.identifier or (named(row.name) if named else "")
                self.texts.append(text)
                if tags and text:
                    self._check(tags, row, text, strange)
            if tags and strange:
                self._warn(tags, strange)
        return self

    def _check(self, tags: TagList, row: Row, text: str, strange: list[tuple[int, str, str]]) -> None:
        if len(text) > MAX_LENGTH:
            self._wrong(tags, row.line, "the template makes more than 255 characters; write a short one here")
            return
        try:
            found = Identifier(text)
            known_by = f"{found.scheme} {found.key}"
        except ValueError as reason:
            strange.append((row.line, text, str(reason)))
            known_by = f"opaque {text}"
        this = len(self.texts) - 1
        first = self._seen.setdefault(known_by, this)
        if first == this:
            return
        place, before = self._at(first)
        if not (before.traits.redundant and row.traits.redundant):
            other = self.texts[first]
            alias = "" if other == text else f", which is written {quantity.shown(other)} there"
            self._wrong(
                tags,
                row.line,
                f"{quantity.shown(text)} is taken by {place.file}:{before.line}{alias}; write another one here, or yes "
                "in the column redundant of both rows if both measure the same",
            )

    def _at(self, place: int) -> tuple[TagList, Row]:
        """The list and the row of one of `texts`."""
        for tags in self._lists:
            if tags is not None and place < len(tags.rows):
                return tags, tags.rows[place]
            place -= len(tags.rows) if tags else 0
        raise IndexError(place)

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
