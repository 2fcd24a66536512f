"""A group of plain orders answered together on PostgreSQL: a few statements for all of them, one meaning.

`ApplyOp` judges every order of the group, one after the other, exactly as it does alone. The statements it
asks are answered here, from rows that were locked and read for the whole group; what it writes is collected
and written for the whole group. A statement that is not known here ends the attempt: the writer then runs
the jobs one by one.

Several servers do this at the same time, so rows are locked ``FOR NO KEY UPDATE`` in one order everywhere:
the tables by name, counted items by number, the site last. Nobody waits for a row that comes before one they
hold, so nobody waits in a circle. A table's lock stands for its seating, and for the devices on it with their
answers; the site's lock gives LSNs in the order of commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from server.ordering import apply, stock
from server.ordering.apply import Answered, ApplyOp, SessionGone
from server.ordering.lines import LINE_COLUMNS, NEW_LINE
from server.storage.postgres import PostgresConnection
from server.storage.postgres_writer import NotTogether
from server.storage.transaction import Rows
from server.storage.writer import Outcome
from server.wire.ops import OpType

_LOCK_TABLES = (
    "SELECT table_id FROM dining_table WHERE site = %s AND table_id = ANY(%s::varchar[]) "
    "ORDER BY table_id FOR NO KEY UPDATE"
)
_LOCK_STOCK = (
    "SELECT item, count FROM stock WHERE site = %s AND item = ANY(%s::bigint[]) "
    "ORDER BY item FOR NO KEY UPDATE"
)
_LOCK_SITE = "SELECT lsn, order_number FROM site WHERE site = %s FOR NO KEY UPDATE"
_SESSIONS = "SELECT device, sid FROM session WHERE site = %s AND device = ANY(%s::varchar[])"
_ANSWERS = (
    "SELECT a.device, a.op_id, a.op_hash, a.status, a.arg, a.order_number, a.total_minor, a.lsn, a.chain "
    "FROM unnest(%s::varchar[], %b::bytea[]) AS w(device, op_id) "
    "JOIN answer a ON a.site = %s AND a.device = w.device AND a.op_id = w.op_id"
)
_SEATINGS = (
    "SELECT table_id, id, total_minor FROM seating "
    "WHERE site = %s AND table_id = ANY(%s::varchar[]) AND closed_at IS NULL"
)
_CHAINS = (
    "SELECT c.seating, c.device, c.head, c.first_op, c.count FROM seating s "
    "JOIN device_chain c ON c.seating = s.id AND c.device = ANY(%s::varchar[]) "
    "WHERE s.site = %s AND s.table_id = ANY(%s::varchar[]) AND s.closed_at IS NULL"
)
_STORE_NUMBERS = "UPDATE site SET lsn = %s, order_number = %s WHERE site = %s"
_STORE_STOCK = (
    "UPDATE stock SET count = u.count FROM unnest(%b::bigint[], %b::bigint[]) AS u(item, count) "
    "WHERE stock.site = %s AND stock.item = u.item"
)
_STORE_SEATINGS = (
    "UPDATE seating SET chain = u.chain, total_minor = u.total "
    "FROM unnest(%b::bigint[], %b::bytea[], %b::bigint[]) AS u(id, chain, total) WHERE seating.id = u.id"
)
_STORE_CHAINS = (
    "INSERT INTO device_chain (seating, device, head, first_op, first_lsn, count) "
    "SELECT * FROM unnest(%b::bigint[], %b::varchar[], %b::bytea[], %b::bytea[], %b::bigint[], %b::bigint[]) "
    "ON CONFLICT (seating, device) DO UPDATE SET head = excluded.head, count = excluded.count"
)


def _bulk(table: str, columns: str, types: str) -> str:
    arrays = ", ".join(f"%b::{kind}[]" for kind in types.split())
    return f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays})"


_STORE_ORDERS = _bulk(
    "orders",
    apply.ORDER_COLUMNS,
    "varchar bigint varchar bytea bigint varchar bigint bigint bigint bigint bigint",
)
_STORE_LINES = _bulk(
    "order_line",
    LINE_COLUMNS,
    "varchar bigint bigint bigint bigint varchar bigint bigint bigint bigint",
)
_STORE_ANSWERS = _bulk(
    "answer",
    apply.ANSWER_COLUMNS,
    "varchar varchar bytea bytea bigint bigint bigint bigint bigint bytea bigint bigint bytea",
)


class OrderGroups:
    """What the writer asks about jobs that can be run together."""

    def takes(self, job: object) -> bool:
        """Whether a job is a plain order."""
        return isinstance(job, ApplyOp) and job.op.type == OpType.ORDER

    def run(self, connection: PostgresConnection, jobs: Sequence[ApplyOp]) -> list[Outcome[Answered]]:
        """Answer plain orders inside the open transaction, in their order.

        Raises: NotTogether, the driver's errors; the transaction must be rolled back then.
        """
        group = _Group(connection, jobs)
        outcomes = [_answered(job, group) for job in jobs]
        group.store()
        return outcomes


def _answered(job: ApplyOp, group: _Group) -> Outcome[Answered]:
    try:
        return Outcome(job(group))
    except SessionGone as gone:  # raised before anything was written
        return Outcome(error=gone)


class _One:
    """The one row of an answer, or none; also the answer of a statement that gives no rows."""

    rowcount = 1

    def __init__(self, row: Any = None) -> None:
        self._row = row

    def fetchone(self) -> Any:
        return self._row

    def fetchall(self) -> list[Any]:
        return [] if self._row is None else [self._row]

    def __iter__(self) -> Any:
        return iter(self.fetchall())


_DONE = _One()


class _Group:
    """The transaction of a group, as `ApplyOp` sees it."""

    def __init__(self, connection: PostgresConnection, jobs: Sequence[ApplyOp]) -> None:
        self._driver = connection.driver
        self._site = jobs[0].catalogue.site
        self._stock_changed: set[int] = set()
        self._orders: list[Sequence[Any]] = []
        self._lines: list[Sequence[Any]] = []
        self._new_answers: list[Sequence[Any]] = []
        self._touched_seatings: set[int] = set()
        self._touched_chains: dict[tuple[int, str], int] = {}
        self._read(jobs)
        self._known: dict[str, Callable[..., Rows]] = {
            apply.SESSION_OF: self._session_of,
            apply.ANSWER_OF: self._answer_of,
            apply.OPEN_SEATING: self._open_seating,
            apply.NEW_SEATING: self._new_seating,
            apply.NEXT_NUMBERS: self._next_numbers,
            apply.EXTEND_SEATING: self._extend_seating,
            apply.NEW_CHAIN: self._new_chain,
            apply.EXTEND_CHAIN: self._extend_chain,
            apply.NEW_ANSWER: self._new_answer,
            apply.NEW_ORDER: self._new_order,
            stock.COUNT_OF: self._count_of,
            stock.TAKE: self._take,
        }

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Answer one of the statements a plain order asks. Raises: NotTogether."""
        answer = self._known.get(sql)
        if answer is None:
            raise NotTogether(sql)
        return answer(*parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object:
        """Collect the lines of an order. Raises: NotTogether."""
        if sql != NEW_LINE:
            raise NotTogether(sql)
        self._lines.extend(parameters)
        return None

    # ---- the rows of the whole group, locked and read

    def _read(self, jobs: Sequence[ApplyOp]) -> None:
        site, snapshot = self._site, jobs[0].catalogue.snapshot
        devices = sorted({job.device for job in jobs})
        tables = sorted({snapshot.devices[device].table for device in devices if device in snapshot.devices})
        items = sorted({line.item for job in jobs for line in job.op.lines} & snapshot.counted)
        driver = self._driver
        with driver.pipeline():
            locked = driver.execute(_LOCK_TABLES, (site, tables))
            counted = driver.execute(_LOCK_STOCK, (site, items))
            numbers = driver.execute(_LOCK_SITE, (site,))
            sessions = driver.execute(_SESSIONS, (site, devices))
            answers = driver.execute(
                _ANSWERS, ([job.device for job in jobs], [job.op.op_id for job in jobs], site)
            )
            seatings = driver.execute(_SEATINGS, (site, tables))
            chains = driver.execute(_CHAINS, (devices, site, tables))
        if len(locked.fetchall()) != len(tables):
            raise NotTogether("a table without a row of its own cannot be locked")
        self._stock: dict[int, int] = dict(counted.fetchall())
        self._numbers: list[int] = list(numbers.fetchone() or ())
        self._sessions: dict[str, bytes] = dict(sessions.fetchall())
        self._answers: dict[tuple[str, bytes], Any] = {
            (row[0], row[1]): row[2:] for row in answers.fetchall()
        }
        self._seatings: dict[str, int] = {}
        self._totals: dict[int, int] = {}
        for table, seating, total in seatings.fetchall():
            self._seatings[table], self._totals[seating] = seating, total
        self._heads: dict[int, bytes] = {}
        self._chains: dict[tuple[int, str], tuple[bytes, bytes, int]] = {
            (seating, device): (head, first_op, count)
            for seating, device, head, first_op, count in chains.fetchall()
        }

    def store(self) -> None:
        """Write what the group's orders wrote."""
        if not self._new_answers:
            return
        items, chains = sorted(self._stock_changed), sorted(self._touched_chains)
        seatings = sorted(self._touched_seatings)
        driver = self._driver
        with driver.pipeline():
            driver.execute(_STORE_NUMBERS, (*self._numbers, self._site))
            if items:
                driver.execute(_STORE_STOCK, (items, [self._stock[item] for item in items], self._site))
            driver.execute(
                _STORE_SEATINGS,
                (seatings, [self._heads[one] for one in seatings], [self._totals[one] for one in seatings]),
            )
            rows = [
                (*key, *self._chains[key][:2], self._touched_chains[key], self._chains[key][2])
                for key in chains
            ]
            driver.execute(_STORE_CHAINS, _columns(rows))
            if self._orders:
                driver.execute(_STORE_ORDERS, _columns(self._orders))
                driver.execute(_STORE_LINES, _columns(self._lines))
            driver.execute(_STORE_ANSWERS, _columns(self._new_answers))

    # ---- the statements of an order

    def _session_of(self, _site: str, device: str) -> Rows:
        sid = self._sessions.get(device)
        return _DONE if sid is None else _One((sid,))

    def _answer_of(self, _site: str, device: str, op_id: bytes) -> Rows:
        return _One(self._answers.get((device, op_id)))

    def _open_seating(self, device: str, _site: str, table: str) -> Rows:
        seating = self._seatings.get(table)
        if seating is None:
            return _DONE
        chain = self._chains.get((seating, device), (None, None, None))
        return _One((seating, self._totals[seating], *chain))

    def _new_seating(self, site: str, table: str, opened_at: int, chain: bytes) -> Rows:
        sql = apply.NEW_SEATING.replace("?", "%s")
        row = self._driver.execute(sql, (site, table, opened_at, chain)).fetchone()
        assert row is not None
        self._seatings[table], self._totals[row[0]] = row[0], 0
        return _One(row)

    def _next_numbers(self, orders: int, _site: str) -> Rows:
        self._numbers[0] += 1
        self._numbers[1] += orders
        return _One(tuple(self._numbers))

    def _extend_seating(self, head: bytes, delta_minor: int, seating: int) -> Rows:
        self._heads[seating] = head
        self._totals[seating] += delta_minor
        self._touched_seatings.add(seating)
        return _DONE

    def _new_chain(self, seating: int, device: str, head: bytes, first_op: bytes, first_lsn: int) -> Rows:
        self._chains[seating, device] = (head, first_op, 1)
        self._touched_chains[seating, device] = first_lsn
        return _DONE

    def _extend_chain(self, head: bytes, seating: int, device: str) -> Rows:
        _, first_op, count = self._chains[seating, device]
        self._chains[seating, device] = (head, first_op, count + 1)
        self._touched_chains.setdefault((seating, device), 0)  # the stored one stays
        return _DONE

    def _new_answer(self, *row: Any) -> Rows:
        _, device, op_id, op_hash, status, arg, number, total_minor, lsn, chain, *_ = row
        self._answers[device, op_id] = (op_hash, status, arg, number, total_minor, lsn, chain)
        self._new_answers.append(row)
        return _DONE

    def _new_order(self, *row: Any) -> Rows:
        self._orders.append(row)
        return _DONE

    def _count_of(self, _site: str, item: int) -> Rows:
        count = self._stock.get(item)
        return _DONE if count is None else _One((count,))

    def _take(self, pieces: int, _site: str, item: int) -> Rows:
        if item in self._stock:
            self._stock[item] -= pieces
            self._stock_changed.add(item)
        return _DONE


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
