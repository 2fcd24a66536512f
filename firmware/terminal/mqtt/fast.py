# The byte loops of the parser and of PUBLISH, as machine code on the boards (see wire/fast.py for the
# dialect). Nothing here raises: a function that meets anything but the usual case returns 0, and its caller
# goes the general way, which judges.
#
# ruff: noqa: RUF046 - int() is how viper turns an object into a machine integer
import sys

if sys.implementation.name == "micropython":
    import micropython
else:
    from terminal.compat import micropython, ptr8


@micropython.viper
def scan(rx, pos: int, end: int, topic) -> int:
    # What lies whole at rx[pos:end]: the packet id of a PUBACK (below 65,536), or payload << 14 | end of a
    # QoS 1 PUBLISH to exactly this topic (its packet id, not 0, is in the two bytes before the payload);
    # else 0.
    p = ptr8(rx)
    if end - pos < 4:
        return 0
    size = p[pos + 1]
    if p[pos] == 0x40:
        return p[pos + 2] << 8 | p[pos + 3] if size == 2 else 0
    if p[pos] & 0xF6 != 0x32:
        return 0
    pos += 2
    if size > 127:
        high = p[pos]
        if high == 0 or high > 127:
            return 0
        size = size & 127 | high << 7
        pos += 1
    stop = pos + size
    length = int(len(topic))
    payload = pos + length + 4
    if stop > end or payload > stop or p[pos] != length >> 8 or p[pos + 1] != length & 0xFF:
        return 0
    t = ptr8(topic)
    pos += 2
    for i in range(length):
        if p[pos + i] != t[i]:
            return 0
    if p[payload - 2] | p[payload - 1] == 0:
        return 0
    return payload << 14 | stop


@micropython.viper
def put_puback(tx, pos: int, rx, at: int) -> int:
    # PUBACK for the packet id at rx[at]; returns where it ends, 0 if it does not fit.
    if pos + 4 > int(len(tx)):
        return 0
    t = ptr8(tx)
    r = ptr8(rx)
    t[pos] = 0x40
    t[pos + 1] = 2
    t[pos + 2] = r[at]
    t[pos + 3] = r[at + 1]
    return pos + 4
