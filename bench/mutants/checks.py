"""Named checks for planted bugs that no honest run can show. Each returns "" or what is wrong.

They look at one rule each, through the real code, in milliseconds to seconds.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from bench.mutants.beacon_checks import an_old_beacon_stays_old, beacon_numbers_are_used_once
from bench.provision import identity, private_key, public_spki
from bench.sim import firmware
from bench.sim.clock import EPOCH_S
from bench.sim.randomness import Seeded
from server.devices.records import DeviceState, SessionRow
from server.devices.verify import OpVerifier, Session
from server.domain.bookings import overlaps
from server.domain.seals import ChainLink, claim_for
from server.ordering.apply import Answered, ApplyOp
from server.ordering.catalogue import Catalogue
from server.ordering.price_list import PricedItem, PriceList, price_list
from server.storage import admin
from server.storage.database import Database, open_database
from server.storage.writer import Writer
from server.wire import aad
from server.wire.cose import mac0, mac_prefix
from server.wire.errors import Refusal
from server.wire.ops import Line, Op, OpType, RejectCode, Reply, Status, encode_op_message
from server.wire.requests import BillClose, BillRequest, Body
from server.wire.rsa import RsaSigner

SITE, DEVICE, TABLE = "demo", "t-0001", "1"
SID, KEY, TH8 = b"sid.", b"k" * 32, b"th8-----"


class _Clock:
    def unix_time(self) -> int:
        return EPOCH_S


@contextmanager
def _house() -> Iterator[tuple[Database, sqlite3.Connection, Catalogue]]:
    """A database with one menu (item 1 at 260), one device and its session."""
    prices: PriceList = price_list(1, 0, {1: 700}, {}, {1: PricedItem(260, 1, ())})
    with tempfile.TemporaryDirectory(prefix="tableside-check-") as folder:
        database = open_database(Path(folder), create=True)
        connection = database.driver_connection()
        try:
            admin.ensure_site(database, SITE)
            admin.publish_menu(database, SITE, 1, b"menu", EPOCH_S)
            admin.add_device(
                database, SITE, DEVICE, table=TABLE, spki=b"key", password_hash="",
                state=DeviceState.ACTIVE, now_s=EPOCH_S,
            )  # fmt: skip
            connection.execute(
                "INSERT INTO session (site, device, sid, k_d2s, k_s2d, k_resume, th8, created_at, "
                "expires_at, hello_hash, accept, handshake) VALUES (?,?,?,?,?,?,?,?,?,?,?,1)",
                (SITE, DEVICE, SID, KEY, KEY, KEY, TH8, EPOCH_S, EPOCH_S + 100, b"", b""),
            )
            catalogue = Catalogue(SITE, lambda _frame: prices)
            catalogue.reload(connection)
            yield database, connection, catalogue
        finally:
            connection.close()
            database.close()


def _op(number: int, quantity: int) -> Op:
    return Op(OpType.ORDER, number.to_bytes(12, "big"), TABLE, (Line(1, quantity, ()),), 1, 260 * quantity)


def _apply(connection: sqlite3.Connection, catalogue: Catalogue, op: Op, body: bytes) -> Answered:
    connection.execute("BEGIN IMMEDIATE")
    answered = ApplyOp(catalogue, DEVICE, SID, op, sha256(body).digest(), EPOCH_S)(connection)
    connection.execute("COMMIT")
    return answered


def body_of_an_op_is_bound() -> str:
    """An op_id that comes again with another body is rejected, and nothing of it is stored."""
    with _house() as (_, connection, catalogue):
        first = _apply(connection, catalogue, _op(1, 1), b"first").reply
        again = _apply(connection, catalogue, _op(1, 1), b"first").reply
        other = _apply(connection, catalogue, _op(1, 2), b"second").reply
        orders = connection.execute("SELECT COUNT(*) FROM orders").fetchone()[0]
    if again != first:
        return "the same op got two answers"
    if other.status != Status.REJECTED or other.arg != RejectCode.BODY_MISMATCH:
        return f"another body under the same op_id was answered {other.status!r}"
    return "" if orders == 1 else f"{orders} orders for one op_id"


def only_the_newest_claim_is_sealed() -> str:
    """A bill that was asked for twice is closed by a seal over the second request, not over the first."""
    me = identity(1, SITE)
    with _house() as (_, connection, catalogue):
        connection.execute("UPDATE device SET spki = ?", (public_spki(me),))
        links: list[ChainLink] = []

        def send(number: int, op_type: int, body: Body | None, total: int = 0) -> Reply:
            lines = (Line(1, 1, ()),) if op_type == OpType.ORDER else ()
            op = Op(op_type, number.to_bytes(12, "big"), TABLE, lines, 1, total, None, body)
            data = op.encode()
            reply = _apply(connection, catalogue, op, data).reply
            links.append(ChainLink(op.op_id, sha256(data).digest(), reply.status, reply.total_minor))
            return reply

        def seal(answers: int) -> BillClose:
            claim = claim_for(links[:answers], bill, 260)
            return BillClose(bill, claim.seal(RsaSigner(private_key(me)), SITE, DEVICE))

        send(1, OpType.ORDER, None, 260)
        bill = send(2, OpType.BILL_REQUEST, BillRequest(1, 0)).arg
        send(3, OpType.BILL_REQUEST, BillRequest(2, 0))
        stale = send(4, OpType.BILL_CLOSE, seal(2), 260)
        fresh = send(5, OpType.BILL_CLOSE, seal(3), 260)
    if stale.status != Status.REJECTED:
        return f"a seal over an older request was answered {stale.status!r}"
    return "" if fresh.status == Status.COMMITTED else f"the newest claim was answered {fresh.status!r}"


def forged_frames_move_no_window() -> str:
    """A frame without a valid MAC is refused and leaves the replay window where it was."""
    row = SessionRow(SITE, DEVICE, SID, KEY, KEY, KEY, TH8, EPOCH_S, EPOCH_S + 100, b"", b"", 1)
    session, verifier = Session(row), OpVerifier(_Clock())
    op_bytes = b"\x86\x01\x4c" + bytes(11) + b"\x01\x61\x31\x81\x83\x01\x01\x80\x01\x19\x01\x04"
    forged = mac0(b"x" * 32, SID, encode_op_message(900, op_bytes), session.op_prefix)
    with suppress(Refusal):
        verifier.open(session, forged)
        return "a forged frame was accepted"
    if session.window.top != 0:
        return f"a forged frame moved the window to {session.window.top}"
    verified = verifier.open(session, mac0(KEY, SID, encode_op_message(1, op_bytes), session.op_prefix))
    return "" if not verified.duplicate and verified.seq == 1 else "a fresh op is taken for a duplicate"


def forged_replies_are_refused() -> str:
    """A terminal believes a reply only with the MAC of its session."""
    prefix = mac_prefix(aad.reply(SITE, DEVICE, SID, TH8))
    payload = Reply(b"an op id 123", Status.COMMITTED, 0, 7, 260, 9, bytes(32)).payload()
    opener = firmware.module("terminal.wire.cose").Opener(KEY, SITE, DEVICE, SID, TH8)
    if opener.open(memoryview(mac0(KEY, SID, payload, prefix)))[3] != 7:
        return "a true reply is not read"
    with suppress(firmware.module("terminal.wire.errors").WireError):
        opener.open(memoryview(mac0(b"x" * 32, SID, payload, prefix)))
        return "a reply under another key was believed"
    return ""


def handshake_numbers_are_used_once() -> str:
    """No handshake number is given out twice, wherever the power fails while one is stored."""
    regions = firmware.module("terminal.regions")
    counters = firmware.module("terminal.counters").Counters
    power_cut = firmware.module("boards.host.nor").PowerCut
    region = regions.find(regions.COUNTERS)
    nor, last = _nor(), 0
    for round_ in range(40):
        store = counters(nor.region(*region))
        store.boot()
        number = store.next_handshake()
        if number <= last:
            return f"handshake {number} after {last}"
        last = number
        nor.cut_at(1, round_ % 20 - 1, 0)
        with suppress(power_cut):
            store.next_handshake()
        nor = _nor(bytes(nor.data))
    return ""


def failed_job_leaves_nothing() -> str:
    """A job that fails after its first write leaves no trace in the batch that is committed."""

    def half(connection: Any) -> None:
        connection.execute("INSERT INTO stock (site, item, count) VALUES (?, 77, 1)", (SITE,))
        raise ValueError("on purpose")

    async def story(database: Database) -> None:
        writer = Writer(database, asyncio.get_running_loop())
        writer.start()
        with suppress(ValueError):
            await writer.run(half)
        await writer.run(lambda connection: None)
        await asyncio.to_thread(writer.stop)

    with _house() as (database, connection, _):
        asyncio.run(story(database))
        rows = connection.execute("SELECT COUNT(*) FROM stock WHERE item = 77").fetchone()[0]
    return "half of a failed job was committed" if rows else ""


def bookings_share_no_moment() -> str:
    """The overlap rule agrees with counting minutes, for every pair of short bookings."""
    spans = [(start, end) for start, end in product(range(6), range(1, 7)) if start < end]
    for (a, b), (c, d) in product(spans, spans):
        shared = set(range(a, b)) & set(range(c, d))
        if overlaps(a * 60, b * 60, c * 60, d * 60) != bool(shared):
            return f"[{a}, {b}) and [{c}, {d}) minutes: overlap is judged wrong"
    return ""


def _journal(nor: Any, boot: int) -> Any:
    regions = firmware.module("terminal.regions")
    region = nor.region(*regions.find(regions.JOURNAL))
    return firmware.module("terminal.outbox").Outbox(region, boot)


def _nor(image: bytes | None = None) -> Any:
    return firmware.module("boards.host.nor").Nor(firmware.module("terminal.regions").FLASH_BYTES, image)


def journal_keeps_what_is_pending() -> str:
    """One unanswered op outlives any number of answered ones, and a power cut after each round."""
    random = Seeded(1, "journal")
    nor = _nor()
    outbox = _journal(nor, 1)
    kept = outbox.next_op_id(random.random)
    outbox.append(kept, b"kept" * 20)
    for _ in range(1500):
        op_id = outbox.next_op_id(random.random)
        outbox.append(op_id, b"done" * 20)
        outbox.done(op_id, 0)
    outbox.flush()
    recovered = dict(_journal(_nor(bytes(nor.data)), 2).pending())
    return "" if recovered == {kept: b"kept" * 20} else f"{len(recovered)} ops pending where one was"


def torn_records_are_not_seen() -> str:
    """Whatever part of a record reached flash, recovery shows it whole or not at all, and those before it."""
    random = Seeded(2, "torn")
    power_cut = firmware.module("boards.host.nor").PowerCut
    for keep in range(0, 120, 3):
        nor = _nor()
        outbox = _journal(nor, 1)
        stored: dict[bytes, bytes] = {}
        for size in (30, 44, 61):
            op_id, op = outbox.next_op_id(random.random), random.random(size)
            outbox.append(op_id, op)
            stored[op_id] = op
        last, torn = outbox.next_op_id(random.random), random.random(70)
        nor.cut_at(1, keep, 0)
        with suppress(power_cut):
            outbox.append(last, torn)
        found = dict(_journal(_nor(bytes(nor.data)), 2).pending())
        if found.get(last, torn) != torn:
            return f"{keep} bytes of a record are shown as an op"
        if {name: op for name, op in found.items() if name != last} != stored:
            return f"a record torn after {keep} bytes changed those before it"
    return ""


CHECKS: Mapping[str, Callable[[], str]] = {
    check.__name__: check
    for check in (
        body_of_an_op_is_bound,
        only_the_newest_claim_is_sealed,
        forged_frames_move_no_window,
        forged_replies_are_refused,
        handshake_numbers_are_used_once,
        failed_job_leaves_nothing,
        bookings_share_no_moment,
        journal_keeps_what_is_pending,
        torn_records_are_not_seen,
        beacon_numbers_are_used_once,
        an_old_beacon_stays_old,
    )
}
