"""`headrace reconcile`: is everything that agents accepted in the data center, or what is missing and why?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from headrace.facts import moment
from headrace.query import fetch


def main(options: argparse.Namespace) -> int:
    """Prints the account of an interval. 0 where it is complete, 1 where something is missing."""
    asked = {"id": options.identifier, "from": options.start, "to": options.end}
    body = fetch(options.url, "/v1/completeness", **asked)
    answer = json.loads(body)
    print(body.decode() if options.json else _told(answer))
    if not answer["complete"] and not options.json:
        print("not complete", file=sys.stderr)
    return 0 if answer["complete"] else 1


def _told(answer: dict[str, Any]) -> str:
    if not answer["streams"]:
        return "no stream has readings of that interval"
    lines = []
    for each in answer["streams"]:
        closed = " (closed)" if each["closed"] else ""
        verdict = "complete" if each["complete"] else "NOT complete"
        until = moment(each["known_until_ns"])
        lines.append(f"{each['agent']}  stream {each['stream']}{closed}: {verdict}, known until {until}")
        lines += [
            f"  lost     {moment(gap['from_ns'])} to {moment(gap['to_ns'])}: "
            f"{gap['readings'] or 'unknown number of'} readings, {gap['reason']}"
            for gap in each["gaps"]
        ]
        lines += [
            f"  awaited  blocks {hole['first']} to {hole['last']}, sealed between {moment(hole['from_ns'])} and "
            f"{moment(hole['to_ns'])}"
            for hole in each["holes"]
        ]
    return "\n".join(lines)
