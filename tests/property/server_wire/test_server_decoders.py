"""Any bytes at all: the decoders answer with a value or a coded refusal, and never with anything else."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.devices.window import WINDOW_BITS, Freshness, ReplayWindow
from server.wire import cbor
from server.wire.cose import mac0, mac_prefix, parse_mac0, parse_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import Accept, Beacon, Hello, Hint, Presence
from server.wire.menus import Menu, MenuChunk
from server.wire.ops import Line, Op, OpMessage, OpType, RejectCode, Reply, Status, encode_op_message
from server.wire.updates import Manifest, Offer, OtaChunk, OtaGet, OtaState

VECTORS = json.loads(
    (Path(__file__).parents[3] / "fixtures" / "protocol" / "vectors.json").read_text(encoding="utf-8")
)
GOOD = {frame["name"]: bytes.fromhex(frame["hex"]) for frame in VECTORS["frames"]}
PAYLOADS = [bytes.fromhex(frame["payload"]) for frame in VECTORS["frames"] if "payload" in frame]
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "beacon": Beacon.from_payload,
    "hello": Hello.from_payload,
    "accept": Accept.from_payload,
    "hint": Hint.decode,
    "presence": Presence.decode,
    "op": OpMessage.from_payload,
    "reply": Reply.from_payload,
    "menu": Menu.from_payload,
    "menu-chunk": MenuChunk.decode,
    "manifest": Manifest.from_payload,
    "offer": Offer.decode,
    "ota-get": OtaGet.decode,
    "ota-chunk": OtaChunk.decode,
    "ota-state": OtaState.decode,
    "sign1": lambda data: parse_sign1(data, 8192),
    "mac0": lambda data: parse_mac0(data, 4, 1024),
}
SEEDS = [*GOOD.values(), *PAYLOADS]

u32 = st.integers(0, 0xFFFF_FFFF)
values = st.recursive(
    st.integers(-(1 << 64), (1 << 64) - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=30,
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.binary(max_size=20)
    | st.text(max_size=10)
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.integers(0, 1 << 32), inner)
    ),
    max_leaves=20,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good frame or payload with some bytes replaced, removed, inserted or cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        patch = draw(st.binary(max_size=9))
        data[at : at + draw(st.integers(0, 9))] = patch
    return bytes(data)


def outcome(decode: Callable[[bytes], Any], data: bytes) -> str:
    try:
        decode(data)
    except Refusal as refusal:
        return RefusalCode(refusal.code)  # a ValueError for a code nobody knows
    return "accepted"


@given(st.binary(max_size=600) | mutated())
@example(b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff")
@example(b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x81" * 1000)
@example(b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x82\x01\x86\x01\x4c" + bytes(12) + b"\x9f\xff")
def test_no_bytes_make_a_decoder_fail_in_another_way_than_a_coded_refusal(data: bytes) -> None:
    for decode in DECODERS.values():
        outcome(decode, data)


@given(anything)
def test_any_cbor_at_all_is_accepted_or_refused_in_a_code(value: Any) -> None:
    data = cbor2.dumps(value)
    for decode in DECODERS.values():
        outcome(decode, data)


@given(values)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    assert cbor.decode(cbor.encode(value), 1 << 16) == value


@given(st.binary(max_size=80) | mutated())
def test_what_decodes_is_the_only_encoding_of_its_value(data: bytes) -> None:
    try:
        value = cbor.decode(data, 1 << 16)
    except Refusal:
        return
    assert cbor2.dumps(value, canonical=True) == data


@given(anything)
def test_the_scan_agrees_with_the_library_on_what_is_deterministic(value: Any) -> None:
    data = cbor2.dumps(value)
    if outcome(lambda raw: cbor.decode(raw, 1 << 16), data) == "accepted":
        assert cbor2.loads(data) == value


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_a_hostile_length_allocates_nothing(name: str) -> None:
    heads = [bytes([major << 5 | 27]) + b"\x00\x00\x00\x7f\xff\xff\xff\xff" for major in range(6)]
    tracemalloc.start()
    for head in heads:
        for prefix in (b"", b"\x82", b"\x82\x01\x86\x01\x4c" + bytes(12) + b"\x614"):
            outcome(DECODERS[name], prefix + head)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200_000


lines = st.builds(
    Line,
    st.integers(1, 0xFFFF),
    st.integers(1, 99),
    st.lists(st.integers(1, 0xFFFF), max_size=8).map(tuple),
)
orders = st.builds(
    Op,
    st.just(OpType.ORDER),
    st.binary(min_size=12, max_size=12),
    st.from_regex(r"\A[a-z0-9-]{1,32}\Z"),
    st.lists(lines, min_size=1, max_size=32).map(tuple),
    u32,
    u32,
)


@given(st.integers(1, 0xFFFF_FFFF), orders)
def test_every_order_of_the_contract_survives_the_wire(seq: int, order: Op) -> None:
    message = OpMessage.from_payload(encode_op_message(seq, order.encode()))
    assert (message.seq, message.op, message.op_bytes) == (seq, order, order.encode())


@given(st.integers(1, 0xFFFF_FFFF), orders, st.integers(17, 400), st.binary(max_size=8))
def test_whatever_follows_a_readable_op_id_is_answered(seq: int, order: Op, at: int, noise: bytes) -> None:
    """Authentic bytes that begin like an op are never dropped silently, unless something follows the op."""
    payload = encode_op_message(seq, order.encode())
    start = len(payload) - len(order.encode()) + 15
    broken = payload[: max(at, start)] + noise
    try:
        message: OpMessage | None = OpMessage.from_payload(broken)
    except Refusal as refusal:
        code = refusal.code
        message = None
    if message is None:
        assert code in {RefusalCode.TRAILING_BYTES, RefusalCode.TOO_LARGE}
    else:
        assert message.op.op_id == order.op_id
        assert message.op.reject is not RejectCode.UNSUPPORTED_TYPE


@given(
    st.builds(
        Reply,
        st.binary(min_size=12, max_size=12),
        st.sampled_from(list(map(int, Status))),
        u32,
        u32,
        u32,
        st.integers(0, (1 << 64) - 1),
        st.binary(min_size=32, max_size=32),
    )
)
def test_every_reply_survives_the_wire_and_stays_small(reply: Reply) -> None:
    assert Reply.from_payload(reply.payload()) == reply
    assert len(mac0(bytes(32), bytes(4), reply.payload(), mac_prefix(b"\x80"))) <= 256


@given(st.binary(max_size=700), st.binary(min_size=32, max_size=32))
def test_every_payload_survives_its_envelope(payload: bytes, key: bytes) -> None:
    frame = mac0(key, b"sid4", payload, mac_prefix(b"\x80"))
    parsed = parse_mac0(frame, 4, 1024)
    assert (parsed.identifier, parsed.payload, len(parsed.tag)) == (b"sid4", payload, 32)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 5000) | st.integers(0, 0xFFFF_FFFF), max_size=300))
def test_the_window_agrees_with_a_plain_set(sequence: list[int]) -> None:
    window, seen, top = ReplayWindow(), set[int](), 0
    for seq in sequence:
        if seq == 0 or top - seq >= WINDOW_BITS:
            expected = Freshness.TOO_OLD
        else:
            expected = Freshness.DUPLICATE if seq in seen else Freshness.NEW
        assert window.mark(seq) is expected
        if expected is Freshness.NEW:
            seen.add(seq)
            top = max(top, seq)
