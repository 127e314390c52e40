"""The arrows between the parts: who may import whom, in Python and in Rust.

Everything is read from the source, so that an import in a function or for types only counts as well. A new module has
to be given its place here before the tests pass.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Part(NamedTuple):
    """Modules that belong together, and the other parts that they may import. `name.` is a package with all in it."""

    modules: tuple[str, ...]
    takes: tuple[str, ...]


_CONFIG = ("native", "words", "address")
_MIDDLE = (*_CONFIG, "config")
_PIPELINE = (*_MIDDLE, "pki", "collectors", "outbox", "uplink", "identifiers")

PARTS = {
    "native": Part(("agent._native",), ()),
    "words": Part(
        (
            "agent",
            "agent.allocator",
            "agent.clock",
            *("agent.backoff", "agent.durable", "agent.envelope"),
            "agent.model",
            "agent.errors",
            "agent.wire",
            "agent.export",
            "agent.opening",
            "agent.piece",
            "agent.probe",
            "agent.ranges",
            "agent.tls",
            *("agent.audit", "agent.audit_file", "agent.audit_queue"),
        ),
        ("native",),
    ),
    "address": Part(("agent.address", "agent.encoding", "agent.limits"), ("native", "words")),
    "config": Part(
        tuple(
            f"agent.{name}"
            for name in (
                *(
                    "binding",
                    "budget",
                    "config",
                    "devices",
                    "document",
                    "endpoint",
                    "modbus_options",
                    "openness",
                    "places",
                ),
                *("quantity",),
                *("sheet", "slip", "table", "tables", "taglist", "tagrow", "wording"),
                *("findings", "labels", "naming", "policy", "product", "sharing", "simulation", "units"),
            )
        ),
        _CONFIG,
    ),
    "collectors": Part(("agent.collectors.",), (*_MIDDLE, "pki")),
    "pki": Part(("agent.pki.",), _CONFIG),
    "outbox": Part(
        tuple(
            f"agent.{name}"
            for name in (
                "outbox",
                "contents",
                "outbox_file",
                "entry",
                "group",
                "quota",
                "catalogs",
                "delivered",
                "marks",
                "disk",
                "renewal",
                "salvage",
                "session",
                "streams",
            )
        ),
        _MIDDLE,
    ),
    "uplink": Part(("agent.uplink",), _MIDDLE),
    "identifiers": Part(("agent.identifiers.",), _MIDDLE),
    "pipeline": Part(
        tuple(
            f"agent.{name}"
            for name in (
                "pipeline",
                "intake",
                "health",
                "status",
                "delivery",
                "backlog",
                "brokers",
                "flight",
                "poison",
                *("announced", "traffic"),
                "receipts",
                "suspicion",
                *("doubts", "gate", "lanes", "ledgers", "lookup", "misfits", "moment", "reload"),
                *("sealer", "split", "verdict"),
            )
        ),
        _PIPELINE,
    ),
    "datacenter": Part(("datacenter.",), ("native", "words")),
    "simulators": Part(("simulators.",), (*_PIPELINE, "pipeline", "datacenter")),
    "headrace": Part(("headrace.",), (*_PIPELINE, "pipeline", "datacenter", "simulators")),
}

# Each library of others, and where it may be imported: a file, or a folder with all in it.
HOMES = {
    "asyncua": ("agent/collectors/opcua/", "simulators/opcua_"),
    "cryptography": ("agent/pki/", "agent/collectors/opcua/", "agent/identifiers/", "headrace/trust.py", "simulators/"),
    "pymodbus": ("agent/collectors/frames.py",),
    "serial": ("agent/collectors/carrier.py",),
    "aiosqlite": ("agent/outbox.py",),
    "paho": ("agent/uplink.py", "datacenter/subscription.py"),
    "duckdb": ("datacenter/store.py",),
    "pyarrow": ("datacenter/", "headrace/decode.py", "simulators/replay.py"),
    "starlette": ("datacenter/",),
    "uvicorn": ("datacenter/",),
    "pydantic": (
        *(
            "headrace/browse.py",
            "headrace/resolve.py",
            "agent/config.py",
            "agent/devices.py",
            "agent/modbus_options.py",
            "agent/table.py",
        ),
        *("agent/tables.py", "agent/taglist.py", "agent/tagrow.py", "agent/wording.py"),
        *("agent/labels.py", "agent/product.py", "agent/sharing.py", "agent/simulation.py", "simulators/faults.py"),
    ),
    "pydantic_core": ("agent/config.py", "agent/taglist.py", "agent/wording.py"),
    "orjson": ("agent/", "datacenter/", "headrace/", "simulators/"),
    "rich": ("headrace/",),
    "aiohttp": ("agent/identifiers/node.py",),
    "yarl": ("agent/identifiers/node.py",),
    "prometheus_client": ("agent/status.py", "datacenter/metrics.py"),
}

# A Rust module may use those of the floors below it; those of the lowest floor also each other.
RUST_FLOORS = (
    ("error", "tag", "value", "values", "joined", "identifier", "base64"),
    ("filter", "codec", "decode"),
    ("column", "memory"),
    ("body",),
    ("block",),
    ("buffer", "arrow", "json"),
    ("python",),
    ("lib",),
)

PACKAGES = ("agent", "datacenter", "simulators", "headrace")
Sources = Mapping[str, str]
"""Path from the root -> text."""


def read(folders: tuple[str, ...], ending: str) -> Sources:
    """The source files below some folders."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob(f"*{ending}"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}


def module_of(path: str) -> str:
    """`agent/collectors/__init__.py` -> `agent.collectors`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def part_of(module: str) -> str | None:
    """The part that a module belongs to; None where it has no place yet."""
    for name, part in PARTS.items():
        for each in part.modules:
            if module == each.removesuffix(".") or (each.endswith(".") and module.startswith(each)):
                return name
    return None


def imports(path: str, text: str, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from agent import outbox` is `agent.outbox` where that is a module."""
    package = module_of(path).split(".")
    if not path.endswith("/__init__.py"):
        package.pop()
    for node in ast.walk(ast.parse(text, path)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, each.name) for each in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                whole = {f"{base}.{each.name}" for each in names}
                yield from ((node.lineno, target) for target in sorted(whole & modules))
                if whole - modules:
                    yield node.lineno, base
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]
            ):
                if called in {"import_module", "__import__"}:
                    yield node.lineno, name


def wrong_python(sources: Sources) -> list[str]:
    """Every import that no arrow allows, as a sentence with its place."""
    modules = frozenset({module_of(path) for path in sources} | {"agent._native"})
    wrong = []
    for path, text in sources.items():
        part = part_of(module_of(path))
        if part is None:
            wrong.append(f"{path}: has no place among PARTS in tests/test_arrows.py")
            continue
        for line, target in imports(path, text, modules):
            top = target.split(".")[0]
            if top in PACKAGES:
                other = part_of(target)
                if other is None:
                    wrong.append(f"{path}:{line}: imports {target}, which has no place among PARTS")
                elif other not in (part, *PARTS[part].takes):
                    wrong.append(f"{path}:{line}: {part} may not import {target} ({other})")
            elif top not in sys.stdlib_module_names and not path.startswith(HOMES.get(top, ("\0",))):
                wrong.append(f"{path}:{line}: {top} may be imported only in {', '.join(HOMES.get(top, ['no file']))}")
    return wrong


def rust_uses(text: str) -> Iterator[str]:
    """The first names of all paths from the crate's root, also those in braces: `crate::{a, b::c}` is a and b.

    `super::` counts as the root too: where it is not, its names are no top-level modules.
    """
    text = re.sub(r"//.*", "", text)
    for start in re.finditer(r"\b(?:crate|super)::\s*", text):
        rest = text[start.end() :]
        if not rest.startswith("{"):
            yield from re.findall(r"^\w+", rest)
            continue
        depth, word = 0, ""
        for letter in rest:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 1 and letter != "{":
                word += letter
            if depth == 0:
                break
        yield from (found[0] for each in word.split(",") if (found := re.findall(r"\w+", each)))


def wrong_rust(sources: Sources) -> list[str]:
    """Every use that the order of the core does not allow, as a sentence with its place."""
    floor_of = {name: floor for floor, names in enumerate(RUST_FLOORS) for name in names}
    wrong = []
    for path, text in sources.items():
        own = path.removeprefix("native/src/").removesuffix(".rs").split("/")[0]
        if own not in floor_of:
            wrong.append(f"{path}: has no place among RUST_FLOORS in tests/test_arrows.py")
            continue
        for other in rust_uses(text):
            floor = floor_of.get(other)
            if floor is None or other == own or floor == floor_of[own] == 0:
                continue
            if floor >= floor_of[own]:
                wrong.append(f"{path}: {own} may not use {other}")
        if own != "python" and re.search(r"\bpyo3\b", re.sub(r"//.*", "", text)):
            wrong.append(f"{path}: pyo3 may be used only in native/src/python.rs and native/src/python/")
    return wrong


def test_python_arrows() -> None:
    sources = read(PACKAGES, ".py")
    assert "agent/model.py" in sources
    assert wrong_python(sources) == []


def test_rust_arrows() -> None:
    sources = read(("native/src",), ".rs")
    assert "native/src/lib.rs" in sources
    assert wrong_rust(sources) == []


def test_the_command_line_loads_no_part_before_its_command_is_used() -> None:
    code = f"import sys, headrace.cli; print(*sorted({set(PACKAGES[:3])} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (found.stdout.strip(), found.stderr) == ("", "")


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("agent/model.py", "import agent.config", "words may not import agent.config (config)"),
        ("agent/config.py", "from agent import outbox", "config may not import agent.outbox (outbox)"),
        ("agent/outbox.py", "from . import uplink", "outbox may not import agent.uplink (uplink)"),
        ("agent/uplink.py", "def f():\n    from agent.collectors.modbus import x", "may not import agent.collectors"),
        ("agent/collectors/modbus.py", "from ..outbox import Outbox", "collectors may not import agent.outbox"),
        ("agent/pipeline.py", "import datacenter.store", "pipeline may not import datacenter.store (datacenter)"),
        ("datacenter/store.py", "from agent.config import load", "datacenter may not import agent.config (config)"),
        ("datacenter/store.py", "import simulators", "datacenter may not import simulators (simulators)"),
        ("simulators/plant.py", "import headrace.cli", "simulators may not import headrace.cli (headrace)"),
        ("simulators/plant.py", "import_module('headrace.cli')", "simulators may not import headrace.cli"),
        ("agent/pipeline.py", "import asyncua.ua", "asyncua may be imported only in agent/collectors/opcua/"),
        ("datacenter/ledger.py", "import duckdb", "duckdb may be imported only in datacenter/store.py"),
        ("agent/uplink.py", "import requests", "requests may be imported only in no file"),
        ("agent/novelty.py", "", "agent/novelty.py: has no place"),
        ("agent/pipeline.py", "import agent.novelty", "agent.novelty, which has no place"),
    ],
)
def test_a_wrong_python_arrow_is_found(path: str, text: str, message: str) -> None:
    others = ("agent/outbox.py", "agent/uplink.py", "agent/config.py", "agent/collectors/modbus.py")
    (found,) = wrong_python({**dict.fromkeys(others, ""), path: text})
    assert message in found


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("native/src/tag.rs", "use crate::filter::Rule;", "tag may not use filter"),
        ("native/src/filter.rs", "fn f() { crate::codec::f() }", "filter may not use codec"),
        ("native/src/codec/real.rs", "use crate::{error::Error, tag::{Value, T}, block};", "codec may not use block"),
        ("native/src/block.rs", "use super::buffer::Buffer;", "block may not use buffer"),
        ("native/src/buffer.rs", "use pyo3::prelude::*;", "pyo3 may be used only in"),
        ("native/src/novelty.rs", "", "native/src/novelty.rs: has no place"),
    ],
)
def test_a_wrong_rust_arrow_is_found(path: str, text: str, message: str) -> None:
    (found,) = wrong_rust({path: text})
    assert message in found


def test_right_arrows_are_none_of_them() -> None:
    text = "from agent.model import Tag\nfrom agent import _native, errors\nimport asyncio\nimport paho.mqtt.client"
    assert wrong_python({"agent/uplink.py": text, "agent/errors.py": "", "agent/model.py": ""}) == []
    rust = "// use crate::python;\nuse crate::{error::Result, tag};\nuse super::{Codec, run};"
    assert wrong_rust({"native/src/codec/real.rs": rust, "native/src/python/block.rs": "use pyo3::Py;"}) == []
