"""`headrace browse`: the nodes of an OPC UA server, as a tree, as JSON, or as a tag list ready to use."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import io
import json
import logging
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent import config as configs
from agent import quantity
from agent.address import NodeAddress
from agent.config import OpcUaDevice
from agent.errors import ConfigError, NotConnected, Problem
from agent.model import ValueType
from headrace.trust import checked_url, pki_of

if TYPE_CHECKING:
    from agent.collectors.opcua.browsing import Found

COLUMNS = ("name", "address", "type", "unit", "low", "high", "description")
LONGEST_NAME = 64


def main(options: argparse.Namespace) -> int:
    """Exit 0 with the whole address space, 1 with a part of it: what was found is printed all the same."""
    device = _device(options)
    as_list = options.csv or (options.output is not None and options.output.suffix.lower() == ".csv")
    logging.getLogger("headrace.collector").setLevel(
        logging.ERROR
    )  # why there is no connection is said once, at the end
    found, why = asyncio.run(_walk(device, _root(options.root), options))
    listed = [each for each in found if _listed(each, options)]
    if options.json:
        text = json.dumps(_facts(options.url, found, listed, whole=not why), ensure_ascii=False) + "\n"
    else:
        text = tags(listed) if as_list else _tree(found, listed)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    if as_list and not options.json and (left := sum(not _tag(each) for each in listed)):
        print(f"{left} variables left out: arrays, structures and others that no tag can hold", file=sys.stderr)
    if why:
        print(f"headrace: this is not all: {why}", file=sys.stderr)
    return 1 if why else 0


async def _walk(device: OpcUaDevice, root: NodeAddress, options: argparse.Namespace) -> tuple[list[Found], str]:
    """What was found, and why it is not all."""
    from agent.collectors.opcua.browsing import Browser
    from agent.collectors.opcua.endpoints import MODES, offered
    from agent.collectors.opcua.link import FAULTS, Link, said
    from agent.collectors.opcua.memory import Memory
    from agent.collectors.opcua.security import Security

    if options.security is None and options.device is None:
        secured = [each for each in await offered(device.url, device.timeout) if each.SecurityMode in MODES]
        if not secured and device.username is None:
            print("warning: the server offers no security: the line is open, and it may be another", file=sys.stderr)
            device = device.model_copy(update={"security": "None"})
    stop = asyncio.Event()
    lost: list[str] = []

    def away(reason: str) -> None:
        lost.append(reason)
        stop.set()

    link = Link(device, Security(device, {}), away)
    browser = Browser(link, _Progress(), server_node=options.all)
    try:
        await link.open()
        await link.begin(Memory())
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        whole = await browser.walk(root, options.depth, stop)
        with contextlib.suppress(*FAULTS):
            await link.leave()
    except FAULTS as reason:
        if not browser.found:
            raise NotConnected(said(reason)) from reason
        return browser.found, said(reason)
    finally:
        await link.close()
    if not whole:
        return browser.found, lost[0] if lost else "it was stopped"
    return browser.found, f"the server refused to show what is below {browser.refused} nodes" if browser.refused else ""


class _Progress:
    """A line on stderr now and then, where somebody looks."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, found: int, left: int) -> None:
        if time.monotonic() - self._said >= 1.0:
            self._said = time.monotonic()
            print(f"{found} nodes found, {left} to be looked into", file=sys.stderr, flush=True)


def _device(options: argparse.Namespace) -> OpcUaDevice:
    url = checked_url(options.url)
    if options.device is not None:
        if options.config is None:
            raise _wrong("--device", "a device of no config", "write --config CONFIG as well")
        devices = [each for each in configs.load(options.config).devices if isinstance(each, OpcUaDevice)]
        known = next((each for each in devices if each.name == options.device), None)
        if known is None:
            names = ", ".join(each.name for each in devices) or "there is none"
            raise _wrong("--device", f"{options.device!r} is no OPC UA device of the config", f"write one of: {names}")
        return known.model_copy(update={"url": url})
    keys: dict[str, Any] = {"name": "browse", "protocol": "opcua", "url": url, "tags": "none.csv"}
    keys["security"] = options.security or "auto"
    if options.user:
        keys |= {"username": options.user, "password": os.environ.get("HEADRACE_PASSWORD", "")}
    try:
        device = OpcUaDevice.model_validate(keys, context={"base": Path.cwd()})
    except ValidationError as reason:
        text = str(reason.errors()[0]["msg"])
        message, _, hint = text.removeprefix("Value error, ").partition("; ")
        raise _wrong("--security", message, hint) from None
    device._pki = pki_of(options)
    device._application_uri = "urn:headrace:browse"
    if options.config is not None:
        device._application_uri = f"urn:headrace:agent:{configs.load(options.config).agent.id}"
    return device


def _root(text: str) -> NodeAddress:
    try:
        return NodeAddress.parse(text)
    except ValueError as reason:
        message, _, hint = str(reason).partition("; ")
        raise _wrong("--root", message, hint) from None


def _wrong(field: str, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem("(command line)", field, message, hint)])


def _kind(each: Found) -> str:
    return f"{each.type or each.type_name}{'[]' if each.array else ''}"


def _listed(each: Found, options: argparse.Namespace) -> bool:
    if not each.variable or len(each.path) > options.depth:
        return False
    if options.type and _kind(each) not in options.type:
        return False
    glob = options.filter
    return not glob or fnmatchcase("/".join(each.path), glob) or fnmatchcase(each.path[-1], glob)


def _facts(url: str, found: Sequence[Found], listed: Sequence[Found], *, whole: bool) -> dict[str, Any]:
    variables = [{**asdict(each), "path": "/".join(each.path)} for each in listed]
    for each in variables:
        del each["variable"]
    return {"url": url, "whole": whole, "nodes": len(found), "variables": variables}


def _tree(found: Iterable[Found], listed: Sequence[Found]) -> str:
    """Only the objects that lead to a variable that is listed."""
    shown = {each.path[:length] for each in listed for length in range(1, len(each.path) + 1)}
    wanted = {id(each) for each in listed}
    lines = []
    for each in sorted(found, key=lambda one: one.path):
        if id(each) in wanted:
            kind = _kind(each)
            span = f"  {each.low:g} to {each.high:g}" if each.low is not None and each.high is not None else ""
            unit = f"  {each.unit}" if each.unit else ""
            lines.append(f"{'  ' * (len(each.path) - 1)}{each.path[-1]}  {kind}  {each.id}{unit}{span}\n")
        elif each.path in shown:
            lines.append(f"{'  ' * (len(each.path) - 1)}{each.path[-1]}\n")
    return "".join(lines)


def tags(listed: Iterable[Found]) -> str:
    """A tag list (`agent.taglist`) of the variables that a tag can hold, in the order of their paths."""
    usable = sorted((each for each in listed if _tag(each)), key=lambda each: each.path)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for each, name in zip(usable, names([each.path for each in usable]), strict=True):
        span = ["" if bound is None else f"{bound:.15g}" for bound in (each.low, each.high)]
        unit, description = _plain(each.unit, 64), _plain(each.description, 1000)
        rows.writerow([name, each.id, str(each.type), unit, *span, description])
    return text.getvalue()


def _tag(each: Found) -> bool:
    """Whether a row of a tag list can name it. A cell loses the white space at its ends."""
    if each.type is None or not isinstance(each.type, ValueType) or each.array or each.id != each.id.strip():
        return False
    try:
        return NodeAddress.parse(each.id).text == each.id
    except ValueError:
        return False


def _plain(text: str, most: int) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:most].strip()


def names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """A valid name for each variable, all different: the end of its path that no other has, or with a number."""
    parts = [[_word(step) for step in path] for path in paths]
    chosen: dict[int, str] = {}
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = {at: ".".join(parts[at][-length:]) for at in range(len(parts)) if at not in chosen}
        seen, taken = Counter(ends.values()), set(chosen.values())
        chosen |= {
            at: end for at, end in ends.items() if seen[end] == 1 and end not in taken and len(end) <= LONGEST_NAME
        }
    taken = set(chosen.values())
    numbers: Counter[str] = Counter()  # of what is still without one
    for at, steps in enumerate(parts):
        while at not in chosen:
            stem = ".".join(steps)[-LONGEST_NAME + 8 :].lstrip("._-") or "tag"
            numbers[stem] += 1
            name = f"{stem}_{numbers[stem]}"
            if name not in taken:
                chosen[at] = name
                taken.add(name)
    return [chosen[at] for at in range(len(parts))]


def _word(text: str) -> str:
    word = re.sub(r"[^\w.-]", "_", text)
    try:
        return quantity.name(word)
    except ValueError:
        return re.sub(r"[^A-Za-z0-9_.-]", "_", word)[:LONGEST_NAME] or "tag"
