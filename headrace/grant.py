"""`headrace grant`: adds, lists and revokes grants in the store's folder; a data center that runs heeds them at once.

Each change is in the ledger `grants` before it counts.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from datetime import UTC, datetime
from getpass import getuser

from agent import config as configs
from agent.audit_file import AuditFile
from agent.config import Config
from agent.errors import ConfigError, HeadraceError, Problem
from headrace.facts import moment


def main(options: argparse.Namespace) -> int:
    """`add` prints the token, which can't be seen again; `list` and `revoke` know grants by their short id."""
    config = configs.load(options.config)
    if config.datacenter is None:
        raise _wrong(config, "datacenter", "there is no [datacenter]", "write [datacenter] with a store")
    match options.action:
        case "add":
            return _add(options, config)
        case "revoke":
            return _revoke(options, config)
        case _:
            return _list(options, config)


def _add(options: argparse.Namespace, config: Config) -> int:
    from datacenter.asked import duration
    from datacenter.grants import Grants

    assert config.datacenter is not None
    if not options.who or not options.pattern or not all(options.pattern):
        raise _wrong(config, "grant", "who gets it, and for what", "write --who NAME --pattern '88.118.8/press1.*'")
    until_ns = _until(options.until, config)
    if odd := [pattern for pattern in options.pattern if "*" in pattern[:-1]]:
        hint = "a star stands for the rest of an identifier, at its end: write --pattern '88.118.8/press1.*'"
        raise _wrong(config, "pattern", f"{odd[0]!r} has a star within", hint)
    try:
        window_ns = duration(options.window, "window")
    except Exception as reason:
        raise _wrong(config, "window", str(getattr(reason, "detail", reason)), "write --window 1m") from None
    grants = Grants(config.datacenter.store)
    with closing(_ledger(config)) as ledger, grants.changing() as base:
        grant, token = grants.add(
            base,
            who=options.who,
            patterns=tuple(options.pattern),
            level=options.level,
            form=options.form,
            window_ns=window_ns,
            purpose=options.purpose,
            until_ns=until_ns,
        )
        ledger.append([("grant_added", {**grant.as_dict(), "actor": getuser()})])
    if options.json:
        print(json.dumps({**grant.as_dict(), "token": token}, ensure_ascii=False))
    else:
        print(f"grant {grant.id} for {grant.who}; its token, which is shown this once:\n{token}")
        if config.datacenter.access == "open":
            print('the data center answers everybody; write [datacenter] access = "token" to have tokens asked for')
    return 0


def _revoke(options: argparse.Namespace, config: Config) -> int:
    from datacenter.grants import Grants

    assert config.datacenter is not None
    if not options.grant:
        raise _wrong(config, "grant", "which one", "write the id of a grant; `headrace grant list` shows them")
    grants = Grants(config.datacenter.store)
    with closing(_ledger(config)) as ledger, grants.changing() as base:
        grant = grants.revoke(base, options.grant)
        ledger.append([("grant_revoked", {"grant": grant.id, "who": grant.who, "actor": getuser()})])
    print(json.dumps({"revoked": grant.id}) if options.json else f"grant {grant.id} of {grant.who} is revoked")
    return 0


def _list(options: argparse.Namespace, config: Config) -> int:
    from datacenter import metering
    from datacenter.grants import Grants

    assert config.datacenter is not None
    grants = Grants(config.datacenter.store)
    metering.count(config.datacenter.store / "audit", grants)
    found, metered = grants.all(), grants.metering()
    now = time.time_ns()
    if options.json:
        listed = [{**grant.as_dict(), "live": grant.live(now)} for grant in found]
        print(json.dumps({"grants": listed, "metering": metered}, ensure_ascii=False))
        return 0
    for grant in found:
        state = "live" if grant.live(now) else "revoked" if grant.revoked_ns is not None else "over"
        until = "" if grant.until_ns is None else f", until {moment(grant.until_ns)}"
        print(
            f"{grant.id}  {state:<8}{grant.who}: {', '.join(grant.patterns)}, level {grant.level}, {grant.form}{until}"
        )
    for each in metered:
        print(
            f"{each['month']}  {each['who'] or '(without a token)'}: {each['queries']} queries, {each['refused']}"
            f" refused, {each['readings']} readings, {each['bytes']} bytes"
        )
    return 0


def _ledger(config: Config) -> AuditFile:
    assert config.datacenter is not None
    folder = config.datacenter.store / "audit"
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return AuditFile(folder, "grants", keep_days=config.audit.keep / 86400, max_bytes=config.audit.max_bytes)
        except HeadraceError:
            # Another `headrace grant` is at it; each takes milliseconds.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _until(text: str | None, config: Config) -> int | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _wrong(
            config, "until", f"{text!r} is not a time", "write 2026-12-31 or 2026-12-31T18:00:00+08:00"
        ) from None
    until_ns = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * 10**9
    if until_ns <= time.time_ns():
        raise _wrong(config, "until", f"{text} is over", "write a time to come")
    if until_ns >= 2**63:
        raise _wrong(config, "until", f"{text} is further than the year 2261", "leave --until out: then it has no end")
    return until_ns


def _wrong(config: Config, field: str, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(str(config.path), field, message, hint)])
