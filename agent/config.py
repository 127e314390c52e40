"""The config: one TOML file and a CSV tag list per device, read and checked at once.

`check` finds every problem of all the files; `load` raises them. `python -m agent.config` prints the JSON schema.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from agent import quantity, tables, taglist, units
from agent.document import Document, dotted
from agent.errors import ConfigError, Problem
from agent.findings import center_findings, egress_findings, label_problems, resolver_findings
from agent.labels import LabelRules
from agent.limits import unreadable
from agent.modbus_options import misfits
from agent.model import Tag
from agent.naming import Names
from agent.sharing import TABLES as SHARING
from agent.sharing import Egress, Resolver
from agent.simulation import Simulation
from agent.table import Table, is_file
from agent.tables import (
    DEPRECATED,
    Agent,
    Audit,
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
from agent.wire import Broker, Catalog, CatalogTag, without_password
from agent.wording import explain, halves

__all__ = ["Checked", "Config", "Device", "ModbusDevice", "OpcUaDevice", "check", "load", "schema"]
TABLES = tables.TABLES | SHARING
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
        found = []
        products = {}
        for device in self.devices:
            if device.product and (facts := device.product.facts()):
                products[device.name] = facts
            source = {"protocol": device.protocol, "url": without_password(device.url)}
            found += [
                CatalogTag(
                    tag=tag.index,
                    device=tag.device,
                    name=tag.name,
                    identifier=tag.identifier,
                    type=tag.reading_type.value,
                    unit=tag.unit,
                    unit_code=units.code(tag.unit),
                    low=tag.low,
                    high=tag.high,
                    domain=tag.domain,
                    level=tag.level,
                    category=tag.category,
                    redundant=tag.redundant,
                    description=tag.description,
                    source={**source, "address": tag.address},
                )
                for tag in device.tags
            ]
        return Catalog(self.agent.id, tuple(found), products)


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
                self.open_line(at, device)
        names = self.raw.get("identifiers")
        if isinstance(names, dict) and "{prefix}" in str(names.get("template")) and "prefix" not in names:
            self.wrong(
                ("identifiers", "template"), 'there is no prefix for {prefix}; write prefix = "88.118.8" (yours)'
            )

    def open_line(self, at: int, device: dict[str, Any]) -> None:
        """What the security of an OPC UA device says of its line, and of the user on it."""
        place, security = ("device", at), str(device.get("security", "auto"))
        if security == "None":
            self.warn(
                (*place, "security"),
                "nothing is signed or encrypted, and the server is not checked;"
                ' write security = "auto", unless the network is one that you trust',
            )
        elif security.partition("/")[0] in DEPRECATED:
            self.warn(
                (*place, "security"),
                f"{security} is deprecated: its SHA-1 can be forged;"
                ' write security = "auto" where the server offers a current policy',
            )
        self.user(place, device, security)

    def user(self, place: tuple[str | int, ...], device: dict[str, Any], security: str) -> None:
        if "password" in device and "username" not in device:
            self.wrong((*place, "password"), "a password without a user; write username as well")
        elif "password" in device and device.get("plain_password") == "allow":
            self.warn(
                (*place, "plain_password"),
                "the password may cross the line unencrypted; write none, or a user who may only read",
            )
        elif "password" in device and security == "None":
            self.wrong(
                (*place, "password"),
                'the password would cross the line unencrypted; write security = "auto", or plain_password = "allow"',
            )
        pair = [key for key in ("user_certificate", "user_key") if key in device]
        if len(pair) == 1:
            missing = ({"user_certificate", "user_key"} - {*pair}).pop()
            self.wrong((*place, pair[0]), f"one is of no use without the other; write {missing} as well")
        elif pair and "username" in device:
            self.wrong((*place, "username"), "the user has a name and a certificate; write one of them only")
        elif pair and security == "None":
            self.wrong(
                (*place, "user_certificate"),
                'a certificate proves nothing on a line without security; write security = "auto"',
            )

    def ways(self, config: Config) -> None:
        """What the config names on this machine must be there, and passwords must not cross a line in the open."""
        uplink = config.uplink
        for name, what in (("ca", "the broker's CA"), ("cert", "a certificate"), ("key", "the certificate's key")):
            path = getattr(uplink, name)
            if path is not None and not is_file(path):
                self.wrong(("uplink", name), f"there is no file {path}; write the path of {what} in PEM form")
        if uplink.key is not None and uplink.cert is None:
            self.wrong(("uplink", "key"), "a key without a certificate; write cert as well")
        urls = [uplink.url, *uplink.backup]
        for name in ("ca", "cert"):
            if getattr(uplink, name) is not None and not any(url.startswith("mqtts://") for url in urls):
                self.warn(("uplink", name), 'it is not used without TLS; write url = "mqtts://host:8883"')
        for at, url in enumerate(urls):
            self.open_password(("uplink", "backup", at - 1) if at else ("uplink", "url"), url, uplink.insecure_password)
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

    def open_password(self, field: tuple[str | int, ...], url: str, allowed: str) -> None:
        """A password without TLS is for this machine only, unless the config says that it is meant."""
        broker = Broker.parse(url)
        if broker.tls or broker.password is None or broker.host in ("localhost", "127.0.0.1", "::1"):
            return
        if allowed == "allow":
            self.warn(field, "the password crosses the line unencrypted; write mqtts:// where the broker has TLS")
        else:
            wanted = 'write mqtts://, or insecure_password = "allow" if you mean it'
            self.wrong(field, f"the password would cross the line unencrypted; {wanted}")

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
    names = iter(identifiers)
    found: list[Tag] = []
    for device, tags in zip(config.devices, lists, strict=True):
        order = device.order if isinstance(device, ModbusDevice) else "ABCD"
        first = len(found)
        for at, (_, row) in enumerate(tags.rows):
            tag = _tag(first + at, device, row, order=order, identifier=next(names), rules=config.labels)
            found.append(device.on_wire(tag, row.address) if isinstance(device, ModbusDevice) else tag)
        device._tags = tuple(found[first:])
        if isinstance(device, OpcUaDevice) and config.agent_table is not None:
            device._pki = config.agent.data_dir / "pki"
            device._application_uri = f"urn:headrace:agent:{quote(config.agent.id)}"
    config._tags = tuple(found)
    config._path = path


def _tag(index: int, device: Device, row: TagRow, *, order: str, identifier: str, rules: LabelRules) -> Tag:
    return Tag(
        index=index,
        device=device.name,
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
        domain=row.domain or device.domain or rules.domain or "",
        level=row.level or device.level or rules.level,
        category=row.category or device.category or rules.category or "",
        redundant=row.redundant,
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
