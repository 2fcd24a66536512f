"""Chips and their flash: where the ROM looks for the bootloader, and our partition table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from esp_idf_defs.partitions import PartitionTable  # type: ignore[import-untyped]

from bench.errors import BenchError
from bench.paths import ROOT

PARTITIONS_CSV = ROOT / "firmware" / "boards" / "esp32" / "partitions.csv"
TABLES = {  # by flash size in MB
    4: PARTITIONS_CSV,
    8: PARTITIONS_CSV.with_name("partitions-8mb.csv"),
    16: PARTITIONS_CSV.with_name("partitions-16mb.csv"),
}
DEFAULT_FLASH_MB = 4
TABLE_OFFSET = 0x8000
FACTORY_APP_OFFSET = 0x10000  # where MicroPython's published images carry their application
IMAGE_MAGIC = 0xE9
_APP_ALIGNMENT = 0x10000  # what the chip maps into its address space
_FLASH_SIZE_AT = 3  # upper half of this byte of an image header: log2 of the flash size in MB
_CHIP_ID_AT = 12  # esp_image_header_t.chip_id, u16 little endian (ESP-IDF, esp_app_format.h)


@dataclass(frozen=True)
class Chip:
    """One member of the ESP32 family.

    `image_id` is the chip id in image headers, `boot_offset` where its ROM reads the bootloader (bytes),
    `mpy_architecture` the -march of mpy-cross.
    """

    name: str
    image_id: int
    boot_offset: int
    mpy_architecture: str


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("esp32", 0, 0x1000, "xtensawin"),
        Chip("esp32s3", 9, 0x0, "xtensawin"),
        Chip("esp32c3", 5, 0x0, "rv32imc"),
    )
}


def chip_named(name: str) -> Chip:
    """The chip of this name, written as esptool or as a person writes it ("ESP32-C3").

    Raises: BenchError(UNKNOWN_CHIP).
    """
    chip = CHIPS.get(name.lower().replace("-", ""))
    if chip is None:
        raise BenchError(
            "UNKNOWN_CHIP",
            f"There is no flash layout for {name}: it is made for {', '.join(CHIPS)} with 4 MB of flash.",
        )
    return chip


def chip_of_image(image: bytes, what: str) -> Chip:
    """The chip an image is made for, from its first header.

    Raises: BenchError(BAD_IMAGE, UNKNOWN_CHIP).
    """
    if len(image) < 32 or image[0] != IMAGE_MAGIC:
        raise BenchError(
            "BAD_IMAGE",
            f"{what} does not start as an ESP32 image: give the .bin that micropython.org publishes.",
        )
    number = int.from_bytes(image[_CHIP_ID_AT : _CHIP_ID_AT + 2], "little")
    for chip in CHIPS.values():
        if chip.image_id == number:
            return chip
    raise BenchError(
        "UNKNOWN_CHIP", f"{what} is for a chip with id {number}: there are layouts for {', '.join(CHIPS)}."
    )


@dataclass(frozen=True)
class Partition:
    """One partition: byte offset and size in flash."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Our partition table, and its binary form for flash offset TABLE_OFFSET."""

    partitions: dict[str, Partition]
    binary: bytes

    def __getitem__(self, name: str) -> Partition:
        return self.partitions[name]


def flash_mb_of_image(image: bytes) -> int:
    """The flash size in MB that an image's header names; a larger table would not be accepted by the chip."""
    return int(1 << (image[_FLASH_SIZE_AT] >> 4))


def load_layout(flash_mb: int = DEFAULT_FLASH_MB, path: Path | None = None) -> Layout:
    """Read and check the partition table for a flash size in MB.

    Raises: BenchError(BAD_PARTITIONS) when it overlaps, misaligns or does not fit the flash, or when there is
    none for this size.
    """
    path = path or TABLES.get(flash_mb)
    if path is None:
        sizes = ", ".join(map(str, TABLES))
        raise BenchError("BAD_PARTITIONS", f"There is no table for {flash_mb} MB of flash: take {sizes}.")
    try:
        table = PartitionTable.from_csv(path.read_text(encoding="utf-8"))
        table.verify()
        binary = bytes(table.to_binary())
    except (OSError, RuntimeError, ValueError) as error:
        raise BenchError("BAD_PARTITIONS", f"{path}: {error}") from error
    partitions = {row.name: Partition(row.name, int(row.offset), int(row.size)) for row in table}
    end = max(partition.offset + partition.size for partition in partitions.values())
    if end > flash_mb << 20:
        raise BenchError("BAD_PARTITIONS", f"{path} ends at {end:#x}, the flash at {flash_mb << 20:#x}.")
    for name in ("ota_0", "ota_1"):
        if partitions[name].offset % _APP_ALIGNMENT:
            raise BenchError("BAD_PARTITIONS", f"{path}: {name} does not begin at a multiple of 64 KiB.")
    return Layout(partitions, binary)
