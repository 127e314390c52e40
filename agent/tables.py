"""The tables of the config file but those of devices, one model each. `agent.config` puts them together."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from agent import quantity
from agent.budget import Limit
from agent.simulation import Part, Signal, Simulation
from agent.table import Bytes, FilePath, Name, Seconds, Table, url
from agent.wire import ROOT, Broker, without_password

_PLACES = {"prefix", "agent", "device", "tag"}


def _broker(text: str) -> str:
    wanted = "mqtt://host:1883, or mqtts://host:8883 for TLS"
    if text.startswith(("mqtt://", "mqtts://")):
        parts = url(text, wanted)
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

    def names(self, agent: str, device: str) -> Callable[[str], str]:
        """Gives the identifier of a tag of this device that has none of its own."""
        known = {"prefix": self.prefix or "", "agent": agent, "device": device}
        template = self.template or ("{prefix}/{device}.{tag}" if self.prefix else "{agent}/{device}.{tag}")
        parts = (re.sub(r"\{(\w+)\}", lambda found: known[found[1]], part) for part in template.split("{tag}"))
        around = tuple(parts)
        return lambda tag: tag.join(around)


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


def _country(text: str) -> str:
    if not re.fullmatch("[A-Z]{2}", text):
        raise ValueError(f"{quantity.shown(text)} is not a country; write two capital letters such as CN (ISO 3166-1)")
    return text


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
    country: Annotated[str, AfterValidator(_country)] = Field(
        "CN",
        description="Where its brokers and the data center behind them are (ISO 3166-1). Readings of tags whose "
        "category is important or core leave for no other country than CN.",
        examples=["CN"],
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
    "simulation.device": Part,
}
"""Each by its TOML name."""
