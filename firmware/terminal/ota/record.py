# The control record: the update's State in two flash sectors, changed by one program call.
#
# A record is 128 bytes with a CRC-32 over every field. It is written twice, side by side, in one page, so
# that rot in one copy does not bring back an older state; the newest valid copy wins. A sector takes 16
# changes; when it is full the other one is erased and the next change goes there. A cut at any step leaves
# the state before or the state after.

import struct
from binascii import crc32

from ..compat import const
from ..regions import SECTOR_BYTES
from . import states

_MAGIC = b"TSR1"
# magic, sequence, state, slot, tries, starts, reason, lasted, rotten, 1 spare, version, floor, other version,
# other floor, 4 spare, hash, other hash, 4 quarantined prefixes
_FORMAT = ">4sIBBBBBBBxIIII4x32s32s6s6s6s6s"
_RECORD_BYTES = const(128)
_PAIR_BYTES = const(256)
_CRC_AT = const(124)
_PAIRS = SECTOR_BYTES // _PAIR_BYTES
_BLANK = b"\xff" * _PAIR_BYTES
_ERASE = const(6)


def pack(state, sequence):
    # -> the 128 bytes of a record.
    record = bytearray(_RECORD_BYTES)
    struct.pack_into(
        _FORMAT,
        record,
        0,
        _MAGIC,
        sequence,
        state.state,
        state.slot,
        state.tries,
        state.starts,
        state.reason,
        state.lasted,
        state.rotten,
        state.version,
        state.floor,
        state.other_version,
        state.other_floor,
        state.hash,
        state.other_hash,
        *state.quarantine,
    )
    struct.pack_into(">I", record, _CRC_AT, crc32(memoryview(record)[:_CRC_AT]))
    return record


def unpack(record):
    # -> (state, sequence) of 128 bytes, None if they are not a valid record.
    if struct.unpack_from(">I", record, _CRC_AT)[0] != crc32(memoryview(record)[:_CRC_AT]):
        return None
    fields = struct.unpack_from(_FORMAT, record, 0)
    if fields[0] != _MAGIC or fields[2] >= len(states.NAMES) or fields[3] > states.FACTORY:
        return None
    values = {name: fields[2 + n] for n, name in enumerate(states.State.FIELDS[:-1])}
    values["quarantine"] = fields[15:19]
    return states.State(values), fields[1]


class ControlRecord:
    # dev: block device of the `control` region. state: the newest stored one.

    def __init__(self, dev):
        self._dev = dev
        self._sector = 0
        self._pair = 0  # the next free one
        self._sequence = 0
        self.state = None
        self._load()

    def _load(self):
        page = memoryview(bytearray(_PAIR_BYTES))
        dirty = False
        for sector in range(2):
            for pair in range(_PAIRS):
                self._dev.readblocks(sector, page, pair * _PAIR_BYTES)
                if page == _BLANK:
                    continue
                dirty = True
                for at in (0, _RECORD_BYTES):
                    found = unpack(page[at : at + _RECORD_BYTES])
                    if found is not None and found[1] > self._sequence:
                        self.state, self._sequence = found
                        self._sector = sector
        if self.state is None:
            self.state = states.factory(states.RECORD_LOST if dirty else states.NONE)
        self._pair = self._free_pair(self._sector)

    def _free_pair(self, sector):
        # -> the pair behind the last one that is not blank: nothing is ever programmed over torn bytes.
        page = memoryview(bytearray(_PAIR_BYTES))
        for pair in range(_PAIRS - 1, -1, -1):
            self._dev.readblocks(sector, page, pair * _PAIR_BYTES)
            if page != _BLANK:
                return pair + 1
        return 0

    def store(self, state):
        # Make this the state; durable on return. An unchanged one costs nothing.
        if state == self.state and self._sequence:
            return
        if self._pair == _PAIRS:
            other = 1 - self._sector
            if self._free_pair(other):
                self._dev.ioctl(_ERASE, other)
            self._sector = other
            self._pair = 0
        record = pack(state, self._sequence + 1)
        pair = self._pair
        self._pair = pair + 1
        self._dev.writeblocks(self._sector, record + record, pair * _PAIR_BYTES)
        self._sequence += 1
        self.state = state
