"""The [[device]] tables of the config file, one model for each protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, PrivateAttr, WithJsonSchema

from agent import quantity
from agent.address import ORDERS, ModbusTable, Order
from agent.labels import Labels
from agent.limits import MAX_BITS, MAX_GAP, MAX_REGISTERS, Limits, Span
from agent.modbus_options import ModbusOptions
from agent.model import Tag
from agent.product import Product
from agent.table import DURATION, FilePath, Name, Seconds, Table, url
from agent.wire import without_password

DEPRECATED = ("Basic256", "Basic128Rsa15")
POLICIES = ("Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256", *DEPRECATED)
"""Security policies of OPC UA, the strongest first."""


def _opcua_url(text: str) -> str:
    wanted = 'url = "opc.tcp://host:4840", with a /path where the server has one'
    if not text.startswith("opc.tcp://"):
        raise ValueError(f"{quantity.shown(without_password(text))} is not an OPC UA address; write {wanted}")
    parts = url(text, wanted)
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
TABLES: dict[str, type[Table]] = {"modbus": ModbusDevice, "opcua": OpcUaDevice}
"""Each by its protocol."""
