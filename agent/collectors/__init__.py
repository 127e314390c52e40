"""One collector a protocol. The registry is a dict until there is a tenth."""

from __future__ import annotations

from agent.collectors.base import Collector, Inlet
from agent.config import Device, ModbusDevice, OpcUaDevice


def collector(device: Device, inlet: Inlet) -> Collector:
    """The collector of a device. A protocol's library is imported when its first device is."""
    match device:
        case ModbusDevice():
            from agent.collectors.modbus import ModbusCollector

            return ModbusCollector(device, inlet)
        case OpcUaDevice():
            from agent.collectors.opcua import OpcUaCollector

            return OpcUaCollector(device, inlet)
