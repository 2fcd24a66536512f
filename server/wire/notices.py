"""Notices: what a terminal is told about its table. A notice informs; a lost one loses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from server.wire import shapes
from server.wire.cbor import decode, encode

NOTICE_MAX_BYTES = 256


class NoticeKind(IntEnum):
    """What happened."""

    SEATING_OPENED = 1
    TRANSFERRED_AWAY = 2
    TRANSFERRED_HERE = 3
    CLOSED = 4
    ORDER_STATE = 5


def order_state_arg(order_number: int, state: int) -> int:
    """The arg of an ORDER_STATE notice: state 0 new, 1 preparing, 2 ready, 3 served, 4 cancelled."""
    return (order_number << 3 | state) & shapes.U32_MAX


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice about a seating; ``total_minor`` is what has been ordered in it so far."""

    kind: int
    table: str
    seating: int
    total_minor: int
    arg: int = 0

    def payload(self, seq: int) -> bytes:
        """Return the MACed bytes; ``seq`` grows within a session."""
        return encode([seq, int(self.kind), self.table, self.seating, self.total_minor, self.arg])

    @classmethod
    def from_payload(cls, payload: bytes) -> tuple[int, Notice]:
        """Judge a notice as a device does; returns its sequence number, too. Raises: Refusal."""
        f = shapes.array(decode(payload, NOTICE_MAX_BYTES), 6, 6, "notice")
        return shapes.u32(f[0], "notice seq"), cls(
            kind=shapes.integer(f[1], 1, 5, "notice kind"),
            table=shapes.identifier(f[2], "notice table"),
            seating=shapes.u32(f[3], "notice seating"),
            total_minor=shapes.u32(f[4], "notice total"),
            arg=shapes.u32(f[5], "notice arg"),
        )
