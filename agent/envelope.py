"""Large JSON within small JSON: `{"deflated": <base64 of RFC 1950>, "format": "headrace-deflated/1"}`.

A catalog of a hundred thousand tags is 20 MB as it is, which is more than many a broker takes, and 1.5 MB like this.
What is small stays plain, so that people can read it off the broker.
"""

from __future__ import annotations

import binascii
import hashlib
import zlib
from collections.abc import Iterable

PLAIN = 1024 * 1024
"""Bytes of what stays as it is."""
MOST = 64 * 1024 * 1024
"""Bytes that a body may have once it is opened: the catalog of some 300,000 tags."""
LEVEL = 1
"""A higher one takes far longer and makes nothing smaller: measured on catalogs."""
_BEGIN, _END = b'{"deflated":"', b'","format":"headrace-deflated/1"}'


def pack(pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The body that these pieces make, in an envelope where it is large; and the SHA-256 of the body itself.

    What is large is never held as a whole."""
    digest, deflate = hashlib.sha256(), zlib.compressobj(LEVEL)
    plain, deflated = bytearray(), bytearray()
    for piece in pieces:
        digest.update(piece)
        deflated += deflate.compress(piece)
        if len(plain) <= PLAIN:
            plain += piece
    if len(plain) <= PLAIN:
        return bytes(plain), digest.digest()
    deflated += deflate.flush()
    return b"".join((_BEGIN, binascii.b2a_base64(deflated, newline=False), _END)), digest.digest()


def opened(payload: bytes) -> bytes:
    """The body, taken out of its envelope where it has one. Raises ValueError where it is damaged or past `MOST`."""
    if not payload.startswith(_BEGIN):
        return payload
    if not payload.endswith(_END):
        raise ValueError("an envelope of an unknown format")
    try:
        deflated = binascii.a2b_base64(memoryview(payload)[len(_BEGIN) : -len(_END)])
        inflate = zlib.decompressobj()
        body = inflate.decompress(deflated, MOST)
    except (binascii.Error, zlib.error) as reason:
        raise ValueError(f"an envelope that can't be opened: {reason}") from reason
    if not inflate.eof:
        raise ValueError(f"an envelope that is cut short, or holds more than {MOST} bytes")
    return body
