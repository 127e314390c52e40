"""What of a changed config a running agent can take: what tags are called and labelled, and what may leave.

Everything that is about connections, addresses, types, filters or files needs a restart, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agent.config import Config
from agent.model import Tag

_TABLES = ("agent", "seal", "outbox", "uplink", "status", "resolver", "audit")
_NAMES = {"domain", "level", "category", "product"}


def needs_restart(old: Config, new: Config) -> list[str]:
    """The parts of the config that a running agent can't change, by name; empty where there are none."""
    found = [name for name in _TABLES if getattr(old, name) != getattr(new, name)]
    if (old.egress and old.egress.level3) != (new.egress and new.egress.level3):
        found.append("egress.level3")
    if [device.name for device in old.devices] != [device.name for device in new.devices]:
        return [*found, "the devices"]
    for before, after in zip(old.devices, new.devices, strict=True):
        if before.model_dump(exclude=_NAMES) != after.model_dump(exclude=_NAMES):
            found.append(f"device {before.name}")
        elif [*map(_read, before.tags)] != [*map(_read, after.tags)]:
            found.append(f"the tags of {before.name}")
    return found


def changes(old: Config, new: Config) -> Iterator[str]:
    """What is different, for the configuration ledger: sentences without secrets."""
    for before, after in zip(old.tags, new.tags, strict=True):
        if before != after:
            yield f"{before.device}.{before.name}: {_label(before)} -> {_label(after)}"
    if old.egress != new.egress:
        yield "egress policy"


def _read(tag: Tag) -> Tag:
    """A tag without what only names it: what is left decides what is asked of its device, and what becomes of it."""
    limits = (tag.low, tag.high) if "%" in tag.filter else (None, None)
    return replace(
        tag,
        identifier="",
        unit="",
        domain="",
        level=None,
        category="",
        redundant=False,
        description="",
        low=limits[0],
        high=limits[1],
    )


def _label(tag: Tag) -> str:
    return f"{tag.identifier} {tag.domain or '-'} {tag.level or '-'} {tag.category or '-'} {tag.unit or '-'}"
