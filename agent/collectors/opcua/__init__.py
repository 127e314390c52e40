"""OPC UA subscriptions and polls. In the agent, nothing but this package imports asyncua.

transport    what is received, with bounds on every chunk and message
link         one secure channel and session, from asyncua; requests with deadlines, answers as bytes
publishing   the PublishRequests: sequence, Republish, acknowledgement, silence
memory       what survives a connection, and with the outbox's marks the process
items        which nodes are monitored, and how
ranges       the EURange of nodes
reads        read requests, and calls of no more nodes than a server takes
endpoints    what a server offers, and which of it is taken
security     certificates, keys and users of a connection
browsing     the address space, for `headrace browse`
fields       which tags are fields of which nodes
structures   the types of structures, whose fields are tags
history      what is missing, from the server's history
polling      reads, for servers without subscriptions
standby      redundant servers: which of them is used
collector    connecting and recovering: the one owner of both
"""

from agent.collectors.opcua.collector import OpcUaCollector

__all__ = ["OpcUaCollector"]
