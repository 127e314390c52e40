"""One collector a protocol. The registry is a match until there is a tenth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.collectors.base import Collector, Inlet
from agent.config import Device, ModbusDevice, OpcUaDevice

if TYPE_CHECKING:
    from agent.collectors.line import Line


def collectors(devices: Sequence[Device], inlet: Inlet) -> list[Collector]:
    """The collector of each device, in their order. A protocol's library is imported when its first device is.

    Modbus devices at one place share one line: units on a bus, or behind a gateway.
    """
    found: list[Collector] = []
    lines: dict[object, Line] = {}
    for device in devices:
        match device:
            case ModbusDevice():
                from agent.collectors.line import Line
                from agent.collectors.modbus import ModbusCollector

                settings = device.line
                line = lines.setdefault(settings.endpoints[0].bus, Line(settings))
                found.append(ModbusCollector(device, inlet, line))
            case OpcUaDevice():
                from agent.collectors.opcua import OpcUaCollector

                found.append(OpcUaCollector(device, inlet))
    return found
