"""The baseline of `benchmarks.opcua`: an asyncua subscription as its documents show it, whose handler counts.

`python -m benchmarks.opcua_stock PORT ITEMS PUBLISH_MS SECONDS [STORE]` subscribes to the items `s=0` to
`s=ITEMS-1` of the load server, with Basic256Sha256 and SignAndEncrypt where there is the STORE of its certificate, and
prints `values cpu_seconds`. It stores nothing and sends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

CHUNK = 500
WARM = 3.0


node_id: Any = ua.NodeId  # asyncua's own types for keys are only their annotation


class Count:
    """What asyncua calls for each value."""

    values = 0

    def datachange_notification(self, _node: object, _value: object, _notification: object) -> None:
        self.values += 1


async def _measure(port: int, items: int, publish_ms: int, seconds: float, store: str) -> tuple[int, float]:
    count = Count()
    client = Client(f"opc.tcp://127.0.0.1:{port}/", timeout=30)
    if store:
        client.application_uri = "urn:headrace:test:user"
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            certificate=f"{store}/user.der",
            private_key=f"{store}/user.pem",
            server_certificate=f"{store}/server.der",
        )
    async with client:
        space = await client.get_namespace_index("urn:headrace:test")
        subscription = await client.create_subscription(publish_ms, count)
        every: Any = 0  # asyncua's own types are only their annotation
        nodes: Any = [client.get_node(node_id(str(item), space)) for item in range(items)]
        for first in range(0, items, CHUNK):
            await subscription.subscribe_data_change(
                nodes[first : first + CHUNK], queuesize=100, sampling_interval=every
            )
        await asyncio.sleep(WARM)
        values, cpu, end = count.values, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end:  # noqa: ASYNC110  (until a moment, which nobody tells)
            await asyncio.sleep(0.1)
        found = count.values - values, time.process_time() - cpu
        await subscription.delete()
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # what it can't keep up with
    port, items, publish_ms, seconds, *store = sys.argv[1:]
    print(*asyncio.run(_measure(int(port), int(items), int(publish_ms), float(seconds), *store or [""])))
