"""OPC UA subscriptions and polls. Nothing outside of this package imports asyncua.

transport    what is received, with bounds on every chunk and message
link         one secure channel and session, from asyncua; requests with deadlines, answers as bytes
publishing   the PublishRequests: sequence, Republish, acknowledgement, silence
memory       what survives a connection, and with the outbox's marks the process
items        which nodes are monitored, and how
polling      reads, for servers without subscriptions
collector    connecting and recovering: the one owner of both
"""

from agent.collectors.opcua.collector import OpcUaCollector

__all__ = ["OpcUaCollector"]
