"""Counted stock: taken for all lines or for none, given back when lines go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from server.ordering.catalogue import Snapshot
from server.storage.transaction import Transaction

COUNT_OF = "SELECT count FROM stock WHERE site = ? AND item = ?"
TAKE = "UPDATE stock SET count = count - ? WHERE site = ? AND item = ?"


class Portion(Protocol):
    """A line as far as stock is concerned."""

    @property
    def item(self) -> int:
        """Item id."""
        ...

    @property
    def quantity(self) -> int:
        """How many."""
        ...


def portions(lines: Iterable[Portion]) -> Counter[int]:
    """Pieces by item."""
    wanted: Counter[int] = Counter()
    for line in lines:
        wanted[line.item] += line.quantity
    return wanted


def missing(wanted: Mapping[int, int], snapshot: Snapshot) -> int | None:
    """The first wanted item the kitchen has declared unavailable, or None."""
    if not snapshot.unavailable:
        return None
    return next((item for item, more in wanted.items() if more > 0 and item in snapshot.unavailable), None)


def take(
    transaction: Transaction, site: str, counted: frozenset[int], wanted: Mapping[int, int]
) -> int | None:
    """Take every counted item or none; negative amounts go back.

    Returns the first item that does not suffice; nothing was taken then.
    """
    for item, more in wanted.items():
        if more > 0 and item in counted:
            row = transaction.execute(COUNT_OF, (site, item)).fetchone()
            if row is not None and row[0] < more:
                return item
    for item, more in wanted.items():
        if more and item in counted:
            transaction.execute(TAKE, (more, site, item))
    return None
