"""The tables of the config file, one model each. `agent.config` puts them together.

Paths that are not absolute are relative to the config file (`base` in the validation context).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
)

from agent import quantity
from agent.address import Order
from agent.budget import Limit
from agent.model import Tag
from agent.wire import ROOT, Broker, without_password

_PLACES = {"prefix", "agent", "device", "tag"}
_LATER = ("rtu", "rtu+tcp", "ascii+tcp", "udp", "tls")


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f'{quantity.shown(value)} is not a path; write text such as "./var/press-shop-1"')
    base = info.context["base"] if info.context else Path.cwd()
    return Path(base, value)


def _url(text: str, wanted: str) -> SplitResult:
    """The parts of a URL with a host and, where one is written, a port that can be."""
    shown = quantity.shown(without_password(text))
    try:
        parts = urlsplit(text)
        port_fits = parts.port != 0
    except ValueError:
        raise ValueError(f"{shown} is not a URL; write {wanted}") from None
    if not text.isprintable() or " " in text or not parts.hostname or not port_fits:
        raise ValueError(f"{shown} has no host, or a port that can't be; write {wanted}")
    return parts


def _broker(text: str) -> str:
    wanted = "mqtt://host:1883, or mqtts://host:8883 for TLS"
    if text.startswith(("mqtt://", "mqtts://")):
        parts = _url(text, wanted)
        if parts.query or parts.fragment:
            raise ValueError(f"{without_password(text)!r} has more than a host and a port; write {wanted}")
    Broker.parse(text)
    return text


def _format(value: str) -> str:
    if value in ("json", "sparkplug"):
        raise ValueError(f'format {value!r} is not in this version; write format = "block"')
    return value


def _root(text: str) -> str:
    plain = text.isprintable() and not re.search(r"[\s+#$]", text)
    if not plain or not text or len(text) > 128 or not all(text.split("/")):
        raise ValueError(
            f'{quantity.shown(text)} is not a topic; write words and slashes without +, # and $, as "{ROOT}"'
        )
    return text


def _budget(text: str) -> str:
    Limit.parse(text)
    return text


def _authority(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        fine = bool(parts.hostname) and parts.port is not None and parts.netloc == text
    except ValueError:
        fine = False
    if not fine or "@" in text or not text.isprintable() or " " in text:
        raise ValueError(f'{quantity.shown(text)} is not a host and port; write "127.0.0.1:8080"')
    return text


def _template(text: str) -> str:
    quantity.printable(text)
    names = set(re.findall(r"\{(\w+)\}", text))
    odd = sorted(names - _PLACES)
    if odd or set("{}") & set(re.sub(r"\{\w+\}", "", text)):
        wrong = f"unknown {{{odd[0]}}}" if odd else "a stray brace"
        raise ValueError(f"{wrong} in a template; write it with {{prefix}}, {{agent}}, {{device}} and {{tag}} only")
    if "tag" not in names:
        raise ValueError('a template without {tag} gives all tags one identifier; write "{prefix}/{device}.{tag}"')
    return text


def _prefix(text: str) -> str:
    if not text or any(letter.isspace() for letter in text):
        raise ValueError(f'{quantity.shown(text)} is not a prefix; write one without white space, such as "88.118.8"')
    return quantity.printable(text)


def _modbus_url(text: str) -> str:
    wanted = 'url = "tcp://host:502"'
    scheme = text.partition("://")[0]
    if scheme in _LATER:
        raise ValueError(f"{scheme}:// is not in this version; write {wanted} (a gateway for serial devices)")
    if scheme != "tcp":
        raise ValueError(f"{quantity.shown(without_password(text))} is not a Modbus TCP address; write {wanted}")
    parts = _url(text, wanted)
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{quantity.shown(without_password(text))} has more than a host and a port; write {wanted}")
    return text


def _opcua_url(text: str) -> str:
    wanted = 'url = "opc.tcp://host:4840", with a /path where the server has one'
    if not text.startswith("opc.tcp://"):
        raise ValueError(f"{quantity.shown(without_password(text))} is not an OPC UA address; write {wanted}")
    parts = _url(text, wanted)
    if "@" in parts.netloc:
        raise ValueError("the URL has a user name; write username and password as keys of their own")
    if parts.port is None:
        raise ValueError(f"{quantity.shown(text)} has no port; write {wanted}")
    return text


def _security(text: str) -> str:
    # A policy of a later version is only a warning (agent.config): its device waits, the others run.
    policies = "Basic128Rsa15|Basic256|Basic256Sha256|Aes128_Sha256_RsaOaep|Aes256_Sha256_RsaPss"
    if text == "None" or re.fullmatch(rf"({policies})/(Sign|SignAndEncrypt)", text):
        return text
    raise ValueError(f'{quantity.shown(text)} is not a security policy; write security = "None"')


_DURATION = {
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[0-9.]+ *(ms|s|m|h)$"}]
}
_SIZE = {
    "anyOf": [
        {"type": "integer", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+ *([kKMGT]i?)?[bB]$"},
    ]
}
Name: TypeAlias = Annotated[str, AfterValidator(quantity.name)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(quantity.seconds), WithJsonSchema(_DURATION)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(quantity.byte_count), WithJsonSchema(_SIZE)]
FilePath: TypeAlias = Annotated[Path, PlainValidator(_path), WithJsonSchema({"type": "string"})]


class Agent(Table):
    """Who this agent is, and where it keeps what it must not lose."""

    id: Name = Field(description="Its name in MQTT topics and streams.", examples=["press-shop-1"])
    data_dir: FilePath = Field(description="Directory of the outbox.", examples=["./var/press-shop-1"])


class Identifiers(Table):
    """How tags without an identifier of their own get one."""

    prefix: Annotated[str, AfterValidator(_prefix)] | None = Field(
        None, description="Your registered prefix.", examples=["88.118.8"]
    )
    template: Annotated[str, AfterValidator(_template)] | None = Field(
        None,
        description="Made of {prefix}, {agent}, {device} and {tag}. Left out: {prefix}/{device}.{tag} with a prefix, "
        "{agent}/{device}.{tag} without one.",
        examples=["{prefix}/{device}.{tag}"],
    )

    def name(self, agent: str, device: str, tag: str) -> str:
        """The identifier of a tag that has none of its own."""
        known = {"prefix": self.prefix or "", "agent": agent, "device": device, "tag": tag}
        template = self.template or ("{prefix}/{device}.{tag}" if self.prefix else "{agent}/{device}.{tag}")
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], template)


class Seal(Table):
    """When the open block is closed: whichever comes first."""

    after: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "1h"))] = Field(
        1.0, description="Age of its first reading.", examples=["1s"]
    )
    bytes: Annotated[Bytes, AfterValidator(quantity.size_within("256 B", "16 MiB"))] = Field(
        64 * 1024, description="Memory before compression.", examples=["64 KiB"]
    )


class Outbox(Table):
    """The durable queue."""

    max_bytes: Annotated[Bytes, AfterValidator(quantity.size_within("256 KiB", "1024 TiB"))] = Field(
        2 * 1024**3, description="Quota on disk.", examples=["2 GiB"]
    )
    when_full: Literal["drop_oldest", "stop_collecting"] = Field(
        "drop_oldest",
        description="drop_oldest loses the oldest readings and records the gap; stop_collecting pushes back.",
        examples=["drop_oldest"],
    )


class Uplink(Table):
    """The MQTT brokers, and when a block counts as delivered."""

    url: Annotated[str, AfterValidator(_broker)] = Field(
        "mqtt://127.0.0.1:1883",
        description="mqtt://[user:password@]host[:1883], or mqtts:// for TLS.",
        examples=["mqtt://127.0.0.1:1883"],
        repr=False,
    )
    backup: list[Annotated[str, AfterValidator(_broker)]] = Field(
        [],
        max_length=8,
        description="Brokers to go to while the one of url is away, the preferred first.",
        examples=[["mqtts://second:8883"]],
        repr=False,
    )
    format: Annotated[Literal["block", "json", "sparkplug"], AfterValidator(_format)] = Field(
        "block", description="Wire form. Only block in this version.", examples=["block"]
    )
    confirm: Literal["datacenter", "broker"] = Field(
        "datacenter",
        description="What lets an entry leave the outbox: the data center's receipt, or the broker's PUBACK, "
        "which does not survive the loss of the broker's memory.",
        examples=["datacenter"],
    )
    backlog: Annotated[str, AfterValidator(_budget)] = Field(
        "100 %",
        description="What old blocks may take of the line after an outage, behind live ones: "
        "a share of it, or bytes a second.",
        examples=["100 %"],
    )
    root: Annotated[str, AfterValidator(_root)] = Field(
        ROOT, description="First words of every topic.", examples=[ROOT]
    )
    ca: FilePath | None = Field(None, description="PEM file of the broker's CA, for mqtts.", examples=["./ca.pem"])
    cert: FilePath | None = Field(
        None, description="PEM file of this agent's certificate, for brokers that ask for one.", examples=["./me.pem"]
    )
    key: FilePath | None = Field(
        None, description="PEM file of the certificate's key, not encrypted.", examples=["./me.key"]
    )
    insecure_password: Literal["refuse", "allow"] = Field(
        "refuse", description="Whether a password may cross the line without TLS.", examples=["refuse"]
    )
    mqtt: Literal["auto", "5", "3.1.1"] = Field("auto", description="Protocol version.", examples=["auto"])
    max_packet: Annotated[Bytes, AfterValidator(quantity.size_within("1 KiB", "256 MiB"))] | None = Field(
        None,
        description="The largest message that the broker takes, where it does not say so itself (MQTT 5 does). "
        "Larger blocks go in pieces.",
        examples=["128 KiB"],
    )
    keepalive: Annotated[Seconds, AfterValidator(quantity.duration_within("1s", "10m"))] = Field(
        15.0, description="A line that is silent for twice as long is given up.", examples=["15s"]
    )


class DataCenter(Table):
    """Read by `headrace datacenter`, which takes the broker from [uplink]."""

    store: FilePath = Field(description="Directory of the readings.", examples=["./var/datacenter"])
    http: Annotated[str, AfterValidator(_authority)] = Field(
        "127.0.0.1:8080", description="Host and port of its HTTP interface.", examples=["127.0.0.1:8080"]
    )


class Status(Table):
    """Metrics and health of the agent over HTTP. Off where the table is left out."""

    http: Annotated[str, AfterValidator(_authority)] = Field(
        "127.0.0.1:9464",
        description="Host and port of /metrics, /healthz and /readyz. They know no users: keep them on this machine.",
        examples=["127.0.0.1:9464"],
    )


class _Device(Table):
    name: Name = Field(examples=["press1"])
    timeout: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "10m"))] = Field(
        3.0, description="The longest wait for an answer.", examples=["3s"]
    )
    tag_list: FilePath = Field(alias="tags", description="Its tags: a CSV file.", examples=["press1.csv"])
    _tags: tuple[Tag, ...] = PrivateAttr(())

    @property
    def tags(self) -> tuple[Tag, ...]:
        """Its tags; their indexes are those of the whole config."""
        return self._tags


class ModbusDevice(_Device):
    """A Modbus TCP device."""

    protocol: Literal["modbus"]
    url: Annotated[str, AfterValidator(_modbus_url)] = Field(
        description="tcp://host[:502]", examples=["tcp://127.0.0.1:502"]
    )
    unit: int = Field(1, ge=0, le=255, description="Unit id.", examples=[1])
    poll: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "24h"))] = Field(
        1.0, description="Every tag is read this often.", examples=["500ms"]
    )
    order: Order = Field("ABCD", description="Byte order of tags that name none.", examples=["ABCD"])

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 502


class OpcUaDevice(_Device):
    """An OPC UA server."""

    protocol: Literal["opcua"]
    url: Annotated[str, AfterValidator(_opcua_url)] = Field(
        description="opc.tcp://host:4840[/path]", examples=["opc.tcp://127.0.0.1:4840"]
    )
    security: Annotated[str, AfterValidator(_security)] = Field(
        "None", description='Policy/Mode. This version connects with "None" only.', examples=["None"]
    )
    publish: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "24h"))] = Field(
        1.0, description="Publishing interval.", examples=["500ms"]
    )
    sampling_interval: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "24h"))] | None = Field(
        None,
        alias="sampling",
        description="How often the server looks for a change. Left out: once each publishing interval.",
        examples=["100ms"],
    )
    username: str | None = Field(None, examples=["reader"])
    password: str | None = Field(None, repr=False, examples=["its password"])

    @property
    def sampling(self) -> float:
        """Seconds between the server's looks at a node."""
        return self.publish if self.sampling_interval is None else self.sampling_interval


Device: TypeAlias = ModbusDevice | OpcUaDevice
TABLES: dict[str, type[Table]] = {
    "agent": Agent,
    "identifiers": Identifiers,
    "seal": Seal,
    "outbox": Outbox,
    "uplink": Uplink,
    "datacenter": DataCenter,
    "status": Status,
    "modbus": ModbusDevice,
    "opcua": OpcUaDevice,
}
"""Every table by its TOML name; a [[device]] by its protocol."""
