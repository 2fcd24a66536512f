"""What a job of the writer may ask of the database: one transaction, in SQL that both databases speak.

A plain ``sqlite3.Connection`` is a ``Transaction``, so the order path pays nothing for the seam; PostgreSQL
gets a thin adapter with the same few methods. Placeholders are ``?`` (and ``%`` means nothing). The dialect
in common: ``RETURNING``, ``ON CONFLICT``, integers for flags, no automatic ids but those of ``seating`` (ask
``RETURNING id``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class Rows(Protocol):
    """What a statement gives back."""

    @property
    def rowcount(self) -> int:
        """Rows changed."""
        ...

    def fetchone(self) -> Any:
        """The next row as a tuple, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """The open transaction a job runs in."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Run one statement. Raises: the driver's errors; broken rules are its IntegrityError."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each row of parameters."""
        ...


@cache
def as_psycopg(sql: str) -> str:
    """The statement with the placeholders of PostgreSQL's driver."""
    return sql.replace("%", "%%").replace("?", "%s")


Job: TypeAlias = Callable[[Any], T]


def next_lsn(transaction: Transaction, site: str) -> int:
    """Take the next LSN; it belongs to the transaction that commits it.

    Call it before reading what the change depends on: it writes the site's row, so that on PostgreSQL no
    other change of this site comes in between, and LSNs are given in the order of commits.
    """
    row = transaction.execute(
        "UPDATE site SET lsn = lsn + 1 WHERE site = ? RETURNING lsn", (site,)
    ).fetchone()
    return int(row[0])
