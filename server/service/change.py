"""One change of the house: a job for the writer that takes an LSN, acts, and leaves an event.

``Change.__call__`` runs inside a savepoint: a HouseError undoes everything, the LSN included. What is to be
told to terminals is in ``notices`` and may be sent once the commit is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from server.ordering.catalogue import Catalogue, Snapshot
from server.ordering.verdict import Addressed
from server.storage.events import append_event
from server.storage.transaction import Transaction, next_lsn
from server.wire.notices import Notice

Result = dict[str, Any]


@dataclass(slots=True)
class Work:
    """What an action works with; ``recount`` says that stock, availability or closed tables changed."""

    transaction: Transaction
    site: str
    lsn: int
    now_s: int
    snapshot: Snapshot
    author: str = ""
    reason: str = ""
    notices: list[Addressed] = field(default_factory=list)
    recount: bool = False

    def one(self, sql: str, *parameters: object) -> Any:
        """The first row of a query, or None."""
        return self.transaction.execute(sql, parameters).fetchone()

    def all(self, sql: str, *parameters: object) -> list[Any]:
        """All rows of a query."""
        return self.transaction.execute(sql, parameters).fetchall()

    def do(self, sql: str, *parameters: object) -> None:
        """Run a statement for its effect."""
        self.transaction.execute(sql, parameters)

    def tell(self, table: str, notice: Notice) -> None:
        """Have the terminals of a table told after the commit."""
        self.notices.append(Addressed(table, notice))


@dataclass(slots=True)
class Change:
    """A job: call it in a transaction, once.

    Returns the action's result (JSON values) with its ``lsn``. Raises: HouseError.
    """

    catalogue: Catalogue
    kind: str
    author: str
    now_s: int
    action: Callable[[Work], Result]
    reason: str = ""
    notices: tuple[Addressed, ...] = ()

    def __call__(self, transaction: Transaction) -> Result:
        """Act inside the caller's transaction."""
        site = self.catalogue.site
        lsn = next_lsn(transaction, site)
        work = Work(transaction, site, lsn, self.now_s, self.catalogue.snapshot, self.author, self.reason)
        result = self.action(work)
        append_event(
            transaction, site, lsn, self.kind, result,
            author=self.author, reason=self.reason, now_s=self.now_s,
        )  # fmt: skip
        if work.recount:
            transaction.execute(
                "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS VARCHAR(20)) WHERE name = ?",
                ("admin_revision",),
            )
            self.catalogue.reload(transaction)  # what follows in the same batch must see it, too
        self.notices = tuple(work.notices)
        return {**result, "lsn": lsn}
