# CBOR (RFC 8949) as Seal/1 uses it: definite lengths, shortest integers, no floats, fixed shapes.
#
# The Reader walks one buffer forward, never recurses and never allocates by a length it has read: byte
# strings come back as views into the buffer. Whatever the bytes are, it answers with a value or with a
# WireError.
from .errors import (
    BAD_TEXT,
    NOT_SHORTEST,
    OUT_OF_RANGE,
    TOO_LARGE,
    TRAILING,
    TRUNCATED,
    WRONG_TYPE,
    WireError,
)

U8 = 0xFF
U16 = 0xFFFF
U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF
MAX_TIME = 9007199254740991  # 2**53 - 1: exact in every JSON reader a log may pass through

# Smallest value that needs an argument of 1, 2, 4, 8 bytes.
_SHORTEST = (24, 0x100, 0x10000, 0x100000000)


def put_uint(buf, pos, major, n):
    # Writes the head of an item (major type 0..7, argument n) into buf at pos; returns the position after it.
    major <<= 5
    if n < 24:
        buf[pos] = major | n
        return pos + 1
    if n < 0x100:
        buf[pos] = major | 24
        buf[pos + 1] = n
        return pos + 2
    if n < 0x10000:
        buf[pos] = major | 25
        buf[pos + 1] = n >> 8
        buf[pos + 2] = n & 0xFF
        return pos + 3
    size = 4 if n <= U32 else 8
    buf[pos] = major | (26 if size == 4 else 27)
    pos += 1
    buf[pos : pos + size] = n.to_bytes(size, "big")
    return pos + size


def _head(major, n):
    if n < 24:
        return bytes((major << 5 | n,))
    buf = bytearray(9)
    return bytes(buf[: put_uint(buf, 0, major, n)])


def enc_uint(n):
    return _head(0, n)


def enc_int(n):
    return _head(0, n) if n >= 0 else _head(1, -1 - n)


def enc_bstr(data):
    return _head(2, len(data)) + bytes(data)


def enc_tstr(text):
    data = text.encode()
    return _head(3, len(data)) + data


def enc_array_head(n):
    return _head(4, n)


def limit(frame, max_bytes):
    # Refuses an oversized frame before anything else looks at it.
    if len(frame) > max_bytes:
        raise WireError(TOO_LARGE)


class Reader:
    # Reads items of buf[pos:end] one after the other; the caller's sequence of calls is the shape that is
    # accepted.

    def __init__(self, buf, pos=0, end=None):
        self.buf = memoryview(buf)
        self.pos = pos
        self.stop = len(buf) if end is None else end

    def _argument(self, major):
        buf = self.buf
        pos = self.pos
        if pos >= self.stop:
            raise WireError(TRUNCATED)
        first = buf[pos]
        if first >> 5 != major:
            raise WireError(WRONG_TYPE)
        info = first & 31
        pos += 1
        if info < 24:
            self.pos = pos
            return info
        if info > 27:
            raise WireError(WRONG_TYPE)
        stop = pos + (1 << (info - 24))
        if stop > self.stop:
            raise WireError(TRUNCATED)
        value = int.from_bytes(buf[pos:stop], "big")
        if value < _SHORTEST[info - 24]:
            raise WireError(NOT_SHORTEST)
        self.pos = stop
        return value

    def uint(self, maximum=U32, minimum=0):
        value = self._argument(0)
        if value > maximum or value < minimum:
            raise WireError(OUT_OF_RANGE)
        return value

    def int(self, low, high):
        if self.pos < self.stop and self.buf[self.pos] >> 5 == 1:
            value = -1 - self._argument(1)
        else:
            value = self._argument(0)
        if value < low or value > high:
            raise WireError(OUT_OF_RANGE)
        return value

    def array(self, size):
        # size: the exact number of items, or a (low, high) pair; returns the number of items that follow.
        count = self._argument(4)
        low, high = size if isinstance(size, tuple) else (size, size)
        if count < low or count > high:
            raise WireError(OUT_OF_RANGE)
        return count

    def bstr_head(self, low, high):
        # Only the length of a byte string whose bytes are elsewhere or come later.
        return self._size(2, low, high)

    def _size(self, major, low, high):
        size = self._argument(major)
        if size < low or size > high:
            raise WireError(OUT_OF_RANGE)
        return size

    def _string(self, major, low, high):
        size = self._size(major, low, high)
        pos = self.pos
        stop = pos + size
        if stop > self.stop:
            raise WireError(TRUNCATED)
        self.pos = stop
        return self.buf[pos:stop]

    def bstr(self, low, high=None):
        # A view of the bytes: exactly low of them, or low..high.
        return self._string(2, low, low if high is None else high)

    def tstr(self, low, high):
        # low and high count UTF-8 bytes, not characters.
        data = bytes(self._string(3, low, high))
        if not _is_utf8(data):
            raise WireError(BAD_TEXT)
        return data.decode()

    def id(self):
        # A site, device or table: [a-z0-9-]{1,32}.
        data = self._string(3, 1, 32)
        for c in data:
            if not (97 <= c <= 122 or 48 <= c <= 57 or c == 45):
                raise WireError(BAD_TEXT)
        return bytes(data).decode()

    def tag(self, number):
        if self._argument(6) != number:
            raise WireError(WRONG_TYPE)

    def end(self):
        if self.pos != self.stop:
            raise WireError(TRAILING)


def _is_utf8(data):
    # RFC 3629, no overlong forms, no surrogates: MicroPython's own decoder lets both through.
    pos = 0
    end = len(data)
    while pos < end:
        first = data[pos]
        pos += 1
        if first < 0x80:
            continue
        if first < 0xC2 or first > 0xF4:
            return False
        follow = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
        if pos + follow > end:
            return False
        second = data[pos]
        low = 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80
        high = 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF
        if second < low or second > high:
            return False
        for i in range(pos + 1, pos + follow):
            if data[i] & 0xC0 != 0x80:
                return False
        pos += follow
    return True
