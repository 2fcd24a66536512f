"""The device's MQTT connection without I/O: what it sends, what it accepts, what ends it."""

import struct

import pytest
from terminal.mqtt.errors import MALFORMED, REFUSED, SUBSCRIBE_REFUSED, TOO_LARGE, Full, MqttError
from terminal.mqtt.protocol import CONNECTED, Protocol

CONNACK = b"\x20\x02\x00\x00"
TOPIC = b"d/demo/t-1/reply"


class Peer:
    """A connected protocol with what it handed to the application."""

    def __init__(self, window: int = 8, **sizes: int) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.subscribed: list[int] = []
        self.protocol = Protocol(
            lambda topic, payload: self.messages.append((topic, bytes(payload))),
            self.subscribed.append,
            window,
            **sizes,
        )
        self.connect()

    def connect(self) -> None:
        self.protocol.open(b"t-1", b"t-1", b"secret", 30, (b"o/demo/t-1/state", b"\x00"))
        self.written()
        self.feed(CONNACK)
        assert self.protocol.state == CONNECTED

    def feed(self, data: bytes) -> None:
        while data:
            space = self.protocol.space()
            count = min(len(space), len(data))
            space[:count] = data[:count]
            self.protocol.take(count)
            data = data[count:]

    def written(self) -> bytes:
        data = b""
        while self.protocol.pending_bytes():
            chunk = bytes(self.protocol.to_send())
            data += chunk
            self.protocol.sent(len(chunk))
        return data


def publish(topic: bytes, payload: bytes, packet_id: int = 7, head: int = 0x32) -> bytes:
    body = struct.pack(">H", len(topic)) + topic
    if head & 6:
        body += struct.pack(">H", packet_id)
    body += payload
    length = b""
    n = len(body)
    while n > 127:
        length += bytes((n & 127 | 128,))
        n >>= 7
    return bytes((head,)) + length + bytes((n,)) + body


def test_connect_asks_for_a_persistent_session_with_a_retained_will() -> None:
    protocol = Protocol(lambda topic, payload: None)
    protocol.open(b"t-1", b"t-1", b"pw", 30, (b"o/x", b"\x00"))
    assert bytes(protocol.to_send()) == (
        b"\x10\x20\x00\x04MQTT\x04\xec\x00\x1e\x00\x03t-1\x00\x03o/x\x00\x01\x00\x00\x03t-1\x00\x02pw"
    )


@pytest.mark.parametrize("size", [0, 1, 90, 107, 108, 109, 110, 200, 1024, 2000])
def test_a_message_of_any_size_is_framed_exactly(size: int) -> None:
    peer = Peer()
    packet_id = peer.protocol.publish(TOPIC, b"x" * size)
    assert peer.written() == publish(TOPIC, b"x" * size, packet_id)


def test_messages_of_one_turn_leave_in_one_piece() -> None:
    peer = Peer()
    ids = [peer.protocol.publish(TOPIC, b"%d" % i) for i in range(8)]
    joined = b"".join(publish(TOPIC, b"%d" % i, packet_id) for i, packet_id in enumerate(ids))
    assert bytes(peer.protocol.to_send()) == joined


def test_the_send_window_is_bounded_and_opens_with_each_puback() -> None:
    peer = Peer(window=2)
    first = peer.protocol.publish(TOPIC, b"1")
    peer.protocol.publish(TOPIC, b"2")
    with pytest.raises(Full):
        peer.protocol.publish(TOPIC, b"3")
    peer.feed(b"\x40\x02" + struct.pack(">H", first))
    assert peer.protocol.room()[0] == 1
    peer.protocol.publish(TOPIC, b"3")


def test_a_message_that_never_fits_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(MqttError) as caught:
        Peer().protocol.publish(TOPIC, b"x" * 4000)
    assert caught.value.code == TOO_LARGE


def test_the_send_buffer_is_bounded() -> None:
    peer = Peer()
    peer.protocol.publish(TOPIC, b"x" * 1100)
    peer.protocol.publish(TOPIC, b"x" * 1100)
    with pytest.raises(Full):
        peer.protocol.publish(TOPIC, b"x" * 1100)
    assert peer.protocol.room()[1] < 1100
    peer.written()
    peer.protocol.publish(TOPIC, b"x" * 1100)


def test_a_partly_sent_buffer_keeps_every_byte() -> None:
    peer = Peer()
    first = peer.protocol.publish(TOPIC, b"a" * 1100)
    peer.protocol.sent(1000)
    second = peer.protocol.publish(TOPIC, b"b" * 1100)
    third = peer.protocol.publish(TOPIC, b"c" * 900)
    joined = publish(TOPIC, b"a" * 1100, first) + publish(TOPIC, b"b" * 1100, second)
    joined += publish(TOPIC, b"c" * 900, third)
    assert peer.written() == joined[1000:]


def test_unacknowledged_messages_are_resent_in_order_with_dup_and_the_same_id() -> None:
    peer = Peer()
    peer.protocol._packet_id = 65533  # ids wrap around in the middle
    ids = [peer.protocol.publish(TOPIC, b"%d" % i) for i in range(5)]
    assert ids == [65534, 65535, 1, 2, 3]
    peer.written()
    peer.feed(b"\x40\x02" + struct.pack(">H", 65535))
    peer.protocol.lost()
    peer.connect()
    peer.protocol.resume()
    expected = b"".join(publish(TOPIC, b"%d" % i, ids[i], head=0x3A) for i in (0, 2, 3, 4))
    assert peer.written() == expected


def test_a_resume_larger_than_the_send_buffer_holds_new_messages_back() -> None:
    peer = Peer()
    sent = []
    for _ in range(8):
        sent.append(peer.protocol.publish(TOPIC, b"x" * 1000))
        peer.written()
    peer.protocol.lost()
    peer.connect()
    peer.protocol.resume()
    peer.feed(b"\x40\x02" + struct.pack(">H", sent[7]))
    with pytest.raises(Full):
        peer.protocol.publish(TOPIC, b"new")
    assert peer.written() == b"".join(publish(TOPIC, b"x" * 1000, i, head=0x3A) for i in sent[:7])
    peer.protocol.publish(TOPIC, b"new")


def test_an_incoming_qos_1_message_is_acknowledged_after_the_handler_took_it() -> None:
    seen = []
    protocol = Protocol(lambda topic, payload: seen.append(protocol.pending_bytes()))
    protocol.open(b"t", b"t", b"p", 30)
    protocol.sent(protocol.pending_bytes())
    data = CONNACK + publish(TOPIC, b"hello", 0x1234)
    protocol.space()[: len(data)] = data
    protocol.take(len(data))
    assert seen == [0]
    assert bytes(protocol.to_send()) == b"\x40\x02\x12\x34"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 400])
def test_packets_may_arrive_in_pieces_of_any_size(step: int) -> None:
    peer = Peer(rx_bytes=400)
    payloads = [bytes([i]) * (i * 7 % 300) for i in range(60)]
    stream = b"".join(publish(TOPIC, payload, i + 1) for i, payload in enumerate(payloads))
    for start in range(0, len(stream), step):
        peer.feed(stream[start : start + step])
        peer.written()
    assert peer.messages == [(TOPIC, payload) for payload in payloads]


def test_a_large_message_gets_its_own_buffer_and_gives_it_back() -> None:
    peer = Peer(rx_bytes=400)
    base = peer.protocol._rx
    peer.feed(publish(TOPIC, b"a" * 8192) + publish(TOPIC, b"b"))
    assert [len(payload) for _, payload in peer.messages] == [8192, 1]
    assert peer.protocol._rx is base


def test_a_message_over_the_limit_is_skipped_acknowledged_and_counted() -> None:
    peer = Peer()
    peer.feed(publish(TOPIC, b"a" * 100_000, 0x0102) + publish(TOPIC, b"after", 0x0103))
    assert peer.messages == [(TOPIC, b"after")]
    assert peer.protocol.oversized == 1
    assert peer.written() == b"\x40\x02\x01\x02\x40\x02\x01\x03"


def test_an_endless_message_ends_the_connection() -> None:
    with pytest.raises(MqttError) as caught:
        Peer().feed(b"\x32\xff\xff\xff\x7f" + b"x" * 5000)
    assert caught.value.code == TOO_LARGE


def test_a_full_receive_buffer_of_the_shortest_messages_can_be_acknowledged() -> None:
    peer = Peer()
    peer.protocol.publish(TOPIC, b"x" * 1100)
    peer.protocol.publish(TOPIC, b"x" * 1100)
    peer.feed((publish(b"t", b"") * 400)[:2560])
    assert len(peer.messages) == 2560 // 7


def test_a_subscription_is_reported_and_a_refused_one_is_an_error() -> None:
    peer = Peer()
    packet_id = peer.protocol.subscribe((b"a", b"b"))
    assert peer.written() == b"\x82\x0a" + struct.pack(">H", packet_id) + b"\x00\x01a\x01\x00\x01b\x01"
    peer.feed(b"\x90\x04" + struct.pack(">H", packet_id) + b"\x01\x01")
    assert peer.subscribed == [packet_id]
    packet_id = peer.protocol.subscribe((b"a",))
    with pytest.raises(MqttError) as caught:
        peer.feed(b"\x90\x03" + struct.pack(">H", packet_id) + b"\x80")
    assert caught.value.code == SUBSCRIBE_REFUSED


@pytest.mark.parametrize("code", range(1, 8))
def test_a_refused_connection_says_why(code: int) -> None:
    protocol = Protocol(lambda topic, payload: None)
    protocol.open(b"t", b"t", b"p", 30)
    protocol.space()[:4] = bytes((0x20, 2, 0, code))
    with pytest.raises(MqttError) as caught:
        protocol.take(4)
    assert caught.value.code == REFUSED
    assert caught.value.text


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"\x00\x00", id="type 0"),
        pytest.param(b"\x10\x00", id="CONNECT from a broker"),
        pytest.param(CONNACK, id="a second CONNACK"),
        pytest.param(b"\x32\x80\x80\x80\x80\x01", id="length of five bytes"),
        pytest.param(b"\x32\x85\x00" + b"x" * 5, id="length not in shortest form"),
        pytest.param(publish(TOPIC, b"", head=0x34), id="QoS 2"),
        pytest.param(publish(TOPIC, b"", head=0x36), id="QoS 3"),
        pytest.param(publish(TOPIC, b"", 0), id="packet id 0"),
        pytest.param(publish(b"", b"x"), id="empty topic"),
        pytest.param(publish(b"t" * 129, b"x"), id="topic too long"),
        pytest.param(b"\x32\x04\x00\x09ab", id="topic beyond the packet"),
        pytest.param(b"\x32\x01\x00", id="PUBLISH of one byte"),
        pytest.param(b"\x40\x03\x00\x01\x00", id="PUBACK of three bytes"),
        pytest.param(b"\x50\x02\x00\x01", id="PUBREC"),
        pytest.param(b"\x90\x03\x00\x63\x01", id="SUBACK for nothing"),
        pytest.param(b"\xb0\x02\x00\x63", id="UNSUBACK for nothing"),
        pytest.param(b"\xd0\x01\x00", id="PINGRESP with a body"),
        pytest.param(b"\xe0\x00", id="DISCONNECT from a broker"),
        pytest.param(b"\x41\x02\x00\x01", id="PUBACK with flags"),
        pytest.param(b"\x90\xff\x7f" + b"x" * 2600, id="a control packet larger than the buffer"),
    ],
)
def test_what_is_not_mqtt_from_a_broker_ends_the_connection_with_a_code(packet: bytes) -> None:
    with pytest.raises(MqttError) as caught:
        Peer().feed(packet)
    assert caught.value.code == MALFORMED


def test_a_puback_for_nothing_is_counted_and_does_no_harm() -> None:
    peer = Peer()
    packet_id = peer.protocol.publish(TOPIC, b"1")
    ack = b"\x40\x02" + struct.pack(">H", packet_id)
    peer.feed(ack + ack)
    assert peer.protocol.strange_acks == 1


def test_packet_ids_in_use_are_never_given_twice() -> None:
    peer = Peer()
    peer.protocol._packet_id = 65534
    first = peer.protocol.publish(TOPIC, b"1")
    subscribe = peer.protocol.subscribe((b"a",))
    peer.protocol._packet_id = first - 1
    second = peer.protocol.publish(TOPIC, b"2")
    assert len({first, subscribe, second}) == 3


def test_a_failing_handler_costs_its_message_and_nothing_else() -> None:
    faults: list[Exception] = []
    seen: list[bytes] = []

    def handler(payload: memoryview) -> None:
        seen.append(bytes(payload))
        if len(seen) != 3:
            raise ValueError(len(seen))

    protocol = Protocol(
        lambda topic, payload: handler(payload), handlers={TOPIC: handler}, on_fault=faults.append
    )
    protocol.open(b"t", b"t", b"p", 30)
    protocol.sent(protocol.pending_bytes())
    data = CONNACK + b"".join(publish(TOPIC, b"%d" % i, i) for i in range(1, 5)) + publish(b"x", b"5", 5)
    protocol.space()[: len(data)] = data
    protocol.take(len(data))
    assert seen == [b"1", b"2", b"3", b"4", b"5"]
    assert [error.args[0] for error in faults] == [1, 2, 4, 5]
    assert bytes(protocol.to_send()) == b"".join(b"\x40\x02\x00%c" % i for i in range(1, 6))


def test_more_messages_than_can_be_acknowledged_end_the_connection_with_a_code() -> None:
    peer = Peer()
    flood = publish(b"t", b"") * 1100
    with pytest.raises(MqttError) as caught:
        peer.feed(flood)
    assert caught.value.code == "FLOODED"
