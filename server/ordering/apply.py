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
endian), from 32 zero bytes. Each device has a chain of its own in a seating, so that it can compute the head
from its own answers whoever else serves the table, and begins anew when its table's seating is another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.devices.records import DeviceState
from server.domain.seals import CHAIN_START, next_chain
from server.ordering import stock
from server.ordering.catalogue import Catalogue, KnownDevice, Snapshot
from server.ordering.lines import insert_lines
from server.ordering.pricing import PricedOrder, Rejected, price_order
from server.ordering.requests import judge_request
from server.ordering.verdict import Addressed, OpenSeating, Scene, Verdict
from server.storage.events import append_event
from server.storage.transaction import Transaction
from server.wire.notices import Notice, NoticeKind
from server.wire.ops import Op, OpType, RejectCode, Reply, Status
from server.wire.shapes import U32_MAX

__all__ = ["CHAIN_START", "Answered", "ApplyOp", "SessionGone", "next_chain"]

# What answering a plain order asks of the database, besides `stock` and `lines`; `together` answers the same
# statements for a whole group of orders at once.
SESSION_OF = "SELECT sid FROM session WHERE site = ? AND device = ?"
ANSWER_OF = (
    "SELECT op_hash, status, arg, order_number, total_minor, lsn, chain FROM answer "
    "WHERE site = ? AND device = ? AND op_id = ?"
)
OPEN_SEATING = (
    "SELECT s.id, s.total_minor, c.head, c.first_op, c.count FROM seating s "
    "LEFT JOIN device_chain c ON c.seating = s.id AND c.device = ? "
    "WHERE s.site = ? AND s.table_id = ? AND s.closed_at IS NULL"
)
NEW_SEATING = "INSERT INTO seating (site, table_id, opened_at, chain) VALUES (?, ?, ?, ?) RETURNING id"
NEXT_NUMBERS = (
    "UPDATE site SET lsn = lsn + 1, order_number = order_number + ? WHERE site = ? "
    "RETURNING lsn, order_number"
)
EXTEND_SEATING = "UPDATE seating SET chain = ?, total_minor = total_minor + ? WHERE id = ?"
NEW_CHAIN = (
    "INSERT INTO device_chain (seating, device, head, first_op, first_lsn, count) VALUES (?,?,?,?,?,1)"
)
EXTEND_CHAIN = "UPDATE device_chain SET head = ?, count = count + 1 WHERE seating = ? AND device = ?"
ANSWER_COLUMNS = (
    "site, device, op_id, op_hash, status, arg, order_number, total_minor, lsn, chain, seating, created_at, "
    "op"
)
NEW_ANSWER = f"INSERT INTO answer ({ANSWER_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
ORDER_COLUMNS = (
    "site, order_number, device, op_id, seating, table_id, menu_version, total_minor, tax_minor, lsn, "
    "created_at"
)
NEW_ORDER = f"INSERT INTO orders ({ORDER_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"


class SessionGone(Exception):
    """The op came in a session that is no longer the device's: replaced, suspended or retired."""

    code = "SESSION_GONE"


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to send, whether it had been stored before, and what to tell the tables concerned."""

    reply: Reply
    repeated: bool
    notices: tuple[Addressed, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyOp:
    """Answer one verified op; a job for the writer."""

    catalogue: Catalogue
    device: str
    sid: bytes
    op: Op
    op_hash: bytes
    now_s: int
    op_bytes: bytes = b""

    def __call__(self, transaction: Transaction) -> Answered:
        """Raises: SessionGone; nothing is stored then."""
        site, snapshot = self.catalogue.site, self.catalogue.snapshot
        known = self._current_session(transaction, site, snapshot)
        stored = transaction.execute(ANSWER_OF, (site, self.device, self.op.op_id)).fetchone()
        if stored is not None:
            return self._repeat(stored)
        seating = _open_seating(transaction, site, known.table, self.device, self.now_s)
        scene = Scene(transaction, site, self.device, known, snapshot, seating, self.op, self.now_s)
        try:
            verdict = _judge(scene)
        except Rejected as rejected:
            verdict = Verdict(Status.REJECTED, rejected.code)
        reply = self._store(scene, verdict)
        notices = verdict.notices
        if seating.fresh:
            opened = Notice(NoticeKind.SEATING_OPENED, known.table, seating.id, verdict.delta_minor)
            notices = (Addressed(known.table, opened), *notices)
        return Answered(reply, repeated=False, notices=notices)

    def _current_session(self, transaction: Transaction, site: str, snapshot: Snapshot) -> KnownDevice:
        row = transaction.execute(SESSION_OF, (site, self.device)).fetchone()
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

    def _store(self, scene: Scene, verdict: Verdict) -> Reply:
        transaction, site, seating = scene.transaction, scene.site, scene.seating
        ordered = verdict.order is not None
        lsn, newest = transaction.execute(NEXT_NUMBERS, (int(ordered), site)).fetchone()
        number = newest if ordered else verdict.order_number
        head = next_chain(seating.head, self.op_hash, verdict.status, verdict.total_minor)
        self._extend_chain(scene, head, lsn, verdict)
        if verdict.order is not None:
            self._insert_order(scene, number, lsn, verdict.order)
        transaction.execute(
            NEW_ANSWER,
            (site, self.device, self.op.op_id, self.op_hash, int(verdict.status), int(verdict.arg), number,
             verdict.total_minor, lsn, head, seating.id, self.now_s, self.op_bytes or None),
        )  # fmt: skip
        if verdict.event is not None:
            kind, body = verdict.event
            author = f"device:{self.device}"
            append_event(transaction, site, lsn, kind, body, author=author, now_s=self.now_s)
        return Reply(self.op.op_id, verdict.status, verdict.arg, number, verdict.total_minor, lsn, head)

    def _extend_chain(self, scene: Scene, head: bytes, lsn: int, verdict: Verdict) -> None:
        transaction, seating = scene.transaction, scene.seating
        transaction.execute(EXTEND_SEATING, (head, verdict.delta_minor, seating.id))
        if verdict.closes:
            transaction.execute("UPDATE seating SET closed_at = ? WHERE id = ?", (self.now_s, seating.id))
        if seating.first_op is None:
            transaction.execute(NEW_CHAIN, (seating.id, self.device, head, self.op.op_id, lsn))
        else:
            transaction.execute(EXTEND_CHAIN, (head, seating.id, self.device))
        if verdict.bill:
            transaction.execute(
                "UPDATE bill SET device = ?, first_op = ?, last_op = ?, last_lsn = ?, answers = ?, chain = ? "
                "WHERE site = ? AND bill = ?",
                (self.device, seating.first_op or self.op.op_id, self.op.op_id, lsn, seating.count + 1, head,
                 scene.site, verdict.bill),
            )  # fmt: skip

    def _insert_order(self, scene: Scene, number: int, lsn: int, order: PricedOrder) -> None:
        scene.transaction.execute(
            NEW_ORDER,
            (scene.site, number, self.device, self.op.op_id, scene.seating.id, scene.known.table,
             self.op.menu_version, order.total_minor, order.tax_minor, lsn, self.now_s),
        )  # fmt: skip
        insert_lines(scene.transaction, scene.site, number, order.lines)


def _judge(scene: Scene) -> Verdict:
    """The verdict on a new op. Raises: Rejected."""
    op, snapshot = scene.op, scene.snapshot
    if op.reject is not None:
        raise Rejected(op.reject)
    if op.table != scene.known.table:
        raise Rejected(RejectCode.WRONG_TABLE)
    if op.type != OpType.ORDER:
        return judge_request(scene)
    if op.table in snapshot.closed_tables:
        return Verdict(Status.TABLE_CLOSED)
    if snapshot.current is None or op.menu_version not in snapshot.published:
        raise Rejected(RejectCode.UNKNOWN_MENU)
    order = price_order(snapshot.current.prices, op.lines)
    if order.total_minor != op.total_minor:
        return Verdict(Status.REPRICE, snapshot.current.version, order.total_minor)
    if scene.seating.total_minor + order.total_minor > U32_MAX:
        raise Rejected(RejectCode.TOO_LARGE)
    wanted = stock.portions(order.lines)
    gone = stock.missing(wanted, snapshot)
    if gone is None:
        gone = stock.take(scene.transaction, scene.site, snapshot.counted, wanted)
    if gone is not None:
        return Verdict(Status.SOLD_OUT, gone)
    return Verdict(
        Status.COMMITTED, total_minor=order.total_minor, order=order, delta_minor=order.total_minor
    )


def _open_seating(transaction: Transaction, site: str, table: str, device: str, now_s: int) -> OpenSeating:
    row = transaction.execute(OPEN_SEATING, (device, site, table)).fetchone()
    if row is not None:
        number, total, head, first_op, count = row
        if head is None:
            return OpenSeating(number, total, CHAIN_START, None, 0)
        return OpenSeating(number, total, bytes(head), bytes(first_op), count)
    made = transaction.execute(NEW_SEATING, (site, table, now_s, CHAIN_START)).fetchone()
    return OpenSeating(int(made[0]), 0, CHAIN_START, None, 0, fresh=True)
