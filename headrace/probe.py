"""`headrace probe URL`: what answers at a Modbus address, and what of it can be read."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from typing import Any

from agent.address import ModbusTable
from agent.endpoint import Endpoint, Framing, LineSettings
from agent.errors import ConfigError, NotConnected, Problem
from headrace.survey import NAMES, OBJECTS, Range, Survey, Told

TCP_UNITS = "0-8,255"
SERIAL_UNITS = "1-247"


def main(options: argparse.Namespace) -> int:
    """0: a unit answered. 1: none did, the line is not there, or it was interrupted. 2: the call is wrong."""
    try:
        endpoint = Endpoint.parse(options.url)
        spoken = endpoint.framing is Framing.MBAP
        units = numbers(options.units or (TCP_UNITS if spoken else SERIAL_UNITS), 255)
        span = numbers(options.addresses, 65535)
        if span != list(range(span[0], span[-1] + 1)):
            raise ValueError(f"{options.addresses!r} is more than one range; write the first and the last, as 0-999")
        tables = list(map(_table, options.tables.split(",")))
    except ValueError as wrong:
        message, _, hint = str(wrong).partition("; ")
        raise ConfigError([Problem("headrace probe", "arguments", message, hint or "see --help")]) from None
    settings = LineSettings(
        (endpoint,), ca=options.ca, cert=options.cert, key=options.key, server_name=options.server_name
    )
    began = time.monotonic()
    with _progress(options.json) as told:
        survey = Survey(
            settings,
            units,
            tables=tables,
            span=(span[0], span[-1]),
            timeout=options.timeout,
            rate=options.rate,
            budget=options.requests,
            told=told,
        )
        why = asyncio.run(_until_stopped(survey))
    facts = facts_of(survey, options.url, time.monotonic() - began)
    if options.json:
        print(json.dumps(facts, ensure_ascii=False))
    elif survey.found or survey.complete:
        show(facts)
    if why:
        print(f"headrace: {why}", file=sys.stderr)
    return 0 if survey.complete and survey.found else 1


async def _until_stopped(survey: Survey) -> str:
    """Runs it to its end, or to Ctrl-C. Returns why it did not get to its end, or found nothing."""
    work = asyncio.ensure_future(survey.run())
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        work.cancel()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopped:
            raise
        return "interrupted: this is what was found until then"
    except NotConnected as reason:
        return str(reason)
    return "" if survey.found else "no unit answers; try other --units, a longer --timeout, or other serial settings"


def numbers(text: str, most: int) -> list[int]:
    """`1-3,7` as [1, 2, 3, 7]. Raises ValueError that says what to write."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"{part[:40]!r} is not a number or a range; write 1-247, or 1,2,17")
        low, high = int(first), int(last or first)
        if not max(low, high) <= most:
            raise ValueError(f"{part[:40]!r} is past {most}; write numbers from 0 to {most}")
        if low > high:
            raise ValueError(f"{part[:40]!r} is out of order; write {high}-{low}")
        found += range(low, high + 1)
    return list(dict.fromkeys(found))


def _table(word: str) -> ModbusTable:
    try:
        return ModbusTable(word.strip())
    except ValueError:
        raise ValueError(f"{word[:20]!r} is not a table; write some of co,di,hr,ir") from None


def facts_of(survey: Survey, url: str, seconds: float) -> dict[str, Any]:
    """What `--json` prints. Ranges are [first, last]; the keys of `tables` are those of addresses (hr, ir, co, di)."""
    return {
        "url": url,
        "complete": survey.complete,
        "requests": survey.requests,
        "seconds": round(seconds, 2),
        "units": [
            {
                "unit": unit.unit,
                "identification": {OBJECTS.get(key, f"0x{key:02X}"): text for key, text in unit.identification.items()},
                "tables": {
                    table.value: {"readable": each.readable, "unknown": each.unknown, "refused": each.refused}
                    for table, each in unit.tables.items()
                },
            }
            for unit in survey.found
        ],
    }


def show(facts: dict[str, Any]) -> None:
    """The same for people."""
    for unit in facts["units"]:
        print(f"unit {unit['unit']}")
        for name, text in unit["identification"].items():
            print(f"  {name:<22}{text}")
        for table, each in unit["tables"].items():
            ranges = _ranges(table, each["readable"]) or each["refused"] or "nothing readable"
            print(f"  {NAMES[ModbusTable(table)]:<22}{ranges}")
            if each["unknown"]:
                print(f"  {'':<22}not looked at: {_ranges(table, each['unknown'])} (see --requests)")
    print(f"{len(facts['units'])} units, {facts['requests']} requests, {facts['seconds']} s")


def _ranges(table: str, ranges: list[Range]) -> str:
    return ", ".join(f"{table}:{first}" + (f"-{last}" if last > first else "") for first, last in ranges)


class _progress:  # noqa: N801  (used as a word: with _progress(...) as told)
    """A bar where rich is installed and someone looks; a line every two seconds otherwise; nothing for scripts."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._said = 0.0

    def __enter__(self) -> Told:
        seen = sys.stderr.isatty()
        if self._quiet and not seen:
            return lambda done, all, doing: None  # noqa: A006, ARG005
        if seen:
            try:
                from rich.console import Console
                from rich.progress import Progress
            except ModuleNotFoundError:
                return self._line
            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task("", total=None)
            return self._move
        return self._line

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _move(self, done: float, all: int, doing: str) -> None:  # noqa: A002
        self._bar.update(self._bar.task_ids[0], completed=done, total=all, description=doing)

    def _line(self, done: float, all: int, doing: str) -> None:  # noqa: A002
        if time.monotonic() - self._said >= 2 or done == all:
            self._said = time.monotonic()
            print(f"{100 * done / all:3.0f} % {doing}", file=sys.stderr, flush=True)
