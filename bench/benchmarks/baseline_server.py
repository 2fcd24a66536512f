"""The plain order server that ours is compared with: FastAPI, SQLAlchemy ORM, one transaction per request.

Ordinary on purpose, and honest: what a good tutorial leads to, with the settings a careful person makes (WAL
with synchronous=FULL, BEGIN IMMEDIATE so that nobody fails halfway, a sized pool). It takes the same sealed
bytes over HTTP, checks them with cbor2 and cryptography, prices the lines, answers an order id it has seen
with the stored order, and seals its reply. What it leaves out is in its favour: handshakes, the anti-replay
window, the bill's chain, the event log, rate limits. It shares no code with the server.

Run by `tableside bench benchmark orders`; by hand:
    python -m bench.benchmarks.baseline_server --database sqlite:///plain.db --setup setup.json
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import cbor2
import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from fastapi import FastAPI, HTTPException, Request, Response
from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint, create_engine, event, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

POOL_SIZE = 20
PROTECTED = b"\xa1\x01\x05"  # {alg: HMAC 256/256}
COSE_MAC0 = 17
COMMITTED, REPRICE = 0, 1
NO_CHAIN = bytes(32)


class Base(DeclarativeBase):
    """All tables."""


class Item(Base):
    """Something on the menu."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price_minor: Mapped[int]
    tax_basis_points: Mapped[int]


class Terminal(Base):
    """A terminal, its table and the keys of its session."""

    __tablename__ = "terminals"
    device: Mapped[str] = mapped_column(primary_key=True)
    table_name: Mapped[str]
    sid: Mapped[bytes]
    key_in: Mapped[bytes]
    key_out: Mapped[bytes]
    aad_in: Mapped[bytes]
    aad_out: Mapped[bytes]


class Seating(Base):
    """The guests at a table and what they owe."""

    __tablename__ = "seatings"
    id: Mapped[int] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(unique=True)
    total_minor: Mapped[int] = mapped_column(BigInteger, default=0)


class Order(Base):
    """A committed order."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("device", "op_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("terminals.device"))
    op_id: Mapped[bytes]
    seating_id: Mapped[int] = mapped_column(ForeignKey("seatings.id"), index=True)
    total_minor: Mapped[int]
    tax_minor: Mapped[int]
    created_at: Mapped[int]
    lines: Mapped[list[OrderLine]] = relationship(back_populates="order")


class OrderLine(Base):
    """One line of an order."""

    __tablename__ = "order_lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    quantity: Mapped[int]
    unit_minor: Mapped[int]
    total_minor: Mapped[int]
    order: Mapped[Order] = relationship(back_populates="lines")


def make_engine(url: str) -> Engine:
    """The engine for SQLite or PostgreSQL."""
    engine = create_engine(url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_timeout=60)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: object) -> None:
            connection.isolation_level = None
            for setting in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {setting}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def fill(engine: Engine, setup: dict[str, Any]) -> None:
    """Make the tables and the rows a service starts with: menu, terminals, open tables."""
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(Item(**row) for row in setup["items"])
        for row in setup["terminals"]:
            keys = {
                name: bytes.fromhex(row[name]) for name in ("sid", "key_in", "key_out", "aad_in", "aad_out")
            }
            session.add(Terminal(device=row["device"], table_name=row["table"], **keys))
            session.add(Seating(table_name=row["table"]))


def mac_of(key: bytes, aad: bytes, payload: bytes) -> HMAC:
    """The MAC of RFC 9052 section 6.3, ready to be finalised or verified."""
    mac = HMAC(key, SHA256())
    mac.update(cbor2.dumps(["MAC0", PROTECTED, aad, payload]))
    return mac


def open_frame(terminal: Terminal, frame: bytes) -> list[Any]:
    """The op in a sealed frame. Raises: HTTPException 401 when it is not this terminal's."""
    try:
        tag = cbor2.loads(frame)
        protected, unprotected, payload, mac = tag.value
        if tag.tag != COSE_MAC0 or protected != PROTECTED or unprotected[4] != terminal.sid:
            raise ValueError("another envelope")
        mac_of(terminal.key_in, terminal.aad_in, payload).verify(mac)
        _seq, op = cbor2.loads(payload)
        return list(op)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        InvalidSignature,
        cbor2.CBORDecodeError,
    ) as error:
        raise HTTPException(401, "not a sealed op of this terminal") from error


def seal_reply(terminal: Terminal, reply: list[Any]) -> bytes:
    """A reply sealed for a terminal."""
    payload = cbor2.dumps(reply)
    tag = mac_of(terminal.key_out, terminal.aad_out, payload).finalize()
    return cbor2.dumps(cbor2.CBORTag(COSE_MAC0, [PROTECTED, {4: terminal.sid}, payload, tag]))


def place(session: Session, terminal: Terminal, op: list[Any]) -> list[Any]:
    """Apply one op in the session's transaction and return the reply's fields."""
    _type, op_id, _table, lines, menu_version, total = op
    before = session.scalar(select(Order).where(Order.device == terminal.device, Order.op_id == op_id))
    if before is not None:
        return [op_id, COMMITTED, 0, before.id, before.total_minor, before.id, NO_CHAIN]
    items = {
        item.id: item for item in session.scalars(select(Item).where(Item.id.in_([row[0] for row in lines])))
    }
    rows = []
    tax = 0
    for number, quantity, _modifiers in lines:
        item = items[number]
        amount = item.price_minor * quantity
        tax += amount * item.tax_basis_points // (10_000 + item.tax_basis_points)
        rows.append(
            OrderLine(item_id=number, quantity=quantity, unit_minor=item.price_minor, total_minor=amount)
        )
    amount = sum(row.total_minor for row in rows)
    if amount != total:
        return [op_id, REPRICE, menu_version, 0, amount, 0, NO_CHAIN]
    seating = session.scalars(
        select(Seating).where(Seating.table_name == terminal.table_name).with_for_update()
    ).one()
    seating.total_minor += amount
    order = Order(device=terminal.device, op_id=op_id, seating_id=seating.id, total_minor=amount,
                  tax_minor=tax, created_at=int(time.time()), lines=rows)  # fmt: skip
    session.add(order)
    session.flush()
    return [op_id, COMMITTED, 0, order.id, amount, order.id, NO_CHAIN]


def make_app(engine: Engine) -> FastAPI:
    """The application; its one endpoint runs in FastAPI's thread pool, as database code should."""
    app = FastAPI()

    def answer(device: str, frame: bytes) -> bytes:
        with Session(engine) as session, session.begin():
            terminal = session.get(Terminal, device)
            if terminal is None:
                raise HTTPException(401, "unknown terminal")
            reply = place(session, terminal, open_frame(terminal, frame))
            session.flush()
            sealed = seal_reply(terminal, reply)
        return sealed

    @app.post("/orders/{device}")
    async def orders(device: str, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        frame = await request.body()
        return Response(await run_in_threadpool(answer, device, frame), media_type="application/cose")

    return app


def main() -> int:
    """Serve until told to stop; prints one JSON line with the port when listening."""
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.baseline_server", description=__doc__)
    parser.add_argument(
        "--database", required=True, metavar="URL", help="sqlite:///FILE or postgresql+psycopg://"
    )
    parser.add_argument(
        "--setup", required=True, type=Path, metavar="FILE", help="items and terminals as JSON"
    )
    args = parser.parse_args()
    engine = make_engine(args.database)
    fill(engine, json.loads(args.setup.read_text()))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        print(json.dumps({"event": "ready", "port": listener.getsockname()[1]}), flush=True)
        config = uvicorn.Config(make_app(engine), log_level="error", access_log=False, timeout_keep_alive=600)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
