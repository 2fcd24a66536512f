# The outbox: operations the guest was told are "queued", kept in flash until the server's final answer.
#
# An op is durable when append returns, before its first transmission, and stays pending until done(op_id).
# A finished op is remembered by an appended record, several ops to a record: `done` only notes it in RAM
# and a full batch, flush() or a shutdown writes it. Losing such notes in a power cut is harmless: the op
# is pending again, is sent again under the same op_id, and the server answers it as before.
#
# Pending ops of the oldest sector are copied forward when it is reclaimed, so one unanswered op cannot pin
# the ring; the byte budget guarantees that some sector always has room (see _make_room).

import struct

from .compat import const
from .flashlog import HEADER_BYTES, Ring, StorageError, record_bytes
from .regions import SECTOR_BYTES

_MAGIC = b"TSJ1"
_OP = const(1)
_DONE = const(2)
_ID = const(12)
_MAX_PAYLOAD = const(1020)  # longer than any op that fits a 1,024-byte op-frame, with its id
OP_ID_BYTES = _ID
MAX_OP_BYTES = _MAX_PAYLOAD - _ID
_BATCH = const(16)  # op ids and statuses: 8 ops
_NOTE_BYTES = const(13)  # op_id, status
_STATUS = tuple([bytes((status,)) for status in range(32)])
CAPACITY = 128


class Full(StorageError):
    # The outbox takes no more; nothing was written.
    def __init__(self, text):
        super().__init__("OUTBOX_FULL", text)


class Outbox:
    # dev: block device of the `journal` region; boot: this start's boot number (Counters.boot()).
    # capacity: most ops pending at once.

    def __init__(self, dev, boot, capacity=CAPACITY):
        self.capacity = capacity
        self.before_flush = None  # called before flash learns that ops are done
        self.lost = 0  # pending ops whose record rotted in flash
        self._boot = struct.pack(">I", boot)
        self._running = 0
        self._pending = {}  # op_id -> location << 11 | payload length
        self._live_bytes = 0  # flash that the pending ops' records take
        self._notes = []  # op id, status, ... of finished ops that flash does not know of
        self._ring = Ring(dev, _MAGIC, _MAX_PAYLOAD)
        # Of N sectors one is always garbage. If the pending ops leave this much free in the others together,
        # at least one of those has room for the longest op, or for a batch of notes.
        spare = record_bytes(_MAX_PAYLOAD)
        self._budget_bytes = (self._ring.sectors - 1) * (SECTOR_BYTES - HEADER_BYTES - spare)
        self._ring.recover(self._visit)

    def __len__(self):
        return len(self._pending)

    def __contains__(self, op_id):
        return op_id in self._pending

    def next_op_id(self, random):
        # -> 12 bytes nobody used before: boot number, running number, random(4).
        self._running += 1
        return self._boot + self._running.to_bytes(4, "big") + random(4)

    def append(self, op_id, op):
        # Store an encoded op (bytes) -> its location. Durable on return. Full: nothing was written.
        pending = self._pending
        n = len(op) + _ID
        size = (n + 11) & ~3  # record_bytes(n)
        live_bytes = self._live_bytes + size
        if len(pending) >= self.capacity or live_bytes > self._budget_bytes:
            raise Full("the outbox is full: wait for the server, or remove an order")
        if n > _MAX_PAYLOAD or op_id in pending:
            raise StorageError("BAD_OP", "an op is too long for the outbox, or its id is in use")
        ring = self._ring
        if size > ring.free:
            self._make_room(size)
        location = ring.put(_OP, op_id, op, n)
        pending[op_id] = location << 11 | n
        self._live_bytes = live_bytes
        return location

    def done(self, op_id, status):
        # A verified final answer to this very op arrived -> True; False if it was not pending (answered
        # twice). status: 0..31. Durable after flush(), or by itself with the last of a batch.
        if not self._forget(op_id):
            return False
        notes = self._notes
        notes.append(op_id)
        notes.append(_STATUS[status])
        if len(notes) >= _BATCH:
            self.flush()
        return True

    def flush(self):
        # Write the notes about finished ops that are still in RAM.
        notes = b"".join(self._notes)
        if notes:
            if self.before_flush is not None:
                self.before_flush()
            size = record_bytes(len(notes))
            if size > self._ring.free:
                self._make_room(size)
            self._ring.put(_DONE, b"", notes, len(notes))
            self._notes.clear()

    def tidy(self):
        # Erase the next sector ahead of time; for idle moments.
        return self._ring.tidy()

    def get(self, op_id):
        # -> the op's bytes, None if it is not pending.
        value = self._pending.get(op_id)
        if value is None:
            return None
        record = self._ring.read(value >> 11)
        if record is None:
            self._forget(op_id)
            self.lost += 1
            return None
        return bytes(record[1][OP_ID_BYTES:])

    def pending(self):
        # Yield (op_id, op bytes) of every pending op, oldest first (op ids sort by age).
        for op_id in sorted(self._pending):
            op = self.get(op_id)
            if op is not None:
                yield op_id, op

    def _forget(self, op_id):
        value = self._pending.pop(op_id, None)
        if value is None:
            return False
        self._live_bytes -= ((value & 2047) + 11) & ~3
        return True

    def _visit(self, kind, payload, location):
        if kind == _OP:
            op_id = bytes(payload[:OP_ID_BYTES])
            self._forget(op_id)
            self._pending[op_id] = location << 11 | len(payload)
            self._live_bytes += record_bytes(len(payload))
        elif kind == _DONE:
            for i in range(0, len(payload), _NOTE_BYTES):
                self._forget(bytes(payload[i : i + OP_ID_BYTES]))

    def _make_room(self, size):
        ring = self._ring
        for _ in range(ring.sectors):
            self._reclaim()
            if size <= ring.free:
                return
        raise StorageError("NO_ROOM", "the journal found no room although its budget says there is some")

    def _reclaim(self):
        # Rotate the ring, carrying the pending ops of its oldest sector along.
        ring = self._ring
        oldest = ring.oldest()
        moved = []

        def save():
            for op_id, value in self._pending.items():
                if value >> 23 == oldest:
                    moved.append((op_id, ring.carry(value >> 11), value & 2047))

        ring.rotate(save)
        for op_id, location, n in moved:
            if location < 0:
                self._forget(op_id)
                self.lost += 1
            else:
                self._pending[op_id] = location << 11 | n
