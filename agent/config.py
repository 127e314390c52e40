"""The config: one TOML file and a CSV tag list per device, read and checked at once.

`check` finds every problem of all the files; `load` raises them. `python -m agent.config` prints the JSON schema.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from agent import quantity, taglist
from agent.document import Document, dotted
from agent.errors import ConfigError, Problem
from agent.limits import unreadable
from agent.modbus_options import misfits
from agent.model import Tag
from agent.simulation import Simulation
from agent.table import Table, is_file
from agent.tables import (
    TABLES,
    Agent,
    DataCenter,
    Device,
    Identifiers,
    ModbusDevice,
    OpcUaDevice,
    Outbox,
    Seal,
    Status,
    Uplink,
)
from agent.taglist import TagList
from agent.tagrow import TagRow
from agent.wire import Catalog, CatalogTag, without_password
from agent.wording import explain, halves

__all__ = ["Checked", "Config", "Device", "ModbusDevice", "OpcUaDevice", "check", "load", "schema"]
NO_AGENT = "there is no [agent]; write [agent] with an id and a data_dir"


class Config(Table):
    """A whole config. What the file leaves out has its default."""

    agent_table: Agent | None = Field(None, alias="agent", title="Agent")
    identifiers: Identifiers = Field(default_factory=lambda: Identifiers.model_validate({}))
    seal: Seal = Field(default_factory=lambda: Seal.model_validate({}))
    outbox: Outbox = Field(default_factory=lambda: Outbox.model_validate({}))
    uplink: Uplink = Field(default_factory=lambda: Uplink.model_validate({}))
    datacenter: DataCenter | None = None
    status: Status | None = None
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
        found = []
        for device in self.devices:
            source = {"protocol": device.protocol, "url": without_password(device.url)}
            found += [
                CatalogTag(
                    tag=tag.index,
                    device=tag.device,
                    name=tag.name,
                    identifier=tag.identifier,
                    type=tag.reading_type.value,
                    unit=tag.unit,
                    low=tag.low,
                    high=tag.high,
                    domain=tag.domain,
                    level=tag.level,
                    description=tag.description,
                    source={**source, "address": tag.address},
                )
                for tag in device.tags
            ]
        return Catalog(self.agent.id, tuple(found))


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
                self.open_line(at, device)
        names = self.raw.get("identifiers")
        if isinstance(names, dict) and "{prefix}" in str(names.get("template")) and "prefix" not in names:
            self.wrong(
                ("identifiers", "template"), 'there is no prefix for {prefix}; write prefix = "88.118.8" (yours)'
            )

    def open_line(self, at: int, device: dict[str, Any]) -> None:
        if "security" not in device:
            self.warn(
                ("device", at),
                'no security is named, so nothing is signed or encrypted; write security = "None" if you mean it',
            )
        elif device["security"] != "None":
            self.warn(
                ("device", at, "security"),
                "this security is not in this version, so the device will not be connected;"
                ' write security = "None", on a network you trust',
            )
        if "password" in device and "username" not in device:
            self.wrong(("device", at, "password"), "a password without a user; write username as well")
        elif "password" in device:
            self.warn(
                ("device", at, "password"),
                "the password crosses the line unencrypted; write none, or a user who may only read",
            )

    def ways(self, config: Config) -> None:
        """What the config names on this machine must be there."""
        ca = config.uplink.ca
        if ca is not None and not is_file(ca):
            self.wrong(("uplink", "ca"), f"there is no file {ca}; write the path of the broker's CA in PEM form")
        if ca is not None and config.uplink.url.startswith("mqtt://"):
            self.warn(("uplink", "ca"), 'it is not used without TLS; write url = "mqtts://host:8883"')
        modbus = [(at, device) for at, device in enumerate(config.devices) if isinstance(device, ModbusDevice)]
        for at, name, text in misfits(modbus):
            self.wrong(("device", at, name if name in self.devices()[at][1] else "url"), text)

    def reads(self, config: Config, lists: list[TagList]) -> None:
        """Every tag must be readable within its device's limits."""
        for device, tags in zip(config.devices, lists, strict=True):
            if not isinstance(device, ModbusDevice):
                continue
            lines = {row.name: line for line, row in tags.rows}
            for line, row in tags.rows:
                if text := device.uncounted(row.address):
                    self.problems.append(Problem(tags.file, "address", *halves(text), line))
            for tag, column, text in unreadable(device.tags, device.limits, device.poll):
                if len(self.problems) >= taglist.MAX_PROBLEMS:
                    return
                message, hint = halves(text)
                self.problems.append(
                    Problem(tags.file, column, f"of {device.name}: {message}", hint, lines.get(tag.name))
                )

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
        """The identifiers of all good rows, in order. Two tags with one identifier are a problem.

        Identifiers from the template are left empty where the file is not good enough to make them.
        """
        made = self.maker()
        found: list[str] = []
        seen: dict[str, str] = {}
        devices: set[str] = set()
        for (_, device), tags in zip(self.devices(), lists, strict=True):
            name = device.get("name")
            templated = made is not None and isinstance(name, str) and name not in devices
            devices.add(str(name))
            for line, row in tags.rows if tags else ():
                identifier = row.identifier
                if not identifier and made and templated:
                    identifier = made[1].name(made[0].id, str(name), row.name)
                found.append(identifier)
                if not tags or not identifier:
                    continue
                if len(identifier) > 255:
                    self.identifier(tags, line, "the template makes more than 255 characters; write a short one here")
                elif identifier in seen:
                    text = f"{quantity.shown(identifier)} is taken by {seen[identifier]}; write another one here"
                    self.identifier(tags, line, text)
                else:
                    seen[identifier] = f"{tags.file}:{line}"
        return found

    def identifier(self, tags: TagList, line: int, text: str) -> None:
        if len(self.problems) < taglist.MAX_PROBLEMS:
            self.problems.append(Problem(tags.file, "identifier", *halves(text), line))

    def maker(self) -> tuple[Agent, Identifiers] | None:
        """What identifiers are made with, where the file has it right."""
        try:
            agent = Agent.model_validate(self.raw.get("agent"), context={"base": self.path.parent})
            return agent, Identifiers.model_validate(self.raw.get("identifiers", {}))
        except ValidationError:
            return None


def _bind(config: Config, path: Path, lists: list[TagList], identifiers: list[str]) -> None:
    """Gives the config its path and its tags, which are not in the TOML file."""
    names = iter(identifiers)
    found: list[Tag] = []
    for device, tags in zip(config.devices, lists, strict=True):
        order = device.order if isinstance(device, ModbusDevice) else "ABCD"
        first = len(found)
        for at, (_, row) in enumerate(tags.rows):
            tag = _tag(first + at, device.name, order, next(names), row)
            found.append(device.on_wire(tag, row.address) if isinstance(device, ModbusDevice) else tag)
        device._tags = tuple(found[first:])
    config._tags = tuple(found)
    config._path = path


def _tag(index: int, device: str, order: str, identifier: str, row: TagRow) -> Tag:
    return Tag(
        index=index,
        device=device,
        name=row.name,
        address=row.address.text,
        type=row.type.type,
        identifier=identifier,
        order=row.order or order,
        unit=row.unit,
        scale=row.scale,
        offset=row.offset,
        low=row.low,
        high=row.high,
        filter=row.filter,
        domain=row.domain,
        level=row.level,
        description=row.description,
        length=row.type.length,
        form=row.type.form,
        invalid=row.invalid,
        poll=row.poll,
        together=row.together,
        alone=row.alone,
    )


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
