# A ring of CRC'd records on raw NOR flash, shared by the outbox journal and the counters.
#
# Why it survives a power cut at any program or erase step:
#
# * A record is one program call: header, payload, CRC-32 over both. A torn record fails its CRC and is
#   never seen; recovery closes the sector behind it, so nothing is ever programmed over the torn bytes.
# * A sector becomes valid when its header is programmed, and `rotate` programs it *last*, after
#   everything that must outlive the oldest sector was written into the new one. A cut before that
#   leaves a sector without header, which is garbage; the oldest one is still whole.
# * The sector after the head is therefore always garbage: either erased, or its contents were carried
#   over before the head's header appeared. Recovery never looks at it, so a half-done erase that left
#   some old records readable cannot bring them back.
#
# Sector: header (16 bytes), records, 0xFF. Record: u16 payload length, u8 kind, u8 0, payload, u32 CRC-32
# (big endian), padded to 4 bytes. Sectors are used in turn, which is all the wear levelling there is.

import struct
from binascii import crc32

from .compat import const
from .regions import SECTOR_BYTES

HEADER_BYTES = 16
_FRAME_BYTES = const(8)  # record header and CRC
_IOCTL_COUNT = const(4)
_IOCTL_ERASE = const(6)
_SECTOR = const(4096)  # SECTOR_BYTES where every instruction counts
_WINDOW_BYTES = const(128)  # most records fit: recovery reads them in one go
_PAGE_BYTES = const(256)
_BLANK = b"\xff" * _PAGE_BYTES


class StorageError(Exception):
    # A refusal or a fault of the device's storage: a code for machines and a sentence for people.
    def __init__(self, code, text):
        super().__init__(code + ": " + text)
        self.code = code
        self.text = text


def record_bytes(payload_bytes):
    # Flash that a record with this payload takes.
    return (payload_bytes + _FRAME_BYTES + 3) & ~3


class Ring:
    # dev: block device of one region; magic: 4 bytes that name the log and its format.
    # max_payload: the longest payload, bytes; it sizes the one buffer that reads and writes share.
    # A location is sector << 12 | offset.

    def __init__(self, dev, magic, max_payload):
        self.dev = dev
        self._write = dev.writeblocks
        self.sectors = dev.ioctl(_IOCTL_COUNT, 0)
        self.rotten = 0  # records that were valid once and fail their CRC now
        self._magic = magic
        self._buf = bytearray(max(record_bytes(max_payload), _PAGE_BYTES))
        self._view = memoryview(self._buf)
        self._max = max_payload
        self._sector = 0
        self.free = 0  # bytes left in the head sector; 0 also for one that is closed
        self._sequence = 0
        self._blank = -1  # the sector known to be erased

    # -- recovery

    def recover(self, visit):
        # Find the head and call visit(kind, payload, location) for every record, oldest first.
        # payload is a view of the shared buffer: copy what must stay. Only reads.
        head = -1
        for sector in range(self.sectors):
            sequence = self._header(sector)
            if sequence > self._sequence:
                head = sector
                self._sequence = sequence
        if head < 0:
            self._sector = self.sectors - 1
            return
        self._sector = head
        for step in range(2, self.sectors + 1):
            sector = (head + step) % self.sectors
            if self._header(sector):
                end = self._walk(sector, visit)
        if self._is_blank(head, end):
            self.free = SECTOR_BYTES - end

    def _header(self, sector):
        # -> the sector's sequence number (1..), 0 for a sector that is not valid.
        head = self._view[:HEADER_BYTES]
        self.dev.readblocks(sector, head, 0)
        magic, sequence, crc = struct.unpack_from(">4sII", head, 0)
        return sequence if magic == self._magic and crc == crc32(head[:8]) else 0

    def _walk(self, sector, visit):
        # Visit the sector's records up to the first that is not whole -> the offset behind the last good one.
        off = HEADER_BYTES
        while off <= SECTOR_BYTES - _FRAME_BYTES:
            n = self._load(sector, off)
            if n < 0:
                break
            visit(self._buf[2], self._view[4 : 4 + n], sector << 12 | off)
            off += record_bytes(n)
        return off

    def _load(self, sector, off):
        # Read a whole record into the buffer -> its payload length, -1 if there is no valid one.
        view = self._view
        buf = self._buf
        have = min(_WINDOW_BYTES, SECTOR_BYTES - off)
        self.dev.readblocks(sector, view[:have], off)
        n = buf[0] << 8 | buf[1]
        crc_at = n + 4
        if n > self._max or off + crc_at + 4 > SECTOR_BYTES:
            return -1
        if crc_at + 4 > have:
            self.dev.readblocks(sector, view[have : crc_at + 4], off + have)
        crc = buf[crc_at] << 24 | buf[crc_at + 1] << 16 | buf[crc_at + 2] << 8 | buf[crc_at + 3]
        return n if crc == crc32(view[:crc_at]) else -1

    def _is_blank(self, sector, off):
        while off < SECTOR_BYTES:
            n = _PAGE_BYTES - off % _PAGE_BYTES
            page = self._view[:n]
            self.dev.readblocks(sector, page, off)
            if page != (_BLANK if n == _PAGE_BYTES else _BLANK[:n]):
                return False
            off += n
        return True

    # -- reading

    def read(self, location):
        # -> (kind, payload view of the shared buffer), or None when the record has rotted.
        n = self._load(location >> 12, location & 4095)
        if n < 0:
            self.rotten += 1
            return None
        return self._buf[2], self._view[4 : 4 + n]

    # -- writing

    def put(self, kind, first, second, n):
        # Append one record (first + second, bytes, n together) with one program call -> its location. It is
        # durable on return. The caller made room: record_bytes(n) <= free, else rotate.
        head = (n << 16 | kind << 8).to_bytes(4, "big")
        crc = crc32(second, crc32(first, crc32(head)))
        return self._program(b"".join((head, first, second, crc.to_bytes(4, "big"))), (n + 11) & ~3)

    def carry(self, location):
        # Copy a record byte for byte to the end of the log -> its new location, -1 when it has rotted.
        n = self._load(location >> 12, location & 4095)
        if n < 0:
            self.rotten += 1
            return -1
        return self._program(self._view[: n + _FRAME_BYTES], record_bytes(n))

    def _program(self, record, size):
        free = self.free
        if size > free:
            raise StorageError("NO_ROOM", "a record was written into a full sector")
        off = _SECTOR - free
        sector = self._sector
        # Closed meanwhile: after a failed call no record may follow the torn one, recovery would not
        # reach it.
        self.free = 0
        self._write(sector, record, off)
        self.free = free - size
        return sector << 12 | off

    def oldest(self):
        # The sector that the next rotation makes garbage.
        return (self._sector + 2) % self.sectors

    def rotate(self, save):
        # Open the next sector. save() puts or carries whatever in the oldest sector must live on.
        # The header, written last, makes the new sector valid and the oldest one garbage.
        sector = (self._sector + 1) % self.sectors
        if self._blank != sector:
            self.dev.ioctl(_IOCTL_ERASE, sector)
        self._blank = -1
        before = self._sector
        self._sector = sector
        self.free = SECTOR_BYTES - HEADER_BYTES
        valid = False
        try:
            save()
            head = self._view[:HEADER_BYTES]
            struct.pack_into(">4sI", head, 0, self._magic, self._sequence + 1)
            struct.pack_into(">II", head, 8, crc32(head[:8]), 0xFFFFFFFF)
            self.dev.writeblocks(sector, head, 0)
            self._sequence += 1
            valid = True
        finally:
            if not valid:
                self._sector = before
                self.free = 0

    def tidy(self):
        # Erase the sector that the next rotation needs, ahead of time (an erase takes about 40 ms on a
        # real chip): for idle moments -> True if it erased. Never necessary for correctness.
        sector = (self._sector + 1) % self.sectors
        if self._blank == sector:
            return False
        erase = not self._is_blank(sector, 0)
        if erase:
            self.dev.ioctl(_IOCTL_ERASE, sector)
        self._blank = sector
        return erase
