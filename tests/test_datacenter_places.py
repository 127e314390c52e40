"""Places against a plain set of numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter.places import Places

spans = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda span: (span[0], sum(span))), max_size=25)


@given(spans, st.integers(1, 45), st.integers(0, 10))
def test_places_are_a_set_of_numbers(filled: list[tuple[int, int]], first: int, more: int) -> None:
    places = Places(0, filled)
    numbers = {number for start, stop in filled for number in range(start, stop + 1)}
    committed = next(number for number in range(100) if number + 1 not in numbers)
    last = max(numbers, default=0)

    assert places.committed == committed
    assert places.last == last
    assert {number for number in range(60) if number in places} == numbers
    assert _numbers(places.holes) == set(range(1, last + 1)) - numbers
    assert _numbers(places.missing(first, first + more)) == set(range(first, first + more + 1)) - numbers
    islands = places.islands
    assert all(stop + 1 < start for (_, stop), (start, _) in pairwise(islands))


def test_places_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="no places"):
        Places().fill(0, 3)


def _numbers(spans: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in spans for number in range(first, last + 1)}
