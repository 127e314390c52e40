"""An OPC UA server made with asyncua, with a history on disk and with structures: `asyncua_plant.py PORT STORE [PAGE]`.

Prints "ready PORT" once it listens. `nsu=urn:headrace:test;s=Counter` is what it is on the other servers: change n has
the value n, and a source time of n periods of 100 ms after the first, also after a restart: the first is STORE/first.
Its history is STORE/history.db, of which one answer has PAGE values at most (10,000).
`s=Machine` is a structure of a type of its own, `s=Limits` a Range.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field
from asyncua.server.history_sql import HistorySQLite
from asyncua.server.server import Server

PERIOD_MS = 100


class History(HistorySQLite):
    """asyncua's own refuses the table of a string node id, for its quotes."""

    def _get_table_name(self, node_id: ua.NodeId) -> str:
        return f"{node_id.NamespaceIndex}_{node_id.Identifier!s}"


async def count(counter: Any, first: int) -> None:
    while True:
        change = await show(counter, first) + 1
        await asyncio.sleep(max(0.0, (first + change * PERIOD_MS) / 1000 - time.time()))


async def show(counter: Any, first: int) -> int:
    """Sets it to the change that is due."""
    change: Any = (round(time.time() * 1000) - first) // PERIOD_MS
    stamp: Any = datetime.fromtimestamp((first + change * PERIOD_MS) / 1000, UTC)
    await counter.write_value(ua.DataValue(ua.Variant(change, ua.VariantType.Int32), SourceTimestamp=stamp))
    return int(change)


async def structures(server: Server, space: int) -> None:
    """A structure with a nested one, an enumeration and an array."""
    types: Any = ua
    point, _ = await new_struct(
        server,
        space,
        "Point",
        [new_struct_field("X", ua.VariantType.Double), new_struct_field("Y", ua.VariantType.Float)],
    )
    mode = await new_enum(server, space, "Mode", ["Off", "Idle", "Running"])
    fields = [
        new_struct_field("Speed", ua.VariantType.Float),
        new_struct_field("Position", point),
        new_struct_field("Mode", mode),
        new_struct_field("Counts", ua.VariantType.UInt32, array=True),
        new_struct_field("Name", ua.VariantType.String),
        new_struct_field("Started", ua.VariantType.DateTime),
    ]
    machine, _ = await new_struct(server, space, "MachineStatus", fields)
    loaded: Any = await server.load_data_type_definitions()
    value = loaded["MachineStatus"]()
    value.Speed, value.Name, value.Counts = 12.5, "press 7", [1, 2, 3]
    value.Position = loaded["Point"](X=0.25, Y=-1.5)
    value.Mode = loaded["Mode"](2)
    value.Started = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    node = ua.NodeId.from_string(f"ns={space};s=Machine")
    objects = server.nodes.objects
    await objects.add_variable(
        node, "Machine", ua.Variant(value, ua.VariantType.ExtensionObject), datatype=machine.nodeid
    )
    node = ua.NodeId.from_string(f"ns={space};s=Limits")
    limits = types.Range(Low=-10.5, High=400.0)
    standard = ua.NodeId(types.ObjectIds.Range)
    await objects.add_variable(node, "Limits", ua.Variant(limits, ua.VariantType.ExtensionObject), datatype=standard)


async def main(port: int, store: Path, page: int) -> None:
    begun = store / "first"
    if not begun.exists():
        begun.write_text(str(round(time.time() * 1000)))
    server = Server()
    server.iserver.history_manager.set_storage(History(str(store / "history.db"), page))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("urn:headrace:test")
    node = ua.NodeId.from_string(f"ns={space};s=Counter")
    counter = await server.nodes.objects.add_variable(node, "Counter", 0, ua.VariantType.Int32)
    await show(counter, int(begun.read_text()))  # before anybody can see, or keep, the zero
    await structures(server, space)
    always: Any = None
    await server.historize_node_data_change(
        counter, period=always, count=0
    )  # before anybody can ask whether it is kept
    async with server:
        counting = asyncio.create_task(count(counter, int(begun.read_text())))
        print(f"ready {port}", flush=True)
        await counting


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), int([*sys.argv, "10000"][3])))
