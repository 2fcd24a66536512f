"""Bills: drawn up, split, paid, refunded; and the log of everything that changed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from server import evidence
from server.service import views
from server.web.access import SERVICE, Caller, Role
from server.web.auth import Allow, Change
from server.web.idempotency import Call
from server.web.problems import Problem
from server.web.services import services_of
from server.web.shapes import MOST, BillView, EventPage, EventView, NewPayment, NewRefund, Number, Split

router = APIRouter(tags=["bills"])
Serving = Annotated[Call, Depends(Change(*SERVICE))]


@router.post("/v1/seatings/{seating}/bill", status_code=201)
async def draw_up(request: Request, call: Serving, seating: Number) -> Response:
    """Draw up the bill of a seating, or bring it up to date."""
    services = services_of(request)
    return await services.act(call, services.house.bill(call.author, seating), 201)


@router.get("/v1/bills/{bill}")
async def bill(request: Request, _: Annotated[Caller, Depends(Allow(*SERVICE))], bill: Number) -> BillView:
    """A bill with its parts and payments."""
    services = services_of(request)
    found = await services.reads.run(views.bill, services.site, bill)
    if found is None:
        raise Problem(404, "unknown_bill", f"There is no bill {bill}.")
    return BillView.model_validate(found)


@router.get("/v1/bills/{bill}/evidence")
async def bill_evidence(
    request: Request, _: Annotated[Caller, Depends(Allow(Role.MANAGER))], bill: Number
) -> dict[str, Any]:
    """What a third party needs to check a bill's seal with the terminal's public key alone."""
    services = services_of(request)
    if await services.reads.run(views.bill, services.site, bill) is None:
        raise Problem(404, "unknown_bill", f"There is no bill {bill}.")
    return await services.reads.run(evidence.collect, services.site, bill)


@router.post("/v1/bills/{bill}/split")
async def split(request: Request, call: Serving, bill: Number, body: Split) -> Response:
    """Split a bill nobody has paid from, by weights or by lines."""
    services = services_of(request)
    groups = (
        None if body.groups is None else [[(pair[0], pair[1]) for pair in group] for group in body.groups]
    )
    return await services.act(
        call, services.house.split(call.author, bill, shares=body.shares, groups=groups)
    )


@router.post("/v1/bills/{bill}/payments", status_code=201)
async def pay(request: Request, call: Serving, bill: Number, body: NewPayment) -> Response:
    """Record a payment that was taken."""
    services = services_of(request)
    job = services.house.pay(call.author, bill, body.amount_minor, body.tender, body.reference, body.part)
    return await services.act(call, job, 201)


@router.post("/v1/payments/{payment}/refunds", status_code=201)
async def refund(
    request: Request, call: Annotated[Call, Depends(Change(Role.MANAGER))], payment: Number, body: NewRefund
) -> Response:
    """Give some or all of a payment back, with a reason."""
    services = services_of(request)
    job = services.house.refund(call.author, payment, body.amount_minor, body.reason)
    return await services.act(call, job, 201)


@router.get("/v1/events", tags=["audit"])
async def events(
    request: Request,
    _: Annotated[Caller, Depends(Allow(Role.MANAGER))],
    after: Annotated[int, Query(ge=0, le=MOST)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> EventPage:
    """Everything that was changed, by whom and why, in the order of its LSN."""
    services = services_of(request)
    found = await services.reads.run(views.feed, services.site, after, limit)
    rows = [EventView.model_validate(row) for row in found]
    return EventPage(events=rows, next=rows[-1].lsn if rows else after)
