"""The one transaction step that answers an op: exactly once, with everything it changes.

Runs in the writer thread inside a savepoint. In order: the session must still be the device's session; an
op_id answered before gets its stored answer again (another body under the same op_id:
REJECTED(BODY_MISMATCH), nothing stored); otherwise the op is judged, and its final answer is stored
together with the order, the stock it takes, the next LSN and the new head of the seating's chain.

Which menu counts: an order priced on any version ever published here is accepted when the *current* menu
gives the same total, so a new version that does not touch these items does not bother the guest; otherwise
the answer is REPRICE with the current version and the server's total. A version never published here is
REJECTED(UNKNOWN_MENU).

The chain: every final answer given to a device goes into the seating of *that device's* table, which is
opened by the first answer: chain = SHA-256(chain || SHA-256(op) || status, 1 byte || total, u32 big
endian), from 32 zero bytes.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256

from server.devices.records import DeviceState
from server.ordering.catalogue import Catalogue, KnownDevice, Snapshot
from server.ordering.pricing import PricedOrder, Rejected, price_order
from server.wire.ops import Op, OpType, RejectCode, Reply, Status

CHAIN_START = bytes(32)


class SessionGone(Exception):
    """The op came in a session that is no longer the device's: replaced, suspended or retired."""

    code = "SESSION_GONE"


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to send, and whether it had been stored before."""

    reply: Reply
    repeated: bool


@dataclass(frozen=True, slots=True)
class _Verdict:
    status: Status
    arg: int = 0
    total_minor: int = 0
    order: PricedOrder | None = None


@dataclass(frozen=True, slots=True)
class ApplyOp:
    """Answer one verified op; a job for the writer."""

    catalogue: Catalogue
    device: str
    sid: bytes
    op: Op
    op_hash: bytes
    now_s: int

    def __call__(self, connection: sqlite3.Connection) -> Answered:
        """Raises: SessionGone; nothing is stored then."""
        site, snapshot = self.catalogue.site, self.catalogue.snapshot
        device = self._current_session(connection, site, snapshot)
        stored = connection.execute(
            "SELECT op_hash, status, arg, order_number, total_minor, lsn, chain FROM answer "
            "WHERE site = ? AND device = ? AND op_id = ?",
            (site, self.device, self.op.op_id),
        ).fetchone()
        if stored is not None:
            return self._repeat(stored)
        seating, chain = _open_seating(connection, site, device.table, self.now_s)
        verdict = self._judge(connection, snapshot, device)
        return Answered(self._store(connection, site, device, seating, chain, verdict), repeated=False)

    def _current_session(self, connection: sqlite3.Connection, site: str, snapshot: Snapshot) -> KnownDevice:
        row = connection.execute(
            "SELECT sid FROM session WHERE site = ? AND device = ?", (site, self.device)
        ).fetchone()
        device = snapshot.devices.get(self.device)
        if row is None or row[0] != self.sid or device is None or device.state is not DeviceState.ACTIVE:
            raise SessionGone(self.device)
        return device

    def _repeat(self, stored: tuple[bytes, int, int, int, int, int, bytes]) -> Answered:
        op_hash, status, arg, order_number, total_minor, lsn, chain = stored
        if op_hash != self.op_hash:
            reply = Reply(self.op.op_id, Status.REJECTED, RejectCode.BODY_MISMATCH, 0, 0, 0, chain)
            return Answered(reply, repeated=False)
        return Answered(
            Reply(self.op.op_id, status, arg, order_number, total_minor, lsn, chain), repeated=True
        )

    def _judge(self, connection: sqlite3.Connection, snapshot: Snapshot, device: KnownDevice) -> _Verdict:
        op = self.op
        try:
            if op.reject is not None:
                raise Rejected(op.reject)
            if op.type != OpType.ORDER:
                raise Rejected(RejectCode.UNSUPPORTED_TYPE)
            if op.table != device.table:
                raise Rejected(RejectCode.WRONG_TABLE)
            if snapshot.current is None or op.menu_version not in snapshot.published:
                raise Rejected(RejectCode.UNKNOWN_MENU)
            order = price_order(snapshot.current.prices, op.lines)
        except Rejected as rejected:
            return _Verdict(Status.REJECTED, rejected.code)
        if order.total_minor != op.total_minor:
            return _Verdict(Status.REPRICE, snapshot.current.version, order.total_minor)
        sold_out = _take_stock(connection, self.catalogue.site, snapshot.counted, order)
        if sold_out is not None:
            return _Verdict(Status.SOLD_OUT, sold_out)
        return _Verdict(Status.COMMITTED, 0, order.total_minor, order)

    def _store(
        self,
        connection: sqlite3.Connection,
        site: str,
        device: KnownDevice,
        seating: int,
        chain: bytes,
        verdict: _Verdict,
    ) -> Reply:
        committed = verdict.order is not None
        lsn, newest = connection.execute(
            "UPDATE site SET lsn = lsn + 1, order_number = order_number + ? WHERE site = ? RETURNING lsn, "
            "order_number",
            (int(committed), site),
        ).fetchone()
        number = newest if committed else 0
        head = next_chain(chain, self.op_hash, verdict.status, verdict.total_minor)
        connection.execute(
            "UPDATE seating SET chain = ?, total_minor = total_minor + ? WHERE id = ?",
            (head, verdict.total_minor if committed else 0, seating),
        )
        if verdict.order is not None:
            self._insert_order(connection, site, device, seating, number, lsn, verdict.order)
        reply = Reply(self.op.op_id, verdict.status, verdict.arg, number, verdict.total_minor, lsn, head)
        connection.execute(
            "INSERT INTO answer (site, device, op_id, op_hash, status, arg, order_number, total_minor, lsn, "
            "chain, "
            "seating, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (site, self.device, self.op.op_id, self.op_hash, int(verdict.status), int(verdict.arg), number,
             verdict.total_minor, lsn, head, seating, self.now_s),
        )  # fmt: skip
        return reply

    def _insert_order(
        self,
        connection: sqlite3.Connection,
        site: str,
        device: KnownDevice,
        seating: int,
        number: int,
        lsn: int,
        order: PricedOrder,
    ) -> None:
        connection.execute(
            "INSERT INTO orders (site, order_number, device, op_id, seating, table_id, menu_version, "
            "total_minor, "
            "tax_minor, lsn, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (site, number, self.device, self.op.op_id, seating, device.table, self.op.menu_version,
             order.total_minor, order.tax_minor, lsn, self.now_s),
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO order_line (site, order_number, line, item, quantity, modifiers, unit_minor, "
            "total_minor, "
            "tax_minor) VALUES (?,?,?,?,?,?,?,?,?)",
            [
                (site, number, index, line.item, line.quantity, ",".join(map(str, line.modifiers)),
                 line.unit_minor, line.total_minor, line.tax_minor)
                for index, line in enumerate(order.lines)
            ],
        )  # fmt: skip


def next_chain(chain: bytes, op_hash: bytes, status: int, total_minor: int) -> bytes:
    """The head of a seating's chain after one more answer, 32 bytes."""
    return sha256(chain + op_hash + bytes((int(status),)) + total_minor.to_bytes(4, "big")).digest()


def _open_seating(connection: sqlite3.Connection, site: str, table: str, now_s: int) -> tuple[int, bytes]:
    row = connection.execute(
        "SELECT id, chain FROM seating WHERE site = ? AND table_id = ? AND closed_at IS NULL", (site, table)
    ).fetchone()
    if row is not None:
        return int(row[0]), bytes(row[1])
    cursor = connection.execute(
        "INSERT INTO seating (site, table_id, opened_at, chain) VALUES (?, ?, ?, ?)",
        (site, table, now_s, CHAIN_START),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid, CHAIN_START


def _take_stock(
    connection: sqlite3.Connection, site: str, counted: frozenset[int], order: PricedOrder
) -> int | None:
    """Take every counted item or none: the first item that does not suffice is returned and nothing was
    taken.
    """
    wanted: Counter[int] = Counter()
    for line in order.lines:
        if line.item in counted:
            wanted[line.item] += line.quantity
    for item, quantity in wanted.items():
        row = connection.execute(
            "SELECT count FROM stock WHERE site = ? AND item = ?", (site, item)
        ).fetchone()
        if row is not None and row[0] < quantity:
            return item
    for item, quantity in wanted.items():
        connection.execute(
            "UPDATE stock SET count = count - ? WHERE site = ? AND item = ?", (quantity, site, item)
        )
    return None
