"""How long final answers are kept.

A terminal asks again within seconds to hours, and the protocol promises the same answer for 30 days; the
evidence of a bill is made of answers too, so they stay a good year unless told otherwise. Orders, bills and
the event log are never pruned. An order whose answer is gone cannot be entered again: its op-id stays unique
among the orders.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.storage.transaction import Transaction

DAY_S = 86_400
MIN_DAYS = 30
DEFAULT_DAYS = 400
BATCH = 500


@dataclass(frozen=True, slots=True)
class PruneAnswers:
    """Delete answers given before ``before_s`` (Unix time); a job for the writer.

    Looks at the ``at_most`` oldest only, through the index over LSNs, so it costs the same however many there
    are. Returns how many went.
    """

    site: str
    before_s: int
    at_most: int = BATCH

    def __call__(self, transaction: Transaction) -> int:
        """Delete one batch."""
        return transaction.execute(
            "DELETE FROM answer WHERE site = ? AND lsn IN (SELECT lsn FROM "
            "(SELECT lsn, created_at FROM answer "
            "WHERE site = ? ORDER BY lsn LIMIT ?) AS oldest WHERE created_at < ?)",
            (self.site, self.site, self.at_most, self.before_s),
        ).rowcount
