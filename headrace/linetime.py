"""How long Modbus requests take on their line, from the lengths of the frames and what nobody can know beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from agent.collectors.requests import Request
from agent.endpoint import Framing, LineSettings

ROUND_TRIP = 0.010
"""Seconds from a request to its answer on a network. A controller answers about once in each of its cycles."""
TURNAROUND = 0.010
"""Seconds that a serial device thinks before it answers."""
_OVERHEAD = {Framing.MBAP: (12, 9), Framing.RTU: (8, 5)}
"""Bytes of a read request, and of its answer beside the values (MODBUS Messaging on TCP/IP V1.0b, 3.1.3; MODBUS over
Serial Line V1.02, 2.5.1)."""
_SILENCE = 3.5, 0.00175
"""Characters between two RTU frames, and the least in seconds (above 19200 baud; V1.02, 2.5.1.1)."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a plan can't know, in seconds."""

    round_trip: float = ROUND_TRIP
    turnaround: float = TURNAROUND


def frames(framing: Framing, request: Request) -> tuple[int, int]:
    """Bytes of the request and of its answer, as they are on the line."""
    if framing is Framing.ASCII:
        # A colon, two characters for each byte (address, function, body, LRC), CR and LF (V1.02, 2.5.2).
        return 1 + 2 * 7 + 2, 1 + 2 * (4 + request.size) + 2
    asked, answered = _OVERHEAD[framing]
    return asked, answered + request.size


def seconds(line: LineSettings, request: Request, assumed: Assumed) -> float:
    """How long the line is taken by one request: until the next one may be sent."""
    endpoint = line.endpoints[0]
    if (port := endpoint.serial) is None:
        # A gateway that hides a serial line makes this longer: say so with a longer round trip.
        return max(assumed.round_trip / line.pipeline, 1e-9) + line.gap
    characters, least = _SILENCE
    silence = max(characters * port.character, least) if endpoint.framing is Framing.RTU else 0.0
    switching = (port.rs485.delay_before + port.rs485.delay_after) if port.rs485 else 0.0
    sent = sum(frames(endpoint.framing, request)) * port.character
    return sent + switching + max(assumed.turnaround, silence) + line.gap


def period(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
