"""Hostile bytes at the broker's parsers: always packets or a coded violation, never anything else."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from server.transport.connect import read_connect, read_subscribe, read_unsubscribe
from server.transport.mqtt import (
    CONNECT,
    SUBSCRIBE,
    UNSUBSCRIBE,
    PacketSplitter,
    ProtocolViolation,
    publish_packet,
    read_publish,
)

MAX_BYTES = 300


@given(st.lists(st.binary(max_size=80), max_size=12))
def test_a_stream_of_garbage_yields_packets_or_a_violation_within_bounds(pieces: list[bytes]) -> None:
    splitter, code = PacketSplitter(MAX_BYTES), None
    try:
        for piece in pieces:
            for _, body in splitter.feed(piece):
                assert len(body) <= MAX_BYTES
    except ProtocolViolation as violation:
        code = violation.code
    assert code in (None, "mqtt_packet_too_large", "mqtt_malformed_length")


@given(
    st.lists(
        st.tuples(st.text("abc/", min_size=1, max_size=9), st.binary(max_size=200), st.integers(1, 65_535))
    ),
    st.data(),
)
def test_a_stream_cut_anywhere_is_the_same_packets(
    messages: list[tuple[str, bytes, int]], data: st.DataObject
) -> None:
    stream = b"".join(
        publish_packet(topic.encode(), payload, 1, ident, retain=False, dup=False)
        for topic, payload, ident in messages
    )
    splitter, found, at = PacketSplitter(MAX_BYTES), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, 60))
        found += splitter.feed(stream[at : at + step])
        at += step
    published = [read_publish(first, body) for first, body in found]
    assert [(p.topic, p.payload, p.packet_id) for p in published] == messages


@given(st.integers(0, 255), st.binary(max_size=120))
def test_any_body_is_a_publish_or_a_violation(first: int, body: bytes) -> None:
    try:
        publish = read_publish(first, body)
    except ProtocolViolation:
        return
    assert publish.topic
    assert publish.qos in (0, 1, 2)


@given(
    st.binary(max_size=120) | st.binary(max_size=60).map(lambda tail: b"\x00\x04MQTT\x04\xc2\x00\x3c" + tail)
)
def test_any_body_is_a_connect_or_a_violation(body: bytes) -> None:
    try:
        wish, code = asyncio.run(read_connect(CONNECT << 4, body)), None
    except ProtocolViolation as violation:
        wish, code = None, violation.code
    assert code in (None, "mqtt_malformed_connect")
    assert wish is None or isinstance(wish.client_id, str)


@given(st.binary(max_size=120))
def test_any_body_is_a_subscription_or_a_violation(body: bytes) -> None:
    for kind, read in ((SUBSCRIBE, read_subscribe), (UNSUBSCRIBE, read_unsubscribe)):
        try:
            ident, filters = asyncio.run(read(kind << 4 | 2, body))
        except ProtocolViolation:
            continue
        assert 1 <= ident <= 65_535
        assert 1 <= len(filters) <= 16
