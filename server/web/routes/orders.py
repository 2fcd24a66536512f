"""Orders in the kitchen and on the floor, and what has run out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from server.domain.states import LineState
from server.service import views
from server.storage.transaction import Transaction
from server.web.access import SERVICE, STAFF, Caller, Role
from server.web.auth import Allow, Change
from server.web.idempotency import Call
from server.web.problems import Problem
from server.web.services import services_of
from server.web.shapes import (
    ID,
    MOST,
    AvailabilityChange,
    Because,
    CourseChange,
    ItemId,
    Line,
    LineChange,
    Number,
    OrderPage,
    OrderView,
    StockChange,
    StockView,
)

router = APIRouter(tags=["orders"])
Staff = Annotated[Caller, Depends(Allow(*STAFF))]


@router.get("/v1/orders")
async def orders(
    request: Request,
    _: Staff,
    after: Annotated[int, Query(ge=0, le=MOST)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    table: Annotated[str | None, Query(pattern=ID)] = None,
) -> OrderPage:
    """Committed orders with a number above ``after``, oldest first; ``table``: where their party is now."""
    services = services_of(request)
    found = await services.reads.run(_orders, services.site, after, limit, table)
    return OrderPage(orders=found, next=found[-1].order if len(found) == limit else None)


def _orders(
    transaction: Transaction, site: str, after: int, limit: int, table: str | None
) -> list[OrderView]:
    numbers = transaction.execute(
        "SELECT o.order_number FROM orders o JOIN seating s ON s.id = o.seating "
        "WHERE o.site = ? AND o.order_number > ? AND (? = '' OR s.table_id = ?) "
        "ORDER BY o.order_number LIMIT ?",
        (site, after, table or "", table or "", limit),
    ).fetchall()
    return [OrderView.model_validate(views.order(transaction, site, row[0])) for row in numbers]


@router.get("/v1/orders/{order}")
async def one_order(request: Request, _: Staff, order: Number) -> OrderView:
    """One order with all its lines."""
    services = services_of(request)
    found = await services.reads.run(views.order, services.site, order)
    if found is None:
        raise Problem(404, "unknown_order", f"There is no order {order}.")
    return OrderView.model_validate(found)


@router.post("/v1/orders/{order}/lines/{line}/state")
async def line_state(
    request: Request,
    call: Annotated[Call, Depends(Change(*STAFF))],
    order: Number,
    line: Line,
    body: LineChange,
) -> Response:
    """Move a line along: new, preparing, ready, served; back one step at a time."""
    services = services_of(request)
    state = LineState[body.state.upper()]
    return await services.act(call, services.house.set_line_state(call.author, order, line, state))


@router.post("/v1/orders/{order}/lines/{line}/course")
async def line_course(
    request: Request,
    call: Annotated[Call, Depends(Change(*SERVICE))],
    order: Number,
    line: Line,
    body: CourseChange,
) -> Response:
    """Say with which course a line is served."""
    services = services_of(request)
    return await services.act(call, services.house.set_course(call.author, order, line, body.course))


@router.post("/v1/orders/{order}/lines/{line}/void")
async def void_line(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER))],
    order: Number,
    line: Line,
    body: Because,
) -> Response:
    """Take a line off the bill, with a reason."""
    services = services_of(request)
    return await services.act(call, services.house.void_line(call.author, order, line, body.reason))


@router.get("/v1/stock", tags=["menu"])
async def stock(request: Request, _: Staff) -> list[StockView]:
    """Items that are counted or were taken off sale."""
    services = services_of(request)
    return await services.reads.run(_stock, services.site)


def _stock(transaction: Transaction, site: str) -> list[StockView]:
    counts = dict(transaction.execute("SELECT item, count FROM stock WHERE site = ?", (site,)).fetchall())
    states = dict(
        transaction.execute("SELECT item, available FROM item_state WHERE site = ?", (site,)).fetchall()
    )
    return [
        StockView(item=item, count=counts.get(item), available=bool(states.get(item, 1)))
        for item in sorted({*counts, *states})
    ]


@router.put("/v1/items/{item}/stock", tags=["menu"])
async def set_stock(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER, Role.KITCHEN))],
    item: ItemId,
    body: StockChange,
) -> Response:
    """Count an item from now on, or stop counting it."""
    services = services_of(request)
    return await services.act(call, services.house.set_stock(call.author, item, body.count))


@router.put("/v1/items/{item}/availability", tags=["menu"])
async def set_available(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER, Role.KITCHEN))],
    item: ItemId,
    body: AvailabilityChange,
) -> Response:
    """Take an item off sale, or put it on again."""
    services = services_of(request)
    return await services.act(call, services.house.set_available(call.author, item, body.available))
