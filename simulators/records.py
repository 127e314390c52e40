"""The records of a simulated resolver: one for each identifier of a config, signed where it is asked for."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent._native import Identifier
from agent.identifiers.record import Value
from agent.identifiers.signature import digest
from agent.model import Tag

FIRST_INDEX = 2000
"""Attributes begin here in the metadata template; 1001 is reserved."""


@dataclass(slots=True)
class Entry:
    """One handle with its attributes (type -> text), each with a TTL in seconds."""

    handle: str
    attributes: dict[str, str] = field(default_factory=dict)
    ttl: int | str = 86_400

    def values(self) -> list[dict[str, Any]]:
        """As the Handle JSON form has them."""
        return [
            {"index": FIRST_INDEX + at, "type": name, "data": {"format": "string", "value": text}, "ttl": self.ttl,
             "timestamp": "2026-01-01T00:00:00Z"}
            for at, (name, text) in enumerate(self.attributes.items())
        ]  # fmt: skip


class Root:
    """A key that signs records and certificates, made for one run. `name` is how its signatures call it."""

    def __init__(self, name: str = "300:0.NA/88") -> None:
        self.name = name
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def pem(self) -> bytes:
        """Its public half."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, handle: str, values: list[dict[str, Any]], *, begin: float = 0.0, seconds: float = 3600.0) -> str:
        """The HS_SIGNATURE of a record: `begin` is from now, `seconds` how long it is good."""
        digests = [
            {"index": each["index"], "digest": digest(_stored(each).encode(), "SHA-256")}
            for each in values
            if isinstance(each["ttl"], int)
        ]
        return self._signed({"digests": {"alg": "SHA-256", "digests": digests}, "sub": handle}, begin, seconds)

    def certify(
        self, other: Root, *permissions: tuple[str, str], begin: float = 0.0, seconds: float = 3600.0, **more: Any
    ) -> str:
        """The HS_CERT of another key, for (permission, handle) each; `more` are further claims."""
        public = other._key.public_key().public_numbers()
        jwk = {"kty": "RSA", "n": _number(public.n), "e": _number(public.e)}
        perms = [{"perm": kind, "handle": handle} for kind, handle in permissions]
        return self._signed({"publicKey": jwk, "perms": perms, "sub": other.name, **more}, begin, seconds)

    def _signed(self, claims: dict[str, Any], begin: float, seconds: float) -> str:
        now = time.time() + begin
        claims = {"iss": self.name, "nbf": now - 60, "iat": now, "exp": now + seconds} | claims
        text = b".".join(_part(orjson.dumps(each)) for each in ({"alg": "RS256"}, claims))
        return (text + b"." + _part(self._key.sign(text, PKCS1v15(), SHA256()))).decode()


def of_tags(tags: Iterable[Tag]) -> dict[str, Entry]:
    """A record for each tag whose identifier a node can have, by the identifier's key."""
    found = {}
    for tag in tags:
        try:
            identifier = Identifier(tag.identifier)
        except ValueError:
            continue
        attributes = {"name_en": f"{tag.device} {tag.name}", "name_zh": f"{tag.device} {tag.name} 测点"}
        attributes |= {"unit": tag.unit} if tag.unit else {}
        attributes |= {"domain": tag.domain or "production", "level": str(tag.level or 1)}
        found[identifier.key] = Entry(identifier.text.removeprefix("hdl:"), attributes)
    return found


def _stored(value: dict[str, Any]) -> Value:
    return Value(value["index"], value["type"], value["data"]["value"].encode(), value["ttl"])


def _part(body: bytes) -> bytes:
    return urlsafe_b64encode(body).rstrip(b"=")


def _number(number: int) -> str:
    return _part(number.to_bytes((number.bit_length() + 7) // 8)).decode()
