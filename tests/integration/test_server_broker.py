"""The embedded broker's behaviour, judged with paho and with raw sockets: what stock amqtt gets wrong, and
hostile bytes.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from server_bench import PASSWORD, SITE, a_server, eventually, prepare_state, refusals, terminal

from bench.server import BenchServer
from server.wire.cose import mac0, mac_prefix

DEADLINE_S = 5.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    template = prepare_state(tmp_path_factory.mktemp("template"))
    with a_server(template, tmp_path_factory.mktemp("broker"), "--beacon-interval", "300") as running:
        yield running


class Guest:
    """A paho client that keeps what happens to it."""

    def __init__(
        self,
        server: BenchServer,
        name: str = "t-0001",
        *,
        password: str = PASSWORD,
        client_id: str | None = None,
        clean: bool = True,
        keep_alive_s: int = 60,
        manual_ack: bool = False,
        protocol: int = mqtt.MQTTv311,
    ) -> None:
        options = {} if protocol == mqtt.MQTTv5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id or name,
            protocol=protocol,
            manual_ack=manual_ack,
            **options,
        )
        self.client.username_pw_set(name, password)
        self.client.connect_timeout = DEADLINE_S
        self.connected: queue.Queue[tuple[int, bool]] = queue.Queue()
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.granted: queue.Queue[int] = queue.Queue()
        self.acknowledged: queue.Queue[int] = queue.Queue()
        self.gone = threading.Event()
        self.client.on_connect = lambda c, u, flags, code, p: self.connected.put(
            (code.value, flags.session_present)
        )
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.granted.put(codes[0].value)
        self.client.on_publish = lambda c, u, mid, code, p: self.acknowledged.put(mid)
        self.client.on_disconnect = lambda c, u, flags, code, p: self.gone.set()
        self.client.reconnect_delay_set(60, 60)
        self.client.connect(server.host, server.port, keep_alive_s)
        self.client.loop_start()

    def accepted(self) -> bool:
        """Wait for CONNACK; returns session_present."""
        code, present = self.connected.get(timeout=DEADLINE_S)
        assert code == 0
        return present

    def subscribe(self, topic_filter: str, qos: int = 1) -> int:
        """Subscribe; returns the granted QoS."""
        self.client.subscribe(topic_filter, qos)
        return self.granted.get(timeout=DEADLINE_S)

    def take(self) -> mqtt.MQTTMessage:
        """The next message."""
        return self.messages.get(timeout=DEADLINE_S)

    def silent(self, seconds: float = 0.4) -> bool:
        """Nothing arrives for a while."""
        try:
            self.messages.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        """Say goodbye and end the thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Lose the connection without a word."""
        self.client.loop_stop()
        sock = self.client.socket()
        if sock is not None:
            sock.close()


@pytest.fixture
def guests(server: BenchServer) -> Iterator[list[Guest]]:
    made: list[Guest] = []
    yield made
    for guest in made:
        guest.close()


def a_guest(guests: list[Guest], server: BenchServer, *args: str, **options: object) -> Guest:
    """A guest that is closed when the test ends."""
    guest = Guest(server, *args, **options)  # type: ignore[arg-type]
    guests.append(guest)
    return guest


def an_op_in_no_session() -> bytes:
    """A well-formed op-frame of a session that never was: the server answers it with a hint on the reply
    topic.
    """
    return mac0(os.urandom(32), os.urandom(4), b"\x82\x01\x80", mac_prefix(b""))


def talk(server: BenchServer, *pieces: bytes) -> bytes:
    """Send raw bytes and return what came back until the server closed the connection."""
    with socket.create_connection((server.host, server.port), DEADLINE_S) as sock:
        for piece in pieces:
            sock.sendall(piece)
        received = b""
        while data := _received(sock):
            received += data
        return received


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except ConnectionResetError:
        return b""


def raw_connect(name: str = "t-0004", *, clean: bool = True, will_topic: str = "") -> bytes:
    """A CONNECT packet."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    flags = 0xC0 | (2 if clean else 0) | (4 if will_topic else 0)
    will = text(will_topic) + text("gone") if will_topic else b""
    body = text("MQTT") + bytes((4, flags, 0, 60)) + text(name) + will + text(name) + text(PASSWORD)
    return bytes((0x10, len(body))) + body


# ---------------------------------------------------------------- who gets in


def test_a_device_with_its_password_gets_in(server: BenchServer, guests: list[Guest]) -> None:
    assert a_guest(guests, server).accepted() is False


@pytest.mark.parametrize(
    ("options", "code"),
    [({"password": "no"}, 135), ({"client_id": "other"}, 133), ({"name": "nobody"}, 135)],
    ids=["wrong_password", "client_id_is_not_the_user", "unknown_device"],
)
def test_everybody_else_is_turned_away(
    server: BenchServer, guests: list[Guest], options: dict[str, str], code: int
) -> None:
    guest = a_guest(
        guests, server, options.get("name", "t-0001"), **{k: v for k, v in options.items() if k != "name"}
    )
    assert guest.connected.get(timeout=DEADLINE_S)[0] == code


def test_mqtt_5_is_refused_with_the_code_for_its_version(server: BenchServer) -> None:
    version_5 = raw_connect().replace(b"MQTT\x04", b"MQTT\x05")
    assert talk(server, version_5) == b"\x20\x02\x00\x01"


def test_a_will_for_somebody_else_is_refused(server: BenchServer) -> None:
    assert talk(server, raw_connect(will_topic="o/demo/t-0001/state")) == b"\x20\x02\x00\x05"
    eventually(lambda: refusals(server, "acl_will") == 1, "the refusal is counted")


# ---------------------------------------------------------------- who hears what


@pytest.mark.parametrize(
    "topic_filter", ["#", "d/demo/t-0002/#", "d/#", "o/demo/t-0001/#", "$share/g/s/demo/#", "$SYS/#"]
)
def test_a_device_cannot_listen_elsewhere(
    server: BenchServer, guests: list[Guest], topic_filter: str
) -> None:
    guest = a_guest(guests, server)
    guest.accepted()
    assert guest.subscribe(topic_filter) == 0x80


def test_retained_messages_come_with_the_subscription_and_only_then(
    server: BenchServer, guests: list[Guest]
) -> None:
    other = a_guest(guests, server, "t-0002")
    other.accepted()
    assert other.subscribe("s/demo/#") == 1
    guest = a_guest(guests, server)
    guest.accepted()
    assert guest.silent(), "another client's subscription must not reach it"
    assert guest.subscribe("s/demo/beacon") == 1
    beacon = guest.take()
    assert (beacon.topic, beacon.retain, beacon.qos) == ("s/demo/beacon", True, 1)
    assert guest.silent()


def test_a_subscription_at_qos_0_is_served_at_qos_0(server: BenchServer, guests: list[Guest]) -> None:
    guest = a_guest(guests, server)
    guest.accepted()
    assert guest.subscribe("s/demo/beacon", 0) == 0
    assert guest.take().qos == 0


def test_publishing_as_another_device_is_acknowledged_counted_and_ignored(
    server: BenchServer, guests: list[Guest]
) -> None:
    guest, victim = a_guest(guests, server), a_guest(guests, server, "t-0002")
    guest.accepted()
    victim.accepted()
    victim.subscribe("d/demo/t-0002/#")
    guest.client.publish("o/demo/t-0002/op", an_op_in_no_session(), 1)
    guest.client.publish("d/demo/t-0002/reply", b"forged", 1)
    for _ in range(2):
        guest.acknowledged.get(timeout=DEADLINE_S)
    assert victim.silent()
    eventually(lambda: refusals(server, "acl_publish") == 2, "both are counted")


# ---------------------------------------------------------------- sessions and flow


def test_a_persistent_session_gets_what_it_missed_in_order(server: BenchServer, guests: list[Guest]) -> None:
    name = "t-0003"
    first = a_guest(guests, server, name, clean=False, manual_ack=True)
    first.accepted()
    assert first.subscribe(f"d/{SITE}/{name}/reply") == 1
    for _ in range(50):
        first.client.publish(f"o/{SITE}/{name}/op", an_op_in_no_session(), 1)
    sent = [first.take().payload for _ in range(50)]
    first.vanish()
    second = a_guest(guests, server, name, clean=False)
    assert second.accepted() is True
    again = [second.take() for _ in range(50)]
    assert [message.payload for message in again] == sent
    assert all(message.dup and not message.retain for message in again)
    second.vanish()
    third = a_guest(guests, server, name, clean=False)
    assert third.accepted() is True
    assert third.silent(), "acknowledged messages do not come again"


def test_a_withheld_puback_loses_nothing_however_late(server: BenchServer, guests: list[Guest]) -> None:
    name = "t-0003"
    guest = a_guest(guests, server, name, clean=False, manual_ack=True)
    guest.accepted()
    guest.subscribe(f"d/{SITE}/{name}/reply")
    guest.client.publish(f"o/{SITE}/{name}/op", an_op_in_no_session(), 1)
    message = guest.take()
    assert guest.silent(5.5), "stock amqtt gives a message up after five seconds"
    guest.vanish()
    again = a_guest(guests, server, name, clean=False)
    again.accepted()
    assert again.take().payload == message.payload


def test_a_clean_session_forgets(server: BenchServer, guests: list[Guest]) -> None:
    name = "t-0003"
    guest = a_guest(guests, server, name, clean=False)
    guest.accepted()
    guest.subscribe(f"d/{SITE}/{name}/reply")
    guest.vanish()
    assert a_guest(guests, server, name, clean=True).accepted() is False
    fresh = a_guest(guests, server, name, clean=False)
    assert fresh.accepted() is False


@pytest.mark.parametrize("clean", [True, False])
def test_a_second_connection_takes_over_at_once(
    server: BenchServer, guests: list[Guest], clean: bool
) -> None:
    name = "t-0002"
    old = a_guest(guests, server, name, clean=clean)
    old.accepted()
    new = a_guest(guests, server, name, clean=clean)
    new.accepted()
    assert old.gone.wait(DEADLINE_S), "the old connection is closed"
    new.subscribe(f"d/{SITE}/{name}/reply")
    new.client.publish(f"o/{SITE}/{name}/op", an_op_in_no_session(), 1)
    assert new.take().payload


def test_a_silent_client_is_closed_after_one_and_a_half_keepalives(server: BenchServer) -> None:
    begun = time.monotonic()
    answer = talk(server, raw_connect().replace(b"\x00\x3c", b"\x00\x01"))
    assert answer == b"\x20\x02\x00\x00"
    assert 1.4 < time.monotonic() - begun < 4.0
    eventually(lambda: refusals(server, "mqtt_keepalive") == 1, "the refusal is counted")


def test_the_last_will_reports_a_terminal_that_vanished(server: BenchServer) -> None:
    hello = terminal(4)
    will = raw_connect(will_topic=f"o/{SITE}/{hello.device}/state").replace(
        b"\x00\x04gone", b"\x00\x05\x84\x00\x01\x02\x03"
    )
    will = bytes((0x10, len(will) - 2)) + will[2:]
    with socket.create_connection((server.host, server.port), DEADLINE_S) as sock:
        sock.sendall(will)
        assert sock.recv(4) == b"\x20\x02\x00\x00"
    eventually(lambda: _presence(server, "t-0004") == (False, 1, 2, 3), "the will is stored")


def _presence(server: BenchServer, name: str) -> tuple[bool | None, int | None, int | None, int | None]:
    device = next(d for d in server.ledger.devices(SITE) if d.device == name)
    return device.online, device.running, device.menu_version, device.pending


# ---------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(
    ("packets", "code"),
    [
        ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], "mqtt_no_connect"),
        ([b"\x10\xff\xff\xff\xff\xff"], "mqtt_packet_too_large"),
        ([b"\x10\x80\x80\x80\x80\x01"], "mqtt_malformed_length"),
        ([b"\x10\x04\x00\x04MQ"], "mqtt_malformed_connect"),
        ([raw_connect(), b"\x30\xff\xff\x7f"], "mqtt_packet_too_large"),
        ([raw_connect(), b"\x32\x03\x00\x09o"], "mqtt_malformed_publish"),
        ([raw_connect(), b"\x36\x05\x00\x01o\x00\x01"], "mqtt_malformed_publish"),
        ([raw_connect(), b"\x34\x05\x00\x01o\x00\x01"], "mqtt_qos2"),
        ([raw_connect(), b"\x32\x05\x00\x01#\x00\x01"], "mqtt_bad_topic"),
        ([raw_connect(), b"\x32\x05\x00\x01\xff\x00\x01"], "mqtt_bad_topic"),
        ([raw_connect(), b"\x82\x02\x00\x01"], "mqtt_malformed_subscribe"),
        ([raw_connect(), b"\x82\x06\x00\x01\x00\xff\x61\x01"], "mqtt_malformed_subscribe"),
        ([raw_connect(), b"\x40\x01\x00"], "mqtt_malformed_puback"),
        ([raw_connect(), raw_connect()], "mqtt_second_connect"),
        ([raw_connect(), b"\xf0\x00"], "mqtt_unexpected_packet"),
        ([raw_connect(), b"\x20\x02\x00\x00"], "mqtt_unexpected_packet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_packet_closes_its_own_connection_only(
    server: BenchServer, guests: list[Guest], packets: list[bytes], code: str
) -> None:
    witness = a_guest(guests, server, "t-0001")
    witness.accepted()
    before = refusals(server, code)
    talk(server, *packets)
    eventually(lambda: refusals(server, code) == before + 1, f"{code} is counted")
    assert witness.subscribe("s/demo/beacon") == 1
    assert not witness.gone.is_set()


def test_hundreds_of_garbage_connections_leave_the_broker_well(
    server: BenchServer, guests: list[Guest]
) -> None:
    for number in range(300):
        with socket.create_connection((server.host, server.port), DEADLINE_S) as sock:
            sock.sendall(os.urandom(1 + number % 40))
    guest = a_guest(guests, server)
    guest.accepted()
    guest.subscribe("s/demo/beacon")
    assert guest.take().topic == "s/demo/beacon"


def test_an_op_that_is_not_authentic_is_counted_and_changes_nothing(
    server: BenchServer, guests: list[Guest], tmp_path: Path
) -> None:
    guest = a_guest(guests, server, "t-0002")
    guest.accepted()
    guest.client.publish("o/demo/t-0002/op", b"\xff" * 40, 1)
    guest.client.publish("o/demo/t-0002/hello", b"\xff" * 40, 1)
    guest.client.publish("o/demo/t-0002/state", b"\xff" * 40, 1)
    guest.client.publish("o/demo/t-0002/elsewhere", b"x", 1)
    for _ in range(4):
        guest.acknowledged.get(timeout=DEADLINE_S)
    eventually(lambda: refusals(server, "unknown_topic") == 1, "the stray topic is counted")
    assert server.ledger.answers(SITE) == []
