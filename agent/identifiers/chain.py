"""Who signed a record: the chain of HS_CERT values from its signer up to a configured root.

A signature names its issuer, as `index:handle`. That handle's record has an HS_CERT, a compact JWS, with the issuer's
public key, what it may sign for, and who issued it in turn. Each step has to be good by itself: signature, time, and
permission for the record at hand. So a certificate can only narrow what the one above it allows.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from agent.identifiers.record import LONGEST, Record
from agent.identifiers.signature import Signature, Untrue, opened, signed_by

MOST = 4
"""Certificates between a record and a root. It also ends a circle."""
KEPT = 1000
"""Issuers whose records are kept."""
BITS = (2048, 8192)


@dataclass(frozen=True, slots=True)
class Certificate:
    """An HS_CERT: whose key it is, and what that may sign for."""

    key: RSAPublicKey
    permissions: tuple[tuple[str, str], ...]
    """(kind, handle) each."""
    issues: bool
    """Whether it may sign certificates."""
    signature: Signature

    def allows(self, handle: str) -> bool:
        return any(_allows(kind, of.upper(), handle.upper()) for kind, of in self.permissions)


class Chain:
    """Proves signatures. `ask` fetches a record by its handle: None where there is none. Raises what `ask` raises."""

    def __init__(self, roots: Sequence[RSAPublicKey], ask: Callable[[str], Awaitable[Record | None]]) -> None:
        self._roots = roots
        self._ask = ask
        self._records: dict[str, tuple[float, Record]] = {}
        self._turn = asyncio.Lock()

    async def prove(self, signature: Signature, handle: str, now: float) -> None:
        """Returns where a root stands behind the signature of this handle's record. Raises Untrue."""
        for above in range(MOST + 1):
            if any(signed_by(key, signature) for key in self._roots):
                return
            issuer = await self._certificate(signature.issuer, now)
            if not signed_by(issuer.key, signature):
                raise Untrue(f"the signature is of neither a root nor {signature.issuer}")
            if not issuer.allows(handle):
                raise Untrue(f"the certificate of {signature.issuer} is not for it")
            if above and not issuer.issues:
                raise Untrue(f"the certificate of {signature.issuer} is not for certificates")
            signature = issuer.signature
        raise Untrue(f"no root within {MOST} certificates")

    async def _certificate(self, subject: str, now: float) -> Certificate:
        _, colon, handle = subject.partition(":")
        if not colon or "/" not in handle:
            raise Untrue(f"its signer is {subject[:80]!r}, which is no index:handle")
        # A hundred thousand records have one signer: one asks, the others wait for that.
        async with self._turn:
            until, record = self._records.get(handle, (now, None))
            if record is None or not now <= until <= now + LONGEST:
                record = await self._ask(handle)
                if record is None:
                    raise Untrue(f"there is no certificate of its signer, {subject}")
                if len(self._records) >= KEPT:
                    self._records.clear()
                self._records[handle] = now + record.holds(now), record
        problem = f"there is no certificate of its signer, {subject}"
        for value in record.values:
            if value.type.upper() != "HS_CERT" or value.text is None:
                continue
            try:
                claims, signature = opened(value.text, now)
                if str(claims.get("sub", "")).upper() == subject.upper():
                    return _certificate(claims, signature)
            except Untrue as reason:
                # A handle may have several, and old ones among them.
                problem = f"the certificate of {subject}: {reason}"
        raise Untrue(problem)


def _certificate(claims: Mapping[str, Any], signature: Signature) -> Certificate:
    listed = claims.get("perms")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Untrue("a certificate without permissions")
    permissions = tuple((str(each.get("perm")), str(each.get("handle", ""))) for each in listed)
    return Certificate(_key(claims.get("publicKey")), permissions, claims.get("ca", True) is True, signature)


def _key(jwk: object) -> RSAPublicKey:
    if not isinstance(jwk, dict) or jwk.get("kty") != "RSA":
        raise Untrue("a certificate whose key is no RSA key")
    try:
        modulus, exponent = (_number(jwk.get(name)) for name in ("n", "e"))
        if not BITS[0] <= modulus.bit_length() <= BITS[1] or exponent.bit_length() > 32:
            raise Untrue(f"a certificate with a key of {modulus.bit_length()} bits")
        return RSAPublicNumbers(exponent, modulus).public_key()
    except (TypeError, ValueError, UnsupportedAlgorithm) as reason:
        raise Untrue(f"a certificate whose key can't be read: {reason}") from None


def _number(text: object) -> int:
    if not isinstance(text, str) or len(text) > BITS[1] // 4:
        raise ValueError("not a number")
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _allows(kind: str, of: str, handle: str) -> bool:
    """Whether a permission is for a handle. A prefix is written as such, or as its own handle `0.NA/<prefix>`."""
    prefix = of.removeprefix("0.NA/")
    own, _, _ = handle.removeprefix("0.NA/").partition("/")
    match kind:
        case "everything":
            return True
        case "thisHandle":
            return of == handle
        case "handlesUnderThisPrefix":
            return own == prefix
        case "derivedPrefixes":
            return own.startswith(f"{prefix}.")
        case _:
            return False
