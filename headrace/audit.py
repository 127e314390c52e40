"""`headrace audit verify`: whether the ledgers are whole and unchanged."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from agent import audit
from agent import config as configs
from agent.audit import Head, Report
from agent.errors import ConfigError, HeadraceError, Problem


def main(options: argparse.Namespace) -> int:
    """Exit 0 where nothing was changed, 1 where something was, each finding with its file and line."""
    try:
        anchors = [Head.parse(text) for text in options.anchor]
    except ValueError as reason:
        raise ConfigError(
            [Problem("--anchor", "anchor", str(reason), "write what an earlier verify printed")]
        ) from None
    reports = _reports(options.path, anchors)
    if not reports:
        raise HeadraceError(f"{options.path}: there is no ledger yet")
    if options.json:
        sound = all(report.sound for report in reports)
        print(json.dumps({"sound": sound, "ledgers": [report.as_dict() for report in reports]}, ensure_ascii=False))
    else:
        for report in reports:
            for finding in report.findings:
                print(f"{report.ledger}: {finding}")
            state = "sound" if report.sound else f"{len(report.findings)} findings"
            print(f"{report.ledger}: {report.records} records, {state}; head {report.head}")
    return 0 if all(report.sound for report in reports) else 1


def _reports(path: Path, anchors: Sequence[Head]) -> list[Report]:
    if path.is_dir():
        return [audit.verify(path, name, anchors) for name in audit.names(path)]
    if path.suffix != ".toml":
        if not path.is_file():
            raise HeadraceError(f"there is no file {path}; write a ledger's file, or a config")
        return [audit.verify_file(path, anchors)]
    return [audit.verify(folder, name, anchors) for folder in folders(path) for name in audit.names(folder)]


def folders(path: Path) -> list[Path]:
    """Where a config has its ledgers: the agent's, and the data center's."""
    config = configs.load(path)
    found = [] if config.agent_table is None else [config.agent.data_dir / "audit"]
    return found if config.datacenter is None else [*found, config.datacenter.store / "audit"]
