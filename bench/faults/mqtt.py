"""Just enough MQTT 3.1.1 framing to read a stream of packets, change one and put it back (no I/O).

Source: OASIS MQTT 3.1.1 sections 2.2 (fixed header), 3.1 (CONNECT), 3.3 (PUBLISH), 3.4 (PUBACK).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
_DUP, _QOS_SHIFT, _RETAIN = 0x08, 1, 0x01


class NotMqtt(Exception):
    """The stream is not MQTT (a length of more than four bytes)."""


@dataclass(frozen=True)
class Packet:
    """One control packet, header included."""

    raw: bytes

    @property
    def kind(self) -> int:
        """Control packet type, 1 to 14."""
        return self.raw[0] >> 4

    @property
    def body(self) -> bytes:
        """Everything after the fixed header."""
        at = 1
        while self.raw[at] & 0x80:
            at += 1
        return self.raw[at + 1 :]


@dataclass(frozen=True)
class Publish:
    """A PUBLISH taken apart; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 1
    packet_id: int = 0
    dup: bool = False
    retain: bool = False

    def encode(self) -> bytes:
        """Back to bytes."""
        topic = self.topic.encode()
        flags = (_DUP if self.dup else 0) | self.qos << _QOS_SHIFT | (_RETAIN if self.retain else 0)
        body = len(topic).to_bytes(2, "big") + topic
        if self.qos:
            body += self.packet_id.to_bytes(2, "big")
        return frame(PUBLISH, flags, body + self.payload)

    def with_payload(self, payload: bytes) -> Publish:
        """The same PUBLISH with another payload."""
        return replace(self, payload=payload)


def frame(kind: int, flags: int, body: bytes) -> bytes:
    """A control packet from its parts."""
    length = len(body)
    header = bytearray([kind << 4 | flags])
    while True:
        digit, length = length & 0x7F, length >> 7
        header.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(header) + body


def puback(packet_id: int) -> bytes:
    """A PUBACK."""
    return frame(PUBACK, 0, packet_id.to_bytes(2, "big"))


def parse_publish(packet: Packet) -> Publish:
    """Take a PUBLISH apart."""
    flags, body = packet.raw[0], packet.body
    end = 2 + int.from_bytes(body[:2], "big")
    qos = flags >> _QOS_SHIFT & 3
    packet_id = int.from_bytes(body[end : end + 2], "big") if qos else 0
    return Publish(
        body[2:end].decode(errors="replace"),
        body[end + (2 if qos else 0) :],
        qos,
        packet_id,
        bool(flags & _DUP),
        bool(flags & _RETAIN),
    )


def client_id(connect: Packet) -> str:
    """The client identifier of a CONNECT (after protocol name, level, flags, keepalive)."""
    body = connect.body
    at = 2 + int.from_bytes(body[:2], "big") + 4
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : end].decode(errors="replace")


class Splitter:
    """Cuts a byte stream into packets."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes, return the packets they complete.

        Raises: NotMqtt.
        """
        self._pending += data
        packets: list[Packet] = []
        while (size := self._packet_bytes()) is not None and size <= len(self._pending):
            packets.append(Packet(bytes(self._pending[:size])))
            del self._pending[:size]
        return packets

    def _packet_bytes(self) -> int | None:
        length = shift = 0
        for at in range(1, min(5, len(self._pending))):
            length |= (self._pending[at] & 0x7F) << shift
            shift += 7
            if not self._pending[at] & 0x80:
                return at + 1 + length
        if len(self._pending) >= 5:
            raise NotMqtt("remaining length of more than four bytes")
        return None


def matches(pattern: str, topic: str) -> bool:
    """MQTT topic filter match (section 4.7): `+` is one level, a final `#` any number."""
    wanted, have = pattern.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(have) or level not in ("+", have[index]):
            return False
    return len(wanted) == len(have)
