"""Our partition tables for ESP32 chips: one for each flash size, judged by ESP-IDF's own rules and ours."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from esp_idf_defs.partitions import PartitionTable  # type: ignore[import-untyped]

from bench.boards.flashmap import REGIONS
from bench.errors import BenchError
from bench.esp32.layout import TABLE_OFFSET, TABLES, load_layout

TABLE_BYTES = 0x1000


@pytest.mark.parametrize("flash_mb", TABLES)
def test_a_table_fills_its_flash_without_overlap(flash_mb: int) -> None:
    layout = load_layout(flash_mb)
    rows = sorted(layout.partitions.values(), key=lambda row: row.offset)
    assert rows[0].offset >= TABLE_OFFSET + TABLE_BYTES
    for before, after in pairwise(rows):
        assert before.offset + before.size <= after.offset, (before, after)
    assert rows[-1].offset + rows[-1].size == flash_mb << 20
    assert all(row.offset % 4096 == row.size % 4096 == 0 for row in rows)
    assert layout["ota_0"].size == layout["ota_1"].size
    assert layout["ota_0"].offset % 0x10000 == layout["ota_1"].offset % 0x10000 == 0


@pytest.mark.parametrize("flash_mb", TABLES)
def test_esp_idf_reads_the_binary_table_as_it_was_written(flash_mb: int) -> None:
    layout = load_layout(flash_mb)
    table = PartitionTable.from_binary(layout.binary)
    table.verify()
    assert {row.name: (row.offset, row.size) for row in table} == {
        name: (row.offset, row.size) for name, row in layout.partitions.items()
    }


@pytest.mark.parametrize("flash_mb", TABLES)
def test_the_terminals_regions_have_the_sizes_of_the_flash_map_at_the_same_places_in_every_table(
    flash_mb: int,
) -> None:
    layout = load_layout(flash_mb)
    for name in set(REGIONS) - {"vfs"}:
        assert layout[name].size == REGIONS[name].size, name
        assert layout[name].offset == load_layout(4)[name].offset, "provisioning knows one place"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0x1d0000, 0x1a0000", "0x1d1000, 0x19f000"),
        ("0x370000, 0x90000", "0x370000, 0xa0000"),
        ("0x30000,", "0x29000,"),
    ],
    ids=["app not at 64 KiB", "beyond the flash", "overlap"],
)
def test_a_bad_table_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = TABLES[4].read_text()
    assert old in text
    path = tmp_path / "bad.csv"
    path.write_text(text.replace(old, new))
    with pytest.raises(BenchError) as refused:
        load_layout(4, path)
    assert refused.value.code == "BAD_PARTITIONS"


def test_a_flash_size_without_a_table_is_named() -> None:
    with pytest.raises(BenchError, match="4, 8, 16"):
        load_layout(32)
