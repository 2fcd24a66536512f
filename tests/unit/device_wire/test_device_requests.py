"""Change, cancel, call, bill, telemetry and notices: written and read byte for byte as the vectors say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from terminal.tally import Claim
from terminal.wire import requests as wire
from terminal.wire import rsa
from terminal.wire.errors import WireError
from wire_fixtures import load_key

Vectors = dict[str, Any]
ME = SimpleNamespace(site="demo", device="t-0001")
TABLE = "4"


@pytest.fixture
def session(vectors: Vectors) -> SimpleNamespace:
    schedule = {name: bytes.fromhex(value) for name, value in vectors["key_schedule"].items()}
    return SimpleNamespace(sid=bytes.fromhex(vectors["inputs"]["sid"]), **schedule)


def op_of(frames: Vectors, name: str) -> tuple[bytes, bytes]:
    return bytes.fromhex(frames[name]["op_id"]), bytes.fromhex(frames[name]["op"])


def test_every_request_is_made_byte_for_byte(frames: Vectors) -> None:
    first, _ = op_of(frames, "order-1-line")
    second, _ = op_of(frames, "order-3-lines")
    op_id, op = op_of(frames, "change")
    assert wire.encode_change(op_id, TABLE, first, [(1, 3, [])], 1, 780) == op
    op_id, op = op_of(frames, "cancel")
    assert wire.encode_cancel(op_id, TABLE, second, 1, 1) == op
    op_id, op = op_of(frames, "call-waiter")
    assert wire.encode_call(op_id, TABLE, 1, 1) == op
    op_id, op = op_of(frames, "bill-request")
    assert wire.encode_bill_request(op_id, TABLE, 2, 2, 1) == op
    op_id, op = op_of(frames, "bill-close")
    seal = bytes.fromhex(frames["bill-seal"]["hex"])
    assert wire.encode_bill_close(op_id, TABLE, 3, seal, 1, 780) == op


def test_a_bill_is_sealed_byte_for_byte(vectors: Vectors, frames: Vectors) -> None:
    seating = vectors["seating"]
    claim = Claim(
        3,
        780,
        bytes.fromhex(seating[0]["op_id"]),
        bytes.fromhex(seating[-1]["op_id"]),
        len(seating),
        bytes.fromhex(seating[-1]["chain"]),
    )
    numbers = load_key("t-0001").private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    private = rsa.PrivateKey.from_parts(n, e, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    draws = [bytes.fromhex(frames["bill-seal"]["salt"]), b"\x35" * 32]
    steps = wire.bill_seal_steps(private, ME.site, ME.device, claim, lambda size: draws.pop(0))
    assert rsa.run_now(steps).hex() == frames["bill-seal"]["hex"]


def test_telemetry_has_the_short_tag_and_is_made_byte_for_byte(
    frames: Vectors, session: SimpleNamespace
) -> None:
    op_id = bytes.fromhex(frames["telemetry"]["payload"])[5:17]
    op = wire.encode_telemetry(op_id, TABLE, 3600, 61_440, 2, 1, -61, 1)
    frame = wire.seal_telemetry(session.d2s, ME, session.sid, session.th8, 20, op)
    assert frame.hex() == frames["telemetry"]["hex"]


def test_every_notice_of_the_vectors_is_read(frames: Vectors, session: SimpleNamespace) -> None:
    def read(name: str) -> Any:
        frame = bytes.fromhex(frames[name]["hex"])
        return tuple(wire.open_notice(session.s2d, ME, session.sid, session.th8, frame))

    assert read("notice-opened") == (1, wire.OPENED, TABLE, 12, 0, 0)
    assert read("notice-transferred-away") == (2, wire.AWAY, TABLE, 12, 780, 0)
    assert read("notice-transferred-here") == (3, wire.HERE, TABLE, 12, 780, 0)
    assert read("notice-closed") == (4, wire.CLOSED, TABLE, 12, 780, 0)
    assert read("notice-order-ready") == (5, wire.ORDER_STATE, TABLE, 12, 780, 1001 << 3 | 2)


def test_every_hostile_notice_is_refused(vectors: Vectors, session: SimpleNamespace) -> None:
    hostile = [case for case in vectors["negative"] if case["kind"] == "notice-frame"]
    assert len(hostile) >= 15
    for case in hostile:
        with pytest.raises(WireError):
            wire.open_notice(session.s2d, ME, session.sid, session.th8, bytes.fromhex(case["hex"]))


def test_any_flipped_bit_in_a_notice_is_refused(frames: Vectors, session: SimpleNamespace) -> None:
    good = bytes.fromhex(frames["notice-opened"]["hex"])
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(WireError):
            wire.open_notice(session.s2d, ME, session.sid, session.th8, bytes(bad))


ID = bytes(12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: wire.encode_change(ID, TABLE, ID, [], 1, 0),
        lambda: wire.encode_change(ID, TABLE, ID, [(1, 1, [])] * 33, 1, 0),
        lambda: wire.encode_change(ID, TABLE, ID, [(1, 0, [])], 1, 0),
        lambda: wire.encode_change(ID, TABLE, ID, [(1, 1, [1] * 9)], 1, 0),
        lambda: wire.encode_cancel(ID, TABLE, ID, 0, 1),
        lambda: wire.encode_cancel(ID, TABLE, ID, 5, 1),
        lambda: wire.encode_call(ID, TABLE, 4, 1),
        lambda: wire.encode_bill_request(ID, TABLE, 0, 0, 1),
        lambda: wire.encode_bill_request(ID, TABLE, 21, 0, 1),
        lambda: wire.encode_bill_request(ID, TABLE, 1, 3, 1),
        lambda: wire.encode_call(ID, TABLE, 1, 1 << 32),
    ],
)
def test_what_the_server_could_not_accept_is_not_made(make: Any) -> None:
    with pytest.raises(WireError, match=r"^OUT_OF_RANGE$"):
        make()
