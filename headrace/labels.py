"""`headrace labels`: the inventory of what is collected, by its labels (分类清单), and where it goes."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from typing import Any

from agent import config as configs
from agent.config import Config
from agent.labels import CHINESE
from agent.policy import Policy

COLUMNS = ("identifier", "device", "tag", "domain", "level", "category", "uplink", "withheld", "description")
LEVELS = {1: "一级", 2: "二级", 3: "三级"}


def main(options: argparse.Namespace) -> int:
    found = inventory(configs.load(options.config))
    if options.json or options.format == "json":
        print(json.dumps(found, ensure_ascii=False))
    elif options.format == "csv":
        # Spreadsheets take it for UTF-8 where it begins with a mark.
        sys.stdout.write("\ufeff")
        writer = csv.DictWriter(sys.stdout, COLUMNS)
        writer.writeheader()
        writer.writerows(found["tags"])
    else:
        _table(found)
    return 0


def inventory(config: Config) -> dict[str, Any]:
    """Every tag with its labels and where the egress policy lets it go, and how many there are of each."""
    policy = Policy(config.egress, config.uplink)
    rows = []
    for tag in config.tags:
        way = policy.way(tag)
        values = (tag.domain, tag.level, tag.category, way.uplink or "", way.reason, tag.description)
        rows.append(dict(zip(COLUMNS, (tag.identifier, tag.device, tag.name, *values), strict=True)))
    counts = Counter((row["domain"], row["level"], row["category"], row["uplink"]) for row in rows)
    summary = [
        dict(zip(("domain", "level", "category", "uplink", "tags"), (*key, count), strict=True))
        for key, count in sorted(counts.items(), key=str)
    ]
    return {"agent": config.agent.id, "tags": rows, "summary": summary}


def _table(found: dict[str, Any]) -> None:
    print(f"{'identifier':<40} {'domain':<16} {'level':<8} {'category':<14} goes to")
    for row in found["tags"]:
        goes = row["uplink"] or f"nowhere ({row['withheld']})"
        level = f"{row['level']} {LEVELS[row['level']]}" if row["level"] else "-"
        labels = f"{_both(row['domain']):<16} {level:<8} {_both(row['category']):<14}"
        print(f"{row['identifier']:<40} {labels} {goes}")
    print()
    for row in found["summary"]:
        labels = f"{_both(row['domain'])}, level {row['level'] or '-'}, {_both(row['category'])}"
        print(f"{row['tags']:>8} tags: {labels} -> {row['uplink'] or 'nowhere'}")


def _both(word: str) -> str:
    return f"{word} {CHINESE[word]}" if word else "-"
