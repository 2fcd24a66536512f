"""ESP32 application images taken apart and put together again, for tests that need another one of real bytes.

Format: esp_app_format.h of ESP-IDF: a header of 24 bytes, segments with eight bytes of head each, padding to
16 bytes whose last byte is the XOR of all segment bytes and 0xEF, and the SHA-256 of everything before.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from operator import xor

from bench.errors import BenchError
from bench.esp32.layout import IMAGE_MAGIC

HEADER_BYTES = 24
_SEGMENT = struct.Struct("<II")
_CHECKSUM_SEED = 0xEF
_ALIGN = 16


@dataclass(frozen=True)
class AppImage:
    """An application image: its header, and (load address, bytes) of each segment."""

    header: bytes
    segments: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        """The image with a checksum and a hash that fit."""
        body = bytearray(self.header)
        body[1] = len(self.segments)
        body[HEADER_BYTES - 1] = 1  # a hash is appended
        checksum = _CHECKSUM_SEED
        for address, data in self.segments:
            body += _SEGMENT.pack(address, len(data)) + data
            checksum = reduce(xor, data, checksum)
        body += bytes(_ALIGN - 1 - len(body) % _ALIGN) + bytes([checksum])
        return bytes(body) + sha256(body).digest()


def parse(image: bytes, what: str) -> AppImage:
    """Take an application image apart.

    Raises: BenchError(BAD_IMAGE).
    """
    segments = []
    at = HEADER_BYTES
    if len(image) > at and image[0] == IMAGE_MAGIC:
        for _ in range(image[1]):
            if at + _SEGMENT.size > len(image):
                break
            address, length = _SEGMENT.unpack_from(image, at)
            at += _SEGMENT.size
            segments.append((address, image[at : at + length]))
            at += length
    if not segments or len(segments) != image[1] or at > len(image):
        raise BenchError("BAD_IMAGE", f"{what} is not an ESP32 application image.")
    return AppImage(image[:HEADER_BYTES], tuple(segments))


def variant(image: AppImage, number: int) -> AppImage:
    """The image with the last four bytes of its first segment replaced: another build of the same."""
    address, data = image.segments[0]
    return AppImage(image.header, ((address, data[:-4] + number.to_bytes(4, "little")), *image.segments[1:]))


def synthetic(chip_id: int, segment_bytes: int) -> AppImage:
    """An image without meaning for benches without a real one: two segments of a repeating pattern."""
    header = bytearray(HEADER_BYTES)
    header[0] = IMAGE_MAGIC
    header[12:14] = chip_id.to_bytes(2, "little")
    pattern = b"".join(sha256(n.to_bytes(4, "little")).digest() for n in range(segment_bytes // 32 + 1))
    return AppImage(bytes(header), tuple((at, pattern[:segment_bytes]) for at in (0x3C00_0020, 0x4200_0020)))


def excerpt(image: AppImage, segment_bytes: int) -> AppImage:
    """An image of the same bytes, but only the first `segment_bytes` of the first two segments."""
    length = segment_bytes // 4 * 4
    return AppImage(image.header, tuple((at, data[:length]) for at, data in image.segments[:2]))
