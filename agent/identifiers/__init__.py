"""Identifiers that are looked up: the client of a resolver, its cache, and what a record does to a tag."""
