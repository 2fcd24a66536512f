# Numbers that must never go back, stored before they are used, in the `counters` region.
#
# Every value is a record of a flash log; the last record of a key wins, and a rotation writes all of them
# into the new sector. A cut while storing leaves the old value, which nobody has used a successor of yet.

import struct

from .flashlog import Ring, StorageError, record_bytes

_MAGIC = b"TSC1"
MAX_KEYS = 16
MAX_KEY_BYTES = 15
MAX_VALUE_BYTES = 200

_BOOT = "boot"
_HANDSHAKE = "handshake"
_BEACON = "beacon"


class Counters:
    # dev: block device of the `counters` region. Reading it changes nothing.

    def __init__(self, dev):
        self._values = {}
        self._booted = False
        self._ring = Ring(dev, _MAGIC, 1 + MAX_KEY_BYTES + MAX_VALUE_BYTES)
        self._ring.recover(self._visit)

    def boot(self):
        # -> this start's boot number (u32, from 1): the first call adds one and stores it before it returns.
        if not self._booted:
            self._put_u32(_BOOT, self.boots() + 1)
            self._booted = True
        return self.boots()

    def boots(self):
        # -> the last stored boot number, 0 on a board that never started.
        return self._get_u32(_BOOT)

    def handshake(self):
        # -> the last handshake number given out, 0 if none.
        return self._get_u32(_HANDSHAKE)

    def next_handshake(self):
        # -> a handshake number nobody has seen (u32, from 1), stored before it returns.
        self._put_u32(_HANDSHAKE, self.handshake() + 1)
        return self.handshake()

    def beacon(self):
        # -> (epoch, counter) of the highest beacon accepted, (0, 0) if none.
        value = self._values.get(_BEACON)
        return struct.unpack(">II", value) if value else (0, 0)

    def store_beacon(self, epoch, counter):
        # Raise the high mark; StorageError BEACON_BACK for a lower one. Storing the same again costs nothing.
        mark = self.beacon()
        if (epoch, counter) < mark:
            raise StorageError("BEACON_BACK", "a beacon below the stored high mark was to be stored")
        if (epoch, counter) > mark:
            self.put(_BEACON, struct.pack(">II", epoch, counter))

    def get(self, key):
        # -> the stored bytes, None for a key never stored.
        return self._values.get(key)

    def put(self, key, value):
        # Store bytes under a short ASCII key; durable on return. An empty value frees the key.
        name = key.encode()
        if not 0 < len(name) <= MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
            raise StorageError("BAD_VALUE", "a key or value is longer than the counters region stores")
        if key not in self._values and len(self._values) >= MAX_KEYS:
            raise StorageError("TOO_MANY_KEYS", "the counters region holds no more keys")
        ring = self._ring
        if record_bytes(len(name) + len(value)) > ring.free:
            ring.rotate(self._save_all)
        ring.put(len(name), name, value, len(name) + len(value))
        self._set(key, bytes(value))

    def tidy(self):
        # Erase the next sector ahead of time; for idle moments.
        return self._ring.tidy()

    def _visit(self, kind, payload, location):
        self._set(bytes(payload[:kind]).decode(), bytes(payload[kind:]))

    def _set(self, key, value):
        if value:
            self._values[key] = value
        else:
            self._values.pop(key, None)

    def _save_all(self):
        for key, value in self._values.items():
            self._ring.put(len(key), key.encode(), value, len(key) + len(value))

    def _get_u32(self, key):
        value = self._values.get(key)
        return struct.unpack(">I", value)[0] if value else 0

    def _put_u32(self, key, value):
        if value > 0xFFFFFFFF:
            raise StorageError(
                "COUNTER_FULL", "a 32-bit counter has reached its end: provision the device again"
            )
        self.put(key, struct.pack(">I", value))
