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
    model_validator,
)

from agent import quantity
from agent.address import Order
from agent.endpoint import Carrier, Endpoint, Framing, LineSettings
from agent.model import Tag
from agent.wire import ROOT, Broker, without_password

_PLACES = {"prefix", "agent", "device", "tag"}


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
    Endpoint.parse(text)
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
    """The MQTT broker, and when a block counts as delivered."""

    url: Annotated[str, AfterValidator(_broker)] = Field(
        "mqtt://127.0.0.1:1883",
        description="mqtt://[user:password@]host[:1883], or mqtts:// for TLS.",
        examples=["mqtt://127.0.0.1:1883"],
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
    root: Annotated[str, AfterValidator(_root)] = Field(
        ROOT, description="First words of every topic.", examples=[ROOT]
    )
    ca: FilePath | None = Field(None, description="PEM file of the broker's CA, for mqtts.", examples=["./ca.pem"])
    mqtt: Literal["auto", "5", "3.1.1"] = Field("auto", description="Protocol version.", examples=["auto"])


class DataCenter(Table):
    """Read by `headrace datacenter`, which takes the broker from [uplink]."""

    store: FilePath = Field(description="Directory of the readings.", examples=["./var/datacenter"])
    http: Annotated[str, AfterValidator(_authority)] = Field(
        "127.0.0.1:8080", description="Host and port of its HTTP interface.", examples=["127.0.0.1:8080"]
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


_OF_THE_LINE = "Devices with one url share it, and what is said of the line must be the same for all of them."


class ModbusDevice(_Device):
    """A Modbus device: a unit id behind a URL. Which devices need which option: docs/modbus.md."""

    protocol: Literal["modbus"]
    url: Annotated[str, AfterValidator(_modbus_url)] = Field(
        description="tcp://host[:502], tls://host[:802], udp://, rtu+tcp://, ascii+tcp://, "
        f"rtu:///dev/ttyUSB0?baudrate=9600&parity=N or ascii:///dev/ttyS1. {_OF_THE_LINE}",
        examples=["tcp://127.0.0.1:502"],
    )
    backup: Annotated[str, AfterValidator(_modbus_url)] | None = Field(
        None, description="Where to connect while nothing answers at url. Of the line.", examples=["tcp://10.0.0.8:502"]
    )
    unit: int = Field(1, ge=0, le=255, description="Unit id.", examples=[1])
    poll: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "24h"))] = Field(
        1.0, description="Every tag is read this often.", examples=["500ms"]
    )
    order: Order = Field("ABCD", description="Byte order of tags that name none.", examples=["ABCD"])
    tries: int = Field(
        2, ge=1, le=10, description="How often a request is sent before the device counts as lost.", examples=[2]
    )
    late_after: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "10m"))] | None = Field(
        None,
        alias="late",
        description="Serial framing: the longest that an answer may come after its time-out. Left out: timeout.",
        examples=["2s"],
    )
    first_timeout: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "10m"))] | None = Field(
        None, description="The longest wait for the first answer after connecting. Left out: timeout.", examples=["10s"]
    )
    one_tag_per_request: bool = Field(False, description="Never read two tags in one request.", examples=[True])
    addresses: Literal["zero_based", "one_based"] = Field(
        "zero_based",
        description="one_based: the tag list counts from 1, so that hr:1 is address 0 on the wire.",
        examples=["one_based"],
    )
    any_unit_id: bool = Field(
        False, description="Answers may name any unit (Modbus TCP framing). Of the line.", examples=[True]
    )
    any_transaction_id: bool = Field(
        False,
        description="Answers may have any transaction id: then only their order tells them apart, as on a serial line. "
        "Of the line.",
        examples=[True],
    )
    delay: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "1m"))] | None = Field(
        None,
        description="Silence between an answer and the next request. Left out: what the framing needs. Of the line.",
        examples=["20ms"],
    )
    connect_pause: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "1m"))] | None = Field(
        None, description="Silence after connecting. Of the line.", examples=["500ms"]
    )
    connection: Literal["keep", "each_poll"] = Field(
        "keep", description="each_poll: it is closed after every poll. Of the line.", examples=["each_poll"]
    )
    pipeline: int = Field(
        1, ge=1, le=16, description="Transactions under way at once (Modbus TCP framing). Of the line.", examples=[4]
    )
    echo: bool = Field(
        False, description="The serial adapter gives back what is sent through it. Of the line.", examples=[True]
    )
    ca: FilePath | None = Field(
        None, description="tls: PEM file of the CA, or of the device's own certificate.", examples=["./ca.pem"]
    )
    cert: FilePath | None = Field(None, description="tls: PEM file of our certificate.", examples=["./agent.pem"])
    key: FilePath | None = Field(None, description="tls: PEM file of its key.", examples=["./agent.key"])
    server_name: str | None = Field(
        None, description="tls: the name in the device's certificate. Left out: the host.", examples=["plc7.plant"]
    )

    @model_validator(mode="after")
    def _fits(self) -> ModbusDevice:
        settings = self.line
        first = settings.endpoints[0]
        if any(each.framing is not first.framing for each in settings.endpoints):
            raise ValueError('backup has another framing than url; write backup = "tcp://..." beside url = "tcp://..."')
        serial = first.framing is not Framing.MBAP
        if serial and self.unit == 0:
            raise ValueError("unit 0 is a broadcast, which nobody answers on a serial line; write unit = 1 to 247")
        if self.pipeline > 1 and settings.ordered:
            raise ValueError("only transaction ids tell several answers apart; write pipeline = 1, or a tcp:// url")
        if serial and (self.any_unit_id or self.any_transaction_id):
            raise ValueError("any_unit_id and any_transaction_id are for Modbus TCP framing; leave them out")
        if self.echo and not serial:
            raise ValueError("only serial adapters give an echo; leave echo out")
        tls = any(each.carrier is Carrier.TLS for each in settings.endpoints)
        if not tls and any((self.ca, self.cert, self.key, self.server_name)):
            raise ValueError('ca, cert, key and server_name are for TLS; write url = "tls://host:802"')
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate needs its key; write cert and key, or neither")
        return self

    @property
    def line(self) -> LineSettings:
        """What all devices with its URL share."""
        return LineSettings(
            tuple(Endpoint.parse(each) for each in (self.url, self.backup) if each is not None),
            self.delay,
            self.connect_pause or 0.0,
            self.pipeline,
            self.connection == "each_poll",
            self.echo,
            self.any_transaction_id,
            self.any_unit_id,
            self.ca,
            self.cert,
            self.key,
            self.server_name,
        )

    @property
    def late(self) -> float:
        """Seconds after its time-out in which an answer may still come, where that can't be told from another."""
        return self.timeout if self.late_after is None else self.late_after

    @property
    def host(self) -> str:
        """Empty for a serial port."""
        return Endpoint.parse(self.url).host

    @property
    def port(self) -> int:
        """0 for a serial port."""
        return Endpoint.parse(self.url).port


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
    "modbus": ModbusDevice,
    "opcua": OpcUaDevice,
}
"""Every table by its TOML name; a [[device]] by its protocol."""
