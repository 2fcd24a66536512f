"""The kitchen: tickets by station, one tap for a whole ticket, courses, and which station makes what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from server.domain.states import LineState
from server.service import tickets, views
from server.storage.transaction import Transaction
from server.web.access import SERVICE, STAFF, Caller, Role
from server.web.auth import Allow, Change
from server.web.etags import is_known, lsn_etag
from server.web.idempotency import Call
from server.web.problems import Problem
from server.web.services import services_of
from server.web.shapes import (
    MOST,
    STATION,
    Course,
    ItemId,
    Number,
    StationChange,
    StationView,
    StepView,
    TicketChange,
    TicketPage,
    TicketView,
)

router = APIRouter(tags=["kitchen"])
Staff = Annotated[Caller, Depends(Allow(*STAFF))]


@router.get(
    "/v1/tickets",
    response_model=TicketPage,
    responses={304: {"description": "nothing has happened on this site since If-None-Match"}},
)
async def open_tickets(
    request: Request,
    _: Staff,
    station: Annotated[
        str | None, Query(pattern=STATION, description='left out: every station; "": items of none')
    ] = None,
    after: Annotated[int, Query(ge=0, le=MOST, description="orders above this number")] = 0,
    if_none_match: Annotated[str | None, Header(max_length=1024)] = None,
) -> Response:
    """What is still to be made or served, oldest order first; a ticket is what one station makes of an order.

    The ETag changes with every change on the site, so a display may ask as often as it likes. ``lsn`` is
    where ``/v1/feed?after=`` goes on from this answer.
    """
    services = services_of(request)
    etag, page = await services.reads.run(_tickets, services.site, station, after, if_none_match)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if page is None:
        return Response(status_code=304, headers=headers)
    return Response(page.model_dump_json(), headers=headers, media_type="application/json")


def _tickets(
    transaction: Transaction, site: str, station: str | None, after: int, known: str | None
) -> tuple[str, TicketPage | None]:
    lsn = views.newest_lsn(transaction, site)
    etag = lsn_etag(lsn)
    if is_known(known, etag):
        return etag, None
    found, following = tickets.open_tickets(transaction, site, station, after)
    shown = [TicketView.model_validate(tickets.shown(ticket)) for ticket in found]
    return etag, TicketPage(tickets=shown, lsn=lsn, next=following)


@router.post("/v1/orders/{order}/state")
async def ticket_state(
    request: Request, call: Annotated[Call, Depends(Change(*STAFF))], order: Number, body: TicketChange
) -> Response:
    """Move everything one station makes of an order along at once: all of it, or nothing."""
    services = services_of(request)
    state = LineState[body.state.upper()]
    return await services.act(call, services.house.set_ticket_state(call.author, order, body.station, state))


@router.get("/v1/orders/{order}/steps")
async def steps(request: Request, _: Staff, order: Number) -> list[StepView]:
    """Who moved which line of an order when, oldest first; voids with their reason."""
    services = services_of(request)
    found = await services.reads.run(_steps, services.site, order)
    if found is None:
        raise Problem(404, "unknown_order", f"There is no order {order}.")
    return found


def _steps(transaction: Transaction, site: str, order: int) -> list[StepView] | None:
    if views.order(transaction, site, order) is None:
        return None
    return [StepView.model_validate(step) for step in tickets.steps(transaction, site, order)]


@router.post("/v1/seatings/{seating}/courses/{course}/fire")
async def fire(
    request: Request, call: Annotated[Call, Depends(Change(*SERVICE))], seating: Number, course: Course
) -> Response:
    """Have the kitchen begin a course of a party."""
    services = services_of(request)
    return await services.act(call, services.house.fire_course(call.author, seating, course))


@router.get("/v1/stations")
async def stations(request: Request, _: Staff) -> list[StationView]:
    """Items that are made at a station of their own."""
    services = services_of(request)
    found = await services.reads.run(tickets.stations, services.site)
    return [StationView(item=item, station=station) for item, station in found.items()]


@router.put("/v1/items/{item}/station")
async def set_station(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER, Role.KITCHEN))],
    item: ItemId,
    body: StationChange,
) -> Response:
    """Say where an item is made."""
    services = services_of(request)
    return await services.act(call, services.house.set_station(call.author, item, body.station))
