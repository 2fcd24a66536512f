"""Ops and replies: what a device asks for within a session, and the one answer it gets.

An op whose MAC is valid and whose op-id is readable is never dropped for its body: it carries the reject
code it will be answered with, so that the device's journal can let go of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from server.wire import shapes
from server.wire.cbor import Value, decode, encode
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import HASH_BYTES
from server.wire.requests import (
    OP_ID_BYTES,
    BillClose,
    BillRequest,
    Body,
    CallWaiter,
    Cancel,
    Change,
)

OP_MAX_BYTES = 1024
REPLY_MAX_BYTES = 256
LINES_MAX = 32
MODIFIERS_MAX = 8
QUANTITY_MAX = 99
LSN_MAX = 0xFFFF_FFFF_FFFF_FFFF


class OpType(IntEnum):
    """Types of op; TELEMETRY travels in an envelope of its own and is not answered."""

    ORDER = 1
    CHANGE = 2
    CANCEL = 3
    CALL_WAITER = 4
    BILL_REQUEST = 5
    BILL_CLOSE = 6
    TELEMETRY = 7


class Status(IntEnum):
    """Status of a reply; 0 to 5 are final and stored (4 is not used), RATE_LIMITED is neither."""

    COMMITTED = 0
    REPRICE = 1
    SOLD_OUT = 2
    TABLE_CLOSED = 3
    REJECTED = 5
    RATE_LIMITED = 16


_STATUSES = frozenset(int(status) for status in Status)


class RejectCode(IntEnum):
    """Why an op was REJECTED, the reply's arg."""

    UNSUPPORTED_TYPE = 1
    WRONG_TABLE = 2
    UNKNOWN_ITEM = 3
    UNKNOWN_MODIFIER = 4
    MODIFIER_RULE = 5
    BAD_QUANTITY = 6
    UNKNOWN_MENU = 7
    BODY_MISMATCH = 8
    MALFORMED = 9
    TOO_LARGE = 10
    UNKNOWN_ORDER = 11
    TOO_LATE = 12
    NO_OPEN_BILL = 13
    BAD_SEAL = 14
    ALREADY_CLOSED = 15
    BILL_PENDING = 16


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order: item id, quantity 1..99, modifier ids."""

    item: int
    quantity: int
    modifiers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a device; `total_minor` in minor units.

    `lines` are those of an order or a change; `body` is what any op but an order carries. `reject` is None
    for an op of the right shape; otherwise the code it must be answered with, and `lines` is empty. Where
    fields are unreadable, `table` is "" and the numbers are 0.
    """

    type: int
    op_id: bytes
    table: str
    lines: tuple[Line, ...]
    menu_version: int
    total_minor: int
    reject: RejectCode | None = None
    body: Body | None = None

    def encode(self) -> bytes:
        """Return the encoded op, the bytes `op_hash` is taken over."""
        lines: list[Value] = [[line.item, line.quantity, list(line.modifiers)] for line in self.lines]
        body: Value = lines
        if isinstance(self.body, Change):
            body = [self.body.target, lines]
        elif self.body is not None:
            body = self.body.value()
        return encode([int(self.type), self.op_id, self.table, body, self.menu_version, self.total_minor])


class _Reject(Exception):
    """An op with a readable op-id that can only be answered with a reject code."""

    def __init__(self, code: RejectCode) -> None:
        super().__init__(code.name)
        self.code = code


def op_hash(op_bytes: bytes) -> bytes:
    """Return the SHA-256 over the encoded op: stable over retries, reboots and sessions."""
    return sha256(op_bytes).digest()


def _line(value: Value) -> Line:
    if not isinstance(value, list) or len(value) != 3:
        raise _Reject(RejectCode.MALFORMED)
    item, quantity, modifiers = value
    if type(item) is not int or type(quantity) is not int or not isinstance(modifiers, list):
        raise _Reject(RejectCode.MALFORMED)
    if not 1 <= item <= 0xFFFF or len(modifiers) > MODIFIERS_MAX:
        raise _Reject(RejectCode.MALFORMED)
    for modifier in modifiers:
        if type(modifier) is not int or not 1 <= modifier <= 0xFFFF:
            raise _Reject(RejectCode.MALFORMED)
    if not 1 <= quantity <= QUANTITY_MAX:
        raise _Reject(RejectCode.BAD_QUANTITY)
    return Line(item, quantity, tuple(modifiers))  # judged one by one above


def _lines(value: Value) -> tuple[Line, ...]:
    if not isinstance(value, list) or not value:
        raise _Reject(RejectCode.MALFORMED)
    if len(value) > LINES_MAX:
        raise _Reject(RejectCode.TOO_LARGE)
    return tuple([_line(line) for line in value])


_BODIES: dict[int, Callable[[Value], Body]] = {
    OpType.CANCEL: Cancel.parse,
    OpType.CALL_WAITER: CallWaiter.parse,
    OpType.BILL_REQUEST: BillRequest.parse,
    OpType.BILL_CLOSE: BillClose.parse,
}
_WITHOUT_TOTAL = frozenset({OpType.CANCEL, OpType.CALL_WAITER, OpType.BILL_REQUEST})


def _request(op_type: int, value: Value) -> tuple[tuple[Line, ...], Body]:
    """Lines and body of an op that is not an order."""
    try:
        if op_type == OpType.CHANGE:
            target, lines = shapes.array(value, 2, 2, "change body")
            return _lines(lines), Change.parse(target)
        return (), _BODIES[op_type](value)
    except Refusal as refusal:
        raise _Reject(RejectCode.MALFORMED) from refusal


def _op(op_type: int, op_id: bytes, fields: list[Value]) -> Op:
    _, _, table, value, menu_version, total = fields
    if not isinstance(table, str) or not shapes.is_identifier(table):
        raise _Reject(RejectCode.MALFORMED)
    if type(menu_version) is not int or not 0 <= menu_version <= shapes.U32_MAX:
        raise _Reject(RejectCode.MALFORMED)
    if type(total) is not int or not 0 <= total <= shapes.U32_MAX:
        raise _Reject(RejectCode.MALFORMED)
    if op_type == OpType.ORDER:
        return Op(OpType.ORDER, op_id, table, _lines(value), menu_version, total)
    if total and op_type in _WITHOUT_TOTAL:
        raise _Reject(RejectCode.MALFORMED)
    lines, body = _request(op_type, value)
    return Op(op_type, op_id, table, lines, menu_version, total, None, body)


def parse_op(value: Value) -> Op:
    """Judge a decoded op.

    An op of the right shape has `reject` None; everything else with a readable op-id has a reject code.
    Raises: Refusal(BAD_SHAPE) where not even type and op-id can be read, so that nobody could be answered.
    """
    if not isinstance(value, list) or len(value) < 2:
        raise shapes.bad_shape("op")
    op_type = value[0] if type(value[0]) is int else 0
    op_id = shapes.exactly(value[1], OP_ID_BYTES, "op-id")
    if len(value) != 6 or op_type < OpType.ORDER:
        return Op(0, op_id, "", (), 0, 0, RejectCode.MALFORMED)
    if op_type >= OpType.TELEMETRY:  # telemetry does not travel in an op-frame
        return Op(op_type, op_id, "", (), 0, 0, RejectCode.UNSUPPORTED_TYPE)
    try:
        return _op(op_type, op_id, value)
    except _Reject as reject:
        return Op(op_type, op_id, "", (), 0, 0, reject.code)


_HEAD_BYTES = {0x18: 2, 0x19: 3, 0x1A: 5}  # of an unsigned integer, by its first byte; otherwise 1

# Payload up to the op-id: array of 2, seq, array of 6 or another count, type, byte string of 12.
_OP_START = re.compile(
    rb"\x82(?:([\x01-\x17])|\x18([\x18-\xff])|\x19(.{2})|\x1a(.{4}))([\x80-\x97][\x00-\x17]\x4c(.{12}))",
    re.DOTALL,
)


def _salvage(payload: bytes, refusal: Refusal) -> "OpMessage":
    """Return a MALFORMED op for a payload that is bad CBOR only after its op-id: it can be answered."""
    match = _OP_START.match(payload)
    if match is None:
        raise refusal
    seq = int.from_bytes(match[1] or match[2] or match[3] or match[4], "big")
    if not payload.startswith(b"\x82" + encode(seq)):
        raise refusal
    return OpMessage(seq, Op(0, match[6], "", (), 0, 0, RejectCode.MALFORMED), payload[match.start(5) :])


@dataclass(frozen=True, slots=True)
class OpMessage:
    """An op with the sequence number of its transmission; `op_bytes` is the encoded op inside."""

    seq: int
    op: Op
    op_bytes: bytes

    @classmethod
    def from_payload(cls, payload: bytes) -> "OpMessage":
        """Judge the payload of an op-frame whose MAC is valid.

        Raises: Refusal(BAD_ENCODING, TRAILING_BYTES, BAD_SHAPE) where seq and op-id cannot be read.
        """
        try:
            value = decode(payload, OP_MAX_BYTES)
        except Refusal as refusal:
            if refusal.code != RefusalCode.BAD_ENCODING:
                raise
            return _salvage(payload, refusal)
        if not isinstance(value, list) or len(value) != 2:
            raise shapes.bad_shape("op-message")
        seq = shapes.u32(value[0], "seq")
        if seq == 0:
            raise shapes.bad_shape("seq")
        return cls(seq, parse_op(value[1]), payload[1 + _HEAD_BYTES.get(payload[1], 1) :])


def encode_op_message(seq: int, op_bytes: bytes) -> bytes:
    """Return the payload of an op-frame from an already encoded op."""
    return b"\x82" + encode(seq) + op_bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one op; `total_minor` in minor units, `chain` the seating's chain head after it."""

    op_id: bytes
    status: int
    arg: int
    order_number: int
    total_minor: int
    lsn: int
    chain: bytes

    def payload(self) -> bytes:
        """Return the MACed bytes."""
        return encode(
            [
                self.op_id,
                int(self.status),
                int(self.arg),
                self.order_number,
                self.total_minor,
                self.lsn,
                self.chain,
            ]
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> "Reply":
        """Judge a reply as a device does. Raises: Refusal."""
        f = shapes.array(decode(payload, REPLY_MAX_BYTES), 7, 7, "reply")
        status = shapes.integer(f[1], 0, 16, "reply status")
        if status not in _STATUSES:
            raise Refusal(RefusalCode.BAD_SHAPE, "the reply has an unknown status")
        return cls(
            op_id=shapes.exactly(f[0], OP_ID_BYTES, "reply op-id"),
            status=status,
            arg=shapes.u32(f[2], "reply arg"),
            order_number=shapes.u32(f[3], "reply order number"),
            total_minor=shapes.u32(f[4], "reply total"),
            lsn=shapes.integer(f[5], 0, LSN_MAX, "reply lsn"),
            chain=shapes.exactly(f[6], HASH_BYTES, "reply chain"),
        )
