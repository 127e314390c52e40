"""What the tests of OPC UA recovery share: an agent with one OPC UA device, and what it has committed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from agent import _native
from agent.model import StatusCode
from tests.peers.process import Peer, free_port
from tests.peers.servers import OPCUA_NAMESPACE
from tests.rig import Device, Plant

LATE_NS = 1_000_000_000
"""How much later than it is due a server on a busy machine may make a change."""
Reading = tuple[int, object, int]
"""(time_ns, value, quality)"""


@dataclass(slots=True)
class Committed:
    """What is in an agent's outbox: readings of each tag in the order of commits, and gaps."""

    readings: dict[int, list[Reading]] = field(default_factory=dict)
    gaps: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, plant: Plant) -> Committed:
        found = cls()
        path = plant.path.parent / "agent" / "outbox.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", timeout=30, uri=True)) as db:
            rows = db.execute("SELECT body FROM entry ORDER BY sequence").fetchall()
        for (body,) in rows:
            if (header := _native.header(body)).kind == "gap":
                found.gaps.append((header.first_ns, header.last_ns, header.reason))
            for tag, time_ns, value, quality in _native.decode(body).rows():
                found.readings.setdefault(tag, []).append((time_ns, value, quality))
        return found

    def counted(self, tag: int = 0) -> list[tuple[int, int]]:
        """(time_ns, value) of the counter's good readings: an overflow bit says that others were lost."""
        return [(t, v) for t, v, quality in self.readings.get(tag, []) if quality >> 30 == 0 and isinstance(v, int)]

    def faults(self, tag: int = 0, period_ns: int = 100_000_000) -> dict[str, list[int]]:
        """What is wrong with a counter: which values are lost, which came twice, which have another's time."""
        counted = self.counted(tag)
        first_ns, first = min(counted, key=lambda each: each[1])
        late = {(t, v): t - first_ns - (v - first) * period_ns for t, v in counted}
        # What ends a bad reading is a read of what holds at its time (docs/opcua.md), and no change.
        bad = sum(quality == StatusCode.BAD_NOT_CONNECTED for _, _, quality in self.readings.get(tag, []))
        # It has the time of the read; a change with another's time would be whole periods off.
        read = [each for each in counted if late[each] % period_ns and 0 < late[each] < period_ns + LATE_NS][:bad]
        counted = [each for each in counted if each not in read]
        times = Counter(value for _, value in counted)
        lost = [value for value in range(first, max(times) + 1) if value not in times]
        wrong = [value for t, value in counted if late[t, value]]
        return {"lost": lost, "doubled": [value for value, n in times.items() if n > 1], "wrong": wrong}


def opcua_plant(home: Path, url: str, *lines: str, tags: tuple[str, ...] = ("Counter",)) -> Plant:
    """An agent with one OPC UA device. Its uplink has no broker: what it commits stays in its outbox."""
    rows = [f"{name},nsu={OPCUA_NAMESPACE};s={name},int32," for name in tags]
    settings = [
        'protocol = "opcua"',
        f'url = "{url}"',
        'security = "None"',
        'publish = "200ms"',
        'sampling = "every change"',
    ]
    settings += ['keep_alive = "1s"', 'timeout = "2s"', *lines]
    return Plant.write(home, f"mqtt://127.0.0.1:{free_port()}", [Device("server", "\n".join(settings), rows)])


def events(process: Peer) -> Counter[str]:
    """How often each event was logged since the process started."""
    return Counter(process.events())  # type: ignore[attr-defined]
