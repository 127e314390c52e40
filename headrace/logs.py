"""How log records look: one readable line, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PAINT = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What a record says besides its sentence: `event`, `device`, `stream`, `lost` and the like."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


class JsonLines(logging.Formatter):
    """`{"time", "level", "part", "event", ..., "message"}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": record.name,
            **facts(record),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Text(logging.Formatter):
    """Time, level, sentence. On a terminal in color, and without the date: in a file days lie between two lines."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._color = terminal
        self._clock = "%H:%M:%S" if terminal else "%Y-%m-%d %H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime(self._clock)
        line = f"{clock} {record.levelname.lower():<7} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        paint = _PAINT.get(record.levelname) if self._color else None
        return f"{paint}{line}\x1b[0m" if paint else line


def start(form: str, level: str) -> None:
    """Sends the records of Headrace to stderr; those of libraries only from warnings up."""
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(JsonLines() if form == "json" else Text(terminal=sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(logging.WARNING)
    logging.getLogger("headrace").setLevel(level.upper())
