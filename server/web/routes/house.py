"""The room: tables, seatings, bookings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from server.service import views
from server.service.bookings import Wish
from server.storage.transaction import Transaction
from server.web.access import SERVICE, STAFF, Caller, Role
from server.web.auth import Allow, Change
from server.web.idempotency import Call
from server.web.services import services_of
from server.web.shapes import (
    TIME_MOST,
    BookingChange,
    BookingView,
    CancelBooking,
    CloseTable,
    Merge,
    Name,
    NewBooking,
    NewSeating,
    NewTable,
    Number,
    SeatBooking,
    SeatingView,
    TableView,
    Transfer,
)

router = APIRouter(tags=["house"])
Serving = Annotated[Call, Depends(Change(*SERVICE))]


@router.get("/v1/tables")
async def tables(request: Request, _: Annotated[Caller, Depends(Allow(*STAFF))]) -> list[TableView]:
    """All tables, each with its open seating."""
    services = services_of(request)
    return await services.reads.run(_tables, services.site)


def _tables(transaction: Transaction, site: str) -> list[TableView]:
    rows = transaction.execute(
        "SELECT t.table_id, t.seats, s.id, c.table_id IS NULL FROM dining_table t LEFT JOIN seating s "
        "ON s.site = t.site AND s.table_id = t.table_id AND s.closed_at IS NULL "
        "LEFT JOIN closed_table c ON c.site = t.site AND c.table_id = t.table_id "
        "WHERE t.site = ? ORDER BY t.table_id",
        (site,),
    )
    return [TableView(table=row[0], seats=row[1], seating=row[2], open=bool(row[3])) for row in rows]


@router.post("/v1/tables", status_code=201)
async def add_table(
    request: Request, call: Annotated[Call, Depends(Change(Role.MANAGER))], body: NewTable
) -> Response:
    """Register a table, or say how many it seats."""
    services = services_of(request)
    return await services.act(call, services.house.add_table(call.author, body.table, body.seats), 201)


@router.post("/v1/tables/{table}/close")
async def close_table(request: Request, call: Serving, table: Name, body: CloseTable) -> Response:
    """Take a table without guests out of service: its terminals' orders are answered TABLE_CLOSED."""
    services = services_of(request)
    return await services.act(call, services.house.close_table(call.author, table, body.reason))


@router.post("/v1/tables/{table}/open")
async def open_table(request: Request, call: Serving, table: Name) -> Response:
    """Put a table into service again."""
    services = services_of(request)
    return await services.act(call, services.house.open_table(call.author, table))


@router.get("/v1/seatings")
async def seatings(
    request: Request,
    _: Annotated[Caller, Depends(Allow(*SERVICE))],
    closed: Annotated[bool, Query(description="those that ended, too")] = False,
) -> list[SeatingView]:
    """Parties at their tables, oldest first."""
    services = services_of(request)
    found = await services.reads.run(views.seatings, services.site, only_open=not closed)
    return [SeatingView.model_validate(row) for row in found]


@router.post("/v1/seatings", status_code=201)
async def open_seating(request: Request, call: Serving, body: NewSeating) -> Response:
    """Seat a party."""
    services = services_of(request)
    return await services.act(call, services.house.open_seating(call.author, body.table, body.covers), 201)


@router.post("/v1/seatings/{seating}/transfer")
async def transfer(request: Request, call: Serving, seating: Number, body: Transfer) -> Response:
    """Move a party to a free table; its orders and its bill go with it."""
    services = services_of(request)
    return await services.act(call, services.house.transfer(call.author, seating, body.table))


@router.post("/v1/seatings/{seating}/merge")
async def merge(request: Request, call: Serving, seating: Number, body: Merge) -> Response:
    """Put a party on another's bill."""
    services = services_of(request)
    return await services.act(call, services.house.merge(call.author, seating, body.into))


@router.post("/v1/seatings/{seating}/close")
async def close(request: Request, call: Serving, seating: Number) -> Response:
    """End a seating whose bill is paid, or that never cost anything."""
    services = services_of(request)
    return await services.act(call, services.house.close(call.author, seating))


@router.get("/v1/bookings")
async def bookings(
    request: Request,
    _: Annotated[Caller, Depends(Allow(*SERVICE))],
    start_at: Annotated[int, Query(ge=0, le=TIME_MOST)] = 0,
    end_at: Annotated[int, Query(ge=0, le=TIME_MOST)] = TIME_MOST,
) -> list[BookingView]:
    """Bookings that share a moment with [start_at, end_at), in unix seconds."""
    services = services_of(request)
    found = await services.reads.run(views.bookings, services.site, start_at, end_at)
    return [BookingView.model_validate(row) for row in found]


@router.post("/v1/bookings", status_code=201)
async def book(request: Request, call: Serving, body: NewBooking) -> Response:
    """Keep tables for a party; no table is kept twice for the same moment."""
    services = services_of(request)
    job = services.house.book(call.author, body.name, body.covers, body.tables, body.start_at, body.end_at)
    return await services.act(call, job, 201)


@router.post("/v1/bookings/{booking}/change")
async def change_booking(request: Request, call: Serving, booking: Number, body: BookingChange) -> Response:
    """Give a booking another time, party or other tables; what is left out stays as it is."""
    services = services_of(request)
    wish = Wish(body.name, body.covers, body.tables, body.start_at, body.end_at)
    return await services.act(call, services.house.change_booking(call.author, booking, wish))


@router.post("/v1/bookings/{booking}/seat")
async def seat_booking(request: Request, call: Serving, booking: Number, body: SeatBooking) -> Response:
    """The party is here."""
    services = services_of(request)
    return await services.act(call, services.house.seat_booking(call.author, booking, body.table))


@router.post("/v1/bookings/{booking}/cancel")
async def cancel_booking(request: Request, call: Serving, booking: Number, body: CancelBooking) -> Response:
    """Free the tables."""
    services = services_of(request)
    return await services.act(call, services.house.cancel_booking(call.author, booking, body.reason))


@router.post("/v1/bookings/{booking}/no-show")
async def no_show(request: Request, call: Serving, booking: Number) -> Response:
    """Nobody came: free the tables."""
    services = services_of(request)
    return await services.act(call, services.house.no_show(call.author, booking))
