"""The edge data center: takes blocks from a broker, keeps their readings once, answers queries by identifier."""
