# Module `esp32` of the process board: only what firmware updates use, and only if the bench asks for it with
# the boot option {"partitions": {"at", "size", "chip_id", "rollback"}}.
#
# at: place in the flash file, behind the flash map, of otadata; 64 KiB further ota_0 begins, and ota_1 behind
# it, each of `size` bytes. Importing this module is the chip's start: the bootloader makes its choice.

import json

import _board
from partitions import SECTOR_BYTES, Machine, NotBootable, partition_class

_APPS_AT = 0x10000


def _start(chip):
    at = chip["at"]
    size = chip["size"]
    apps = []
    for number in range(2):
        address = at + _APPS_AT + number * size
        apps.append((_board.Flash(address, size), address, size))
    otadata = _board.Flash(at, 2 * SECTOR_BYTES)
    machine = Machine(otadata, apps, chip["chip_id"], chip.get("rollback", True))
    try:
        print("[bootloader] starts ota_" + str(machine.boot()))
    except NotBootable:
        print("[bootloader] no bootable image")
        _board.poweroff(1)  # a chip goes on trying for ever
    return partition_class(machine)


Partition = _start(json.loads(_board.boot_options())["partitions"])
