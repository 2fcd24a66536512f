"""MQTT 3.1.1 packets on the hot path, as pure functions over bytes (OASIS MQTT 3.1.1, sections 2 and 3).

The splitter cuts a byte stream into packets without looking inside; PUBLISH is read and written here
because every order passes through it, everything rarer is left to amqtt's packet classes.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14

PINGRESP_PACKET = b"\xd0\x00"
MAX_TOPIC_BYTES = 256


class ProtocolViolation(Exception):
    """The peer broke MQTT 3.1.1 or a limit of this server; the connection has to be closed."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH as received; ``packet_id`` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int


class PacketSplitter:
    """Cuts a stream into (first byte, body) pairs; holds at most one packet of ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what arrived and return every complete packet.

        Raises: ProtocolViolation(mqtt_packet_too_large, mqtt_malformed_length).
        """
        buffer = self._buffer
        buffer += data
        packets: list[tuple[int, bytes]] = []
        start, end = 0, len(buffer)
        while end - start >= 2:
            length, head = self._remaining_length(start, end)
            if head == 0:
                break
            stop = head + length
            if stop > end:
                break
            packets.append((buffer[start], bytes(buffer[head:stop])))
            start = stop
        del buffer[:start]
        return packets

    def _remaining_length(self, start: int, end: int) -> tuple[int, int]:
        """(length, position after it), or (0, 0) while its bytes are incomplete."""
        length = 0
        for index in range(4):
            position = start + 1 + index
            if position >= end:
                return 0, 0
            byte = self._buffer[position]
            length |= (byte & 0x7F) << (7 * index)
            if length > self._max_bytes:
                raise ProtocolViolation("mqtt_packet_too_large")
            if byte < 0x80:
                return length, position + 1
        raise ProtocolViolation("mqtt_malformed_length")


def read_publish(first: int, body: bytes) -> Publish:
    """Read a PUBLISH. Raises: ProtocolViolation(mqtt_malformed_publish, mqtt_bad_topic)."""
    qos = first >> 1 & 3
    if qos == 3 or len(body) < 2:
        raise ProtocolViolation("mqtt_malformed_publish")
    topic_end = 2 + int.from_bytes(body[:2], "big")
    payload_start = topic_end + (2 if qos else 0)
    if payload_start > len(body):
        raise ProtocolViolation("mqtt_malformed_publish")
    try:
        topic = body[2:topic_end].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation("mqtt_bad_topic") from None
    if not topic or len(topic) > MAX_TOPIC_BYTES or "#" in topic or "+" in topic or "\0" in topic:
        raise ProtocolViolation("mqtt_bad_topic")
    packet_id = int.from_bytes(body[topic_end:payload_start], "big") if qos else 0
    if qos and packet_id == 0:
        raise ProtocolViolation("mqtt_malformed_publish")
    return Publish(topic, body[payload_start:], qos, bool(first & 1), packet_id)


def read_packet_id(body: bytes) -> int:
    """Read the packet identifier of a PUBACK. Raises: ProtocolViolation(mqtt_malformed_puback)."""
    if len(body) != 2:
        raise ProtocolViolation("mqtt_malformed_puback")
    return int.from_bytes(body, "big")


def encode_length(length: int) -> bytes:
    """The remaining-length field of a fixed header."""
    out = bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        if not length:
            out.append(digit)
            return bytes(out)
        out.append(digit | 0x80)


def publish_packet(
    topic: bytes, payload: bytes, qos: int, packet_id: int, *, retain: bool, dup: bool
) -> bytes:
    """A whole PUBLISH packet, QoS 0 or 1; ``topic`` is already UTF-8."""
    first = 0x30 | (0x08 if dup else 0) | qos << 1 | int(retain)
    ident = packet_id.to_bytes(2, "big") if qos else b""
    length = 2 + len(topic) + len(ident) + len(payload)
    return b"".join(
        (bytes((first,)), encode_length(length), len(topic).to_bytes(2, "big"), topic, ident, payload)
    )


def puback_packet(packet_id: int) -> bytes:
    """A whole PUBACK packet."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic filter covers a topic (section 4.7)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if given[0].startswith("$") and wanted[0] in ("#", "+"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)


def valid_filter(topic_filter: str) -> bool:
    """Whether a topic filter is well formed (section 4.7.1)."""
    levels = topic_filter.split("/")
    if not topic_filter or len(topic_filter) > MAX_TOPIC_BYTES or "\0" in topic_filter:
        return False
    if any("+" in level and level != "+" for level in levels):
        return False
    return all(
        "#" not in level or (level == "#" and index == len(levels) - 1) for index, level in enumerate(levels)
    )
