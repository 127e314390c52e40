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

    Modbus devices with one URL share one line: units on a bus, or behind a gateway.
    """
    found: list[Collector] = []
    lines: dict[str, Line] = {}
    for device in devices:
        match device:
            case ModbusDevice():
                from agent.collectors.line import Line
                from agent.collectors.modbus import ModbusCollector

                if device.url not in lines:
                    lines[device.url] = Line(device.line)
                found.append(ModbusCollector(device, inlet, lines[device.url]))
            case OpcUaDevice():
                from agent.collectors.opcua import OpcUaCollector

                found.append(OpcUaCollector(device, inlet))
    return found
