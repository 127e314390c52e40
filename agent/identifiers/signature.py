"""Whether a record is what its owner signed: the digests and the signature of HS_SIGNATURE, a compact JWS.

Whose signature it is, and whether that counts, is found by `agent.identifiers.chain`.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from agent.identifiers.record import Record, load

HASHES = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512", "SM3": "sm3"}
"""The names of digests, and what hashlib calls them; SM3 is there where OpenSSL has it."""
SIGNATURES: Mapping[str, HashAlgorithm] = {"RS256": SHA256(), "RS384": SHA384(), "RS512": SHA512()}


class Untrue(ValueError):
    """The record is not what was signed."""


def roots(pem: bytes) -> list[RSAPublicKey]:
    """The RSA public keys of a PEM file. Raises ValueError."""
    end = b"-----END PUBLIC KEY-----"
    found = [load_pem_public_key(part + end) for part in pem.split(end) if b"BEGIN PUBLIC KEY" in part]
    keys = [key for key in found if isinstance(key, RSAPublicKey)]
    if not keys or len(keys) != len(found):
        raise ValueError("not a PEM file of RSA public keys")
    return keys


def signed(text: bytes, pem: bytes) -> str:
    """The base64 of an RSA signature (PKCS 1 v1.5, SHA-256) by the private key of a PEM file. Raises ValueError."""
    key = load_pem_private_key(pem, None)
    return b64encode(key.sign(text, PKCS1v15(), SHA256())).decode()  # type: ignore[call-arg, arg-type, union-attr]


@dataclass(frozen=True, slots=True)
class Signature:
    """A JWS as far as its key: who issued it (`index:handle`), and what was signed."""

    issuer: str
    algorithm: str
    text: bytes
    signature: bytes


def opened(jws: str, now: float) -> tuple[dict[str, Any], Signature]:
    """The claims of a compact JWS that is within its time; `now` is in s since 1970. Raises Untrue."""
    try:
        head, payload, signature = jws.split(".")
        claims = load(_decode(payload))
        begin, end = float(claims.get("nbf", 0)), float(claims.get("exp", now))
        found = Signature(
            str(claims.get("iss", "")),
            str(load(_decode(head)).get("alg")),
            f"{head}.{payload}".encode(),
            _decode(signature),
        )
    except (TypeError, ValueError) as reason:
        raise Untrue(f"a signature that can't be read: {reason}") from None
    if not begin <= now <= end:
        raise Untrue("the signature is out of its time")
    return claims, found


def signatures(record: Record, now: float) -> list[tuple[frozenset[int], Signature]]:
    """Every signature of a record, and the indexes of the values that it covers, whose digests fit. `now` is in s since
    1970. Raises Untrue where a digest or the time does not fit."""
    found = []
    for value in record.values:
        if value.type.upper() != "HS_SIGNATURE":
            continue
        if value.text is None:
            raise Untrue("a signature that is no text")
        claims, signature = opened(value.text, now)
        indexes = _digests(record, claims)
        if str(claims.get("sub", record.handle)).upper() != record.handle.upper():
            raise Untrue(f"the signature is of {claims.get('sub')!r}")
        found.append((frozenset(indexes), signature))
    return found


def signed_by(key: RSAPublicKey, signature: Signature) -> bool:
    """Whether it was made with this key's other half. Raises Untrue where the algorithm is not known."""
    known = SIGNATURES.get(signature.algorithm)
    if known is None:
        raise Untrue(f"a signature by {signature.algorithm}, which is not known here")
    try:
        key.verify(signature.signature, signature.text, PKCS1v15(), known)
    except InvalidSignature:
        return False
    return True


def digest(encoded: bytes, name: str) -> str:
    """The base64 digest of a value's encoded form. Raises Untrue for an algorithm that is not there."""
    known = HASHES.get(name)
    if known is None or known not in hashlib.algorithms_available:
        raise Untrue(f"digests by {name} can't be checked here")
    return b64encode(hashlib.new(known, encoded, usedforsecurity=False).digest()).decode()


def _digests(record: Record, claims: Mapping[str, Any]) -> set[int]:
    found = claims.get("digests")
    listed = found.get("digests") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(listed, list):
        raise Untrue("a signature without digests")
    values = {value.index: value for value in record.values}
    indexes = set()
    for each in listed:
        index = each.get("index") if isinstance(each, dict) else None
        # A value that we may not see has a digest, and is not there.
        if type(index) is int and (value := values.get(index)) is not None:
            if digest(value.encode(), str(found.get("alg"))) != each.get("digest"):
                raise Untrue(f"value {index} is not what was signed")
            indexes.add(index)
    return indexes


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
