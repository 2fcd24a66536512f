# The byte loops of the hot path, in MicroPython's viper dialect: machine code where there is a native
# emitter, plain Python under CPython. Nothing here raises: a function that meets anything but the usual case
# returns 0 or -1, and its caller goes the general way through cbor.Reader, which judges.
#
# Viper integers wrap at the machine word, so numbers of 30 bits and more are left to the general way.
#
# ruff: noqa: RUF046 - int() is how viper turns an object into a machine integer
import sys

if sys.implementation.name == "micropython":
    import micropython
else:
    from ..compat import micropython, ptr8


@micropython.viper
def same_tag(frame, pos: int, tag) -> int:
    # 1 if frame[pos:pos + 32] equals tag. Every byte is looked at, whatever the difference: constant time.
    a = ptr8(frame)
    b = ptr8(tag)
    difference = 0
    for i in range(32):
        difference |= a[pos + i] ^ b[i]
    return 1 if difference == 0 else 0


@micropython.viper
def put_uint(buf, pos: int, major: int, n: int) -> int:
    # cbor.put_uint for 0 <= n < 2**30.
    p = ptr8(buf)
    first = major << 5
    if n < 24:
        p[pos] = first | n
        return pos + 1
    if n < 0x100:
        p[pos] = first | 24
        p[pos + 1] = n
        return pos + 2
    if n < 0x10000:
        p[pos] = first | 25
        p[pos + 1] = n >> 8
        p[pos + 2] = n & 0xFF
        return pos + 3
    p[pos] = first | 26
    p[pos + 1] = n >> 24
    p[pos + 2] = n >> 16 & 0xFF
    p[pos + 3] = n >> 8 & 0xFF
    p[pos + 4] = n & 0xFF
    return pos + 5


@micropython.viper
def put_op(frame, head, payload: int, sequence: int, op) -> int:
    # Lays out head, the payload's length, and the op-message; the tag's head follows. Returns where the
    # message ends.
    f = ptr8(frame)
    h = ptr8(head)
    size = int(len(head))
    for i in range(size):
        f[i] = h[i]
    pos = int(put_uint(frame, size, 2, payload))
    f[pos] = 0x82
    pos = int(put_uint(frame, pos + 1, 0, sequence))
    o = ptr8(op)
    size = int(len(op))
    for i in range(size):
        f[pos + i] = o[i]
    pos += size
    f[pos] = 0x58
    f[pos + 1] = 32
    return pos


@micropython.viper
def put_order(out, op_id, table, lines) -> int:
    # An order up to and including its lines (item, quantity, modifiers). out has 50 bytes and 32 for every
    # line. -1 if the op id, the table's length or a number is out of its range.
    size = int(len(table))
    if int(len(op_id)) != 12 or size < 1 or size > 32:
        return -1
    p = ptr8(out)
    p[0] = 0x86
    p[1] = 0x01
    p[2] = 0x4C
    o = ptr8(op_id)
    for i in range(12):
        p[3 + i] = o[i]
    pos = int(put_uint(out, 15, 3, size))
    t = ptr8(table)
    for i in range(size):
        p[pos + i] = t[i]
    count = int(len(lines))
    pos = int(put_uint(out, pos + size, 4, count))
    n = 0
    highest = 0
    for i in range(count):
        line = lines[i]
        modifiers = line[2]
        extra = int(len(modifiers))
        if extra > 8:
            return -1
        p[pos] = 0x83
        pos += 1
        # One loop for all numbers of the line: a call of put_uint() for each would cost more than the rest.
        for j in range(extra + 2):
            highest = 65535
            if j == 0:
                n = int(line[0])
            elif j == 1:
                n = int(line[1])
                highest = 99
            else:
                n = int(modifiers[j - 2])
            if n < 1 or n > highest:
                return -1
            if n < 24:
                p[pos] = n
                pos += 1
            elif n < 0x100:
                p[pos] = 24
                p[pos + 1] = n
                pos += 2
            else:
                p[pos] = 25
                p[pos + 1] = n >> 8
                p[pos + 2] = n & 0xFF
                pos += 3
            if j == 1:
                p[pos] = 0x80 | extra
                pos += 1
    return pos


@micropython.viper
def reply_end(frame, head) -> int:
    # Where the payload of a reply frame ends, if frame is head, a payload of 24..255 bytes and a tag; else 0.
    size = int(len(frame))
    start = int(len(head))
    end = size - 34
    if end < start + 26 or size > 256:
        return 0
    f = ptr8(frame)
    h = ptr8(head)
    for i in range(start):
        if f[i] != h[i]:
            return 0
    if f[start] != 0x58 or f[start + 1] != end - start - 2 or f[end] != 0x58 or f[end + 1] != 32:
        return 0
    return end


@micropython.viper
def reply_numbers(frame, pos: int, end: int, numbers) -> int:
    # Reads the five integers of the reply frame[pos:end] into numbers; 1 if the reply has its usual shape,
    # else 0.
    f = ptr8(frame)
    last = end - 34
    if last < pos + 19 or f[pos] != 0x87 or f[pos + 1] != 0x4C or f[last] != 0x58 or f[last + 1] != 32:
        return 0
    pos += 14
    for i in range(5):
        value = f[pos]
        pos += 1
        if value >= 24:
            if value == 24:
                value = f[pos]
                pos += 1
                if value < 24:
                    return 0
            elif value == 25:
                value = f[pos] << 8 | f[pos + 1]
                pos += 2
                if value < 0x100:
                    return 0
            elif value == 26 and f[pos] < 0x40:
                value = f[pos] << 24 | f[pos + 1] << 16 | f[pos + 2] << 8 | f[pos + 3]
                pos += 4
                if value < 0x10000:
                    return 0
            else:
                return 0
        if pos > last:
            return 0
        numbers[i] = value
    return 1 if pos == last else 0
