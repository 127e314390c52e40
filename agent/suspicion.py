"""Suspicion: which entry it is that a broker hangs up on, where it does not say what it takes.

A broker of MQTT 3.1.1 that gets too large a message, or one that it can't bear, ends the connection without a word;
sent again first thing, the same entry would end every connection, and hold all others for ever. It is among those that
were on their way each time. So after two such ends in a row they go one at a time, each after the broker was heard
from: then the culprit is the one on its way. It is sent in pieces of half the size, again and again, until it passes,
or is as small as it gets: then it is poison.
"""

from __future__ import annotations

from agent.ranges import Ranges

LOSSES = 2
"""Connections in a row that ended with the same entry on its way. From then on care is taken, until all such entries
are acknowledged: a round trip for each, a few dozen at most."""
LEAST = 512
"""Bytes of a message. No broker refuses so little for its size."""
POISON = 5
"""Connections in a row that an entry ended all by itself, in messages of `LEAST` bytes."""


class Suspicion:
    """One for each broker."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Bytes of the largest message that is tried; None as long as nothing is known."""
        self.narrowed = False
        """Whether the end of the last connection has told something about the size."""
        self._losses = 0
        self._doubted: list[int] = []  # on their way at each of those ends, and not acknowledged since
        self._suspect: int | None = None
        self._strikes = 0

    @property
    def careful(self) -> bool:
        """Whether one message at a time must go, each after the broker was heard from."""
        return self._losses >= LOSSES or self._suspect is not None

    def acknowledged(self, place: int) -> None:
        """The broker took all of the entry at this place."""
        if place in self._doubted:
            self._doubted.remove(place)
            if not self._doubted:
                self._losses = 0
        if place == self._suspect:
            self._suspect, self._strikes = None, 0

    def arrived(self, has: Ranges) -> None:
        """The other side has these places, perhaps by another broker: they are no longer waited for here."""
        for place in (*self._doubted, self._suspect):
            if place is not None and place in has:
                self.acknowledged(place)

    def hung_up(self, on_their_way: list[tuple[int, int]], *, heard: bool, size: int) -> int | None:
        """The broker ended a connection. Returns the place of an entry that is poison.

        `on_their_way` are (place, messages) not yet acknowledged, in order of sending; `heard` is whether the broker
        acknowledged anything on it; `size` is that of the largest message on its way, in bytes.
        """
        self.narrowed = False
        if not on_their_way:
            return None
        alone = self.careful and heard and len(on_their_way) == 1
        again = [place for place, _ in on_their_way if place in self._doubted]
        self._losses = self._losses + 1 if again else 1
        self._doubted = again or [place for place, _ in on_their_way]
        if not alone:
            return None
        place = on_their_way[0][0]
        if place != self._suspect:
            self._suspect, self._strikes = place, 0
        if size > LEAST:
            self.limit = max(LEAST, min(size, self.limit or size) // 2)
            self.narrowed = True
            return None
        self._strikes += 1
        if self._strikes < POISON:
            return None
        self.acknowledged(place)
        return place
