"""Whatever the bytes are, the terminal answers with a value or a coded refusal, and agrees with cbor2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from frame_judge import Judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from terminal.wire import cbor, cose, frames
from terminal.wire.errors import WireError

FIXTURES = Path(__file__).parents[3] / "fixtures"
KINDS = [
    "cert-frame",
    "beacon-frame",
    "accept-frame",
    "reply-frame",
    "manifest-frame",
    "menu-frame",
    "hint",
    "menu-chunk",
    "offer",
    "ota-chunk",
]
SEVERAL = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

vectors: dict[str, Any] = json.loads((FIXTURES / "protocol" / "vectors.json").read_text())
GOOD = [(v["kind"], bytes.fromhex(v["hex"])) for v in vectors["frames"] if v["kind"] in KINDS]
U32 = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def judge() -> Judge:
    keys = [(FIXTURES / "keys" / f"{name}.spki.der").read_bytes() for name in ("root", "server-sign")]
    sid, th8, s2d = (
        bytes.fromhex(text)
        for text in (vectors["inputs"]["sid"], vectors["key_schedule"]["th8"], vectors["key_schedule"]["s2d"])
    )
    return Judge(*keys, "demo", "t-0001", sid, th8, s2d)


@SEVERAL
@given(kind=st.sampled_from(KINDS), data=st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_code(judge: Judge, kind: str, data: bytes) -> None:
    verdict = judge.judge(kind, data)
    assert verdict.startswith(("refused ", "accepted "))
    if kind not in ("hint", "menu-chunk", "offer", "ota-chunk"):
        assert verdict.startswith("refused ")


@SEVERAL
@given(
    frame=st.sampled_from(GOOD),
    edits=st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 255), st.sampled_from("=+-")), min_size=1, max_size=4
    ),
)
def test_edited_frames_are_refused_with_a_code_or_read_without_a_fault(
    judge: Judge, frame: tuple[str, bytes], edits: list[tuple[int, int, str]]
) -> None:
    kind, good = frame
    data = bytearray(good)
    for position, value, action in edits:
        position %= len(data) + 1
        if action == "+":
            data.insert(position, value)
        elif action == "-":
            del data[position : position + 1]
        else:
            data[position : position + 1] = bytes((value,))
    verdict = judge.judge(kind, bytes(data))
    assert verdict.startswith(("refused ", "accepted "))
    if kind in ("cert-frame", "beacon-frame", "reply-frame", "menu-frame") and bytes(data) != good:
        assert verdict.startswith("refused ")


values = st.recursive(
    st.one_of(st.integers(-(2**64), 2**64 - 1), st.binary(max_size=40), st.text(max_size=20), st.booleans()),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@SEVERAL
@given(kind=st.sampled_from(["hint", "menu-chunk", "offer", "ota-chunk"]), value=values)
def test_well_formed_cbor_of_another_shape_is_refused_with_a_code(
    judge: Judge, kind: str, value: Any
) -> None:
    assert judge.judge(kind, cbor2.dumps(value)).startswith(("refused ", "accepted "))


@SEVERAL
@given(value=st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=300), st.text(max_size=80)))
def test_the_reader_and_cbor2_agree_on_shortest_encodings(value: int | bytes | str) -> None:
    encoded = cbor2.dumps(value)
    reader = cbor.Reader(encoded)
    if isinstance(value, int):
        assert reader.uint(2**64) == value
        assert cbor.enc_uint(value) == encoded
    elif isinstance(value, bytes):
        assert reader.bstr(0, 300) == value
        assert cbor.enc_bstr(value) == encoded
    else:
        assert reader.tstr(0, 400) == value
        assert cbor.enc_tstr(value) == encoded
    reader.end()


@SEVERAL
@given(data=st.binary(max_size=24))
def test_what_the_reader_accepts_is_deterministic_cbor(data: bytes) -> None:
    for read in (
        lambda reader: reader.uint(2**64),
        lambda reader: reader.int(-(2**65), 2**65),
        lambda reader: bytes(reader.bstr(0, 99)),
        lambda reader: reader.tstr(0, 99),
    ):
        reader = cbor.Reader(data)
        try:
            value = read(reader)
        except WireError:
            continue
        assert cbor2.dumps(value) == data[: reader.pos]


lines = st.lists(
    st.tuples(st.integers(1, 65535), st.integers(1, 99), st.lists(st.integers(1, 65535), max_size=8)),
    min_size=1,
    max_size=32,
)


@SEVERAL
@given(
    op_id=st.binary(min_size=12, max_size=12),
    table=st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    lines=lines,
    menu=U32,
    total=U32,
    sequence=st.integers(0, 2**20 - 1),
)
def test_every_order_is_the_cbor_the_contract_says(
    op_id: bytes, table: str, lines: list[Any], menu: int, total: int, sequence: int
) -> None:
    op = frames.encode_order(op_id, table, lines, menu, total)
    assert op == cbor2.dumps([1, op_id, table, [list(line) for line in lines], menu, total])
    sealer = cose.Sealer(bytes(32), "demo", "t-0001", b"abcd", b"12345678")
    sealer.sequence = sequence
    frame = bytes(sealer.seal(op))
    key_id, payload, tag = cose.mac0_parse(frame, 4)
    assert key_id == b"abcd"
    assert cbor2.loads(payload) == [sequence + 1, cbor2.loads(op)]
    cose.mac0_verify(bytes(32), cose.aad("op", "demo", "t-0001", b"abcd", b"12345678"), payload, tag)


@SEVERAL
@given(
    line=st.tuples(
        st.integers(-5, 70000),
        st.integers(-5, 120),
        st.lists(st.integers(-5, 70000), max_size=10),
    )
)
def test_a_line_is_encoded_exactly_when_the_server_may_accept_it(line: tuple[int, int, list[int]]) -> None:
    item, quantity, modifiers = line
    valid = (
        1 <= item <= 65535
        and 1 <= quantity <= 99
        and len(modifiers) <= 8
        and all(1 <= modifier <= 65535 for modifier in modifiers)
    )
    if valid:
        assert frames.encode_order(bytes(12), "4", [line], 1, 1)
    else:
        with pytest.raises(WireError, match="OUT_OF_RANGE"):
            frames.encode_order(bytes(12), "4", [line], 1, 1)


@SEVERAL
@given(a=st.binary(min_size=32, max_size=32), b=st.binary(min_size=32, max_size=32), bit=st.integers(0, 255))
def test_tags_are_equal_only_to_themselves(a: bytes, b: bytes, bit: int) -> None:
    assert cose.same_tag(a, 0, a) == 1
    assert cose.same_tag(b"xyz" + a, 3, a) == 1
    assert cose.same_tag(a, 0, b) == (a == b)
    flipped = bytearray(a)
    flipped[bit >> 3] ^= 1 << (bit & 7)
    assert cose.same_tag(a, 0, flipped) == 0


@SEVERAL
@given(
    numbers=st.tuples(st.sampled_from([0, 1, 2, 3, 4, 5, 16]), U32, U32, U32, st.integers(0, 2**63)),
    op_id=st.binary(min_size=12, max_size=12),
    chain=st.binary(min_size=32, max_size=32),
)
def test_the_fast_and_the_general_reader_of_replies_agree(
    numbers: tuple[int, ...], op_id: bytes, chain: bytes
) -> None:
    payload = cbor2.dumps([op_id, *numbers, chain])
    expected = (op_id, *numbers, chain)
    assert cose.read_reply(payload, 0, len(payload)) == expected
    opener = cose.Opener(bytes(32), "demo", "t-0001", b"abcd", b"12345678")
    external_aad = cose.aad("reply", "demo", "t-0001", b"abcd", b"12345678")
    assert opener.open(cose.mac0_encode(bytes(32), b"abcd", external_aad, payload)) == expected
