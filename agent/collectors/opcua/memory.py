"""What a collector remembers of its server: enough to go on where it was, after a lost connection or a kill -9.

It is kept as two marks (`Inlet.mark`): what seldom changes, and the place in the subscription. The latter goes in one
transaction with the block of the notification that it names: so what is republished after a crash is exactly what no
block holds.
"""

from __future__ import annotations

import binascii
import json
from dataclasses import asdict, dataclass, field

LAST = 2**32 - 1
"""The last sequence number; 1 follows it (OPC 10000-4, 7.26 Counter)."""
SKEW_NS = 10_000_000_000
"""By how much the clocks of a source and of its server may differ, in ns, to be taken for the same."""
MOST_BAD = 10_000
"""Bad nodes, and refused deadbands, that a mark lists. With more there is no resuming after a crash: it would be most
of the mark's bytes."""


def after(sequence: int) -> int:
    """The sequence number that follows."""
    return 1 if sequence >= LAST else sequence + 1


def ahead(sequence: int, expected: int) -> int:
    """How many notifications `sequence` is ahead of `expected`, over the wrap; negative where it was before."""
    steps = (sequence - expected) % LAST
    return steps if steps <= LAST // 2 else steps - LAST


@dataclass(slots=True)
class Memory:
    """The server's side of things. `token` is the encoded authentication token, empty without a session."""

    server: str = ""
    token: bytes = b""
    nonce: bytes = b""
    subscription: int = 0
    items: str = ""
    """The fingerprint of what was asked to be monitored: ClientHandle -> node and parameters."""
    interval: float = 0.0
    keep_alive: float = 0.0
    """Seconds, as the server revised them."""
    sequence: int = 0
    """The last notification that was pushed."""
    clean_ns: int = 0
    """When the server had nothing left behind that it sent later: whatever is missing is not older."""
    bad: list[int] = field(default_factory=list)
    """Tags whose node the server refused."""
    ours: list[int] = field(default_factory=list)
    """Tags whose deadband the server refused."""
    started_ns: int = 0
    """When the server that made the subscription was started; 0 where it does not say."""

    def encode(self) -> bytes:
        """All but the place."""
        known = asdict(self)
        if len(self.bad) + len(self.ours) > MOST_BAD:
            known |= {"subscription": 0, "bad": [], "ours": []}
        known |= {"token": self.token.hex(), "nonce": self.nonce.hex(), "sequence": 0}
        return json.dumps(known).encode()

    @property
    def place(self) -> bytes:
        """How far it is: written for every notification, so it is short."""
        return b"%d %d %d" % (self.subscription, self.sequence, self.clean_ns)

    @classmethod
    def decode(cls, body: bytes | None, place: bytes | None, server: str) -> Memory:
        """What an earlier run knew of this server; nothing where it was another one, or a later version wrote it."""
        try:
            known = json.loads(body or b"{}")
            found = cls(**known | {name: binascii.unhexlify(known[name]) for name in ("token", "nonce")})
            subscription, sequence, clean_ns = map(int, (place or b"0 0 0").split())
        except (KeyError, TypeError, ValueError):
            return cls(server)
        if found.server != server:
            return cls(server)
        found.clean_ns = max(found.clean_ns, clean_ns)
        if subscription == found.subscription:
            found.sequence = sequence
        return found

    def was_clean(self, sent_ns: int, newest_ns: int | None) -> None:
        """A message left nothing behind. It may have been sent long after its values were taken out of their queues,
        which could overflow meanwhile: what is missing may be as old as `newest_ns`, the newest of its values. One that
        is long before what is known to be clean is by another clock, and says nothing."""
        if newest_ns is None or newest_ns < self.clean_ns - SKEW_NS or sent_ns < self.clean_ns:
            self.clean_ns = sent_ns
        else:
            self.clean_ns = max(self.clean_ns, min(sent_ns, newest_ns))

    def become(self, other: Memory) -> None:
        """Takes over all that another one knows."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def forget_subscription(self) -> None:
        """`clean_ns` stays: it is where the gap begins."""
        self.subscription, self.sequence, self.bad, self.ours, self.items = 0, 0, [], [], ""

    def forget_session(self) -> None:
        self.token = self.nonce = b""
