"""The control record as the bench reads it from a flash image, on its own terms.

It shares no code with the terminal: a bundle of mistakes in the terminal's reader must not hide here, too.
Format: 128 bytes, big endian (firmware/terminal/ota/record.py); the newest copy with a good CRC counts.
"""

from __future__ import annotations

import struct
from binascii import crc32
from dataclasses import dataclass, fields
from typing import Any

from bench.boards.flashmap import REGIONS

CONFIRMED, STAGING, VERIFIED, ARMED, TRIAL, ROLLED_BACK = range(6)
NAMES = ("confirmed", "staging", "verified", "armed", "trial", "rolled-back")
FACTORY = 2
_RECORD = struct.Struct(">4sIBBBBB3xIIII4x32s32s6s6s6s6s")
_RECORD_BYTES = 128
_CRC_AT = 124
_MAGIC = b"TSR1"
_SEQUENCE, _VERSION, _HASH = slice(4, 8), slice(16, 20), slice(36, 68)
_ERASED = 0xFF
CONTROL_BYTES = REGIONS["control"].start + REGIONS["control"].size  # of an image, as far as `newest` looks


@dataclass(frozen=True)
class Control:
    """What the newest valid control record says."""

    sequence: int
    state: int
    slot: int
    tries: int
    starts: int
    reason: int
    version: int
    floor: int
    other_version: int
    other_floor: int
    hash: bytes
    other_hash: bytes
    quarantine: tuple[bytes, ...]

    def is_quarantined(self, digest: bytes) -> bool:
        """Whether a bundle is on the list."""
        return digest[:6] in self.quarantine

    @property
    def quarantined(self) -> set[bytes]:
        """Beginnings of the bundles on the list."""
        return set(self.quarantine) - {bytes(6)}


def newest(image: bytes | bytearray | memoryview) -> Control | None:
    """The record in force in a flash image (its control region is enough), None if there is none."""
    at = _place(image)
    return None if at is None else _control(_RECORD.unpack_from(image, at))


def append(image: bytearray, version: int, digest: bytes) -> None:
    """Write one more record into a flash image, both copies: the newest with another active bundle."""
    last = _place(image)
    assert last is not None
    raw = bytearray(image[last : last + _RECORD_BYTES])
    sequence = int.from_bytes(raw[_SEQUENCE], "big") + 1
    raw[_SEQUENCE], raw[_VERSION], raw[_HASH] = (
        sequence.to_bytes(4, "big"),
        version.to_bytes(4, "big"),
        digest,
    )
    raw[_CRC_AT:] = crc32(raw[:_CRC_AT]).to_bytes(4, "big")
    free = next(at for at in range(last, CONTROL_BYTES, _RECORD_BYTES) if image[at] == _ERASED)
    image[free : free + 2 * _RECORD_BYTES] = raw + raw


def _place(image: bytes | bytearray | memoryview) -> int | None:
    """Where the newest record with a good CRC begins."""
    region = REGIONS["control"]
    found, newest_sequence = None, -1
    for at in range(region.start, region.start + region.size, _RECORD_BYTES):
        raw = bytes(image[at : at + _RECORD_BYTES])
        if raw[:4] != _MAGIC or int.from_bytes(raw[_CRC_AT:], "big") != crc32(raw[:_CRC_AT]):
            continue
        sequence = int.from_bytes(raw[_SEQUENCE], "big")
        if sequence > newest_sequence:
            found, newest_sequence = at, sequence
    return found


def _control(raw: tuple[Any, ...]) -> Control:
    plain = dict(zip([part.name for part in fields(Control)], raw[1:13], strict=False))
    return Control(**plain, quarantine=raw[13:17])
