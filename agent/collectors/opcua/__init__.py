"""OPC UA subscriptions and polls. Only `link` and `items` import asyncua.

link         one secure channel and session, from asyncua; requests with deadlines, answers as bytes
publishing   the PublishRequests: sequence, Republish, acknowledgement, silence
memory       what survives a connection, and with the outbox's marks the process
items        which nodes are monitored, and how
polling      reads, for servers without subscriptions
collector    connecting and recovering: the one owner of both
"""

from agent.collectors.opcua.collector import OpcUaCollector

__all__ = ["OpcUaCollector"]
