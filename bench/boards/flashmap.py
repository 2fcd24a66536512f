"""Where each region lies in a terminal's flash; a test holds it equal to firmware/terminal/regions.py."""

from __future__ import annotations

from dataclasses import dataclass

SECTOR_BYTES = 4096
FLASH_BYTES = 0x200000
ERASED = 0xFF


@dataclass(frozen=True)
class Region:
    """One region: byte offset and size in the flash."""

    name: str
    start: int
    size: int


REGIONS = {
    region.name: region
    for region in (
        Region("control", 0x000000, 0x002000),
        Region("counters", 0x002000, 0x004000),
        Region("identity", 0x006000, 0x002000),
        Region("journal", 0x008000, 0x010000),
        Region("image", 0x018000, 0x002000),
        Region("vfs", 0x020000, 0x1E0000),
    )
}
