"""Life of an order line, a booking and a bill: each a table of the steps there are, and nothing else.

``step`` answers with the state that follows or refuses; whatever is not in a table is not possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum
from typing import TypeVar

from server.domain.errors import HouseCode, HouseError


class LineState(IntEnum):
    """A line in the kitchen, as it is stored and as notices carry it."""

    NEW = 0
    PREPARING = 1
    READY = 2
    SERVED = 3
    CANCELLED = 4


class LineStep(StrEnum):
    """What happens to a line. CHANGE and CANCEL are the guest's, VOID is staff's and needs a reason."""

    PREPARE = "prepare"
    FINISH = "finish"
    SERVE = "serve"
    BACK = "back"
    CANCEL = "cancel"
    VOID = "void"


LINE: Mapping[tuple[LineState, LineStep], LineState] = {
    (LineState.NEW, LineStep.PREPARE): LineState.PREPARING,
    (LineState.NEW, LineStep.FINISH): LineState.READY,
    (LineState.NEW, LineStep.SERVE): LineState.SERVED,
    (LineState.NEW, LineStep.CANCEL): LineState.CANCELLED,
    (LineState.NEW, LineStep.VOID): LineState.CANCELLED,
    (LineState.PREPARING, LineStep.FINISH): LineState.READY,
    (LineState.PREPARING, LineStep.SERVE): LineState.SERVED,
    (LineState.PREPARING, LineStep.BACK): LineState.NEW,
    (LineState.PREPARING, LineStep.VOID): LineState.CANCELLED,
    (LineState.READY, LineStep.SERVE): LineState.SERVED,
    (LineState.READY, LineStep.BACK): LineState.PREPARING,
    (LineState.READY, LineStep.VOID): LineState.CANCELLED,
    (LineState.SERVED, LineStep.BACK): LineState.READY,
    (LineState.SERVED, LineStep.VOID): LineState.CANCELLED,
}


class BookingState(StrEnum):
    """A booking; BOOKED and SEATED keep their tables, the others free them."""

    BOOKED = "booked"
    SEATED = "seated"
    NO_SHOW = "no_show"
    CANCELLED = "cancelled"


class BookingStep(StrEnum):
    """What happens to a booking: only a booked one can still change."""

    CHANGE = "change"
    SEAT = "seat"
    MISS = "miss"
    CANCEL = "cancel"


BOOKING: Mapping[tuple[BookingState, BookingStep], BookingState] = {
    (BookingState.BOOKED, BookingStep.CHANGE): BookingState.BOOKED,
    (BookingState.BOOKED, BookingStep.SEAT): BookingState.SEATED,
    (BookingState.BOOKED, BookingStep.MISS): BookingState.NO_SHOW,
    (BookingState.BOOKED, BookingStep.CANCEL): BookingState.CANCELLED,
}


class BillState(StrEnum):
    """A bill: OPEN while its seating is; then SEALED by its device with money still due, or SETTLED."""

    OPEN = "open"
    SEALED = "sealed"
    SETTLED = "settled"


class BillStep(StrEnum):
    """What happens to a bill; SETTLE needs it paid in full."""

    SEAL = "seal"
    SETTLE = "settle"


BILL: Mapping[tuple[BillState, BillStep], BillState] = {
    (BillState.OPEN, BillStep.SEAL): BillState.SEALED,
    (BillState.OPEN, BillStep.SETTLE): BillState.SETTLED,
    (BillState.SEALED, BillStep.SETTLE): BillState.SETTLED,
}

State = TypeVar("State")
Step = TypeVar("Step")


def step(
    table: Mapping[tuple[State, Step], State], state: State, what: Step, code: HouseCode, subject: str
) -> State:
    """The state after one step. Raises: HouseError(code) where the table has none."""
    after = table.get((state, what))
    if after is None:
        name = getattr(state, "name", state)
        raise HouseError(code, f"{subject} is {str(name).lower()}: {what} is not possible now")
    return after


def order_state(lines: Iterable[LineState]) -> LineState:
    """The state of a whole order, from its lines: the least advanced one, but PREPARING once any began."""
    live = [line for line in lines if line is not LineState.CANCELLED]
    if not live:
        return LineState.CANCELLED
    least = min(live)
    return LineState.PREPARING if least is LineState.NEW and max(live) > LineState.NEW else least
