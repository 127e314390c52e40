"""Certificates of OPC UA applications: ours, those of servers, and which of them are trusted (docs/opcua-security.md).

certificate  reading and describing one
own          the agent's own, made at its first start and renewed before it expires
store        the directories of what is trusted
check        the rules of OPC 10000-4, 6.1.3, that a server's certificate has to keep

Everything blocks (files, RSA): on the event loop it is called through `asyncio.to_thread`.
"""
