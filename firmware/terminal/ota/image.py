# Firmware images in flash: the two app partitions of a chip, otadata, and putting an image into the one that
# does not run. Works on esp32.Partition, or on what behaves like it.
#
# /image/<a|b>/manifest   the manifest-frame; its SHA-256 is the image's name in the record
# /image/<a|b>/chunks     the chunk hash list while the image is being fetched
#
# An image's manifest names one file, image/micropython.bin. A chunk is a flash sector, so a download that was
# interrupted goes on at the first sector that is not what the hash list says.

import hashlib
import os
import struct
from binascii import crc32

from ..compat import const
from . import image_states, install, states
from .image_states import ENTRY_BYTES, VALID, Entry
from .states import NO_HASH, SLOT_NAMES, OtaError

PATH = "image/micropython.bin"
CLASS_SUFFIX = "-image"  # of the hardware class: an application's is the board's name
SECTOR_BYTES = const(4096)
_FIRST_OTA = const(0x10)  # subtype of ota_0
_OTADATA = const(0)  # subtype of otadata
_HASH_BYTES = const(32)
_ERASED = b"\xff"
_BLANK_CRC = const(0xFFFFFFFF)

# esp_image_header_t (ESP-IDF, esp_app_format.h)
_HEADER_BYTES = const(24)
_MAGIC = const(0xE9)
_CHIP_ID_AT = const(12)
_HASH_APPENDED_AT = const(23)
_CHIPS = {0: "esp32", 2: "esp32s2", 5: "esp32c3", 9: "esp32s3", 13: "esp32c6"}


def is_image(manifest):
    # Whether a manifest is a firmware image's.
    return len(manifest.files) == 1 and manifest.files[0][0] == PATH


def parse_entry(sector, raw):
    # -> the Entry of 32 bytes of otadata, None if they are blank or damaged.
    sequence, state, crc = struct.unpack("<I20xII", raw)
    if sequence in (0, _BLANK_CRC) or crc32(raw[:4], _BLANK_CRC) & _BLANK_CRC != crc:
        return None
    return Entry(sector, sequence, state)


class Images:
    # partition: the class esp32.Partition. running: slot of the image that runs.
    # Raises OtaError IMAGE_UNKNOWN where the chip does not run one of two OTA images.

    def __init__(self, partition):
        self._partition = partition
        self.running = partition(partition.RUNNING).info()[1] - _FIRST_OTA
        if not 0 <= self.running < image_states.SLOTS:
            raise OtaError(states.IMAGE_UNKNOWN)

    def app(self, slot):
        # -> the partition of a slot.
        found = self._partition.find(self._partition.TYPE_APP, subtype=_FIRST_OTA + slot)
        if not found:
            raise OtaError(states.IMAGE_UNKNOWN)
        return found[0]

    def size(self, slot):
        # -> bytes that fit into a slot.
        return self.app(slot).info()[3]

    def chip_id(self):
        # -> the chip id in the header of the image that runs.
        return struct.unpack_from("<H", self._head(self.running), _CHIP_ID_AT)[0]

    def hardware(self):
        # -> the hardware class of this chip's images.
        return _CHIPS.get(self.chip_id(), "unknown") + CLASS_SUFFIX

    def entries(self):
        # -> otadata's two entries as image_states wants them.
        otadata = self._partition.find(self._partition.TYPE_DATA, subtype=_OTADATA)[0]
        found = []
        for sector in range(2):
            raw = bytearray(ENTRY_BYTES)
            otadata.readblocks(sector, raw, 0)
            found.append(parse_entry(sector, bytes(raw)))
        return found

    def select(self, slot):
        # Make the bootloader start a slot from now on, and read back that it will. What is selected already
        # is left alone: choosing it again would overwrite the other slot's entry.
        # Raises OtaError IMAGE_REFUSED, NOT_SELECTED.
        if self._selects(slot):
            return
        try:
            self.app(slot).set_boot()
        except OSError:
            raise OtaError(states.IMAGE_REFUSED) from None  # it is verified before it is chosen
        if not self._selects(slot):
            raise OtaError(states.NOT_SELECTED)

    def keep(self):
        # Mark the image that runs as good, and read back that it is. Raises OtaError NOT_SELECTED.
        if self.is_kept():
            return
        try:
            self._partition.mark_app_valid_cancel_rollback()
        except OSError:
            raise OtaError(states.NOT_SELECTED) from None
        if not self.is_kept():
            raise OtaError(states.NOT_SELECTED)

    def is_kept(self):
        # Whether the bootloader goes on starting the image that runs.
        entry = image_states.selected(self.entries())
        return entry is not None and entry.slot == self.running and entry.state == VALID

    def _selects(self, slot):
        entry = image_states.selected(self.entries())
        return entry is not None and entry.slot == slot

    def _head(self, slot):
        head = bytearray(_HEADER_BYTES)
        self.app(slot).readblocks(0, head, 0)
        return head

    # -- judging what is there

    def check_manifest(self, manifest, slot, site, release):
        # Whether a signed manifest's image may go into a slot of this chip while `release` runs.
        # Raises OtaError WRONG_TARGET, BAD_MANIFEST, NO_SPACE.
        if manifest.hardware != self.hardware() or manifest.group not in ("", site):
            raise OtaError(states.WRONG_TARGET)
        if not manifest.firmware_min <= release <= manifest.firmware_max:
            raise OtaError(states.WRONG_TARGET)
        if not is_image(manifest) or manifest.chunk_size != SECTOR_BYTES:
            raise OtaError(states.BAD_MANIFEST)
        if manifest.size <= _HEADER_BYTES or manifest.files[0][1] != manifest.size:
            raise OtaError(states.BAD_MANIFEST)
        if manifest.floor > manifest.version:
            raise OtaError(states.BAD_MANIFEST)
        if manifest.size > self.size(slot):
            raise OtaError(states.NO_SPACE)

    def check_header(self, head):
        # The first bytes of an image. Raises OtaError IMAGE_REFUSED, WRONG_TARGET.
        if len(head) < _HEADER_BYTES or head[0] != _MAGIC or head[_HASH_APPENDED_AT] != 1:
            raise OtaError(states.IMAGE_REFUSED)
        if struct.unpack_from("<H", head, _CHIP_ID_AT)[0] != self.chip_id():
            raise OtaError(states.WRONG_TARGET)

    def is_whole_steps(self, root, slot, digest):
        # Generator; its value says whether a slot holds exactly the image named by digest, read back byte by
        # byte. An image without a name was flashed by cable: the bootloader has judged it.
        if digest == NO_HASH:
            return True
        try:
            manifest = load_manifest(root, slot, digest)
        except OSError:
            return False
        if manifest is None or not is_image(manifest) or manifest.size > self.size(slot):
            return False
        found = yield from self.hash_steps(slot, manifest.size)
        return found == manifest.files[0][2]

    def hash_steps(self, slot, size):
        # Generator; its value is the SHA-256 of a slot's first `size` bytes.
        h = hashlib.sha256()
        dev = self.app(slot)
        buf = memoryview(bytearray(SECTOR_BYTES))
        for block in range(-(-size // SECTOR_BYTES)):
            part = buf[: min(SECTOR_BYTES, size - block * SECTOR_BYTES)]
            dev.readblocks(block, part, 0)
            h.update(part)
            yield
        return h.digest()


def image_path(root, slot):
    return root + "/image/" + SLOT_NAMES[slot]


def load_manifest(root, slot, digest):
    # -> the Manifest on file for a slot, None if it is another one. OSError if there is none.
    return install.read_manifest(image_path(root, slot) + "/manifest", digest)


class ImageStaging(install.Staging):
    # One image on its way into a slot. What the partition held stays until its sectors are overwritten.

    def __init__(self, images, root, slot, manifest):
        super().__init__(root, slot, manifest)
        self._path = image_path(root, slot)
        self._images = images
        self._dev = images.app(slot)

    def resume_steps(self):
        # Generator: find out how far an interrupted download came.
        if not (yield from self._has_all_hashes_steps()):
            return
        self.next_run = self._runs()
        sector = memoryview(bytearray(SECTOR_BYTES))
        while not self.is_complete():
            part = sector[: self._chunk_bytes()]
            self._dev.readblocks(self.next_chunk, part, 0)
            if hashlib.sha256(part).digest() != self._chunk_hash():
                return
            self.next_chunk += 1
            yield

    def _chunk_bytes(self):
        # -> length of the chunk that is expected now.
        return min(SECTOR_BYTES, self.manifest.size - self.offset())

    def _chunk_hash(self):
        with open(self._path + "/chunks", "rb") as file:
            file.seek(self.next_chunk * _HASH_BYTES)
            return file.read(_HASH_BYTES)

    def put_chunk_steps(self, data):
        # Store the next chunk. OtaError BAD_BYTES for wrong bytes, IMAGE_REFUSED or WRONG_TARGET for an image
        # that this chip cannot start.
        if len(data) != self._chunk_bytes() or hashlib.sha256(data).digest() != self._chunk_hash():
            raise OtaError(states.BAD_BYTES)
        if self.next_chunk == 0:
            self._images.check_header(data)
        yield
        if len(data) < SECTOR_BYTES:
            data = bytes(data) + _ERASED * (SECTOR_BYTES - len(data))
        self._dev.writeblocks(self.next_chunk, data)
        self.next_chunk += 1

    def finish_steps(self):
        # The image is complete: drop the hash list.
        yield
        try:
            os.remove(self._path + "/chunks")
        except OSError as error:
            if error.errno != 2:
                raise
