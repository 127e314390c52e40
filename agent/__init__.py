"""The Headrace agent: collectors, outbox and uplink around the compiled core `agent._native`."""
