"""Nonsense: malformed, misshapen, oversized, misaddressed."""

from __future__ import annotations

import json

from bench.errors import check
from bench.paths import FIXTURES
from bench.rig import TELLING_BROKER, Rig
from bench.suites.signing.common import (
    ONE_ESPRESSO,
    SUITE,
    last_op,
)
from bench.suites.steps import (
    ESPRESSO_ID,
    ESPRESSO_MINOR,
    await_refusals,
    good_order_works,
    order_count,
    refusals,
)
from bench.terminal import REJECTED
from server.wire.cose import mac0, mac_prefix
from server.wire.ops import Line, RejectCode, encode_op_message


@SUITE.case("malformed_frames_are_counted", threat="malformed or oversized frames")
def malformed_frames_are_counted(rig: Rig) -> str:
    """Every malformed vector is a counted refusal, never an order; the next good order works."""
    vectors = json.loads((FIXTURES / "protocol" / "vectors.json").read_text())["negative"]
    before, refused = order_count(rig), refusals(rig, "t-0008")
    sent = 0
    with rig.impostor() as impostor:
        for vector in vectors:
            kind = {"op-frame": "op", "hello-frame": "hello"}.get(vector["kind"])
            if kind is not None:
                impostor.say(kind, bytes.fromhex(vector["hex"]))
                sent += 1
        await_refusals(rig, refused, "t-0008", sent)
        for size in (0, 1, 1025, 60_000):
            impostor.say("op", bytes(size))
    check(order_count(rig) == before, "a malformed frame became an order")
    good_order_works(rig)
    return f"{sent} vectors"


@SUITE.case("misshapen_orders_get_a_code", threat="malformed or oversized frames")
def misshapen_orders_get_a_code(rig: Rig) -> str:
    """MAC-valid orders with impossible contents are answered REJECTED with the fitting code."""
    wrong = {
        RejectCode.UNKNOWN_ITEM: (Line(65535, 1),),
        RejectCode.UNKNOWN_MODIFIER: (Line(ESPRESSO_ID, 1, (65535,)),),
        RejectCode.MODIFIER_RULE: (Line(180, 1),),  # a steak without its doneness
        RejectCode.BAD_QUANTITY: (Line(ESPRESSO_ID, 0),),
        RejectCode.TOO_LARGE: tuple(Line(ESPRESSO_ID, 1) for _ in range(33)),
    }
    with rig.impostor() as impostor:
        impostor.shake_hands()
        before = order_count(rig)
        for code, lines in wrong.items():
            reply = impostor.order(impostor.op(lines, ESPRESSO_MINOR))
            check((reply.status, reply.arg) == (REJECTED, int(code)), f"{code.name}: answered {reply}")
        huge = impostor.order(impostor.op((Line(ESPRESSO_ID, 100),), 100 * ESPRESSO_MINOR))
        check((huge.status, huge.arg) == (REJECTED, int(RejectCode.BAD_QUANTITY)), f"100 pieces: {huge}")
        check(order_count(rig) == before, "an impossible order was committed")
    return ", ".join(code.name for code in wrong)


@SUITE.case("sequence_zero_is_refused", threat="malformed or oversized frames")
def sequence_zero_is_refused(rig: Rig) -> None:
    """A MAC-valid op with sequence number 0 is refused: numbers begin at 1."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        assert impostor.keys is not None
        before, refused = order_count(rig), refusals(rig, "t-0008")
        payload = encode_op_message(0, impostor.op(ONE_ESPRESSO, ESPRESSO_MINOR).encode())
        where = mac_prefix(impostor.op_aad())
        impostor.say("op", mac0(impostor.keys.device_to_server, impostor.sid, payload, where))
        await_refusals(rig, refused, "t-0008")
        check(order_count(rig) == before, "it became an order")


@SUITE.case(
    "foreign_topic_is_denied",
    features=(TELLING_BROKER,),
    threat="a terminal publishing under another's topic",
)
def foreign_topic_is_denied(rig: Rig) -> None:
    """A terminal can neither publish under another's topic nor listen to another's answers."""
    refused = refusals(rig, "t-0008")
    capture = last_op(rig)
    with rig.impostor() as impostor:
        check(not impostor.subscribe("d/demo/t-0001/#"), "it may listen to another terminal")
        check(not impostor.subscribe("#"), "it may listen to everything")
        impostor.publish("o/demo/t-0001/op", capture.publish.payload)
        await_refusals(rig, refused, "t-0008", 3)
    good_order_works(rig)
