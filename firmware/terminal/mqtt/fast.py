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
def puback(rx, pos: int, end: int) -> int:
    # The packet id of a whole PUBACK at rx[pos:end], else 0.
    p = ptr8(rx)
    if end - pos < 4 or p[pos] != 0x40 or p[pos + 1] != 2:
        return 0
    return p[pos + 2] << 8 | p[pos + 3]


@micropython.viper
def publish(rx, pos: int, end: int, topic) -> int:
    # payload << 14 | end of a whole QoS 1 PUBLISH to exactly this topic at rx[pos:end] with less than 16,384
    # bytes, else 0. Its packet id, not 0, is in the two bytes before the payload.
    p = ptr8(rx)
    if end - pos < 4 or p[pos] & 0xF6 != 0x32:
        return 0
    size = p[pos + 1]
    body = pos + 2
    if size > 127:
        high = p[body]
        if high == 0 or high > 127:
            return 0
        size = size & 127 | high << 7
        body += 1
    stop = body + size
    length = int(len(topic))
    payload = body + length + 4
    if stop > end or payload > stop or p[body] != length >> 8 or p[body + 1] != length & 0xFF:
        return 0
    t = ptr8(topic)
    at = body + 2
    for i in range(length):
        if p[at + i] != t[i]:
            return 0
    if p[payload - 2] | p[payload - 1] == 0:
        return 0
    return payload << 14 | stop


@micropython.viper
def put_puback(tx, pos: int, rx, at: int):
    # PUBACK for the packet id at rx[at].
    t = ptr8(tx)
    r = ptr8(rx)
    t[pos] = 0x40
    t[pos + 1] = 2
    t[pos + 2] = r[at]
    t[pos + 3] = r[at + 1]


@micropython.viper
def put(buf, pos: int, data):
    # buf[pos:] begins with data. Assigning to a slice of a large bytearray would move all that is behind it.
    b = ptr8(buf)
    d = ptr8(data)
    size = int(len(data))
    for i in range(size):
        b[pos + i] = d[i]


@micropython.viper
def put_publish(packet, topic, packet_id: int, payload):
    # Fills packet, which has exactly the length for it, with a QoS 1 PUBLISH of 1 or 2 length bytes.
    p = ptr8(packet)
    t = ptr8(topic)
    d = ptr8(payload)
    length = int(len(topic))
    count = int(len(payload))
    size = length + count + 4
    p[0] = 0x32
    pos = 2
    if size > 127:
        p[1] = size & 127 | 128
        p[2] = size >> 7
        pos = 3
    else:
        p[1] = size
    p[pos] = length >> 8
    p[pos + 1] = length & 0xFF
    pos += 2
    for i in range(length):
        p[pos + i] = t[i]
    pos += length
    p[pos] = packet_id >> 8
    p[pos + 1] = packet_id & 0xFF
    pos += 2
    for i in range(count):
        p[pos + i] = d[i]
