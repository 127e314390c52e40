"""A small language for values that follow from other tags' values: `40 + 0.3 * mean(press1.load, 60)`.

It has numbers, "text", true and false, + - * / % and brackets, comparisons, `and`, `or`, `not`, `a if b else c`, the
names of tags, and the functions of `_CALLS`. Nothing else: no assignment, no attribute, no power, no call of anything
that is not listed. Python's own parser reads it, and no part of it is ever run as Python. A division by zero is 0, and
text counts as 0 where a number is wanted.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TypeAlias

Told: TypeAlias = bool | int | float | str
At: TypeAlias = Callable[[int], Told]
"""From a time (ns UTC) to a value."""

LONGEST = 500
"""Characters."""
DEEPEST = 40
DEEPEST_OF_ALL = 500
"""Calls, through all tags that one follows from: Python has 1,000."""
SAMPLES = 8
"""Of a mean."""
COSTLIEST = 5_000
"""Values that one value may be made of."""


class NotAnExpression(ValueError):
    """What is wrong, and "; write " what to write instead."""


@dataclass(slots=True)
class Expression:
    """`at` gives its value; `tags` are those it looks at, each with how often one value of it does."""

    at: At
    tags: dict[str, int] = field(default_factory=dict)
    depth: int = 0


def parse(text: str, find: Callable[[str], At | None], names: Collection[str] = ()) -> Expression:
    """`find` knows the tag of a name, or returns None. `names`: what can have been meant then. Raises
    NotAnExpression."""
    if len(text) > LONGEST:
        raise NotAnExpression(f"{len(text)} characters; write at most {LONGEST}, with tags for what lies between")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotAnExpression(f"{text!r} is not an expression; write one such as 40 + 0.3 * press1.load") from None
    found = _Parser(find, names)
    at = found.node(tree.body, 0, 1)
    return Expression(at, found.tags, found.deepest)


def number(value: Told) -> int | float:
    """What a value counts for in arithmetic."""
    return 0 if isinstance(value, str) else int(value) if isinstance(value, bool) else value


def _divided(a: float, b: float) -> float:
    return a / b if b else 0.0


_BINARY: dict[type[ast.operator], Callable[[int | float, int | float], int | float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: _divided,
    ast.Mod: lambda a, b: a % b if b else 0,
}
_COMPARED: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
_CALLS: dict[str, tuple[range, Callable[..., int | float]]] = {
    "min": (range(2, 9), min),
    "max": (range(2, 9), max),
    "abs": (range(1, 2), abs),
    "floor": (range(1, 2), math.floor),
    "round": (range(1, 3), lambda a, places=0: round(a, int(places))),
    "sqrt": (range(1, 2), lambda a: math.sqrt(a) if a > 0 else 0.0),
    "clamp": (range(3, 4), lambda a, low, high: min(max(a, low), high)),
}
_BACK = ("ago", "mean")
_NAMES: dict[str, At] = {
    "true": lambda _: True,
    "false": lambda _: False,
    "t": lambda time_ns: time_ns / 1e9,
}


class _Parser:
    def __init__(self, find: Callable[[str], At | None], names: Collection[str]) -> None:
        self._names = names
        self.tags: dict[str, int] = {}
        self.deepest = 0
        self._find = find

    def node(self, node: ast.expr, depth: int, cost: int) -> At:  # noqa: PLR0911
        """`cost`: how often one value of the whole looks at this part."""
        if depth > DEEPEST:
            raise NotAnExpression(f"nested more than {DEEPEST} deep; write tags for what lies between")
        self.deepest = max(self.deepest, depth)

        def part(each: ast.expr) -> At:
            return self.node(each, depth + 1, cost)

        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                if isinstance(value, int | float) and not abs(value) < 1e300:
                    raise NotAnExpression("a number that is too large; write one below 1e300")
                return lambda _: value
            case ast.Name() | ast.Attribute():
                return self._tag(_dotted(node), cost)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                do, a, b = _BINARY[type(op)], part(left), part(right)
                return lambda at: _bounded(do, number(a(at)), number(b(at)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                a = part(operand)
                return lambda at: -number(a(at))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                a = part(operand)
                return lambda at: not a(at)
            case ast.BoolOp(op=op, values=values):
                parts, every = [part(each) for each in values], isinstance(op, ast.And)
                return lambda at: (all if every else any)(each(at) for each in parts)
            case ast.IfExp(test=test, body=body, orelse=other):
                a, b, c = part(test), part(body), part(other)
                return lambda at: b(at) if a(at) else c(at)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _compared(op, part(left), part(right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, args, depth, cost)
        raise NotAnExpression(f"{ast.unparse(node)[:60]!r} is not known here; write + - * / %, comparisons and tags")

    def _tag(self, name: str, cost: int) -> At:
        found = self._find(name)
        if found is None:
            if name in _NAMES:
                return _NAMES[name]
            near = get_close_matches(name, self._names, n=1)
            text = near[0] if near else 'device.tag, or tag("...") where it has odd letters'
            raise NotAnExpression(f"there is no tag {name}; write {text}")
        self.tags[name] = self.tags.get(name, 0) + cost
        return found

    def _call(self, name: str, args: list[ast.expr], depth: int, cost: int) -> At:
        if name == "tag" and len(args) == 1 and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
            return self._tag(args[0].value, cost)
        if name in _BACK:
            return self._back(name, args, depth, cost)
        counts, do = _CALLS.get(name, (range(0), abs))
        if len(args) not in counts:
            wanted = ", ".join([*_CALLS, *_BACK, "tag"])
            raise NotAnExpression(f"{name} with {len(args)} values is not known here; write one of {wanted}")
        parts = [self.node(each, depth + 1, cost) for each in args]
        return lambda at: _bounded(do, *(number(each(at)) for each in parts))

    def _back(self, name: str, args: list[ast.expr], depth: int, cost: int) -> At:
        match args:
            case [what, ast.Constant(value=int() | float() as seconds)] if 0 < seconds <= 86400:
                back = int(seconds * 1e9)
            case _:
                raise NotAnExpression(f"{name} wants a value and seconds; write {name}(press1.load, 60)")
        if name == "ago":
            of = self.node(what, depth + 1, cost)
            return lambda at: of(at - back)
        if cost * SAMPLES > COSTLIEST:
            raise NotAnExpression("means of means of means; write fewer of them")
        of = self.node(what, depth + 1, cost * SAMPLES)
        shifts = [back * each // SAMPLES for each in range(SAMPLES)]
        return lambda at: sum(number(of(at - shift)) for shift in shifts) / SAMPLES


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise NotAnExpression('a name with brackets; write tag("device.tag")')
    return ".".join([node.id, *reversed(parts)])


def _compared(op: ast.cmpop, a: At, b: At) -> At:
    if isinstance(op, ast.Eq):
        return lambda at: a(at) == b(at)
    if isinstance(op, ast.NotEq):
        return lambda at: a(at) != b(at)
    if type(op) not in _COMPARED:
        raise NotAnExpression("this comparison is not known here; write <, <=, >, >=, == or !=")
    do = _COMPARED[type(op)]
    return lambda at: do(number(a(at)), number(b(at)))


def _bounded(do: Callable[..., int | float], *values: int | float) -> int | float:
    """No result is beyond what a float64 has: it is 0, as a division by zero is."""
    try:
        found = do(*values)
        return found if abs(found) <= 1e300 else 0
    except (OverflowError, ValueError):
        return 0
