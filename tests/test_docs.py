"""What the documents name is there: commands and their options, make targets, files, links, config keys, HTTP paths."""

from __future__ import annotations

import argparse
import csv
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agent.config import TABLES, Config
from agent.taglist import COLUMNS
from headrace.commands import parser

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = [
    path
    for folder, ends in (
        *(("agent", "py"), ("headrace", "py"), ("datacenter", "py"), ("simulators", "py"), ("benchmarks", "py")),
        *(("tests", "py"), ("native/src", "rs"), ("native/fuzz", "toml"), ("configs", "toml"), ("agent", "pyi")),
    )
    for path in ROOT.glob(f"{folder}/**/*.{ends}")
]  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str, *languages: str) -> Iterator[str]:
    return (body for language, body in FENCE.findall(text) if language in languages)


def code(text: str) -> Iterator[str]:
    """Every inline code span, and every line of a shell block, a continued one whole."""
    for span in INLINE.findall(FENCE.sub("", text)):
        yield " ".join(span.split())
    for block in blocks(text, "sh", "console", "shell", ""):
        yield from block.replace("\\\n", " ").splitlines()


def subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    wrong = []
    for line in code(page.read_text(encoding="utf-8")):
        called = re.match(r"(?:\$ )?(?:\S*/)?headrace ((?:--log-format json )?[a-z].*)", line.partition("  #")[0])
        if called is None:
            continue
        try:
            words = shlex.split(called[1].partition("   ")[0])
        except ValueError:
            words = called[1].split()
        words = words[2:] if words[0] == "--log-format" else words
        at, options = subcommands(parser()), set[str]()
        for word in words:
            if word == "…":
                options |= {option for each in at.values() for option in each._option_string_actions}
            elif word in at:
                options |= set(at[word]._option_string_actions)
                at = subcommands(at[word])
            elif (not options and "|" not in word) or (word.startswith("--") and word.partition("=")[0] not in options):
                wrong.append(f"{line}: {word}")
                break
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_and_modules_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    wrong = []
    for line in code(page.read_text(encoding="utf-8")):
        if called := re.match(r"make ([a-z][a-z-]*)", line):
            wrong += [] if called[1] in targets else [line]
        for module in re.findall(r"python -m ((?:benchmarks|agent|tests|simulators)[a-z_.]*)", line):
            path = ROOT / module.replace(".", "/")
            wrong += [] if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() else [line]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [
        link
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
        if not (page.parent / link).exists()
    ]  # fmt: skip
    for place, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#([^)\s]+)\)", text):
        target = page.parent / place if place else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if target.exists() else []
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        wrong += [] if anchor in slugs else [f"{place}#{anchor}"]
    files = re.compile(r"(?:tests|agent|headrace|datacenter|simulators|native|benchmarks|configs|docs|\.ci)/[\w./*-]+")
    for line in code(text):
        if files.fullmatch(line):
            wrong += [] if any(ROOT.glob(line.rstrip("/"))) else [line]
    assert not wrong


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or key for key, field in model.model_fields.items()}


def unknown(table: dict[str, Any]) -> Iterator[str]:
    """The keys of a config that no model has."""
    for key, value in table.items():
        if key not in keys(Config):
            yield key
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                continue
            models = [TABLES[p] for p in ("modbus", "opcua") if each.get("protocol", p) == p] if key == "device" else []
            models = models or ([TABLES[key]] if key in TABLES else [])
            yield from (f"{key}.{inner}" for inner in each if models and not any(inner in keys(m) for m in models))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_configs_have_keys_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks(text, "toml"):
        found = tomllib.loads(block)
        if page.name != "faults.md" and not set(found) <= {"fault", "step"}:
            assert list(unknown(found)) == [], block
    for block in blocks(text, "csv"):
        header, *rows = csv.reader(io.StringIO(block))
        if "address" in header:
            assert set(header) <= set(COLUMNS)
            assert {len(row) for row in rows} <= {len(header)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_http_paths_exist(page: Path) -> None:
    served = (ROOT / "datacenter" / "api.py").read_text(encoding="utf-8")
    for line in code(page.read_text(encoding="utf-8")):
        for path in re.findall(r"(?:GET |^)(/v1/[a-z]+)", line):
            assert f'"{path}"' in served, line


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_words_of_the_code_are_in_the_code(page: Path) -> None:
    """Config keys, events, counters: whatever is written with underscores in a code span."""
    words = {
        word
        for span in INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        for word in re.findall(r"(?<![\w./:-])[a-z]+(?:_[a-z0-9]+)+(?![\w./(-])", span)
        if not word.startswith("headrace_")
    }
    plain, composed = code_words()
    missing = {word for word in words - plain if not any(word.startswith(each) for each in composed)}
    assert sorted(missing) == []


@cache
def code_words() -> tuple[frozenset[str], frozenset[str]]:
    """Every word of the sources, and the beginnings of those that are made as `f"discarded_{kind}"`."""
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    return (
        frozenset(word for text in texts for word in re.findall(r"\w+", text)),
        frozenset(word for text in texts for word in re.findall(r'f"([a-z]+_)\{', text)),
    )


def test_nobody_forgot_a_page() -> None:
    """Every page of docs/ is reached from the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    reached = {link.removeprefix("docs/") for link in re.findall(r"\]\((docs/[^)#]+)", readme)}
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    assert pages <= reached
