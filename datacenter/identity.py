"""What identifiers are compared by: two spellings of one name are one name (`hdl:10.ABC/x` and `10.abc/x`)."""

from __future__ import annotations

from agent._native import Identifier


def lookup(identifier: str) -> str:
    """What equal identifiers have in common: `scheme:key`. A text that is no identifier of any scheme is only equal to
    itself."""
    try:
        found = Identifier(identifier)
    except ValueError:
        return f"text:{identifier}"
    return f"{found.scheme}:{found.key}"


def starts(prefix: str) -> str:
    """What the lookups of the identifiers that begin with `prefix` begin with; a Handle's own prefix has no case.

    Empty where the prefix says nothing about the scheme: then only the spelling is left to compare.
    """
    plain = prefix.removeprefix("hdl:")
    head, slash, rest = plain.partition("/")
    if not slash:
        return ""
    try:
        found = Identifier(f"{head}/x")
    except ValueError:
        return ""
    return f"handle:{found.key[:-1]}{rest}" if found.scheme == "handle" else ""
