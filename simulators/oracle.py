"""Says of a stored reading whether it is what the plant showed: the judge of the demo and of the crash tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from agent.config import Config
from agent.encoding import Form
from agent.model import Tag, Value
from simulators.mood import Spell, Wrong, hidden
from simulators.plant import Plant

_THINNING = ("deadband", "swinging_door")
"""Filters that leave out changes on purpose."""
_BAD = 0x8000_0000
"""The severity bit of a StatusCode that says a value can't be used."""
_TAKEN_LATE_NS = 50_000_000
"""An answer that came as its timeout ended is taken up a little later, on a busy machine; its time is off by half."""
_STAMP_NS = 2000
"""A source time has whole microseconds."""


class Oracle:
    """Compares readings with the plant; only `plant` and `config` decide, no server is asked."""

    def __init__(self, plant: Plant, config: Config, spells: Sequence[Spell] = ()) -> None:
        """`spells`: what was wrong with the devices, and when (`simulators.mood.Record`)."""
        self._plant = plant
        self._spells = spells
        self._publish_ns = {
            device.name: int(device.publish * 1e9) for device in config.devices if device.protocol == "opcua"
        }
        self._slack_ns = {
            device.name: int(device.timeout * 1e9 / 2) + _TAKEN_LATE_NS if device.protocol == "modbus" else 0
            for device in config.devices
        }
        self._clocks: dict[str, list[Spell]] = {device.name: [] for device in config.devices}
        for each in spells:
            if each.kind is Wrong.CLOCK and each.device in self._clocks:
                self._clocks[each.device].append(each)
        self._free = {
            device.name
            for device in config.devices
            if device.protocol == "modbus" or device.mode == "poll" or device.trigger == "status"
        }
        """Devices that owe no change: who polls may miss one between two polls."""
        self._polled = {device.name: device.poll for device in config.devices if device.protocol == "modbus"}

    def wrong(self, tag: Tag, time_ns: int, value: Value, quality: int) -> bool:
        """Whether a stored reading differs from the plant. A bad reading without a value claims nothing: never wrong.

        An OPC UA reading carries the source's time and must be equal there, in type and to the last bit. A Modbus one
        carries the middle of its request: the device answered within half of its timeout, or hardly more, of that.
        """
        if value is None:
            return not quality & _BAD
        slack_ns = self._slack_ns[tag.device]
        if self.stepped(tag, time_ns, value) is not None:
            return False
        step_ns = self._plant.step_ns(tag)
        steps = range((time_ns - slack_ns) // step_ns, (time_ns + slack_ns) // step_ns + 1)
        if any(self._equal(tag, k * step_ns, value) for k in steps):
            return False
        if any(self._equal(tag, since_ns, value) for since_ns in self._frozen(tag, time_ns, slack_ns)):
            return False
        return not self._shows(tag, time_ns, value, slack_ns)

    def stepped(self, tag: Tag, time_ns: int, value: Value) -> int | None:
        """When the plant had a value that was read with a source time: another time where the device's clock is wrong.
        None where it never had."""
        step_ns = self._plant.step_ns(tag)
        for clock in self._clocks[tag.device] if tag.device not in self._polled else ():
            at = (clock.true_ns(time_ns) + step_ns // 2) // step_ns * step_ns
            exact = clock.lasts(at) and abs(clock.shown_ns(at) - time_ns) < _STAMP_NS
            if exact and self._equal(tag, at, value):
                return at
        return time_ns if self._equal(tag, time_ns, value) else None

    def _shows(self, tag: Tag, time_ns: int, value: Value, slack_ns: int) -> bool:
        """Whether a value is what a clock shows that is wrong."""
        if not (tag.form and Form(tag.form).moment):
            return False
        step_ns = self._plant.step_ns(tag)
        for clock in self._clocks[tag.device]:
            if clock.from_ns <= time_ns + slack_ns and (clock.to_ns is None or clock.to_ns >= time_ns - slack_ns):
                first, last = (clock.shown_ns(time_ns + each) // step_ns for each in (-slack_ns, slack_ns))
                if any(self._equal(tag, k * step_ns, value) for k in range(first, last + 1)):
                    return True
        return False

    def _frozen(self, tag: Tag, time_ns: int, slack_ns: int) -> list[int]:
        """Since when the device stood still at this time, if it did."""
        return [
            each.from_ns
            for each in self._spells
            if each.device == tag.device
            and each.kind is Wrong.FROZEN
            and each.from_ns - slack_ns <= time_ns <= (each.to_ns or time_ns) + slack_ns
        ]

    def hidden(self, tag: Tag) -> Sequence[tuple[int, int]]:
        """The intervals in which its device showed nobody a change, with what was on its way when they began."""
        return hidden(self._spells, tag.device, 2 * self._publish_ns.get(tag.device, 0))

    def expected_changes(self, tag: Tag, first_ns: int, last_ns: int) -> list[int]:
        """The times strictly between two stored readings of an OPC UA tag at which its value changed: each is owed.

        After a device stood still it is what it shows that counts: where that is what it showed before, whoever watches
        sees no change, although the plant went there and back. Empty for a polled tag, which may miss a change between
        two polls, and for one whose filter leaves changes out.
        """
        if tag.device in self._free or tag.filter.startswith(_THINNING):
            return []
        step_ns = self._plant.step_ns(tag)
        still = [each for each in self._spells if each.device == tag.device and each.kind is Wrong.FROZEN]
        owed = []
        before = shown = self._plant.value(tag, first_ns)
        for time_ns in range((first_ns // step_ns + 1) * step_ns, last_ns, step_ns):
            now = self._plant.value(tag, time_ns)
            if any(each.lasts(time_ns) for each in still):
                if now != before:
                    owed.append(time_ns)
            elif now != shown:
                owed.append(time_ns)
                shown = now
            before = now
        return owed

    def late(self, tag: Tag, times: Sequence[int], told: Sequence[tuple[int, int]]) -> int:
        """How many of a polled tag's readings, whose `times` ascend, came more than one poll too late.

        Not counted are those after an interval of `told`, which is known to be missing, and tags with a filter.
        """
        if tag.device not in self._polled or tag.filter:
            return 0
        most = int(2 * (tag.poll or self._polled[tag.device]) * 1e9) + 2 * self._slack_ns[tag.device]
        pairs = [(sooner, later) for sooner, later in pairwise(times) if later - sooner > most]
        return sum(not any(start < later and end > sooner for start, end in told) for sooner, later in pairs)

    def _equal(self, tag: Tag, time_ns: int, value: Value) -> bool:
        wanted = self._plant.value(tag, time_ns)
        if tag.filter.startswith("grid=") and isinstance(wanted, int | float):
            bound = float(tag.filter.removeprefix("grid=").partition(";")[0])
            return isinstance(value, int | float) and abs(wanted - value) <= bound
        return type(wanted) is type(value) and wanted == value
