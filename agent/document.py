"""The TOML file as it was read: its tables, the lines of its keys, and what is wrong with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from agent.errors import Problem
from agent.places import Places
from agent.wording import halves

MAX_BYTES = 1024 * 1024
FILE = ("(file)",)
_WIDE = re.compile("[\u201c\u201d\u2018\u2019\u3001\u3002\uff01-\uff5e\u3000]")
"""Quotes, digits and punctuation of a Chinese input method, or of a word processor."""


class Document:
    """A file, read and parsed as far as it goes. `readable` is False where there is nothing to go on with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = str(path)
        self.places = Places("")
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.raw: dict[str, Any] = {}
        text = self.read()
        self.readable = text is not None and self.parse(text)
        if self.readable and text:
            self.places = Places(text)

    def wrong(self, path: tuple[str | int, ...], text: str, *, line: int | None = None) -> None:
        message, hint = halves(text)
        self.problems.append(Problem(self.file, dotted(path), message, hint, line or self.places.line(path)))

    def warn(self, path: tuple[str | int, ...], text: str) -> None:
        message, hint = halves(text)
        self.warnings.append(Problem(self.file, dotted(path), message, hint, self.places.line(path)))

    def read(self) -> str | None:
        content = b""
        try:
            if self.path.is_dir() or (self.path.exists() and not self.path.is_file()):
                self.wrong(FILE, "not a file; write the path of a config file")
                return None
            with self.path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) <= MAX_BYTES:
                return content.decode("utf-8-sig")
            self.wrong(FILE, "larger than 1 MiB; write the tags into CSV files")
        except FileNotFoundError:
            self.wrong(FILE, "there is no such file; write the path of a config file")
        except UnicodeDecodeError as reason:
            line = content.count(b"\n", 0, reason.start) + 1
            self.wrong(FILE, "not UTF-8 text; write it with the encoding UTF-8", line=line)
        except (OSError, ValueError) as reason:
            why = getattr(reason, "strerror", None) or str(reason)
            self.wrong(FILE, f"can't be read: {why}; write the path of a file that this user may read")
        return None

    def parse(self, text: str) -> bool:
        try:
            self.raw = tomllib.loads(text)
        except RecursionError:
            self.wrong(("(syntax)",), "nested too deep; write flat tables")
        except ValueError as reason:
            found = re.fullmatch(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", str(reason), re.DOTALL)
            message = found[1] if found else str(reason)
            line = int(found[2]) if found and found[2] else text.rstrip().count("\n") + 1 if found else None
            wide = _WIDE.search("".join(text.splitlines()[line - 1 : line]).partition("#")[0]) if line else None
            message += f" (the character {wide[0]} is not a plain one)" if wide else ""
            twice = re.search(r"overwrite|twice|mutable|declare", message, re.IGNORECASE)
            hint = (
                "each key and each table once, and devices as [[device]]"
                if twice
                else 'key = "text" or key = 5, and close every quote and bracket'
            )
            self.wrong(("(syntax)",), f"not TOML: {message}; write {hint}", line=line)
        else:
            return True
        return False


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as a problem's field: `device[1].poll`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in path)
    return text.removeprefix(".")


def line_of(file: Path, field: str) -> int | None:
    """The line of a problem's field (`dotted`) in a file that was read before; None where it can't be told."""
    try:
        places = Places(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    return places.line(tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", field)))
