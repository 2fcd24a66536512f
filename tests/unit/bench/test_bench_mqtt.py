"""The link's MQTT framing loses, adds and changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faults.mqtt import (
    PUBLISH,
    NotMqtt,
    Packet,
    Publish,
    Splitter,
    client_id,
    frame,
    matches,
    parse_publish,
    puback,
)

topics = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@given(
    topics, st.binary(max_size=300), st.integers(0, 1), st.integers(1, 65535), st.booleans(), st.booleans()
)
def test_a_publish_survives_taking_apart_and_putting_together(
    topic: str, payload: bytes, qos: int, packet_id: int, dup: bool, retain: bool
) -> None:
    publish = Publish(topic, payload, qos, packet_id if qos else 0, dup, retain)
    assert parse_publish(Packet(publish.encode())) == publish


@given(st.lists(st.binary(max_size=400), max_size=6), st.integers(1, 50))
def test_packets_come_out_whole_however_the_stream_is_cut(bodies: list[bytes], size: int) -> None:
    packets = [frame(PUBLISH, 0, body) for body in bodies]
    stream = b"".join(packets)
    splitter = Splitter()
    seen = [p for at in range(0, len(stream), size) for p in splitter.feed(stream[at : at + size])]
    assert [packet.raw for packet in seen] == packets
    assert [packet.body for packet in seen] == bodies


def test_a_length_of_five_bytes_is_no_mqtt() -> None:
    with pytest.raises(NotMqtt):
        Splitter().feed(b"\x30\xff\xff\xff\xff\x01")


def test_the_client_id_is_read_from_connect() -> None:
    body = b"\x00\x04MQTT\x04\xc2\x00\x3c" + b"\x00\x06t-0001" + b"\x00\x06t-0001" + b"\x00\x02pw"
    assert client_id(Packet(frame(1, 0, body))) == "t-0001"


def test_puback_is_four_bytes() -> None:
    assert puback(0x1234) == b"\x40\x02\x12\x34"


@pytest.mark.parametrize(
    ("pattern", "topic", "fits"),
    [
        ("o/+/+/op", "o/demo/t-0001/op", True),
        ("o/+/+/op", "o/demo/t-0001/hello", False),
        ("d/demo/#", "d/demo/t-0001/reply", True),
        ("#", "anything/at/all", True),
        ("s/demo/beacon", "s/demo", False),
        ("s/demo", "s/demo/beacon", False),
    ],
)
def test_topic_filters_match_as_mqtt_says(pattern: str, topic: str, fits: bool) -> None:
    assert matches(pattern, topic) is fits
