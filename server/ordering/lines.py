"""Order lines as rows."""

from __future__ import annotations

from collections.abc import Sequence

from server.ordering.pricing import PricedLine
from server.storage.transaction import Transaction

LINE_COLUMNS = (
    "site, order_number, line, item, quantity, modifiers, unit_minor, total_minor, tax_minor, basis_points"
)
NEW_LINE = f"INSERT INTO order_line ({LINE_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"


def insert_lines(
    transaction: Transaction, site: str, order_number: int, lines: Sequence[PricedLine], first: int = 0
) -> None:
    """Store the lines of an order, numbered from ``first``."""
    transaction.executemany(
        NEW_LINE,
        [
            (site, order_number, index, line.item, line.quantity, ",".join(map(str, line.modifiers)),
             line.unit_minor, line.total_minor, line.tax_minor, line.basis_points)
            for index, line in enumerate(lines, first)
        ],
    )  # fmt: skip
