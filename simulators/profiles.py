"""The limits of real controllers, for virtual devices that are to be no better. Figures are those of a small
configuration: what a project or a newer firmware sets higher is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agent.simulation import Simulation


@dataclass(frozen=True, slots=True)
class Profile:
    """Of one kind of controller. Times are in seconds."""

    clients: int
    """Over Modbus TCP, at one port."""
    registers: int
    """Of one Modbus request."""
    bits: int
    cycle: float
    """A Modbus request is answered once it is through."""
    sessions: int
    """Connections of OPC UA clients."""
    subscriptions: int
    items: int
    """Monitored, of all subscriptions."""
    per_call: int
    """Nodes or items of one OPC UA call."""
    sampling: float
    """The shortest interval."""
    publishing: float
    deadbands: bool
    """Whether a monitored item may have one."""


PROFILES = {
    "s7-1200": Profile(
        clients=1,
        registers=125,
        bits=2000,
        cycle=0.01,
        sessions=10,
        subscriptions=50,
        items=1000,
        per_call=200,
        sampling=0.1,
        publishing=0.2,
        deadbands=False,
    )
}


def profile(simulation: Simulation | None, devices: Iterable[str]) -> Profile | None:
    """What devices at one address are: the first table that fits one of them counts."""
    names = tuple(devices)
    for part in simulation.devices if simulation else ():
        if any(fnmatchcase(name, part.name) for name in names):
            return PROFILES[part.profile]
    return None
