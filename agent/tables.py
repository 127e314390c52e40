"""The tables of the config file, one model each. `agent.config` puts them together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    WithJsonSchema,
)

from agent import quantity
from agent.address import ORDERS, ModbusTable, Order
from agent.budget import Limit
from agent.labels import Labels
from agent.limits import MAX_BITS, MAX_GAP, MAX_REGISTERS, Limits, Span
from agent.modbus_options import ModbusOptions
from agent.model import Tag
from agent.product import Product
from agent.simulation import Signal, Simulation
from agent.table import DURATION, Bytes, FilePath, Name, Seconds, Table
from agent.wire import ROOT, Broker, without_password

_PLACES = {"prefix", "agent", "device", "tag"}
DEPRECATED = ("Basic256", "Basic128Rsa15")
POLICIES = ("Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256", *DEPRECATED)
"""Security policies of OPC UA, the strongest first."""


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


def _kept(value: float) -> float:
    if value < 180 * 86400:
        raise ValueError(f"records kept for {value / 86400:g} days; write 180d or longer, as the law asks for")
    return quantity.duration_within("180d", "36500d")(value)


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


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


def _security(text: str) -> str:
    if text in ("auto", "None") or re.fullmatch(rf"({'|'.join(POLICIES)})/(Sign|SignAndEncrypt)", text):
        return text
    wanted = 'security = "auto", "Basic256Sha256/SignAndEncrypt", or security = "None" on a network that you trust'
    raise ValueError(f"{quantity.shown(text)} is not a security policy with its mode; write {wanted}")


def _sampling(value: object) -> float:
    if value == "every change":
        return 0.0
    return quantity.duration_within("1ms", "24h")(quantity.seconds(value))


class Agent(Table):
    """Who this agent is, and where it keeps what it must not lose."""

    id: Name = Field(description="Its name in MQTT topics and streams.", examples=["press-shop-1"])
    data_dir: FilePath = Field(description="Directory of the outbox.", examples=["./var/press-shop-1"])
    clock: Literal["auto", "trusted"] = Field(
        "auto",
        description="Whether this machine's clock is right: as the system says (auto), or always (trusted), for PTP "
        "and whatever else the system does not know of.",
        examples=["trusted"],
    )


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
    access: Literal["open", "token"] = Field(
        "open",
        description="open answers whoever reaches it; token only those with a grant (`headrace grant add`).",
        examples=["token"],
    )


class Audit(Table):
    """The audit ledgers of the agent and of the data center."""

    keep: Annotated[Seconds, AfterValidator(_kept)] = Field(
        200 * 86400.0, description="How long records are kept; at least 180d.", examples=["200d"]
    )
    max_bytes: Annotated[Bytes, AfterValidator(quantity.size_within("1 MiB", "1024 TiB"))] = Field(
        1024**3,
        description="Quota of each ledger on disk. No record younger than `keep` is deleted for it: what would not be"
        " recorded is not done.",
        examples=["1 GiB"],
    )


class Status(Table):
    """Metrics and health of the agent over HTTP. Off where the table is left out."""

    http: Annotated[str, AfterValidator(_authority)] = Field(
        "127.0.0.1:9464",
        description="Host and port of /metrics, /healthz and /readyz. They know no users: keep them on this machine.",
        examples=["127.0.0.1:9464"],
    )


class _Device(Labels):
    name: Name = Field(examples=["press1"])
    timeout: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "10m"))] = Field(
        3.0, description="The longest wait for an answer.", examples=["3s"]
    )
    tag_list: FilePath = Field(alias="tags", description="Its tags: a CSV file.", examples=["press1.csv"])
    product: Product | None = Field(None, description="What the device is.")
    _tags: tuple[Tag, ...] = PrivateAttr(())

    @property
    def tags(self) -> tuple[Tag, ...]:
        """Its tags; their indexes are those of the whole config."""
        return self._tags

    @property
    def patience(self) -> float:
        """Seconds that it may be away before its tags read bad: none, for a device that keeps nothing for us."""
        return 0.0


def _span(value: object) -> Span:
    if not isinstance(value, str):
        raise ValueError(f'{quantity.shown(value)} is not a range of addresses; write "hr:200-299", or "co:7" for one')  # noqa: TRY004
    return Span.parse(value)


def _device_order(value: object) -> object:
    return ORDERS.get(value.upper(), value) if isinstance(value, str) else value


_SPAN = {"type": "string", "pattern": "^ *([cC][oO]|[dD][iI]|[hH][rR]|[iI][rR]):[0-9]{1,5}(-[0-9]{1,5})? *$"}
Spans: TypeAlias = Annotated[
    tuple[Annotated[Span, PlainValidator(_span), WithJsonSchema(_SPAN)], ...], Field(strict=False, max_length=1000)
]


EVERYWHERE = tuple(Span(table, 0, 65535) for table in ModbusTable)


class ModbusDevice(_Device, ModbusOptions):
    """A Modbus device."""

    protocol: Literal["modbus"]
    poll: Annotated[Seconds, AfterValidator(quantity.duration_within("1ms", "24h"))] = Field(
        1.0, description="Every tag is read this often.", examples=["500ms"]
    )
    order: Annotated[Order, BeforeValidator(_device_order), WithJsonSchema({"enum": list(ORDERS)})] = Field(
        "ABCD",
        description="Byte order of tags that name none. ABCDEFGH, HGFEDCBA, BADCFEHG and GHEFCDAB are other names.",
        examples=["ABCD"],
    )
    max_registers: int = Field(
        MAX_REGISTERS, ge=1, le=MAX_REGISTERS, description="The most registers of one request.", examples=[125]
    )
    max_bits: int = Field(
        MAX_BITS, ge=1, le=MAX_BITS, description="The most coils or discrete inputs of one request.", examples=[2000]
    )
    max_gap: int = Field(
        MAX_GAP,
        ge=0,
        le=MAX_REGISTERS,
        description="Registers (of coils and inputs 16 times as many) that no tag has and that are read to save a "
        "request.",
        examples=[10],
    )
    forbidden: Spans = Field((), description="Addresses that are never read.", examples=[["hr:200-299"]])
    alone: Spans = Field(
        (), description="A tag that begins here is read in a request of its own.", examples=[["hr:300-349"]]
    )

    @property
    def limits(self) -> Limits:
        """What the planner has to keep to."""
        alone = EVERYWHERE if self.one_tag_per_request else self.alone
        return Limits(self.max_registers, self.max_bits, self.max_gap, self.forbidden, alone)

    @property
    def late(self) -> float:
        """Seconds after its time-out in which an answer may still come, where that can't be told from another."""
        return self.timeout if self.late_after is None else self.late_after


class OpcUaDevice(_Device):
    """An OPC UA server."""

    protocol: Literal["opcua"]
    url: Annotated[str, AfterValidator(_opcua_url)] = Field(
        description="opc.tcp://host:4840[/path]", examples=["opc.tcp://127.0.0.1:4840"]
    )
    backup: Annotated[
        tuple[Annotated[str, AfterValidator(_opcua_url)], ...],
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    ] = Field(
        (),
        strict=False,
        max_length=8,
        description="Redundant servers, in order: used where url can't be reached, or is not well by its ServiceLevel.",
        examples=[["opc.tcp://10.0.0.8:4840"]],
    )
    return_after: Annotated[Seconds, AfterValidator(quantity.duration_within("1s", "24h"))] = Field(
        60.0,
        description="How long a server before it in the list has to be well for it to be gone back to.",
        examples=["60s"],
    )
    security: Annotated[str, AfterValidator(_security)] = Field(
        "auto",
        description="auto takes the strongest that the server offers, and never none. Policy/Mode takes that one. "
        '"None" neither encrypts nor checks who the server is.',
        examples=["auto"],
    )
    hostname: Literal["check", "ignore"] = Field(
        "check",
        description="Whether the server's certificate has to be for the host of the url.",
        examples=["check"],
    )
    publish: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "24h"))] = Field(
        1.0, description="Publishing interval.", examples=["500ms"]
    )
    sampling_interval: Annotated[float, BeforeValidator(_sampling), WithJsonSchema(DURATION)] | None = Field(
        None,
        alias="sampling",
        description='How often the server looks for a change; "every change", where the server can tell without '
        "looking. Left out: once each publishing interval.",
        examples=["100ms"],
    )
    timeout: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "10m"))] = Field(
        10.0, description="The longest wait for an answer; a satellite's round trip takes 2 s.", examples=["10s"]
    )
    mode: Literal["auto", "subscribe", "poll"] = Field(
        "auto",
        description="auto subscribes, and polls a server that has no subscriptions. A poll reads every tag once each "
        "`sampling`.",
        examples=["auto"],
    )
    outage: Annotated[Seconds, AfterValidator(quantity.duration_within("1s", "24h"))] = Field(
        60.0,
        description="The server is asked to keep its session and to queue every change for so long a break.",
        examples=["60s"],
    )
    keep_alive: Annotated[Seconds, AfterValidator(quantity.duration_within("100ms", "10m"))] = Field(
        5.0,
        description="A server with nothing to report says so this often; silence for 1.5 times as long is a fault.",
        examples=["5s"],
    )
    publish_requests: int = Field(3, ge=1, le=32, description="PublishRequests that wait at the server.", examples=[3])
    trigger: Literal["status", "value", "timestamp"] = Field(
        "value",
        description="What makes a reading: a new status; a new value as well; a new source time as well.",
        examples=["value"],
    )
    deadband: Literal["server", "agent"] = Field(
        "server",
        description="Who applies a tag's deadband. The agent does where the server can't.",
        examples=["server"],
    )
    history: Literal["off", "fill"] = Field(
        "off",
        description="fill reads from the server's history (HistoryRead) what a break or an overflow made missing; only "
        "what that does not have is a gap then.",
        examples=["off"],
    )
    username: str | None = Field(None, examples=["reader"])
    password: str | None = Field(None, repr=False, examples=["its password"])
    channel_lifetime: Annotated[Seconds, AfterValidator(quantity.duration_within("100ms", "24h"))] = Field(
        3600.0, description="The keys of the secure channel are renewed within so long.", examples=["1h"]
    )
    plain_password: Literal["refuse", "allow"] = Field(
        "refuse", description="Whether the password may cross the line unencrypted.", examples=["refuse"]
    )
    user_certificate: FilePath | None = Field(
        None, description="Certificate of the user, DER or PEM, instead of a name.", examples=["./reader.der"]
    )
    user_key: FilePath | None = Field(None, description="Its private key.", examples=["./reader.pem"])
    _pki: Path = PrivateAttr(Path("pki"))
    _application_uri: str = PrivateAttr("urn:headrace:agent")

    @property
    def pki(self) -> Path:
        """Directory of our certificate, and of those that are trusted."""
        return self._pki

    @property
    def application_uri(self) -> str:
        """What the agent calls itself, where its certificate says nothing else."""
        return self._application_uri

    @property
    def sampling(self) -> float:
        """Seconds between the server's looks at a node; 0 for every change."""
        return self.publish if self.sampling_interval is None else self.sampling_interval

    @property
    def patience(self) -> float:
        return 0.0 if self.mode == "poll" else self.outage


Device: TypeAlias = ModbusDevice | OpcUaDevice
TABLES: dict[str, type[Table]] = {
    "agent": Agent,
    "identifiers": Identifiers,
    "seal": Seal,
    "outbox": Outbox,
    "uplink": Uplink,
    "datacenter": DataCenter,
    "audit": Audit,
    "status": Status,
    "simulation": Simulation,
    "simulation.signal": Signal,
    "modbus": ModbusDevice,
    "opcua": OpcUaDevice,
}
"""Every table by its TOML name; a [[device]] by its protocol."""
