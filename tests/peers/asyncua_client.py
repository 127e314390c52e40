"""Reads fields of structures with asyncua's client: `asyncua_client.py URL SPACE` takes a JSON list of addresses as
`s=Machine#Speed` in that namespace from stdin, and prints a JSON list: the name of the node's type, value, source time
in ms.
"""

import asyncio
import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua.client.client import Client
from asyncua.common.structures104 import load_custom_struct

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def types(client: Client, kind: Any) -> None:
    """Of a structure, those in it first: all of a server's, which asyncua can load as well, take seconds."""
    definition: Any = await client.get_node(kind).read_data_type_definition()
    for each in definition.Fields:
        if each.DataType.NamespaceIndex:
            await types(client, each.DataType)
    await load_custom_struct(client.get_node(kind))


async def main(url: str, space: str, names: list[str]) -> None:
    found = []
    async with Client(url, timeout=30, watchdog_intervall=30) as client:
        index = await client.get_namespace_index(space)
        for name in names:
            key, _, path = name.partition("#")
            node = client.get_node(f"ns={index};{key}")
            await types(client, await node.read_data_type())
            value: Any = await node.read_data_value()
            inner: Any = value.Value.Value
            for step in path.split("."):
                inner = getattr(inner, step)
            plain = base64.b64encode(inner).decode() if isinstance(inner, bytes) else inner
            time = (value.SourceTimestamp - EPOCH) // timedelta(milliseconds=1)
            found.append({"kind": type(value.Value.Value).__name__, "value": plain, "time": time})
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.load(sys.stdin)))
