"""Measurements are data: a name, a value, a unit, a limit and what came of it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.errors import BenchError

PASS, FAIL, ERROR, SKIP = "pass", "fail", "error", "skip"
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_LIMIT = re.compile(r"^(>=|<=|==|>|<) (-?[0-9]+(?:\.[0-9]+)?)$")


@dataclass(frozen=True)
class Measurement:
    """One figure. `values` are the single observations behind it (may be empty); no limit always passes."""

    name: str
    value: float
    unit: str
    limit: str | None
    outcome: str
    values: tuple[float, ...] = field(default=(), repr=False)
    note: str = ""

    @property
    def samples(self) -> int:
        """How many observations."""
        return len(self.values) or 1

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest observation."""
        return (min(self.values), max(self.values)) if self.values else (self.value, self.value)


def measurement(
    name: str, value: float, unit: str, limit: str | None = None, values: Sequence[float] = (), note: str = ""
) -> Measurement:
    """Judge a value against a limit such as ">= 500".

    Raises: BenchError when the limit cannot be read.
    """
    return Measurement(name, value, unit, limit, PASS if within(value, limit) else FAIL, tuple(values), note)


def within(value: float, limit: str | None) -> bool:
    """True when the value keeps the limit."""
    if limit is None:
        return True
    match = _LIMIT.match(limit)
    if match is None:
        raise BenchError("BAD_LIMIT", f"Cannot read the limit {limit!r}: write it like '>= 500'.")
    return _RELATIONS[match.group(1)](value, float(match.group(2)))


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of observations.

    Raises: BenchError when there are none.
    """
    if not values:
        raise BenchError("NO_SAMPLES", "A percentile of no observations was asked for.")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
