"""The config: one TOML file and a CSV tag list per device, read and checked at once.

`check` finds every problem of all the files; `load` raises them. `python -m agent.config` prints the JSON schema.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from agent import binding, devices, quantity, tables, taglist
from agent.binding import CatalogTags
from agent.devices import Device, ModbusDevice, OpcUaDevice
from agent.document import Document, dotted
from agent.errors import ConfigError, Problem
from agent.findings import center_findings, egress_findings, label_problems, resolver_findings
from agent.labels import LabelRules
from agent.limits import unreadable
from agent.modbus_options import misfits
from agent.model import Tag
from agent.naming import Names
from agent.openness import opcua_findings, uplink_findings
from agent.sharing import TABLES as SHARING
from agent.sharing import Egress, Resolver
from agent.simulation import Simulation
from agent.table import Table, is_file
from agent.tables import Agent, Audit, DataCenter, Identifiers, Outbox, Seal, Status, Uplink
from agent.taglist import TagList
from agent.wire import Catalog
from agent.wording import explain, halves

__all__ = ["Checked", "Config", "Device", "ModbusDevice", "OpcUaDevice", "check", "load", "schema"]
TABLES = tables.TABLES | devices.TABLES | SHARING
NO_AGENT = "there is no [agent]; write [agent] with an id and a data_dir"


class Config(Table):
    """A whole config. What the file leaves out has its default."""

    agent_table: Agent | None = Field(None, alias="agent", title="Agent")
    identifiers: Identifiers = Field(default_factory=lambda: Identifiers.model_validate({}))
    seal: Seal = Field(default_factory=lambda: Seal.model_validate({}))
    outbox: Outbox = Field(default_factory=lambda: Outbox.model_validate({}))
    uplink: Uplink = Field(default_factory=lambda: Uplink.model_validate({}))
    datacenter: DataCenter | None = None
    audit: Audit = Field(default_factory=lambda: Audit.model_validate({}))
    status: Status | None = None
    labels: LabelRules = Field(default_factory=lambda: LabelRules.model_validate({}))
    resolver: Resolver | None = None
    egress: Egress | None = None
    simulation: Simulation = Field(default_factory=lambda: Simulation.model_validate({}))
    devices: tuple[Annotated[Device, Field(discriminator="protocol")], ...] = Field((), alias="device", strict=False)
    _path: Path = PrivateAttr(Path())
    _tags: tuple[Tag, ...] = PrivateAttr(())

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return self._path

    @property
    def agent(self) -> Agent:
        """Raises ConfigError in a config that is only a data center's."""
        if self.agent_table is None:
            message, hint = halves(NO_AGENT)
            raise ConfigError([Problem(str(self.path), "agent", message, hint)])
        return self.agent_table

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags of all devices: `tags[i].index == i`."""
        return self._tags

    def catalog(self) -> Catalog:
        """What the data center must know of the tags. Equal configs give equal bytes, so equal epochs."""
        products = {
            device.name: facts for device in self.devices if device.product and (facts := device.product.facts())
        }
        return Catalog(self.agent.id, CatalogTags(self.devices, self.tags), products)


@dataclass(slots=True)
class Checked:
    """What a check found. `config` is None where there is any problem; warnings leave it usable."""

    config: Config | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The form that `headrace check --json` prints."""
        return {
            "ok": not self.problems,
            "problems": [problem.as_dict() for problem in self.problems],
            "warnings": [warning.as_dict() for warning in self.warnings],
        }


def load(path: Path) -> Config:
    """The config of a file. Raises ConfigError with every problem."""
    checked = check(path)
    if checked.config is None:
        raise ConfigError(checked.problems)
    return checked.config


def check(path: Path) -> Checked:
    """Reads and checks a config and its tag lists. Raises nothing: whatever is wrong is a problem."""
    return _Check(Path(path)).run()


def schema() -> dict[str, Any]:
    """The JSON schema of the TOML file, for editors."""
    found = Config.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "Headrace config"}


class _Check:
    """One check of one file, step by step; each step goes as far as the ones before it allow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document = Document(path)
        self.raw = self.document.raw
        self.wrong = self.document.wrong
        self.warn = self.document.warn
        self.problems = self.document.problems
        self.warnings = self.document.warnings

    def run(self) -> Checked:
        if not self.document.readable:
            return Checked(None, self.problems)
        config = self.validate()
        self.whole()
        lists = self.tag_lists()
        self.problems.sort(key=lambda problem: problem.line or 0)
        of_lists = {tags.file: tags for tags in lists if tags}
        self.problems += [problem for tags in of_lists.values() for problem in tags.problems]
        self.warnings += [warning for tags in of_lists.values() for warning in tags.warnings]
        names = self.names(lists)
        whole = [tags for tags in lists if tags]
        if config is not None and len(whole) == len(config.devices):
            _bind(config, self.path, whole, names)
            self.reads(config, whole)
            self.shares(config, whole)
            self.ways(config)
        return Checked(None if self.problems else config, self.problems, self.warnings)

    def validate(self) -> Config | None:
        try:
            return Config.model_validate(self.raw, context={"base": self.path.absolute().parent})
        except ValidationError as reason:
            for error in reason.errors(include_url=False):
                self.problems.append(self.problem(error))
            return None

    def problem(self, error: ErrorDetails) -> Problem:
        path = error["loc"]
        model: type[Table] = Config
        if path[:1] == ("device",) and len(path) > 2:  # the protocol stands where the models branch, not in the file
            model = TABLES[str(path[2])]
            path = (*path[:2], *path[3:])
        elif len(path) > 1:
            model = TABLES.get(f"{path[0]}.{path[1]}") or TABLES.get(str(path[0]), Config)
        message, hint = explain(error, model, TABLES)
        if error["type"].startswith("union_tag"):
            path = (*path, "protocol")
        return Problem(str(self.path), dotted(path), message, hint, self.document.places.line(path))

    def devices(self) -> list[tuple[int, dict[str, Any]]]:
        """The [[device]] tables as far as they are tables, right or wrong."""
        found = self.raw.get("device")
        return (
            [(at, device) for at, device in enumerate(found) if isinstance(device, dict)]
            if isinstance(found, list)
            else []
        )

    def whole(self) -> None:
        """What only the whole file can tell."""
        devices = self.devices()
        if devices and "agent" not in self.raw:
            self.wrong(("agent",), NO_AGENT)
        if devices and "uplink" not in self.raw:
            self.wrong(("uplink",), 'there is no [uplink]; write [uplink] with url = "mqtt://127.0.0.1:1883"')
        if not devices and "device" not in self.raw:
            if "agent" in self.raw:
                self.warn(("agent",), "there is no device to read; write a [[device]]")
            elif "datacenter" not in self.raw:
                self.wrong(("(file)",), "nothing to do; write [agent], [uplink] and [[device]], or [datacenter]")
        seen: dict[str, int] = {}
        for at, device in devices:
            name = device.get("name")
            if isinstance(name, str) and seen.setdefault(name, at) != at:
                line = self.document.places.line(("device", seen[name], "name"))
                self.wrong(
                    ("device", at, "name"),
                    f"the name {quantity.shown(name)} is taken by the device of line {line}; write another",
                )
            if device.get("protocol") == "opcua":
                for key, text, wrong in opcua_findings(device):
                    (self.wrong if wrong else self.warn)(("device", at, key), text)
        names = self.raw.get("identifiers")
        if isinstance(names, dict) and "{prefix}" in str(names.get("template")) and "prefix" not in names:
            self.wrong(
                ("identifiers", "template"), 'there is no prefix for {prefix}; write prefix = "88.118.8" (yours)'
            )

    def ways(self, config: Config) -> None:
        """What the config names on this machine must be there, and passwords must not cross a line in the open."""
        lines: list[tuple[tuple[str, ...], Uplink]] = [(("uplink",), config.uplink)]
        if config.egress and config.egress.level3:
            lines.append((("egress", "level3"), config.egress.level3))
        for table, uplink in lines:
            for keys, text, wrong in uplink_findings(uplink):
                (self.wrong if wrong else self.warn)((*table, *keys), text)
        for at, device in enumerate(config.devices):
            for key in ("user_certificate", "user_key"):
                path = getattr(device, key, None)
                if path is not None and not is_file(path):
                    self.wrong(("device", at, key), f"there is no file {path}; write the path of one in DER or PEM")
        modbus = [(at, device) for at, device in enumerate(config.devices) if isinstance(device, ModbusDevice)]
        for at, name, text in misfits(modbus):
            self.wrong(("device", at, name if name in self.devices()[at][1] else "url"), text)
        for place, text in center_findings(config.datacenter):
            self.warn(("datacenter", place), text)

    def reads(self, config: Config, lists: list[TagList]) -> None:
        """Every tag must be readable within its device's limits."""
        for device, tags in zip(config.devices, lists, strict=True):
            if not isinstance(device, ModbusDevice):
                continue
            lines = {row.name: row.line for row in tags.rows}
            for row in tags.rows:
                if text := device.uncounted(row.modbus):
                    self.problems.append(Problem(tags.file, "address", *halves(text), row.line))
            for tag, column, text in unreadable(device.tags, device.limits, device.poll):
                if len(self.problems) >= taglist.MAX_PROBLEMS:
                    return
                message, hint = halves(text)
                self.problems.append(
                    Problem(tags.file, column, f"of {device.name}: {message}", hint, lines.get(tag.name))
                )

    def shares(self, config: Config, lists: list[TagList]) -> None:
        """Labels that must be there, and readings that may not leave as the file has it."""
        of_tags = [tags for tags in lists for _ in tags.rows]
        for unlabelled, text in label_problems(config.tags, of_tags, config.labels):
            self.problems.append(Problem(unlabelled.file, "level", *halves(text)))
        for place, text, wrong in egress_findings(config.tags, config.egress, config.uplink):
            (self.wrong if wrong else self.warn)(place, text)
        for key, text in resolver_findings(config.resolver):
            self.wrong(("resolver", key), text)

    def tag_lists(self) -> list[TagList | None]:
        """The tag list of every device; None where its name or its device's protocol is not known."""
        found: list[TagList | None] = []
        known: dict[tuple[str, str], TagList] = {}
        for at, device in self.devices():
            name, protocol = device.get("tags"), device.get("protocol")
            if not isinstance(name, str) or not name or not name.isprintable() or protocol not in ("modbus", "opcua"):
                found.append(None)
                continue
            path = self.path.parent / name
            try:
                if not path.is_file():
                    raise FileNotFoundError
                if (name, protocol) not in known:
                    known[name, protocol] = taglist.read(path, protocol)
                found.append(known[name, protocol])
            except FileNotFoundError:
                self.wrong(
                    ("device", at, "tags"),
                    f"there is no file {path}; write the path of its CSV, from this file's place",
                )
                found.append(None)
            except OSError as reason:
                self.wrong(
                    ("device", at, "tags"),
                    f"{path} can't be read: {reason.strerror}; write the path of a file that can",
                )
                found.append(None)
        return found

    def names(self, lists: list[TagList | None]) -> list[str]:
        """The identifiers of all good rows, in order; empty where the file is not good enough to make one."""
        named = ((name if isinstance(name := device.get("name"), str) else None) for _, device in self.devices())
        found = Names().read(zip(named, lists, strict=True), self.maker())
        self.problems += found.problems
        self.warnings += found.warnings
        return found.texts

    def maker(self) -> tuple[Agent, Identifiers] | None:
        """What identifiers are made with, where the file has it right."""
        try:
            agent = Agent.model_validate(self.raw.get("agent"), context={"base": self.path.parent})
            return agent, Identifiers.model_validate(self.raw.get("identifiers", {}))
        except ValidationError:
            return None


def _bind(config: Config, path: Path, lists: list[TagList], identifiers: list[str]) -> None:
    """Gives the config its path and its tags, which are not in the TOML file."""
    for device, tags in zip(
        config.devices, binding.tags(config.devices, lists, identifiers, config.labels), strict=True
    ):
        device._tags = tags
        if isinstance(device, OpcUaDevice) and config.agent_table is not None:
            device._pki = config.agent.data_dir / "pki"
            device._application_uri = f"urn:headrace:agent:{quote(config.agent.id)}"
    config._tags = tuple(chain.from_iterable(device.tags for device in config.devices))
    config._path = path


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
