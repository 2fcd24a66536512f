"""The bill and its seal."""

from __future__ import annotations

from bench.errors import check
from bench.provision import identity, private_key
from bench.rig import Rig
from bench.suites.house_steps import evidence_holds, open_seating, rows
from bench.suites.signing.common import (
    ONE_ESPRESSO,
    SUITE,
    TABLE,
    ask,
    fresh_seating,
)
from bench.suites.steps import (
    ESPRESSO_MINOR,
    committed_once,
    good_order_works,
)
from bench.terminal import COMMITTED, REJECTED
from server.wire.ops import Op, OpType, RejectCode
from server.wire.requests import BillClaim, BillClose, BillRequest
from server.wire.rsa import RsaSigner


@SUITE.case("a_bill_is_sealed_over_every_answer", threat="a bill nobody signed for", deadline_s=120)
def a_bill_is_sealed_over_every_answer(rig: Rig) -> str:
    """The terminal seals a bill over every answer of the seating; the evidence holds with its key alone."""
    fresh_seating(rig)
    first = good_order_works(rig)
    kept = good_order_works(rig)
    ask(rig, "cancel", op=first.op)
    refused = rig.terminal.reply(rig.terminal.queue(table="9"))
    check(refused.status == REJECTED, f"answered {refused}")
    ask(rig, "change", op=kept.op, lines=[[1, 2, []]])
    asked = ask(rig, "bill", shares=2, tender=2)
    check((asked.status, asked.total_minor) == (COMMITTED, 2 * ESPRESSO_MINOR), f"the bill: {asked}")
    claim = rig.terminal.rpc("claim")
    check((claim["first"], claim["last"], claim["count"]) == (first.op, asked.op, 6), f"it claims {claim}")
    closed = ask(rig, "pay")
    check((closed.status, closed.total_minor) == (COMMITTED, asked.total_minor), f"sealed: {closed}")
    checked = evidence_holds(rig, asked.arg, rig.folder)
    check(checked.returncode == 0, f"the evidence does not hold: {checked.stdout}{checked.stderr}")
    check(open_seating(rig, TABLE) is None, "the seating is still open")
    return f"bill {asked.arg}, {claim['count']} answers, {closed.ms:.0f} ms"


@SUITE.case("the_seal_survives_power_cuts", threat="a power cut before the bill", deadline_s=180)
def the_seal_survives_power_cuts(rig: Rig) -> str:
    """Power cuts after orders, before and after the bill was asked for: the bill is sealed all the same."""
    fresh_seating(rig)
    terminal = rig.terminal
    for _ in range(3):
        good_order_works(rig)
    terminal.boot()
    op = terminal.queue()
    terminal.boot()
    committed_once(rig, terminal.reply(op))
    asked = ask(rig, "bill")
    check(asked.status == COMMITTED, f"answered {asked}")
    terminal.boot()
    terminal.online()
    terminal.rpc("wait", **{"for": "idle"})
    closed = ask(rig, "pay")
    check((closed.status, closed.total_minor) == (COMMITTED, 4 * ESPRESSO_MINOR), f"answered {closed}")
    checked = evidence_holds(rig, asked.arg, rig.folder)
    check(checked.returncode == 0, f"the evidence does not hold: {checked.stdout}{checked.stderr}")
    return f"bill {asked.arg}"


@SUITE.case("false_bill_seal_is_rejected", threat="a bill seal over something else, or by another key")
def false_bill_seal_is_rejected(rig: Rig) -> str:
    """Seals with another count, chain, total or key are BAD_SEAL; the true one closes the bill after them."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        who, seen = impostor.who, [impostor.order(impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR))]

        def op(kind: OpType, total: int, body: BillRequest | BillClose) -> Op:
            op_id = rig.random.randbytes(12)
            return Op(kind, op_id, who.table, (), impostor.menu_version, total, None, body)

        asked = impostor.order(op(OpType.BILL_REQUEST, 0, BillRequest(1, 0)))
        check(asked.status == COMMITTED, f"the bill was answered {asked}")
        row = rows(rig, "SELECT first_op, last_op, answers, chain FROM bill WHERE bill = ?", asked.arg)[0]
        true = BillClaim(asked.arg, bytes(row[0]), bytes(row[1]), row[2], bytes(row[3]), asked.total_minor)
        check(true.chain == asked.chain and true.last == asked.op_id, "the server seals something else")
        false = [
            BillClaim(true.bill, true.first, true.last, true.count + 1, true.chain, true.total_minor),
            BillClaim(true.bill, true.first, true.last, true.count, seen[0].chain, true.total_minor),
            BillClaim(true.bill, true.last, true.last, true.count, true.chain, true.total_minor),
            BillClaim(true.bill, true.first, true.last, true.count, true.chain, true.total_minor - 1),
        ]
        seals = [claim.seal(impostor.signer, who.site, who.device) for claim in false]
        seals += [
            true.seal(RsaSigner(private_key(identity(1))), who.site, who.device),
            true.seal(impostor.signer, who.site, "t-0001"),
        ]
        for seal in seals:
            body = BillClose(true.bill, seal)
            answer = impostor.order(op(OpType.BILL_CLOSE, true.total_minor, body))
            check((answer.status, answer.arg) == (REJECTED, int(RejectCode.BAD_SEAL)), f"answered {answer}")
        body = BillClose(true.bill, true.seal(impostor.signer, who.site, who.device))
        last = impostor.order(op(OpType.BILL_CLOSE, true.total_minor, body))
        check(last.status == COMMITTED, f"the true seal was answered {last}")
    return f"{len(seals)} false seals"
