"""Read the rare MQTT packets with amqtt's packet classes, turning whatever they raise into a coded
violation.

amqtt 0.12.1 parses CONNECT, SUBSCRIBE and UNSUBSCRIBE from a reader; it is given exactly the bytes of one
packet, so a lying length inside can neither wait for more nor read into the next packet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from amqtt.adapters import BufferReader  # type: ignore[import-untyped]
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt.connect import ConnectPacket  # type: ignore[import-untyped]
from amqtt.mqtt.packet import MQTTFixedHeader  # type: ignore[import-untyped]
from amqtt.mqtt.subscribe import SubscribePacket  # type: ignore[import-untyped]
from amqtt.mqtt.unsubscribe import UnsubscribePacket  # type: ignore[import-untyped]

from server.transport.mqtt import CONNECT, SUBSCRIBE, UNSUBSCRIBE, ProtocolViolation

ACCEPTED = 0
BAD_PROTOCOL = 1
BAD_IDENTIFIER = 2
UNAVAILABLE = 3
NOT_AUTHORISED = 5

MAX_FILTERS = 16

_PARSE_ERRORS = (
    AMQTTError,
    MQTTError,
    CodecError,
    NoDataError,
    ValueError,
    IndexError,
    TypeError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Will:
    """What to publish in a client's name when it vanishes."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """What a client asks for; ``keep_alive_s`` is 0 for none."""

    level: int
    client_id: str
    username: str
    password: str
    clean_session: bool
    keep_alive_s: int
    will: Will | None


async def read_connect(first: int, body: bytes) -> Connect:
    """Read a CONNECT packet.

    Raises: ProtocolViolation(mqtt_no_connect) for any other packet, (mqtt_malformed_connect) for a broken
    one.
    """
    if first != CONNECT << 4:
        raise ProtocolViolation("mqtt_no_connect")
    try:
        packet = await ConnectPacket.from_stream(BufferReader(body), MQTTFixedHeader(CONNECT, 0, len(body)))
        header, payload = packet.variable_header, packet.payload
        if header is None or payload is None or header.reserved_flag:
            raise ProtocolViolation("mqtt_malformed_connect")
        name, level = header.proto_name, header.proto_level
        will = None
        if header.will_flag:
            will = Will(payload.will_topic or "", bytes(payload.will_message or b""))
        client_id = "" if payload.client_id_is_random else payload.client_id or ""
        connect = Connect(
            level, client_id, payload.username or "", payload.password or "", header.clean_session_flag,
            header.keep_alive, will,
        )  # fmt: skip
    except _PARSE_ERRORS:
        raise ProtocolViolation("mqtt_malformed_connect") from None
    if name not in ("MQTT", "MQIsdp"):
        raise ProtocolViolation("mqtt_malformed_connect")
    return connect


async def read_subscribe(first: int, body: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Read a SUBSCRIBE: packet id and (filter, QoS) pairs. Raises:
    ProtocolViolation(mqtt_malformed_subscribe).
    """
    try:
        packet = await SubscribePacket.from_stream(
            BufferReader(body), MQTTFixedHeader(SUBSCRIBE, first & 0x0F, len(body))
        )
        topics = [(topic, qos) for topic, qos in packet.payload.topics]
        ident = packet.variable_header.packet_id
    except (*_PARSE_ERRORS, AttributeError):
        raise ProtocolViolation("mqtt_malformed_subscribe") from None
    if first & 0x0F != 2 or not 1 <= len(topics) <= MAX_FILTERS or ident == 0:
        raise ProtocolViolation("mqtt_malformed_subscribe")
    if any(not 0 <= qos <= 2 for _, qos in topics):
        raise ProtocolViolation("mqtt_malformed_subscribe")
    return ident, topics


async def read_unsubscribe(first: int, body: bytes) -> tuple[int, list[str]]:
    """Read an UNSUBSCRIBE: packet id and filters. Raises: ProtocolViolation(mqtt_malformed_unsubscribe)."""
    try:
        packet = await UnsubscribePacket.from_stream(
            BufferReader(body), MQTTFixedHeader(UNSUBSCRIBE, first & 0x0F, len(body))
        )
        topics = list(packet.payload.topics)
        ident = packet.variable_header.packet_id
    except (*_PARSE_ERRORS, AttributeError):
        raise ProtocolViolation("mqtt_malformed_unsubscribe") from None
    if first & 0x0F != 2 or not 1 <= len(topics) <= MAX_FILTERS or ident == 0:
        raise ProtocolViolation("mqtt_malformed_unsubscribe")
    return ident, topics


def connack_packet(code: int, *, session_present: bool = False) -> bytes:
    """A whole CONNACK packet."""
    return bytes((0x20, 2, int(session_present and code == ACCEPTED), code))


def suback_packet(packet_id: int, codes: list[int]) -> bytes:
    """A whole SUBACK packet; 0x80 refuses a filter."""
    return bytes((0x90, 2 + len(codes))) + packet_id.to_bytes(2, "big") + bytes(codes)


def unsuback_packet(packet_id: int) -> bytes:
    """A whole UNSUBACK packet."""
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")
