"""`headrace quality`: the scores of an identifier's readings, from a data center's HTTP interface."""

from __future__ import annotations

import argparse
import json

from headrace.facts import moment
from headrace.query import fetch

_NAMES = ("completeness", "consistency", "timeliness", "validity")


def main(options: argparse.Namespace) -> int:
    """Prints one line a window; with --json what /v1/quality answers."""
    asked = {"id": options.identifier, "from": options.start, "to": options.end}
    asked |= {"window": options.window, "interval": options.interval}
    answer = json.loads(fetch(options.url, "/v1/quality", **asked))
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    print(answer["id"])
    print(f"{'window':<32}{'readings':>9}  {''.join(f'{name:<14}' for name in _NAMES)}account of the streams")
    for window in answer["windows"]:
        scores = "".join(f"{'-' if window[name] is None else f'{window[name]:.4f}':<14}" for name in _NAMES)
        missing = window["gaps"] or window["holes"]
        account = f"{window['gaps']} gaps, {window['holes']} holes" if missing else "not known until its end"
        account = "complete" if window["complete"] else account
        if window["readings_lost"]:
            account += f", {window['readings_lost']} readings lost"
        print(f"{moment(window['from_ns']):<32}{window['readings']:>9}  {scores}{account}")
    return 0
