"""Shapes shared by requests and answers: identifiers, bounds, and views of what staff work with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

ID = "^[a-z0-9-]{1,32}$"
STATION = "^[a-z0-9-]{0,32}$"
MOST = 2**53 - 1
MONEY_MOST_MINOR = 2**32 - 1
TIME_MOST = 2**40

Name = Annotated[str, Path(pattern=ID)]
Number = Annotated[int, Path(ge=1, le=MOST)]
Line = Annotated[int, Path(ge=0, le=1000)]
ItemId = Annotated[int, Path(ge=1, le=65_535)]
Course = Annotated[int, Path(ge=1, le=9)]
Token = Annotated[str, Path(pattern="^[0-9a-f]{1,16}$")]
Table = Annotated[str, Field(pattern=ID)]
Covers = Annotated[int, Field(ge=0, le=999)]
Reason = Annotated[str, Field(min_length=1, max_length=200)]


class Asked(BaseModel):
    """A request's body: exactly the members documented."""

    model_config = ConfigDict(extra="forbid")


def examples(*bodies: dict[str, Any]) -> ConfigDict:
    """The configuration of a request's body with examples for the OpenAPI document."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": list(bodies)})


class TableView(BaseModel):
    """A table; ``seating`` is its open seating; one that is not ``open`` was taken out of service."""

    table: str
    seats: int
    seating: int | None
    open: bool


class NewTable(Asked):
    """A table to register, or to give another number of seats."""

    model_config = examples({"table": "12", "seats": 4})
    table: Table
    seats: Covers = 0


class CloseTable(Asked):
    """Why a table is taken out of service."""

    model_config = examples({"reason": "rain on the terrace"})
    reason: str = Field(default="", max_length=200)


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

    model_config = examples({"table": "12", "covers": 2})
    table: Table
    covers: Covers = 0


class Transfer(Asked):
    """Where a party moves."""

    model_config = examples({"table": "terrace"})
    table: Table


class Merge(Asked):
    """The seating a party joins."""

    model_config = examples({"into": 17})
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

    model_config = examples(
        {"name": "Ada", "covers": 6, "tables": ["4", "5"], "start_at": 1_800_000_000, "end_at": 1_800_007_200}
    )
    name: str = Field(min_length=1, max_length=80)
    covers: int = Field(ge=1, le=999)
    tables: list[Table] = Field(min_length=1, max_length=16)
    start_at: int = Field(ge=0, le=TIME_MOST)
    end_at: int = Field(ge=0, le=TIME_MOST)


class BookingChange(Asked):
    """What is to be different about a booking; null or left out: as it is."""

    model_config = examples({"start_at": 1_800_000_000, "end_at": 1_800_007_200}, {"tables": ["4", "5"]})
    name: str | None = Field(default=None, min_length=1, max_length=80)
    covers: int | None = Field(default=None, ge=1, le=999)
    tables: list[Table] | None = Field(default=None, min_length=1, max_length=16)
    start_at: int | None = Field(default=None, ge=0, le=TIME_MOST)
    end_at: int | None = Field(default=None, ge=0, le=TIME_MOST)


class SeatBooking(Asked):
    """At which of its tables a booked party sits; null: the first that is free."""

    model_config = examples({"table": "12"}, {})
    table: Table | None = None


class CancelBooking(Asked):
    """Why a booking is cancelled."""

    model_config = examples({"reason": "called off by phone"})
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

    model_config = examples({"state": "ready"})
    state: Literal["new", "preparing", "ready", "served"]


class TicketChange(Asked):
    """The state everything of an order at one station is in now; "" is the station of items without one."""

    model_config = examples({"station": "grill", "state": "ready"})
    station: str = Field(pattern=STATION)
    state: Literal["new", "preparing", "ready", "served"]


class TicketLineView(BaseModel):
    """A line on a ticket; ``held``: it waits for its course. ``since`` and ``by`` belong to its state."""

    line: int
    item: int
    quantity: int
    modifiers: list[int]
    state: str
    course: int
    held: bool
    since: int
    by: str


class TicketView(BaseModel):
    """What one station makes of one order; ``at``: when it was ordered, unix seconds."""

    order: int
    station: str
    table: str
    seating: int
    at: int
    state: str
    held: bool
    lines: list[TicketLineView]


class TicketPage(BaseModel):
    """Open tickets as of ``lsn``; ask for more with ``after`` = ``next``, which is null at the end."""

    tickets: list[TicketView]
    lsn: int
    next: int | None


class StepView(BaseModel):
    """A step staff took with a line."""

    line: int
    state: str
    author: str
    reason: str
    at: int
    lsn: int


class StationView(BaseModel):
    """An item and the station that makes it."""

    item: int
    station: str


class StationChange(Asked):
    """The station that makes an item; "": none in particular."""

    model_config = examples({"station": "grill"})
    station: str = Field(pattern=STATION)


class CourseChange(Asked):
    """The course a line is served with."""

    model_config = examples({"course": 2})
    course: int = Field(ge=1, le=9)


class Because(Asked):
    """Why."""

    model_config = examples({"reason": "spilled"})
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

    model_config = examples({"shares": [1, 1, 1]}, {"groups": [[[1001, 0]], [[1001, 1]]]})
    shares: list[Annotated[int, Field(ge=1, le=1000)]] | None = Field(
        default=None, min_length=1, max_length=50
    )
    groups: list[list[Annotated[list[int], Field(min_length=2, max_length=2)]]] | None = Field(
        default=None, min_length=1, max_length=50
    )


class NewPayment(Asked):
    """Money taken; a card payment needs the terminal's reference."""

    model_config = examples(
        {"amount_minor": 780, "tender": "cash"},
        {"amount_minor": 780, "tender": "card", "reference": "4711"},
    )
    amount_minor: int = Field(ge=1, le=MONEY_MOST_MINOR)
    tender: Literal["cash", "card"]
    reference: str = Field(default="", max_length=80)
    part: int | None = Field(default=None, ge=1, le=1000)


class NewRefund(Asked):
    """Money given back, and why."""

    model_config = examples({"amount_minor": 260, "reason": "cold"})
    amount_minor: int = Field(ge=1, le=MONEY_MOST_MINOR)
    reason: Reason


class StockView(BaseModel):
    """An item's standing: what is left (null: not counted) and whether it is on sale."""

    item: int
    count: int | None
    available: bool


class StockChange(Asked):
    """What is left of an item; null: do not count it."""

    model_config = examples({"count": 12}, {"count": None})
    count: int | None = Field(ge=0, le=1_000_000)


class AvailabilityChange(Asked):
    """Whether an item is on sale."""

    model_config = examples({"available": False})
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
