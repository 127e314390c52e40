"""Whether a record is what its owner signed: the digests and the signature of HS_SIGNATURE, a compact JWS.

A signature made by one of the configured root keys is a proof. The chains of HS_CERT between a root and a signer are
not followed: whose key signs records has to be configured itself.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping, Sequence
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


def covered(record: Record, keys: Sequence[RSAPublicKey], now: float) -> tuple[frozenset[int], bool]:
    """The indexes of the values that a signature covers, and whether a root signed it. `now` is in s since 1970.

    Raises Untrue where a digest, the time or the signature does not fit. A record without a signature covers nothing.
    """
    found: set[int] = set()
    proven = False
    for value in record.values:
        if value.type.upper() != "HS_SIGNATURE":
            continue
        if value.text is None:
            raise Untrue("a signature that is no text")
        head, claims, text, signature = _parts(value.text)
        indexes = _digests(record, claims)
        if str(claims.get("sub", record.handle)).upper() != record.handle.upper():
            raise Untrue(f"the signature is of {claims.get('sub')!r}")
        if not float(claims.get("nbf", 0)) <= now <= float(claims.get("exp", now)):
            raise Untrue("the signature is out of its time")
        if keys:
            _prove(keys, str(head.get("alg")), text, signature)
            proven = True
        found |= indexes
    return frozenset(found), proven


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


def _parts(jws: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    try:
        head, payload, signature = jws.split(".")
        return load(_decode(head)), load(_decode(payload)), f"{head}.{payload}".encode(), _decode(signature)
    except ValueError as reason:
        raise Untrue(f"a signature that can't be read: {reason}") from None


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _prove(keys: Sequence[RSAPublicKey], algorithm: str, text: bytes, signature: bytes) -> None:
    known = SIGNATURES.get(algorithm)
    if known is None:
        raise Untrue(f"a signature by {algorithm}, which is not known here")
    for key in keys:
        try:
            key.verify(signature, text, PKCS1v15(), known)
        except InvalidSignature:
            continue
        return
    raise Untrue("the signature is of none of the roots")
