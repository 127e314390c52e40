"""`python -m benchmarks` prints one JSON object a line: name, value, unit, baseline, ratio, command.

`ratio` is how many times better the value is than the baseline's in the same run (see `benchmarks.result.Result`).
Ratios travel to other machines, values do not. It takes a few seconds.
"""

from __future__ import annotations

from benchmarks import size, speed


def main() -> None:
    for part in (size, speed):
        for result in part.results():
            result.print()


if __name__ == "__main__":
    main()
