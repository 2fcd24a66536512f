# MQTT 3.1.1 packets that are sent once per connection or rarely (OASIS mqtt-v3.1.1-os, chapter 3).
# What an order costs, PUBLISH and PUBACK, is in protocol.py and fast.py.
from struct import pack


def _varint(n):
    # Remaining Length, section 2.2.3.
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _string(value):
    return pack(">H", len(value)) + value


def _packet(head, body):
    return bytes((head,)) + _varint(len(body)) + body


# Section 3.1. will: None or (topic, payload); it is sent retained with QoS 1. All strings are bytes.
def connect(client_id, user, password, keepalive_s, will, clean):
    flags = 0xC0 | (2 if clean else 0)
    tail = _string(client_id)
    if will is not None:
        flags |= 0x2C
        tail += _string(will[0]) + _string(will[1])
    tail += _string(user) + _string(password)
    return _packet(0x10, b"\x00\x04MQTT\x04" + pack(">BH", flags, keepalive_s) + tail)


# Section 3.8; every filter is asked for with QoS 1.
def subscribe(packet_id, filters):
    return _packet(0x82, pack(">H", packet_id) + b"".join([_string(f) + b"\x01" for f in filters]))


# Section 3.10.
def unsubscribe(packet_id, filters):
    return _packet(0xA2, pack(">H", packet_id) + b"".join([_string(f) for f in filters]))


# Section 3.3, everything before the payload; the packet id, its last two bytes, is still 0. retain is used
# for the state topic only.
def publish_prefix(topic, payload_bytes, retain=False):
    head = bytes((0x33 if retain else 0x32,)) + _varint(len(topic) + payload_bytes + 4)
    return head + _string(topic) + b"\x00\x00"


PINGREQ = b"\xc0\x00"
