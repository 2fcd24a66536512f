"""What a house refuses its staff: a stable code, a sentence, and a kind for whoever has to map it."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Families of refusals: HTTP 404, 409 and 422 in the API."""

    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INVALID = "invalid"


class HouseCode(StrEnum):
    """Stable codes; `docs/codes.md` explains each."""

    UNKNOWN_TABLE = "unknown_table"
    UNKNOWN_SEATING = "unknown_seating"
    UNKNOWN_BOOKING = "unknown_booking"
    UNKNOWN_ORDER = "unknown_order"
    UNKNOWN_BILL = "unknown_bill"
    UNKNOWN_PAYMENT = "unknown_payment"
    UNKNOWN_ITEM = "unknown_item"
    BAD_VALUE = "bad_value"
    TABLE_TAKEN = "table_taken"
    TABLE_CLOSED = "table_closed"
    ALREADY_CLOSED = "already_closed"
    SAME_SEATING = "same_seating"
    BOOKING_OVERLAP = "booking_overlap"
    BOOKING_STATE = "booking_state"
    LINE_STATE = "line_state"
    NOTHING_TO_FIRE = "nothing_to_fire"
    BILL_STATE = "bill_state"
    BILL_PENDING = "bill_pending"
    NOTHING_TO_BILL = "nothing_to_bill"
    BAD_SPLIT = "bad_split"
    OVERPAID = "overpaid"
    OVER_REFUNDED = "over_refunded"
    REASON_NEEDED = "reason_needed"


_INVALID = frozenset({HouseCode.BAD_VALUE, HouseCode.BAD_SPLIT, HouseCode.REASON_NEEDED})


class HouseError(Exception):
    """A change the house does not make; nothing was changed. `str()` is a sentence for people."""

    def __init__(self, code: HouseCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    @property
    def kind(self) -> Kind:
        """The family the code belongs to."""
        if self.code.startswith("unknown_"):
            return Kind.NOT_FOUND
        return Kind.INVALID if self.code in _INVALID else Kind.CONFLICT
