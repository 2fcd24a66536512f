"""Committed orders as staff see them."""

from __future__ import annotations

import sqlite3
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from server.web.access import STAFF, Caller
from server.web.auth import Allow
from server.web.routes.devices import ID
from server.web.services import services_of

router = APIRouter(tags=["orders"])


class LineView(BaseModel):
    """One line; amounts in minor units, tax contained in the total."""

    line: int
    item: int
    quantity: int
    modifiers: list[int]
    unit_minor: int
    total_minor: int
    tax_minor: int


class OrderView(BaseModel):
    """One committed order; times in unix seconds."""

    order_number: int
    table: str
    device: str
    op_id: str
    seating: int
    menu_version: int
    total_minor: int
    tax_minor: int
    lsn: int
    created_at: int
    lines: list[LineView]


class OrderPage(BaseModel):
    """Orders by number; ask for the next page with ``after`` = ``next``, which is null at the end."""

    orders: list[OrderView]
    next: int | None


@router.get("/v1/orders")
async def orders(
    request: Request,
    _: Annotated[Caller, Depends(Allow(*STAFF))],
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    table: Annotated[str | None, Query(pattern=ID)] = None,
) -> OrderPage:
    """Committed orders with a number above ``after``, oldest first."""
    services = services_of(request)
    found = await services.reads.run(_orders, services.site, after, limit, table)
    return OrderPage(orders=found, next=found[-1].order_number if len(found) == limit else None)


def _orders(
    connection: sqlite3.Connection, site: str, after: int, limit: int, table: str | None
) -> list[OrderView]:
    rows = connection.execute(
        "SELECT order_number, table_id, device, op_id, seating, menu_version, total_minor, tax_minor, lsn, "
        "created_at FROM orders WHERE site = ? AND order_number > ? AND (? IS NULL OR table_id = ?) "
        "ORDER BY order_number LIMIT ?",
        (site, after, table, table, limit),
    ).fetchall()
    return [_order(connection, site, row) for row in rows]


def _order(connection: sqlite3.Connection, site: str, row: tuple[object, ...]) -> OrderView:
    number, table, device, op_id, seating, menu_version, total, tax, lsn, created = row
    lines = connection.execute(
        "SELECT line, item, quantity, modifiers, unit_minor, total_minor, tax_minor FROM order_line "
        "WHERE site = ? AND order_number = ? ORDER BY line",
        (site, number),
    )
    return OrderView.model_validate(
        {
            "order_number": number,
            "table": table,
            "device": device,
            "op_id": bytes(op_id).hex() if isinstance(op_id, bytes) else "",
            "seating": seating,
            "menu_version": menu_version,
            "total_minor": total,
            "tax_minor": tax,
            "lsn": lsn,
            "created_at": created,
            "lines": [
                {
                    "line": line,
                    "item": item,
                    "quantity": quantity,
                    "modifiers": [int(part) for part in modifiers.split(",") if part],
                    "unit_minor": unit,
                    "total_minor": line_total,
                    "tax_minor": line_tax,
                }
                for line, item, quantity, modifiers, unit, line_total, line_tax in lines
            ],
        }
    )
