"""Years of past orders, written straight into a SQLite database through its schema.

What is written looks like what the server writes for the benchmarks' order: three lines, an answer, a closed
seating for every twenty orders of a terminal. Nothing can be told from it but how the database behaves when
it is full.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from server.storage.location import database_path

ORDERS_A_SEATING = 20
CHUNK = 50_000
SECONDS_BETWEEN = 15
_LINES = ((1, 2, 260), (2, 1, 300), (8, 1, 450))  # item, quantity, price in minor units
_TOTAL = sum(quantity * price for _, quantity, price in _LINES)


def fill(state: Path, site: str, devices: int, upto: int, say: Callable[[str], None]) -> None:
    """Bring a stopped server's database to ``upto`` orders of the terminals load-000 and following."""
    with closing(sqlite3.connect(database_path(state), isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")  # the file is thrown away afterwards
        lsn, orders = connection.execute(
            "SELECT lsn, order_number FROM site WHERE site = ?", (site,)
        ).fetchone()
        while orders < upto:
            count = min(CHUNK, upto - orders)
            seating = connection.execute("SELECT COALESCE(MAX(id), 0) FROM seating").fetchone()[0] + 1
            connection.execute("BEGIN")
            _chunk(connection, site, devices, orders, lsn, count, seating)
            orders, lsn = orders + count, lsn + count
            connection.execute(
                "UPDATE site SET lsn = ?, order_number = ? WHERE site = ?", (lsn, orders, site)
            )
            connection.execute("COMMIT")
            if orders % (4 * CHUNK) == 0:
                say(f"{orders:,} orders written")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _chunk(
    connection: sqlite3.Connection, site: str, devices: int, orders: int, lsn: int, count: int, seating: int
) -> None:
    began = int(time.time()) - SECONDS_BETWEEN * count
    seats = range(seating, seating + count // ORDERS_A_SEATING + devices)
    connection.executemany(
        "INSERT INTO seating (id, site, table_id, opened_at, closed_at, total_minor, chain) "
        "VALUES (?,?,?,?,?,?,?)",
        ((seat, site, f"table-{seat % devices:03d}", began, began + 3600, _TOTAL * ORDERS_A_SEATING,
          bytes(32)) for seat in seats),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO device_chain (seating, device, head, first_op, first_lsn, count) VALUES (?,?,?,?,?,?)",
        ((seat, f"load-{seat % devices:03d}", os.urandom(32), bytes(12), lsn + 1, ORDERS_A_SEATING)
         for seat in seats),
    )  # fmt: skip
    rows = list(_rows(devices, orders, lsn, count, seats, began))
    connection.executemany(
        "INSERT INTO orders (site, order_number, device, op_id, seating, table_id, menu_version, "
        "total_minor, tax_minor, lsn, created_at) VALUES (?,?,?,?,?,?,1,?,?,?,?)",
        ((site, number, device, op_id, seat, table, _TOTAL, _TOTAL // 6, at, when)
         for number, device, op_id, seat, table, at, when in rows),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO order_line (site, order_number, line, item, quantity, modifiers, unit_minor, "
        "total_minor, tax_minor, basis_points) VALUES (?,?,?,?,?,'',?,?,?,1900)",
        ((site, row[0], line, item, quantity, price, quantity * price, quantity * price // 6)
         for row in rows for line, (item, quantity, price) in enumerate(_LINES)),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO answer (site, device, op_id, op_hash, status, arg, order_number, total_minor, lsn, "
        "chain, seating, created_at, op) VALUES (?,?,?,?,0,0,?,?,?,?,?,?,?)",
        ((site, device, op_id, os.urandom(32), number, _TOTAL, at, os.urandom(32), seat, when, bytes(48))
         for number, device, op_id, seat, _table, at, when in rows),
    )  # fmt: skip


def _rows(
    devices: int, orders: int, lsn: int, count: int, seats: range, began: int
) -> Iterator[tuple[int, str, bytes, int, str, int, int]]:
    """Order number, device, op-id, seating, table, LSN and time of every order of a chunk."""
    for index in range(count):
        number, device = orders + index + 1, index % devices
        op_id = (9).to_bytes(4, "big") + number.to_bytes(4, "big") + os.urandom(4)
        seat = seats[index // (ORDERS_A_SEATING * devices) * devices + device]
        yield (
            number, f"load-{device:03d}", op_id, seat, f"table-{device:03d}", lsn + index + 1,
            began + index * SECONDS_BETWEEN,
        )  # fmt: skip
