"""How log lines look to people, and to what reads them."""

from __future__ import annotations

import json
import logging
import re

from headrace.logs import JsonLines, Text


def line(**facts: object) -> logging.LogRecord:
    record = logging.LogRecord("headrace.outbox", logging.ERROR, "", 0, "lost %d readings", (7,), None)
    vars(record).update(facts)
    return record


def test_a_line_in_a_file_has_its_date() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d error   lost 7 readings", Text(terminal=False).format(line()))


def test_a_line_on_a_terminal_is_short_and_painted() -> None:
    shown = Text(terminal=True).format(line())
    assert re.fullmatch(r"\x1b\[31m\d\d:\d\d:\d\d error   lost 7 readings\x1b\[0m", shown)


def test_a_json_line_has_its_facts() -> None:
    found = json.loads(JsonLines().format(line(event="outbox_dropped", stream="s", lost=7)))
    assert (found["event"], found["level"], found["stream"], found["lost"]) == ("outbox_dropped", "error", "s", 7)
    assert (found["part"], found["message"]) == ("headrace.outbox", "lost 7 readings")
