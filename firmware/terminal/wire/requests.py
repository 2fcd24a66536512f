# What a terminal says beside orders: change, cancel, call, bill, telemetry; and the notices it hears. Rare
# frames, so this file is loaded when the first of them is made, and written for size, not for speed.
from collections import namedtuple

from .cbor import U32, Reader, enc_array_head, enc_bstr, enc_int, enc_tstr, enc_uint, limit
from .cose import aad, mac0_parse, mac0_tag, mac0_verify, sign1_sign_steps
from .errors import OUT_OF_RANGE, WRONG_KEY, WireError

CHANGE, CANCEL, CALL, BILL_REQUEST, BILL_CLOSE, TELEMETRY = 2, 3, 4, 5, 6, 7

# notices
OPENED, AWAY, HERE, CLOSED, ORDER_STATE = 1, 2, 3, 4, 5

MAX_NOTICE_BYTES = 256
_MOST_LINES = 32
_MOST_MODIFIERS = 8
_MAC0_64_HEAD = b"\xd1\x84\x43\xa1\x01\x04\xa1\x04"
_MAC0_64_STRUCTURE = b"\x84\x64MAC0\x43\xa1\x01\x04"

Notice = namedtuple("Notice", ("seq", "kind", "table", "seating", "total_minor", "arg"))


def _number(value, low, high):
    if not low <= value <= high:
        raise WireError(OUT_OF_RANGE)
    return enc_uint(value)


def _op(kind, op_id, table, body, menu_version, total_minor):
    return (
        enc_array_head(6)
        + enc_uint(kind)
        + enc_bstr(op_id)
        + enc_tstr(table)
        + body
        + _number(menu_version, 0, U32)
        + _number(total_minor, 0, U32)
    )


def _lines(lines):
    if not 1 <= len(lines) <= _MOST_LINES:
        raise WireError(OUT_OF_RANGE)
    out = enc_array_head(len(lines))
    for item, quantity, modifiers in lines:
        if len(modifiers) > _MOST_MODIFIERS:
            raise WireError(OUT_OF_RANGE)
        out += enc_array_head(3) + _number(item, 1, 65535) + _number(quantity, 1, 99)
        out += enc_array_head(len(modifiers)) + b"".join([_number(m, 1, 65535) for m in modifiers])
    return out


# All encoders raise WireError(OUT_OF_RANGE) for what the server could not accept.


def encode_change(op_id, table, target, lines, menu_version, total_minor):
    # target: op id of the order; lines: all it shall consist of; total: of the order, then.
    body = enc_array_head(2) + enc_bstr(target) + _lines(lines)
    return _op(CHANGE, op_id, table, body, menu_version, total_minor)


def encode_cancel(op_id, table, target, reason, menu_version):
    # reason: 1..4
    body = enc_array_head(2) + enc_bstr(target) + _number(reason, 1, 4)
    return _op(CANCEL, op_id, table, body, menu_version, 0)


def encode_call(op_id, table, reason, menu_version):
    # reason: 0..3
    return _op(CALL, op_id, table, enc_array_head(1) + _number(reason, 0, 3), menu_version, 0)


def encode_bill_request(op_id, table, shares, tender, menu_version):
    # shares: 1..20; tender: 0 not said, 1 cash, 2 card
    body = enc_array_head(2) + _number(shares, 1, 20) + _number(tender, 0, 2)
    return _op(BILL_REQUEST, op_id, table, body, menu_version, 0)


def bill_seal_steps(private, site, device, claim, random):
    # Generator; its value is the bill-seal over a tally.Claim, signed by the device's RSA key.
    payload = (
        enc_array_head(6)
        + enc_uint(claim.bill)
        + enc_bstr(claim.first)
        + enc_bstr(claim.last)
        + enc_uint(claim.count)
        + enc_bstr(claim.chain)
        + enc_uint(claim.total)
    )
    return sign1_sign_steps(private, private.public.kid, aad("bill", site, device), payload, random)


def encode_bill_close(op_id, table, bill, seal, menu_version, total_minor):
    body = enc_array_head(2) + enc_uint(bill) + enc_bstr(seal)
    return _op(BILL_CLOSE, op_id, table, body, menu_version, total_minor)


def encode_telemetry(op_id, table, uptime_s, heap_free, reconnects, resent, rssi, menu_version):
    # rssi: dBm, 0 for a board without radio
    body = enc_array_head(5)
    for number in (uptime_s, heap_free, reconnects, resent):
        body += enc_uint(min(number, U32))
    return _op(TELEMETRY, op_id, table, body + enc_int(rssi), menu_version, 0)


def seal_telemetry(key, identity, sid, th8, sequence, op):
    # The telemetry frame around an op: HMAC 256/64, the one truncated tag of the protocol.
    payload = enc_array_head(2) + enc_uint(sequence) + op
    external_aad = aad("op", identity.site, identity.device, sid, th8)
    tag = mac0_tag(key, external_aad, payload, _MAC0_64_STRUCTURE)[:8]
    return _MAC0_64_HEAD + enc_bstr(sid) + enc_bstr(payload) + enc_bstr(tag)


def open_notice(key, identity, sid, th8, frame):
    # The Notice in an authentic frame of this session. Raises WireError.
    limit(frame, MAX_NOTICE_BYTES)
    named, payload, tag = mac0_parse(frame, 4)
    if named != sid:
        raise WireError(WRONG_KEY)
    mac0_verify(key, aad("notice", identity.site, identity.device, sid, th8), payload, tag)
    reader = Reader(payload)
    reader.array(6)
    notice = Notice(
        reader.uint(U32), reader.uint(5, 1), reader.id(), reader.uint(U32), reader.uint(U32), reader.uint(U32)
    )
    reader.end()
    return notice
