"""`headrace plan`: what a config would do, before anything is connected, and what of it can't work.

With `--connect` the OPC UA servers are asked what they can take.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent import config
from agent.collectors.requests import Request, requests
from agent.config import Config, ModbusDevice, OpcUaDevice
from headrace import linetime, volume
from headrace.linetime import Assumed, period
from headrace.volume import Stream

if TYPE_CHECKING:
    from headrace.plan_opcua import Subscription

_EVERY_CHANGE = 0.05
"""Seconds between changes that are reckoned with where every one is asked for: as the queues are."""
_NAMES = {1: "coils", 2: "discrete inputs", 3: "holding registers", 4: "input registers"}


@dataclass(slots=True)
class Poll:
    """A Modbus device's requests, each with the seconds that it takes its line, and why they can't work."""

    device: ModbusDevice
    requests: list[tuple[Request, float]]
    round_trip: float
    why: str = ""

    @property
    def share(self) -> float:
        """Of all the time, how much its line is taken by it; a line that is closed after each poll is opened anew."""
        line = self.device.line
        again = (line.connect_pause + self.round_trip) / self.device.poll if line.each_poll else 0.0
        return again + sum(seconds / request.period for request, seconds in self.requests)

    @property
    def bus_ms(self) -> float:
        """Milliseconds on the line for each period of the device; what is read more slowly counts in proportion."""
        return self.share * self.device.poll * 1000

    @property
    def place(self) -> str:
        """What the line is called in messages."""
        endpoint = self.device.line.endpoints[0]
        speed = f" at {endpoint.serial.baudrate} baud" if endpoint.serial else ""
        return f"{endpoint.place}{speed}"

    def facts(self) -> dict[str, Any]:
        found = {
            "name": self.device.name,
            "protocol": "modbus",
            "requests": [
                {
                    "function": request.function,
                    "address": request.address,
                    "count": request.count,
                    "tags": [tag.name for tag in request.tags],
                }
                for request, _ in self.requests
            ],
            "bus_ms_per_cycle": round(self.bus_ms, 3),
            "ok": not self.why,
        }
        return found | ({"why": self.why} if self.why else {})

    def lines(self) -> Iterator[str]:
        device, framing = self.device, self.device.line.endpoints[0].framing
        rows = [("function", "address", "count", "bytes", "ms", "every", "tags")]
        for request, seconds in self.requests:
            names = [tag.name for tag in request.tags]
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            size = sum(linetime.frames(framing, request))
            rows.append((
                f"{request.function} {_NAMES[request.function]}", str(request.address), str(request.count), str(size),
                f"{seconds * 1000:.1f}", period(request.period), shown,
            ))  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        yield f"{device.name}: modbus, unit {device.unit} at {self.place}"
        for row in rows:
            cells = [row[0].ljust(widths[0])] + [row[at].rjust(widths[at]) for at in range(1, 6)]
            yield f"  {'  '.join(cells)}  {row[6]}"
        count, size = len(self.requests), sum(sum(linetime.frames(framing, each)) for each, _ in self.requests)
        yield (
            f"  {count} request{'s' * (count != 1)}, {size} bytes; {self.bus_ms:.1f} ms of every {period(device.poll)} "
            f"on the line ({self.share:.1%})"
        )
        if self.why:
            yield f"  CAN'T WORK: {self.why}"


@dataclass(slots=True)
class Plan:
    """What a whole config would do."""

    config: Config
    devices: list[Poll | Subscription]
    assumed: Assumed

    @property
    def ok(self) -> bool:
        return not any(device.why for device in self.devices)

    @property
    def readings_per_second(self) -> float:
        """At most: filters and OPC UA servers leave out what did not change."""
        return sum(1 / each.period for each in self._streams())

    @property
    def bytes_per_day(self) -> float:
        seal = self.config.seal
        return volume.bytes_per_day(list(self._streams()), seal.after, seal.bytes)

    @property
    def outage_hours(self) -> float | None:
        """How long the outbox holds everything while the broker is away; None where nothing is read."""
        a_day = self.bytes_per_day
        return self.config.outbox.max_bytes / a_day * 24 if a_day else None

    def _streams(self) -> Iterator[Stream]:
        for device in self.config.devices:
            usual = device.poll if isinstance(device, ModbusDevice) else device.sampling or _EVERY_CHANGE
            for tag in device.tags:
                yield Stream(tag.reading_type, tag.poll or usual, own_times=isinstance(device, OpcUaDevice))

    def facts(self) -> dict[str, Any]:
        """The form that `headrace plan --json` prints."""
        hours = self.outage_hours
        return {
            "devices": [device.facts() for device in self.devices],
            "readings_per_second": round(self.readings_per_second, 3),
            "bytes_per_day": round(self.bytes_per_day),
            "outage_hours": None if hours is None else round(hours, 1),
        }

    def lines(self) -> Iterator[str]:
        for device in self.devices:
            yield from device.lines()
            yield ""
        hours = self.outage_hours
        covered = "" if hours is None else f"; the outbox of {_size(self.config.outbox.max_bytes)} covers about "
        covered += "" if hours is None else f"{hours:.0f} h" if hours < 240 else f"{hours / 24:.0f} days"
        yield f"at most {self.readings_per_second:.1f} readings/s, about {_size(self.bytes_per_day)} a day{covered}"
        yield (
            f"assumed: a round trip of {period(self.assumed.round_trip)} on a network (--rtt), "
            f"{period(self.assumed.turnaround)} until a serial device answers (--turnaround), "
            "blocks as of the simulated plant, nothing filtered"
        )


def plan(found: Config, assumed: Assumed | None = None) -> Plan:
    """The plan of a config. Pure: nothing is connected."""
    assumed = assumed or Assumed()
    devices: list[Poll | Subscription] = []
    for device in found.devices:
        if isinstance(device, ModbusDevice):
            asked = requests(device.tags, device.limits, device.poll)
            timed = [(each, linetime.seconds(device.line, each, assumed)) for each in asked]
            devices.append(Poll(device, timed, assumed.round_trip))
        else:
            devices.append(_subscription(device))
    lines: dict[str, list[Poll]] = {}
    for each in devices:
        if isinstance(each, Poll):
            lines.setdefault(each.device.line.endpoints[0].place, []).append(each)
    for shared in lines.values():
        _fits(shared)
    return Plan(found, devices, assumed)


def _subscription(device: OpcUaDevice) -> Subscription:
    from headrace.plan_opcua import Subscription  # asyncua is imported only where there is such a device

    found = Subscription(device)
    found.judge()
    return found


def _fits(polls: Sequence[Poll]) -> None:
    """Says in each of them why one line can't carry all of them, if it can't: it is asked one thing at a time."""
    share = sum(poll.share for poll in polls)
    if share <= 1:
        return
    if len(polls) == 1:
        (poll,) = polls
        poll.why = (
            f"{len(poll.requests)} requests take {poll.bus_ms:.0f} ms of every {period(poll.device.poll)} at "
            f"{poll.place} ({share:.0%}): {_remedy(poll, share)}"
        )
        return
    parts = ", ".join(f"{poll.device.name} {poll.share:.0%}" for poll in polls[:8])
    more = f" and {len(polls) - 8} more" if len(polls) > 8 else ""
    for poll in polls:
        poll.why = (
            f"its {len(poll.requests)} requests take {poll.bus_ms:.0f} ms of every {period(poll.device.poll)}, and the "
            f"{len(polls)} devices at {poll.place} together {share:.0%} of all the time ({parts}{more}): "
            f"{_remedy(poll, share)}"
        )


def _remedy(poll: Poll, share: float) -> str:
    enough = poll.device.poll * share * 1.1
    faster = "raise the baud rate" if poll.device.line.endpoints[0].serial else "allow wider gaps (max_gap)"
    return f"poll every {period(enough)} or less often, {faster}, or read less"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def main(options: argparse.Namespace) -> int:
    """Prints the plan; exit 2 where something of it can't work, or with --connect can't be reached."""
    found = plan(config.load(options.config), Assumed(options.rtt, options.turnaround))
    subscriptions = [each for each in found.devices if not isinstance(each, Poll)]
    if options.connect and subscriptions:
        from headrace import plan_opcua

        # Why a server is refused is said once, in its `why`.
        logging.getLogger("headrace.collector").setLevel(logging.ERROR)
        plan_opcua.ask(subscriptions)
    _print([json.dumps(found.facts(), ensure_ascii=False)] if options.json else found.lines())
    return 0 if found.ok else 2


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
