"""Steps several suites share: looking at the ledger, at refusals, at a terminal's own counters."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import check
from bench.rig import Rig
from bench.terminal import COMMITTED, Reply, Terminal
from bench.wait import until
from server.storage.ledger import LedgerOrder

ESPRESSO_ID, ESPRESSO_MINOR = 1, 260
COLA_ID = 32
REPLIES, OPS, HELLOS, ACCEPTS, BEACONS = "d/+/+/reply", "o/+/+/op", "o/+/+/hello", "d/+/+/hello", "s/+/beacon"


def order_count(rig: Rig) -> int:
    """Committed orders."""
    return rig.server.ledger.order_count(rig.options.site)


def orders_of(rig: Rig, ops: Sequence[str]) -> list[LedgerOrder]:
    """The committed orders with these op ids (hex)."""
    wanted = set(ops)
    return [order for order in rig.server.ledger.orders(rig.options.site) if order.op_id.hex() in wanted]


def refusals(rig: Rig, device: str | None = None) -> int:
    """Refusals the server has counted, of one device or all."""
    counted = rig.server.ledger.refusals(rig.options.site)
    return sum(count for (_, name, _), count in counted.items() if device in (None, name))


def await_refusals(rig: Rig, since: int, device: str | None = None, count: int = 1) -> int:
    """Wait until the server has counted `count` more than `since`; returns how many more."""
    until(
        lambda: refusals(rig, device) >= since + count,
        f"{count} refusals counted by the server (saw {refusals(rig, device) - since})",
    )
    return refusals(rig, device) - since


def terminal_refusals(terminal: Terminal) -> int:
    """Frames the terminal has not accepted, of every kind."""
    stats = terminal.rpc("stats")
    return sum(int(count) for part in ("control", "sender") for count in stats[part]["refused"].values())


def await_terminal_refusals(terminal: Terminal, since: int, count: int = 1) -> None:
    """Wait until the terminal has refused `count` more than `since`."""
    until(lambda: terminal_refusals(terminal) >= since + count, f"{count} frames refused by the terminal")


def session_id(rig: Rig, device: str = "t-0001") -> bytes | None:
    """The server's session of a device, None without one."""
    sessions = rig.server.ledger.sessions(rig.options.site)
    return next((session.sid for session in sessions if session.device == device), None)


def good_order_works(rig: Rig) -> Reply:
    """After whatever an attack did, the next honest order is committed, once, with the right total."""
    rig.terminal.online()
    reply = rig.terminal.order()
    committed_once(rig, reply)
    return reply


def committed_once(rig: Rig, reply: Reply, total_minor: int = ESPRESSO_MINOR) -> LedgerOrder:
    """A COMMITTED reply and the ledger say the same."""
    check(reply.status == COMMITTED, f"the order was answered with status {reply.status}, arg {reply.arg}")
    found = orders_of(rig, [reply.op])
    check(len(found) == 1, f"the ledger has {len(found)} orders for op {reply.op}")
    check(
        (found[0].order_number, found[0].total_minor, found[0].lsn)
        == (reply.order, reply.total_minor, reply.lsn),
        f"terminal and ledger disagree: {reply} and {found[0]}",
    )
    check(reply.total_minor == total_minor, f"total {reply.total_minor}, not {total_minor}")
    return found[0]


def each_committed_once(rig: Rig, ops: Sequence[str]) -> None:
    """Every op has exactly one order in the ledger."""
    found = [order.op_id.hex() for order in orders_of(rig, ops)]
    check(
        sorted(found) == sorted(ops),
        f"{len(ops)} ops, {len(found)} orders of {len(set(found))} ops in the ledger",
    )
