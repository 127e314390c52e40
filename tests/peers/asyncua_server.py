"""An OPC UA server made with asyncua, that shows whatever certificate it is given: `asyncua_server.py PORT STORE`.

Prints "ready PORT" once it listens. Its own are STORE/server.der and server.pem. While there is a file STORE/shown.der,
its bytes are what it says its certificate is. While there is a file STORE/hide, who asks for its endpoints without a
session is told of Basic256Sha256/Sign only, as somebody on the way would have it.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server

SERVER_URI = "urn:headrace:test:server"
POLICIES = [
    ua.SecurityPolicyType.NoSecurity,
    ua.SecurityPolicyType.Basic256Sha256_Sign,
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]


async def main(port: int, store: Path) -> None:
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    await server.set_application_uri(SERVER_URI)
    server.set_security_policy(POLICIES)
    await server.load_certificate(store / "server.der")
    await server.load_private_key(store / "server.pem")
    honest = server.iserver.get_endpoints

    async def endpoints(params: Any = None, sockname: Any = None) -> list[ua.EndpointDescription]:
        found = list(await honest(params, sockname))
        if (store / "hide").exists():
            found = [
                each
                for each in found
                if each.SecurityMode == ua.MessageSecurityMode.Sign
                and each.SecurityPolicyUri.endswith("#Basic256Sha256")
            ]
        shown = store / "shown.der"
        for each in found:
            each.ServerCertificate = shown.read_bytes() if shown.exists() else each.ServerCertificate
        return found

    server.iserver.get_endpoints = endpoints  # type: ignore[method-assign]
    session: Any = InternalSession
    session.get_endpoints = lambda _, params, sockname: honest(params, sockname)
    space = await server.register_namespace("urn:headrace:test")
    still = ua.NodeId.from_string(f"ns={space};s=Still")
    await server.nodes.objects.add_variable(still, "Still", 7, ua.VariantType.Int32)
    async with server:
        print(f"ready {port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
