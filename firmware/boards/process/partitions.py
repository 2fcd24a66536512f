# A model of an ESP32's two firmware images: partition table, otadata, second-stage bootloader and what
# esp_ota_ops does with them, weak points included. For the process board and for tests; no chip ever runs it.
#
# What it follows, from ESP-IDF's documentation and the behaviour of its 5.x sources:
# * otadata is two sectors with an entry of 32 bytes each: sequence number, 20 bytes of label, state, CRC-32.
#   The CRC covers the sequence number only. Sequence s stands for app partition (s - 1) % count.
# * Choosing a partition erases and writes the sector of the entry that is *not* in use. Marking an image
#   valid, and every change of state by the bootloader, erases and writes the sector that *is* in use: a cut
#   between the two loses that entry.
# * Choosing the partition that is chosen already writes the same sequence number into the other sector, so
#   that both entries name it.
# * With rollback, a chosen image is NEW; the bootloader makes it PENDING when it starts it for the first time
#   and ABORTED when it finds it PENDING at the next start. Without, a chosen image is UNDEFINED for ever.
# * The bootloader verifies an image (magic, chip, segments, checksum, appended SHA-256) before it starts it.
#   One that fails stays chosen; the other partitions are tried, lower ones first.
# * Two blank entries and no factory partition: ota_0, and the entry of the image that is started is written.
# * Anti-rollback by eFuse, secure boot and flash encryption are absent.

import hashlib
import struct
from binascii import crc32

SECTOR_BYTES = 4096
NEW, PENDING, VALID, INVALID, ABORTED, UNDEFINED = 0, 1, 2, 3, 4, 0xFFFFFFFF
VALIDATE_FAILED = 0x1503  # ESP_ERR_OTA_VALIDATE_FAILED
NOT_ALLOWED = 0x10D  # ESP_ERR_NOT_ALLOWED: writing to the image that runs
_NONE = 0xFFFFFFFF
_ENTRY = "<I20xII"
_ERASE = 6
_CHECKSUM_SEED = 0xEF
_HEADER_BYTES = 24
_SEGMENT_BYTES = 8
_MAX_SEGMENTS = 16
_TYPE_APP, _TYPE_DATA = 0, 1
_FIRST_OTA = 0x10


class NotBootable(Exception):
    # No partition holds an image that the bootloader would start.
    pass


def entry_crc(sequence):
    return crc32(struct.pack("<I", sequence), _NONE) & _NONE


class OtaData:
    # The two entries in flash. dev: block device of the otadata partition.

    def __init__(self, dev):
        self._dev = dev

    def read(self):
        # -> two lists [sequence, state, crc].
        found = []
        for sector in range(2):
            raw = bytearray(32)
            self._dev.readblocks(sector, raw, 0)
            found.append(list(struct.unpack(_ENTRY, raw)))
        return found

    def write(self, sector, sequence, state):
        # The sector is erased first: until the program step is done, the entry is not there.
        raw = bytearray(b"\xff" * 32)
        struct.pack_into("<I", raw, 0, sequence)
        struct.pack_into("<II", raw, 24, state, entry_crc(sequence))
        self._dev.ioctl(_ERASE, sector)
        self._dev.writeblocks(sector, raw, 0)

    def active(self):
        # -> number of the entry in use, -1 without any.
        entries = self.read()
        usable = [n for n in range(2) if _is_usable(entries[n])]
        if len(usable) == 2:
            return 0 if entries[0][0] >= entries[1][0] else 1
        return usable[0] if usable else -1


def _is_discarded(entry):
    return entry[0] == _NONE or entry[1] == INVALID or entry[1] == ABORTED


def _is_usable(entry):
    return not _is_discarded(entry) and entry[2] == entry_crc(entry[0])


def _is_initial(entry):
    return entry[0] == _NONE or entry[2] != entry_crc(entry[0])


def image_bytes(dev, size, chip_id):
    # -> length of the image at the start of a partition of `size` bytes if the bootloader would start it,
    # else 0.
    head = _read(dev, 0, _HEADER_BYTES)
    segments = head[1]
    if head[0] != 0xE9 or not 0 < segments <= _MAX_SEGMENTS:
        return 0
    if struct.unpack_from("<H", head, 12)[0] != chip_id:
        return 0
    at = _HEADER_BYTES
    digest = hashlib.sha256(head)
    checksum = _CHECKSUM_SEED
    for _ in range(segments):
        if at + _SEGMENT_BYTES > size:
            return 0
        segment = _read(dev, at, _SEGMENT_BYTES)
        digest.update(segment)
        at += _SEGMENT_BYTES
        length = struct.unpack_from("<I", segment, 4)[0]
        if length % 4 or at + length > size:
            return 0
        for start in range(at, at + length, SECTOR_BYTES):
            part = _read(dev, start, min(SECTOR_BYTES, at + length - start))
            digest.update(part)
            checksum ^= _fold(part)
        at += length
    end = (at + 16) & ~15
    if end + 32 > size:
        return 0
    tail = _read(dev, at, end - at)
    digest.update(tail)
    if tail[-1] != checksum:
        return 0
    if head[23]:
        if _read(dev, end, 32) != digest.digest():
            return 0
        end += 32
    return end


def _fold(data):
    # -> all bytes XORed; halves are folded onto each other, which is quick in Python.
    value = int.from_bytes(data, "little")
    bits = 8 * SECTOR_BYTES
    while bits > 8:
        bits //= 2
        value = value >> bits ^ value & (1 << bits) - 1
    return value


def _read(dev, at, length):
    data = bytearray(length)
    dev.readblocks(at // SECTOR_BYTES, data, at % SECTOR_BYTES)
    return data


class Machine:
    # The chip's part that decides which image runs.
    # otadata: block device; apps: list of (block device, address, size in bytes), ota_0 first;
    # chip_id: as in image headers; rollback: how the bootloader was built.

    def __init__(self, otadata, apps, chip_id, rollback=True):
        self.otadata_dev = otadata
        self.otadata = OtaData(otadata)
        self.apps = apps
        self.rollback = rollback
        self.running = -1
        self._chip_id = chip_id

    def is_bootable(self, number):
        dev, _, size = self.apps[number]
        return image_bytes(dev, size, self._chip_id) > 0

    # -- the bootloader

    def boot(self):
        # A start -> number of the image that runs now. Raises NotBootable.
        first, initial = self._choose()
        for number in list(range(first, -1, -1)) + list(range(first + 1, len(self.apps))):
            if self.is_bootable(number):
                if initial:
                    self.otadata.write(0, number + 1, VALID)
                self.running = number
                return number
        raise NotBootable()

    def _choose(self):
        # -> (number of the partition to try first, whether otadata is as a new chip's)
        otadata = self.otadata
        if self.rollback:
            for n, entry in enumerate(otadata.read()):
                if entry[1] == PENDING:
                    otadata.write(n, entry[0], ABORTED)
        entries = otadata.read()
        if _is_discarded(entries[0]) and _is_discarded(entries[1]):
            return 0, _is_initial(entries[0]) and _is_initial(entries[1])
        active = otadata.active()
        if active < 0:
            return 0, False
        sequence, state, _ = entries[active]
        if self.rollback and state == NEW:
            otadata.write(active, sequence, PENDING)
        return (sequence - 1) % len(self.apps), False

    # -- esp_ota_ops

    def set_boot(self, number):
        # Raises OSError(-VALIDATE_FAILED) for an image the bootloader would not start.
        if not self.is_bootable(number):
            raise OSError(-VALIDATE_FAILED)
        otadata = self.otadata
        state = NEW if self.rollback else UNDEFINED
        active = otadata.active()
        if active < 0:
            otadata.write(0, number + 1, state)
            return
        count = len(self.apps)
        sequence = (number + 1) % count
        while otadata.read()[active][0] > sequence:
            sequence += count
        otadata.write(1 - active, sequence, state)

    def boot_number(self):
        # -> number of the image that otadata names.
        active = self.otadata.active()
        return 0 if active < 0 else (self.otadata.read()[active][0] - 1) % len(self.apps)

    def mark_valid(self):
        # The entry in use becomes VALID, in place.
        active = self.otadata.active()
        if active < 0:
            return
        sequence, state, _ = self.otadata.read()[active]
        if state != VALID:
            self.otadata.write(active, sequence, VALID)


def partition_class(machine):
    # -> a class that stands in for esp32.Partition on this machine.

    class Partition:
        BOOT = 0
        RUNNING = 1
        TYPE_APP = _TYPE_APP
        TYPE_DATA = _TYPE_DATA

        def __init__(self, which, block_size=SECTOR_BYTES):
            number = machine.running if which == Partition.RUNNING else machine.boot_number()
            self._take(number)

        def _take(self, number):
            self._number = number
            if number < 0:
                self._dev, self._info = machine.otadata_dev, (_TYPE_DATA, 0, 0, 2 * SECTOR_BYTES, "otadata")
            else:
                self._dev, address, size = machine.apps[number]
                self._info = (_TYPE_APP, _FIRST_OTA + number, address, size, "ota_" + str(number))

        @staticmethod
        def find(type=_TYPE_APP, subtype=0xFF, label=None, block_size=SECTOR_BYTES):
            found = []
            for number in range(-1, len(machine.apps)):
                one = Partition(Partition.BOOT)
                one._take(number)
                info = one.info()
                if info[0] == type and subtype in (0xFF, info[1]) and label in (None, info[4]):
                    found.append(one)
            return found

        @staticmethod
        def mark_app_valid_cancel_rollback():
            machine.mark_valid()

        def info(self):
            return self._info + (False,)  # noqa: RUF005 - MicroPython's tuples
            # type, subtype, address, size, label, encrypted

        def set_boot(self):
            machine.set_boot(self._number)

        def get_next_update(self):
            one = Partition(Partition.BOOT)
            one._take((machine.running + 1) % len(machine.apps))
            return one

        def readblocks(self, block, buf, offset=0):
            self._dev.readblocks(block, buf, offset)

        def writeblocks(self, block, buf, offset=None):
            self._may_write()
            if offset is None:
                self._dev.writeblocks(block, buf)
            else:
                self._dev.writeblocks(block, buf, offset)

        def ioctl(self, op, arg):
            if op == _ERASE:
                self._may_write()
            return self._dev.ioctl(op, arg)

        def _may_write(self):
            if self._number == machine.running and self._number >= 0:
                raise OSError(-NOT_ALLOWED)

    return Partition
