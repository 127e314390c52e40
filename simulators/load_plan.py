"""The plan of `headrace simulate --load`: what the compiled server needs to be the devices of a config.

What all devices hold is worked out here for some seconds of the plant, an image for each. The server shows the images
one after the other, forward and back, and knows nothing of tags: so a value costs it nothing, and is still the very
value that the plant has at the moment which `Times.moment` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.address import ModbusTable, NodeAddress
from agent.config import Config, ModbusDevice, OpcUaDevice
from agent.errors import ConfigError, Problem
from agent.model import Tag, Value
from simulators.loopback import loopback
from simulators.modbus_image import Image
from simulators.plant import Plant

STEP_NS = 1_000_000_000
"""Of the plant, from one image to the next, however quickly they are shown."""
MOST_IMAGES = 256
FEWEST_IMAGES = 8
VALUES = 200_000
"""In all images together, where that leaves the fewest: about a second of work."""
APPLICATION_URI = "urn:headrace:simulator"
_FUNCTIONS = {ModbusTable.CO: 1, ModbusTable.DI: 2, ModbusTable.HR: 3, ModbusTable.IR: 4}


@dataclass(frozen=True, slots=True)
class Times:
    """Which image is shown when: n of them take `2 n - 2` periods until they begin anew."""

    begin_ns: int
    """A multiple of `period_ns`, and when the first image is shown for the first time."""
    period_ns: int
    images: int

    @classmethod
    def of(cls, tags: int, period_ns: int, now_ns: int) -> Times:
        images = min(MOST_IMAGES, max(FEWEST_IMAGES, VALUES // max(1, tags)))
        return cls(now_ns - now_ns % period_ns, period_ns, images)

    def image(self, time_ns: int) -> int:
        cycle = 2 * self.images - 2
        at = max(0, time_ns // self.period_ns - self.begin_ns // self.period_ns) % cycle
        return min(at, cycle - at)

    def moment(self, time_ns: int) -> int:
        """A tag reads at `time_ns` what `Plant.value(tag, moment(time_ns))` is."""
        return self.begin_ns + self.image(time_ns) * STEP_NS

    @property
    def moments(self) -> list[int]:
        """Of every image."""
        return [self.begin_ns + at * STEP_NS for at in range(self.images)]


def plan(config: Config, plant: Plant, times: Times, store: Path) -> dict[str, Any]:
    """The plan as JSON has it; takes some seconds for many tags. `store` is a directory for the OPC UA stack.

    Raises ConfigError that names every device which the compiled server can't be.
    """
    problems: list[Problem] = []
    lines: dict[tuple[str, int], list[ModbusDevice]] = {}
    endpoints: dict[tuple[str, int], list[OpcUaDevice]] = {}
    for index, device in enumerate(config.devices):
        parts = urlsplit(device.url)
        host = parts.hostname or ""
        if wrong := _unfit(device, host):
            field, message, hint = wrong
            problems.append(Problem(str(config.path), f"device[{index}].{field}", f"{device.name}: {message}", hint))
        elif isinstance(device, OpcUaDevice):
            endpoints.setdefault((host, parts.port or 4840), []).append(device)
        else:
            lines.setdefault((host, parts.port or 502), []).append(device)
    if problems:
        raise ConfigError(problems)
    return {
        "times": asdict(times),
        "store": str(store),
        "modbus": [_line(place, devices, plant, times) for place, devices in lines.items()],
        "opcua": [_endpoint(place, devices, plant, times) for place, devices in endpoints.items()],
    }


def _unfit(device: ModbusDevice | OpcUaDevice, host: str) -> tuple[str, str, str] | None:
    """(field, message, hint) of what can't be."""
    plain = "leave --load out, or load a copy of the config with"
    if isinstance(device, ModbusDevice) and not device.url.startswith("tcp://"):
        return "url", "--load serves Modbus over tcp:// only", f"{plain} a tcp:// address"
    if not loopback(host):
        wrong = f"{host or 'an empty host'} is not this machine, and simulated devices stay on it"
        return "url", wrong, "add --loopback, which moves all devices here, or --map for one"
    if not isinstance(device, OpcUaDevice):
        return None
    if device.security != "None":
        return "security", "--load serves OPC UA without encryption", f'{plain} security = "None"'
    for tag in device.tags:
        address = NodeAddress.parse(tag.address)
        if address.kind == "path" or address.field or address.namespace in (0, 1):
            wrong = f"{tag.name} at {tag.address} is not a node that --load can lay out"
            return "tags", wrong, f"{plain} node ids such as nsu=urn:plant;s=Furnace.Temp"
    return None


def _line(place: tuple[str, int], devices: Sequence[ModbusDevice], plant: Plant, times: Times) -> dict[str, Any]:
    units: dict[int, list[Tag]] = {}
    for device in devices:
        units.setdefault(device.unit, []).extend(device.tags)
    names = ", ".join(device.name for device in devices)
    return {
        "name": names,
        "host": place[0],
        "port": place[1],
        "units": [{"unit": unit, "spans": _spans(Image(plant, names, tags), times)} for unit, tags in units.items()],
    }


def _spans(image: Image, times: Times) -> list[dict[str, Any]]:
    found = []
    for table, function in _FUNCTIONS.items():
        for first, count, begins in image.spans(table):
            shown = [image.read(table, first, count, moment) or b"" for moment in times.moments]
            span = {"function": function, "first": first, "count": count, "tags": begins}
            found.append({**span, "images": [each.hex() for each in shown]})
    return found


def _endpoint(place: tuple[str, int], devices: Sequence[OpcUaDevice], plant: Plant, times: Times) -> dict[str, Any]:
    nodes = [(NodeAddress.parse(tag.address), tag) for device in devices for tag in device.tags]
    numbered = max((address.namespace for address, _ in nodes if isinstance(address.namespace, int)), default=1) - 1
    named = dict.fromkeys(address.namespace for address, _ in nodes if isinstance(address.namespace, str))
    spaces = [*(f"{APPLICATION_URI}:{index}" for index in range(2, numbered + 2)), *named]
    places: dict[str | int, int] = {uri: at for at, uri in enumerate(spaces)}
    places |= {index: index - 2 for index in range(2, numbered + 2)}
    return {
        "name": ", ".join(device.name for device in devices),
        "url": devices[0].url,
        "host": place[0],
        "port": place[1],
        "users": list({each.username: (each.username, each.password or "") for each in devices}.values()),
        "namespaces": spaces,
        "numbered": numbered,
        "nodes": [
            {
                "space": places[address.namespace],
                "id": NodeAddress(0, address.kind, address.key).text,
                "name": tag.name,
                "kind": tag.type.value,
                "values": [_plain(plant.raw(tag, moment)) for moment in times.moments],
            }
            for address, tag in nodes
        ],
    }


def _plain(value: Value) -> Any:
    """As JSON has it: bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
