"""What a campaign found, in the words people ask in: lost, doubled, oversold, double-booked, cents wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.history.events import Violation

SCHEMA = "tableside.kill/1"
LOST, DOUBLED, OVERSOLD, DOUBLE_BOOKED, CENTS_WRONG = COUNTS = (
    "lost", "doubled", "oversold", "double_booked", "cents_wrong",
)  # fmt: skip
# Every code of the history checker and of the campaign itself.
FAMILIES = {
    "LOST_CONFIRMED": LOST, "LOST_QUEUED": LOST, "ANSWER_CHANGED": LOST, "CHAIN_CHANGED": LOST,
    "CHAIN": LOST, "ORDERS": LOST, "OTHER_LINES": LOST, "OTHER_SEATING": LOST, "SEATING": LOST,
    "NOT_CONVERGED": LOST, "FALSE_REJECT": LOST, "FALSE_REFUSAL": LOST, "FALSE_SOLD_OUT": LOST,
    "DAMAGED": LOST, "REAL_TIME": LOST, "TROUBLE": LOST, "COURSE": LOST, "CLOSED_TABLE": LOST,
    "DOUBLED": DOUBLED, "NOBODY_ORDERED": DOUBLED, "LSN_ORDER": DOUBLED, "ORDER_NUMBER": DOUBLED,
    "IMPOSSIBLE": DOUBLED,
    "OVERSOLD": OVERSOLD, "STOCK": OVERSOLD,
    "DOUBLE_BOOKED": DOUBLE_BOOKED, "BOOKING": DOUBLE_BOOKED,
    "MONEY": CENTS_WRONG, "TAX": CENTS_WRONG, "BILL": CENTS_WRONG, "PAYMENT": CENTS_WRONG,
    "STAFF_MONEY": CENTS_WRONG, "OVERPAID": CENTS_WRONG, "OTHER_TOTAL": CENTS_WRONG,
    "SHOWN_PRICE": CENTS_WRONG, "FALSE_REPRICE": CENTS_WRONG,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """One campaign; ``killed`` counts the kills by where they fell, ``confirmed`` what people were told."""

    kills: int
    killed: Mapping[str, int]
    orders: int
    confirmed: int
    violations: Sequence[Violation]
    replay: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The result as ``tableside.kill/1``."""
        found = Counter(FAMILIES[violation.code] for violation in self.violations)
        return {
            "schema": SCHEMA,
            "kills": self.kills,
            "orders": self.orders,
            "confirmed": self.confirmed,
            **{name: found[name] for name in COUNTS},
            "replay": self.replay,
        }
