"""Cut a TCP stream of MQTT packets where faults may act: between packets, and only on PUBLISH and PUBACK."""

from __future__ import annotations

import random

PUBLISH, PUBACK = 3, 4


class Cutter:
    """Collects bytes and returns whole packets, each with its type; what is incomplete waits."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(type, packet) of every packet that is complete now."""
        data = self._rest + data
        packets = []
        start = 0
        while (end := _end(data, start)) is not None:
            packets.append((data[start] >> 4, data[start:end]))
            start = end
        self._rest = data[start:]
        return packets


def _end(data: bytes, start: int) -> int | None:
    length = shift = 0
    for at in range(start + 1, min(start + 5, len(data))):
        length |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            end = at + 1 + length
            return end if end <= len(data) else None
    return None


def publish_parts(packet: bytes) -> tuple[str, bytes]:
    """(topic, payload) of a PUBLISH."""
    at = 1
    while packet[at] >= 0x80:
        at += 1
    at += 1
    length = int.from_bytes(packet[at : at + 2], "big")
    topic = packet[at + 2 : at + 2 + length].decode()
    return topic, packet[at + 2 + length + (2 if packet[0] & 6 else 0) :]


def flip_bit(packet: bytes, draw: random.Random) -> bytes:
    """The PUBLISH with one bit of its authenticated payload changed; others stay as they are.

    Terminals' presence and their menu chunks are not authenticated one by one: those are left alone.
    """
    topic, payload = publish_parts(packet)
    if not topic.endswith(("/op", "/reply")) or len(payload) < 64:
        return packet
    changed = bytearray(packet)
    at = len(packet) - 1 - draw.randrange(len(payload))
    changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)
