"""Whatever a broker sends, in whatever pieces: every message once and in order, or a coded end."""

import struct
from collections.abc import Callable, Collection

from hypothesis import given, settings
from hypothesis import strategies as st
from terminal.mqtt.errors import MqttError
from terminal.mqtt.protocol import Protocol

TOPICS = st.binary(min_size=1, max_size=128)


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes((n & 127 | 128,))
        n >>= 7
    return out + bytes((n,))


def _publish(topic: bytes, payload: bytes, packet_id: int) -> bytes:
    body = struct.pack(">H", len(topic)) + topic
    if packet_id:
        body += struct.pack(">H", packet_id)
    body += payload
    return bytes((0x32 if packet_id else 0x30,)) + _varint(len(body)) + body


def _connected(
    messages: list[tuple[bytes, bytes]], rx_bytes: int, topics: Collection[bytes] = ()
) -> Protocol:
    """A connected protocol; `topics` have handlers of their own, the way the terminal's replies have."""

    def handler(topic: bytes) -> Callable[[memoryview], None]:
        return lambda payload: messages.append((topic, bytes(payload)))

    protocol = Protocol(
        lambda topic, payload: messages.append((topic, bytes(payload))),
        handlers={topic: handler(topic) for topic in topics},
        rx_bytes=rx_bytes,
    )
    protocol.open(b"t", b"t", b"p", 30)
    protocol.sent(protocol.pending_bytes())
    protocol.space()[:4] = b"\x20\x02\x00\x00"
    protocol.take(4)
    return protocol


def _feed(protocol: Protocol, stream: bytes, pieces: list[int]) -> bytes:
    """Delivers the stream in pieces and returns what the protocol answered."""
    answers = b""
    turn = 0
    while stream:
        space = protocol.space()
        assert len(space) > 0
        count = min(pieces[turn % len(pieces)], len(space), len(stream))
        turn += 1
        space[:count] = stream[:count]
        stream = stream[count:]
        protocol.take(count)
        answers += bytes(protocol.to_send())
        protocol.sent(protocol.pending_bytes())
    return answers


def _end_of(protocol: Protocol, stream: bytes, pieces: list[int]) -> str | None:
    """The code the connection ended with, None if it lives; any other exception is a crash."""
    try:
        _feed(protocol, stream, pieces)
    except MqttError as error:
        return str(error.code)
    return None


@given(
    messages=st.lists(
        st.tuples(
            st.one_of(TOPICS, st.sampled_from([b"d/demo/t-1/reply", b"d/demo/t-1/hello"])),
            st.integers(0, 12_000),
            st.integers(0, 65535),
            st.integers(0, 255),
        ),
        max_size=12,
    ),
    pieces=st.lists(st.integers(1, 3000), min_size=1, max_size=8),
    rx_bytes=st.integers(300, 3000),
    handled=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_every_message_arrives_once_in_order_and_is_acknowledged(
    messages: list[tuple[bytes, int, int, int]], pieces: list[int], rx_bytes: int, handled: bool
) -> None:
    got: list[tuple[bytes, bytes]] = []
    protocol = _connected(got, rx_bytes, [topic for topic, *_ in messages] if handled else ())
    packets = [
        (topic, bytes((fill,)) * size, packet_id, _publish(topic, bytes((fill,)) * size, packet_id))
        for topic, size, packet_id, fill in messages
    ]
    answers = _feed(protocol, b"".join(packet for *_, packet in packets), pieces)
    fits = [len(packet) <= max(8448, rx_bytes) for *_, packet in packets]
    assert got == [(p[0], p[1]) for p, ok in zip(packets, fits, strict=True) if ok]
    assert protocol.oversized == fits.count(False)
    acks = [b"\x40\x02" + struct.pack(">H", packet_id) for _, _, packet_id, _ in packets if packet_id]
    assert answers == b"".join(acks)


@given(stream=st.binary(max_size=4000), pieces=st.lists(st.integers(1, 700), min_size=1, max_size=5))
@settings(deadline=None, max_examples=300)
def test_random_bytes_end_in_a_code_and_never_in_a_crash(stream: bytes, pieces: list[int]) -> None:
    protocol = _connected([], 600, [b"\0"])
    assert _end_of(protocol, stream, pieces) in (None, "MALFORMED", "TOO_LARGE")


@given(
    data=st.data(),
    packets=st.lists(st.tuples(TOPICS, st.binary(max_size=300), st.integers(1, 9)), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=200)
def test_flipped_bytes_in_good_packets_end_in_a_code_and_never_in_a_crash(
    data: st.DataObject, packets: list[tuple[bytes, bytes, int]]
) -> None:
    stream = bytearray(b"".join(_publish(*packet) for packet in packets) + b"\x40\x02\x00\x01\xd0\x00")
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    protocol = _connected([], 600, [topic for topic, *_ in packets])
    assert _end_of(protocol, bytes(stream), [97]) in (None, "MALFORMED", "TOO_LARGE")
