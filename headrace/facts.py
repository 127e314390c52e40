"""`headrace check`, and how times are shown."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from agent import config
from agent.errors import ConfigError


def check(options: argparse.Namespace) -> int:
    """`headrace check`: every problem at once; exit 2 where there is one."""
    found = config.check(options.config)
    if found.config is not None and found.config.simulation.signals:
        from simulators.plant import Plant

        try:
            Plant.of(found.config)
        except ConfigError as wrong:
            found.config, found.problems = None, [*found.problems, *wrong.problems]
    if options.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        for warning in found.warnings:
            print(f"warning: {warning}")
        for problem in found.problems:
            print(f"problem: {problem}")
        if found.config is not None:
            tags, devices = len(found.config.tags), len(found.config.devices)
            print(f"{options.config}: fine, {tags} tag{'s' * (tags != 1)} on {devices} device{'s' * (devices != 1)}")
        else:
            print(f"{options.config}: {len(found.problems)} problem{'s' * (len(found.problems) != 1)}", file=sys.stderr)
    return 2 if found.problems else 0


def moment(time_ns: int) -> str:
    """RFC 3339 with all nine digits, which datetime does not have; the number itself outside of its years."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    except (OverflowError, ValueError, OSError):
        return str(time_ns)
