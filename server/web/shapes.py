"""Shapes shared by requests and answers: identifiers, bounds, and views of what staff work with."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

ID = "^[a-z0-9-]{1,32}$"
MOST = 2**53 - 1
MONEY_MOST_MINOR = 2**32 - 1
TIME_MOST = 2**40

Name = Annotated[str, Path(pattern=ID)]
Number = Annotated[int, Path(ge=1, le=MOST)]
Line = Annotated[int, Path(ge=0, le=1000)]
ItemId = Annotated[int, Path(ge=1, le=65_535)]
Table = Annotated[str, Field(pattern=ID)]
Covers = Annotated[int, Field(ge=0, le=999)]
Reason = Annotated[str, Field(min_length=1, max_length=200)]


class Asked(BaseModel):
    """A request's body: exactly the members documented."""

    model_config = ConfigDict(extra="forbid")


class TableView(BaseModel):
    """A table; ``seating`` is its open seating."""

    table: str
    seats: int
    seating: int | None


class NewTable(Asked):
    """A table to register, or to give another number of seats."""

    table: Table
    seats: Covers = 0


class SeatingView(BaseModel):
    """A party at a table; times in unix seconds."""

    seating: int
    table: str
    covers: int
    total_minor: int
    opened_at: int
    closed_at: int | None
    merged_into: int | None


class NewSeating(Asked):
    """A party to seat."""

    table: Table
    covers: Covers = 0


class Transfer(Asked):
    """Where a party moves."""

    table: Table


class Merge(Asked):
    """The seating a party joins."""

    into: int = Field(ge=1, le=MOST)


class BookingView(BaseModel):
    """A booking; times in unix seconds, the end not included."""

    booking: int
    name: str
    covers: int
    tables: list[str]
    start_at: int
    end_at: int
    state: str
    seating: int | None


class NewBooking(Asked):
    """Tables to keep for a party."""

    name: str = Field(min_length=1, max_length=80)
    covers: int = Field(ge=1, le=999)
    tables: list[Table] = Field(min_length=1, max_length=16)
    start_at: int = Field(ge=0, le=TIME_MOST)
    end_at: int = Field(ge=0, le=TIME_MOST)


class SeatBooking(Asked):
    """At which of its tables a booked party sits; null: the first that is free."""

    table: Table | None = None


class CancelBooking(Asked):
    """Why a booking is cancelled."""

    reason: str = Field(default="", max_length=200)


class LineView(BaseModel):
    """One line; amounts in minor units, tax contained in the total."""

    line: int
    item: int
    quantity: int
    modifiers: list[int]
    unit_minor: int
    total_minor: int
    tax_minor: int
    state: str
    course: int


class OrderView(BaseModel):
    """One committed order; ``at`` in unix seconds."""

    order: int
    device: str
    seating: int
    table: str
    menu_version: int
    total_minor: int
    tax_minor: int
    lsn: int
    at: int
    state: str
    lines: list[LineView]


class OrderPage(BaseModel):
    """Orders by number; ask for the next page with ``after`` = ``next``, which is null at the end."""

    orders: list[OrderView]
    next: int | None


class LineChange(Asked):
    """The state a line is in now."""

    state: Literal["new", "preparing", "ready", "served"]


class CourseChange(Asked):
    """The course a line is served with."""

    course: int = Field(ge=1, le=9)


class Because(Asked):
    """Why."""

    reason: Reason


class PartView(BaseModel):
    """A guest's part of a bill; ``lines`` are pairs of order and line."""

    part: int
    due_minor: int
    tax_minor: int
    lines: list[list[int]]


class PaymentView(BaseModel):
    """A payment that was taken."""

    payment: int
    part: int | None
    tender: str
    reference: str
    amount_minor: int
    refunded_minor: int
    at: int


class BillView(BaseModel):
    """A bill; ``sealed`` when the table's terminal has signed it."""

    bill: int
    seating: int
    state: str
    total_minor: int
    tax_minor: int
    rounding: str
    paid_minor: int
    due_minor: int
    sealed: bool
    parts: list[PartView]
    payments: list[PaymentView]


class Split(Asked):
    """Weights, or groups of [order, line]; one of the two."""

    shares: list[Annotated[int, Field(ge=1, le=1000)]] | None = Field(
        default=None, min_length=1, max_length=50
    )
    groups: list[list[Annotated[list[int], Field(min_length=2, max_length=2)]]] | None = Field(
        default=None, min_length=1, max_length=50
    )


class NewPayment(Asked):
    """Money taken; a card payment needs the terminal's reference."""

    amount_minor: int = Field(ge=1, le=MONEY_MOST_MINOR)
    tender: Literal["cash", "card"]
    reference: str = Field(default="", max_length=80)
    part: int | None = Field(default=None, ge=1, le=1000)


class NewRefund(Asked):
    """Money given back, and why."""

    amount_minor: int = Field(ge=1, le=MONEY_MOST_MINOR)
    reason: Reason


class StockView(BaseModel):
    """An item's standing: what is left (null: not counted) and whether it is on sale."""

    item: int
    count: int | None
    available: bool


class StockChange(Asked):
    """What is left of an item; null: do not count it."""

    count: int | None = Field(ge=0, le=1_000_000)


class AvailabilityChange(Asked):
    """Whether an item is on sale."""

    available: bool


class EventView(BaseModel):
    """One committed change: the audit log and the feed."""

    lsn: int
    kind: str
    author: str
    reason: str
    at: int
    body: dict[str, object]


class EventPage(BaseModel):
    """Changes by LSN; ask for the next page with ``after`` = ``next``."""

    events: list[EventView]
    next: int
