"""The model of a chip's two images behaves as ESP-IDF documents it; esptool judges the images themselves."""

from __future__ import annotations

import struct
import sys

import pytest
from esptool.bin_image import LoadFirmwareImage

from bench.esp32 import appimage
from bench.paths import ROOT

sys.path.insert(0, str(ROOT / "firmware" / "boards" / "process"))
sys.path.insert(0, str(ROOT / "firmware"))

from boards.host.nor import Nor, PowerCut
from partitions import (
    ABORTED,
    INVALID,
    NEW,
    PENDING,
    UNDEFINED,
    VALID,
    Machine,
    NotBootable,
    entry_crc,
    image_bytes,
    partition_class,
)

C3 = 5
SIZE = 0x8000
APPS_AT = 0x2000
BLANK = 0xFFFFFFFF
IMAGE = appimage.synthetic(C3, 3000).encode()


class Chip:
    def __init__(self, rollback: bool = True, apps: tuple[bytes, bytes] = (IMAGE, IMAGE)) -> None:
        self.nor = Nor(APPS_AT + 2 * SIZE)
        for number, data in enumerate(apps):
            at = APPS_AT + number * SIZE
            self.nor.data[at : at + len(data)] = data
        self.again(rollback)

    def again(self, rollback: bool = True) -> Machine:
        """The power comes back."""
        self.nor.cut_at(0)
        places = [APPS_AT, APPS_AT + SIZE]
        apps = [(self.nor.region(at, SIZE), at, SIZE) for at in places]
        self.machine = Machine(self.nor.region(0, 0x2000), apps, C3, rollback)
        return self.machine

    def states(self) -> list[tuple[int, int]]:
        return [(entry[0], entry[1]) for entry in self.machine.otadata.read()]


def test_the_checksum_of_an_entry_is_the_published_one() -> None:
    assert entry_crc(1) == 0x4743989A


def test_a_new_chip_starts_ota_0_and_writes_that_down() -> None:
    chip = Chip()
    assert chip.machine.boot() == 0
    assert chip.states() == [(1, VALID), (BLANK, BLANK)]


def test_a_chosen_image_is_new_then_pending_then_aborted() -> None:
    chip = Chip()
    chip.machine.boot()
    chip.machine.set_boot(1)
    assert chip.states() == [(1, VALID), (2, NEW)]
    assert chip.again().boot() == 1
    assert chip.states() == [(1, VALID), (2, PENDING)]
    assert chip.again().boot() == 0, "its second start without a confirmation"
    assert chip.states() == [(1, VALID), (2, ABORTED)]


def test_a_confirmed_image_stays() -> None:
    chip = Chip()
    chip.machine.boot()
    chip.machine.set_boot(1)
    chip.again().boot()
    chip.machine.mark_valid()
    assert chip.states() == [(1, VALID), (2, VALID)]
    assert [chip.again().boot() for _ in range(3)] == [1, 1, 1]
    chip.machine.set_boot(0)
    assert chip.states() == [(3, NEW), (2, VALID)]


def test_without_rollback_an_image_is_never_taken_back() -> None:
    chip = Chip(rollback=False)
    chip.machine.boot()
    chip.machine.set_boot(1)
    assert chip.states()[1] == (2, UNDEFINED)
    assert [chip.again(rollback=False).boot() for _ in range(3)] == [1, 1, 1]


def test_choosing_what_is_chosen_costs_the_other_entry() -> None:
    chip = Chip()
    chip.machine.boot()
    chip.machine.set_boot(1)
    chip.machine.set_boot(1)
    assert chip.states() == [(2, NEW), (2, NEW)]


def test_marking_valid_rewrites_the_entry_in_use_and_a_cut_there_loses_it() -> None:
    chip = Chip()
    chip.machine.boot()
    chip.machine.set_boot(1)
    chip.again().boot()
    chip.nor.cut_at(17)  # the erase is done, the entry is not written
    with pytest.raises(PowerCut):
        chip.machine.mark_valid()
    assert chip.states() == [(1, VALID), (BLANK, BLANK)]
    assert chip.again().boot() == 0


def test_the_state_is_not_under_the_checksum() -> None:
    chip = Chip()
    chip.machine.otadata.write(0, 1, VALID)
    chip.nor.program(24, struct.pack("<I", INVALID & VALID))
    assert chip.machine.otadata.active() == 0


def test_an_image_that_does_not_verify_is_passed_over_and_stays_chosen() -> None:
    chip = Chip()
    chip.machine.boot()
    chip.machine.set_boot(1)
    chip.nor.data[APPS_AT + SIZE + 100] ^= 1
    assert chip.again().boot() == 0
    assert chip.states() == [(1, VALID), (2, PENDING)]
    with pytest.raises(OSError, match="-5379"):
        chip.machine.set_boot(1)
    chip.nor.data[APPS_AT + 100] ^= 1
    with pytest.raises(NotBootable):
        chip.again().boot()


def test_two_entries_that_do_not_count_mean_ota_0_and_are_left_alone() -> None:
    chip = Chip()
    chip.machine.otadata.write(0, 3, ABORTED)
    chip.machine.otadata.write(1, 2, INVALID)
    assert chip.machine.boot() == 0
    assert chip.states() == [(3, ABORTED), (2, INVALID)]


def test_the_image_that_runs_cannot_be_written_to() -> None:
    chip = Chip()
    chip.machine.boot()
    partition = partition_class(chip.machine)
    running = partition(partition.RUNNING)
    assert running.info() == (0, 0x10, APPS_AT, SIZE, "ota_0", False)
    with pytest.raises(OSError, match="-269"):
        running.writeblocks(0, bytes(16), 0)
    with pytest.raises(OSError, match="-269"):
        running.ioctl(6, 0)
    following = running.get_next_update()
    assert following.info()[4] == "ota_1"
    following.writeblocks(0, bytes(4096))
    assert partition.find(partition.TYPE_DATA, subtype=0)[0].info()[4] == "otadata"
    assert partition.find(label="nothing") == []


def judged_by_esptool(image: bytes) -> bool:
    """Whether esptool finds checksum and hash of an image right."""
    found = LoadFirmwareImage("esp32c3", image)
    return bool(found.checksum == found.calculate_checksum() and found.stored_digest == found.calc_digest)


def test_our_images_are_images_to_esptool_and_damaged_ones_are_to_neither() -> None:
    nor = Nor(SIZE)
    for at, bit in ((None, 0), (26, 1), (2000, 8), (len(IMAGE) - 1, 1), (len(IMAGE) - 33, 1)):
        image = bytearray(IMAGE)
        if at is not None:
            image[at] ^= bit
        nor.data[: len(image)] = image
        assert (image_bytes(nor.region(0, SIZE), SIZE, C3) == len(IMAGE)) == (at is None)
        assert judged_by_esptool(bytes(image)) == (at is None)
    nor.data[: len(IMAGE)] = IMAGE
    assert image_bytes(nor.region(0, SIZE), SIZE, C3 + 1) == 0
    assert image_bytes(nor.region(0, 0x1000), 0x1000, C3) == 0, "it does not fit its partition"
