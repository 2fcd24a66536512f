"""The hostile link between a small client and a small broker, both made of plain sockets."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench.errors import BenchError, DeadlinePassed
from bench.faults.link import Link
from bench.faults.mqtt import PUBACK, PUBLISH, Packet, Publish, Splitter, frame, parse_publish, puback
from bench.faults.rules import Change, Delay, Direction, Drop, Duplicate, Hold, Reorder, Retopic, flip_bit

UP, DOWN = Direction.UP, Direction.DOWN
CONNECT = frame(1, 0, b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x06t-0001")
DEADLINE_S = 5.0


class Peer:
    """One end of an MQTT conversation: acknowledges every PUBLISH, keeps what it hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.publishes: queue.Queue[Publish] = queue.Queue()
        self.pubacks: queue.Queue[int] = queue.Queue()
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        splitter = Splitter()
        while data := self._receive():
            for packet in splitter.feed(data):
                if packet.kind == PUBLISH:
                    publish = parse_publish(packet)
                    self.sock.sendall(puback(publish.packet_id))
                    self.publishes.put(publish)
                elif packet.kind == PUBACK:
                    self.pubacks.put(int.from_bytes(packet.body, "big"))
        self.closed.set()

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except OSError:
            return b""

    def say(self, topic: str, payload: bytes, packet_id: int = 1) -> None:
        self.sock.sendall(Publish(topic, payload, 1, packet_id).encode())

    def heard(self) -> Publish:
        return self.publishes.get(timeout=DEADLINE_S)

    def silent(self) -> bool:
        return self.publishes.empty()

    def close(self) -> None:
        with suppress(OSError):  # the link has reset it already
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(DEADLINE_S)
        self.sock.close()


class Rigged:
    """A client and a broker with the link between them."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.link = Link("127.0.0.1", self.listener.getsockname()[1]).start()
        self.peers: list[Peer] = []
        self.client, self.broker = self.connect()

    def connect(self) -> tuple[Peer, Peer]:
        client = Peer(socket.create_connection(("127.0.0.1", self.link.port)))
        client.sock.sendall(CONNECT)
        broker = Peer(self.listener.accept()[0])
        self.peers += [client, broker]
        return client, broker

    def close(self) -> None:
        self.link.close()
        for peer in self.peers:
            peer.close()
        self.listener.close()


@pytest.fixture
def rigged() -> Iterator[Rigged]:
    made = Rigged()
    try:
        yield made
    finally:
        made.close()


def test_an_honest_link_passes_both_ways_and_records(rigged: Rigged) -> None:
    rigged.client.say("o/demo/t-0001/op", b"up", 7)
    heard = rigged.broker.heard()
    assert (heard.payload, heard.packet_id) == (b"up", 7)
    rigged.broker.say("d/demo/t-0001/reply", b"down", 9)
    assert rigged.client.heard().payload == b"down"
    assert rigged.client.pubacks.get(timeout=DEADLINE_S) == 7
    assert rigged.broker.pubacks.get(timeout=DEADLINE_S) == 9
    seen = [(c.direction, c.client, c.publish.payload) for c in rigged.link.captures]
    assert seen == [(UP, "t-0001", b"up"), (DOWN, "t-0001", b"down")]


def test_a_swallowed_publish_is_acknowledged_all_the_same(rigged: Rigged) -> None:
    rule = rigged.link.rule(UP, "o/+/+/op", Drop(puback=True), times=1)
    rigged.client.say("o/demo/t-0001/op", b"lost", 3)
    assert rigged.client.pubacks.get(timeout=DEADLINE_S) == 3
    rigged.client.say("o/demo/t-0001/op", b"kept", 4)
    assert rigged.broker.heard().payload == b"kept"
    assert [original.payload for original in rule.originals] == [b"lost"]


def test_a_silently_dropped_publish_is_not_acknowledged(rigged: Rigged) -> None:
    rigged.link.rule(UP, "o/+/+/op", Drop(puback=False), times=1)
    rigged.client.say("o/demo/t-0001/op", b"lost", 3)
    rigged.client.say("o/demo/t-0001/op", b"kept", 4)
    assert rigged.broker.heard().payload == b"kept"
    assert rigged.client.pubacks.get(timeout=DEADLINE_S) == 4


def test_a_duplicate_has_its_own_packet_id_and_its_puback_stops_at_the_link(rigged: Rigged) -> None:
    rigged.link.rule(UP, "o/+/+/op", Duplicate(), times=1)
    rigged.client.say("o/demo/t-0001/op", b"twice", 5)
    first, second = rigged.broker.heard(), rigged.broker.heard()
    assert first.payload == second.payload == b"twice"
    assert first.packet_id == 5 != second.packet_id
    rigged.client.say("o/demo/t-0001/op", b"once", 6)
    rigged.broker.heard()
    assert [rigged.client.pubacks.get(timeout=DEADLINE_S) for _ in range(2)] == [5, 6]


def test_a_flipped_bit_is_exactly_one(rigged: Rigged) -> None:
    rigged.link.rule(UP, "#", Change(flip_bit(-1)))
    rigged.client.say("o/demo/t-0001/op", b"\x00\x00")
    assert rigged.broker.heard().payload == b"\x00\x01"


def test_skip_and_times_choose_the_nth(rigged: Rigged) -> None:
    rigged.link.rule(UP, "#", Change(lambda payload: payload.upper()), skip=1, times=1)
    for number, word in enumerate((b"one", b"two", b"three"), 1):
        rigged.client.say("o/demo/t-0001/op", word, number)
    assert [rigged.broker.heard().payload for _ in range(3)] == [b"one", b"TWO", b"three"]


def test_pairs_are_swapped(rigged: Rigged) -> None:
    rigged.link.rule(UP, "#", Reorder())
    for number in range(1, 5):
        rigged.client.say("o/demo/t-0001/op", b"%d" % number, number)
    assert [rigged.broker.heard().payload for _ in range(4)] == [b"2", b"1", b"4", b"3"]


def test_what_is_delayed_is_overtaken(rigged: Rigged) -> None:
    rigged.link.rule(UP, "#", Delay(0.1), times=1)
    rigged.client.say("o/demo/t-0001/op", b"slow", 1)
    rigged.client.say("o/demo/t-0001/op", b"quick", 2)
    assert [rigged.broker.heard().payload for _ in range(2)] == [b"quick", b"slow"]


def test_what_is_held_comes_when_released(rigged: Rigged) -> None:
    hold = Hold()
    rule = rigged.link.rule(DOWN, "#", hold)
    rigged.broker.say("d/demo/t-0001/reply", b"later")
    rigged.link.fired(rule)
    assert rigged.client.silent()
    assert rigged.link.release(hold, DOWN, "t-0001") == 1
    assert rigged.client.heard().payload == b"later"


def test_a_publish_can_change_its_topic(rigged: Rigged) -> None:
    rigged.link.rule(UP, "#", Retopic(lambda topic: topic.replace("t-0001", "t-0002")))
    rigged.client.say("o/demo/t-0001/op", b"x")
    assert rigged.broker.heard().topic == "o/demo/t-0002/op"


def test_a_recorded_publish_can_be_replayed_later(rigged: Rigged) -> None:
    tap = rigged.link.tap(UP, "o/+/+/op")
    rigged.client.say("o/demo/t-0001/op", b"again")
    rigged.broker.heard()
    rigged.link.replay(tap.wait()[0])
    assert rigged.broker.heard().payload == b"again"


def test_a_cut_link_closes_both_ends_and_takes_new_connections(rigged: Rigged) -> None:
    rigged.client.say("o/demo/t-0001/op", b"through")
    assert rigged.broker.heard().payload == b"through"  # the connection stands, from end to end
    rigged.link.cut()
    assert rigged.client.closed.wait(DEADLINE_S)
    assert rigged.broker.closed.wait(DEADLINE_S)
    client, broker = rigged.connect()
    client.say("o/demo/t-0001/op", b"back")
    assert broker.heard().payload == b"back"


def test_a_refusing_link_takes_nobody_until_cleared(rigged: Rigged) -> None:
    rigged.link.refuse()
    refused = Peer(socket.create_connection(("127.0.0.1", rigged.link.port)))
    rigged.peers.append(refused)
    assert refused.closed.wait(DEADLINE_S)
    rigged.link.clear()
    client, broker = rigged.connect()
    client.say("o/demo/t-0001/op", b"back")
    assert broker.heard().payload == b"back"


def test_a_frozen_link_passes_nothing_until_cleared(rigged: Rigged) -> None:
    rigged.link.freeze()
    rigged.client.say("o/demo/t-0001/op", b"stuck")
    with pytest.raises(DeadlinePassed):
        rigged.link.tap(UP, "#").wait(1, 0.1)
    assert rigged.broker.silent()
    rigged.link.clear()
    assert rigged.broker.heard().payload == b"stuck"


def test_a_client_without_a_broker_behind_the_link_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    link = Link("127.0.0.1", port).start()
    try:
        peer = Peer(socket.create_connection(("127.0.0.1", link.port)))
        assert peer.closed.wait(DEADLINE_S)
        peer.close()
        with pytest.raises(BenchError, match="connected"):
            link.inject(UP, Publish("o/demo/t-0001/op", b"x"))
    finally:
        link.close()


def test_a_packet_that_is_no_publish_passes_untouched(rigged: Rigged) -> None:
    rigged.link.rule(UP, "#", Drop())
    ping = frame(12, 0, b"")
    rigged.client.sock.sendall(ping)
    rigged.link.clear()
    rigged.client.say("o/demo/t-0001/op", b"after")
    assert rigged.broker.heard().payload == b"after"
    assert Packet(ping).kind == 12
