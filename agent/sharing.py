"""The tables of who may know what: [resolver], [labels], and [egress] with its rules."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from agent import quantity
from agent.labels import CategoryWord, DomainWord, LabelRules, Level
from agent.table import FilePath, Seconds, Table
from agent.tables import Uplink
from agent.wire import without_password

Texts: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(quantity.printable)], ...], Field(strict=False)]


def _node(text: str) -> str:
    wanted = 'write url = "http://host:8000", or https:// for TLS'
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not text.isprintable() or " " in text:
        raise ValueError(f"{quantity.shown(without_password(text))} is not a resolver; {wanted}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"the URL has a user, a query or a fragment; {wanted}")
    return text.rstrip("/")


class Resolver(Table):
    """Where identifiers are looked up. Without this table nothing is: the config alone says what a tag is."""

    url: Annotated[str, AfterValidator(_node)] = Field(
        description="The node that resolves, never called on behalf of a reading.", examples=["http://127.0.0.1:8000"]
    )
    dialect: Literal["handle", "snms", "idhub"] = Field(
        "handle",
        description="handle: Handle.Net's HTTP JSON interface. snms (second-level node) and idhub (enterprise node) "
        "are experimental: nobody has tried them against a real node.",
        examples=["handle"],
    )
    mode: Literal["static", "cached", "strict"] = Field(
        "cached",
        description="static asks nobody. cached starts at once with what it has and asks in the background. strict "
        "does not start before every identifier has been resolved at some time.",
        examples=["cached"],
    )
    rate: float = Field(
        5.0, gt=0, le=100_000, description="Requests a second at most; nodes have daily limits.", examples=[5]
    )
    concurrency: int = Field(4, ge=1, le=64, description="Requests under way at most.", examples=[4])
    timeout: Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "10m"))] = Field(
        5.0, description="The longest wait for an answer.", examples=["5s"]
    )
    max_stale: Annotated[Seconds, AfterValidator(quantity.duration_within("1m", "8760h"))] = Field(
        30 * 86400.0, description="How long past its time an answer is used while no new one comes.", examples=["720h"]
    )
    startup: Annotated[Seconds, AfterValidator(quantity.duration_within("1s", "1h"))] = Field(
        30.0, description="How long mode strict waits before the agent gives up.", examples=["30s"]
    )
    ca: FilePath | None = Field(None, description="PEM file of the node's CA, for https.", examples=["./node-ca.pem"])
    roots: FilePath | None = Field(
        None,
        description="PEM file of the public keys whose signatures (HS_SIGNATURE) are taken. With it, a record that is "
        "signed neither by one of them nor by whom they certified (HS_CERT) changes nothing.",
        examples=["./roots.pem"],
    )
    username: str | None = Field(None, description="For dialect snms.", examples=["reader"])
    password: str | None = Field(None, repr=False, examples=["its password"])
    key: FilePath | None = Field(None, description="PEM file of the private RSA key for dialect idhub.")
    application: str | None = Field(None, description="The application's handle for dialect idhub.")


class Rule(Table):
    """One rule of the egress policy. What it names must all be so; what it leaves out is not asked."""

    action: Literal["allow", "deny"] = Field(examples=["deny"])
    identifiers: Texts = Field((), description="Patterns with * and ?.", examples=[["88.118.8/press1.*"]])
    domains: Annotated[tuple[DomainWord, ...], Field(strict=False)] = Field((), examples=[["rd"]])
    levels: Annotated[tuple[Level, ...], Field(strict=False)] = Field((), examples=[[3]])
    categories: Annotated[tuple[CategoryWord, ...], Field(strict=False)] = Field((), examples=[["core"]])
    uplinks: Annotated[tuple[Literal["main", "level3", "export"], ...], Field(strict=False)] = Field(
        (),
        description="main is [uplink], level3 is [egress.level3], export is what `headrace outbox export` writes. Left "
        "out: all of them.",
        examples=[["main"]],
    )


class Egress(Table):
    """What may leave, on which uplink. A deny that fits wins over every allow."""

    default: Literal["allow", "deny"] = Field(
        "allow", description="What happens to a tag that no rule fits.", examples=["deny"]
    )
    tls_from_level: Level | None = Field(
        None, description="From this level on a tag leaves over TLS or not at all.", examples=[2]
    )
    level3: Uplink | None = Field(
        None, description="A broker of its own for level 3: then nothing of level 3 goes to [uplink]."
    )
    rules: Annotated[tuple[Rule, ...], Field(strict=False, max_length=200)] = Field((), alias="rule")


TABLES: dict[str, type[Table]] = {"labels": LabelRules, "resolver": Resolver, "egress": Egress}
"""Each by its TOML name."""
