"""What the tables of the config file are made of: their base, and the kinds of their fields.

Paths that are not absolute are relative to the config file (`base` in the validation context).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from agent import quantity
from agent.wire import without_password


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f'{quantity.shown(value)} is not a path; write text such as "./var/press-shop-1"')
    base = info.context["base"] if info.context else Path.cwd()
    return Path(base, value)


DURATION = {
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[0-9.]+ *(ms|s|m|h)$"}]
}
_SIZE = {
    "anyOf": [
        {"type": "integer", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+ *([kKMGT]i?)?[bB]$"},
    ]
}
Name: TypeAlias = Annotated[str, AfterValidator(quantity.name)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(quantity.seconds), WithJsonSchema(DURATION)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(quantity.byte_count), WithJsonSchema(_SIZE)]
FilePath: TypeAlias = Annotated[Path, PlainValidator(_path), WithJsonSchema({"type": "string"})]


def url(text: str, wanted: str) -> SplitResult:
    """The parts of a URL with a host and, where one is written, a port that can be. Raises ValueError."""
    shown = quantity.shown(without_password(text))
    try:
        parts = urlsplit(text)
        port_fits = parts.port != 0
    except ValueError:
        raise ValueError(f"{shown} is not a URL; write {wanted}") from None
    if not text.isprintable() or " " in text or not parts.hostname or not port_fits:
        raise ValueError(f"{shown} has no host, or a port that can't be; write {wanted}")
    return parts


def is_file(path: Path) -> bool:
    """Whether it is there, and is a file. Raises nothing."""
    try:
        return path.is_file()
    except OSError:
        return False
