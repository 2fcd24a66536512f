# COSE_Sign1 with PS256, COSE_Mac0 with HMAC-SHA-256, HKDF: the exact envelopes of Seal/1 (RFC 9052, 8230,
# 5869).
#
# Envelopes have one byte pattern each, so they are compared, not interpreted. Sealer and Opener are the hot
# path of every order: the pads, the MAC structure up to the payload and the frame head are laid out once per
# session; a message costs four hash calls and no copy of its payload.
import hashlib

from .cbor import Reader, enc_array_head, enc_bstr, enc_tstr, put_uint
from .errors import (
    BAD_ENVELOPE,
    BAD_TAG,
    NOT_SHORTEST,
    OUT_OF_RANGE,
    SEQUENCE_SPENT,
    TOO_LARGE,
    TRAILING,
    TRUNCATED,
    WRONG_KEY,
    WRONG_TYPE,
    WireError,
)
from .rsa import sign_pss_steps, verify_pss_steps

MAX_OP_FRAME_BYTES = 1024
MAX_REPLY_FRAME_BYTES = 256
MAX_SEQUENCE = 1 << 20  # messages one session may carry before it must be replaced

# tag, array(4), protected header, unprotected map of one entry with label 4 and a byte string of the id's
# length
_SIGN1_HEAD = b"\xd2\x84\x44\xa1\x01\x38\x24\xa1\x04\x48"
_SIGN1_STRUCTURE = b"\x84\x6aSignature1\x44\xa1\x01\x38\x24"
_MAC0_HEAD = b"\xd1\x84\x43\xa1\x01\x05\xa1\x04"
_MAC0_STRUCTURE = b"\x84\x64MAC0\x43\xa1\x01\x05"
_TAG_HEAD = b"\x58\x20"
_TAG_BYTES = 32

SIGN1_KID = len(_SIGN1_HEAD)
SIGN1_PAYLOAD = SIGN1_KID + 8  # where the payload's byte string begins


def aad(kind, site, device, *binary):
    # The external_aad of every envelope and the OAEP label: one CBOR array, so nothing runs into its
    # neighbour.
    out = (
        enc_array_head(4 + len(binary))
        + enc_tstr("seal/1")
        + enc_tstr(kind)
        + enc_tstr(site)
        + enc_tstr(device)
    )
    for part in binary:
        out += enc_bstr(part)
    return out


def _pad(key, value):
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    return bytes([b ^ value for b in key]) + bytes((value,)) * (64 - len(key))


def hmac_sha256(key, message):
    inner = hashlib.sha256(_pad(key, 0x36))
    inner.update(message)
    outer = hashlib.sha256(_pad(key, 0x5C))
    outer.update(inner.digest())
    return outer.digest()


def hkdf_extract(salt, ikm):
    return hmac_sha256(salt, ikm)


def hkdf_expand(prk, info, length):
    # RFC 5869 section 2.3, for at most 255 blocks of 32 bytes.
    out = block = b""
    counter = 1
    while len(out) < length:
        block = hmac_sha256(prk, block + info + bytes((counter,)))
        out += block
        counter += 1
    return out[:length]


# Equality in time that depends on nothing but the length: a carry runs out of bit 256 unless all 256 bits of
# the difference are zero, and bit 257 keeps every intermediate at its full width, so nothing is trimmed
# early.
_GUARD = 1 << 257
_ALL_ONES = (1 << 256) - 1


def same_tag(a, b):
    # a, b: 32 bytes each.
    return ((((int.from_bytes(a, "big") | _GUARD) ^ int.from_bytes(b, "big")) + _ALL_ONES) >> 256) == 2


# ---------------------------------------------------------------- COSE_Sign1


def sign1_head(head, total_bytes, signature_bytes):
    # Reads an envelope's first bytes (at least 24 of them) when the whole does not fit in memory.
    # Returns (kid, payload offset, payload length); the signature is the frame's last signature_bytes.
    if len(head) < SIGN1_PAYLOAD + 1:
        raise WireError(TRUNCATED)
    if head[:SIGN1_KID] != _SIGN1_HEAD:
        raise WireError(BAD_ENVELOPE)
    reader = Reader(head, SIGN1_PAYLOAD)
    size = reader.bstr_head(0, total_bytes)
    if reader.pos + size + 3 + signature_bytes != total_bytes:
        raise WireError(BAD_ENVELOPE)
    return bytes(head[SIGN1_KID:SIGN1_PAYLOAD]), reader.pos, size


def sign1_parse(frame, signature_bytes=384):
    # Returns (kid, payload, signature), the last two as views. Nothing is verified yet.
    frame = memoryview(frame)
    kid, pos, size = sign1_head(frame, len(frame), signature_bytes)
    reader = Reader(frame, pos + size)
    signature = reader.bstr(signature_bytes)
    reader.end()
    return kid, frame[pos : pos + size], signature


def sign1_hash(external_aad, payload_bytes):
    # The hash of the Sig_structure up to the payload; the caller feeds the payload and takes the digest.
    h = hashlib.sha256(_SIGN1_STRUCTURE)
    h.update(enc_bstr(external_aad))
    head = bytearray(9)
    h.update(bytes(head[: put_uint(head, 0, 2, payload_bytes)]))
    return h


def sign1_digest(external_aad, payload):
    h = sign1_hash(external_aad, len(payload))
    h.update(payload)
    return h.digest()


def sign1_verify_steps(public, external_aad, payload, signature):
    # Generator; its value is True or False.
    return (yield from verify_pss_steps(public, sign1_digest(external_aad, payload), signature))


def sign1_sign_steps(private, kid, external_aad, payload, random):
    # Generator; its value is the complete frame.
    signature = yield from sign_pss_steps(private, sign1_digest(external_aad, payload), random)
    return _SIGN1_HEAD + kid + enc_bstr(payload) + enc_bstr(signature)


# ---------------------------------------------------------------- COSE_Mac0


def mac0_tag(key, external_aad, payload):
    return hmac_sha256(key, _MAC0_STRUCTURE + enc_bstr(external_aad) + enc_bstr(payload))


def mac0_encode(key, key_id, external_aad, payload):
    tag = mac0_tag(key, external_aad, payload)
    return _MAC0_HEAD + enc_bstr(key_id) + enc_bstr(payload) + _TAG_HEAD + tag


def mac0_parse(frame, id_bytes):
    # Returns (key id, payload, tag) as views; frame has its size checked already.
    frame = memoryview(frame)
    if len(frame) < len(_MAC0_HEAD):
        raise WireError(TRUNCATED)
    if frame[: len(_MAC0_HEAD)] != _MAC0_HEAD:
        raise WireError(BAD_ENVELOPE)
    reader = Reader(frame, len(_MAC0_HEAD))
    key_id = reader.bstr(id_bytes)
    payload = reader.bstr(0, len(frame))
    tag = reader.bstr(_TAG_BYTES)
    reader.end()
    return key_id, payload, tag


def mac0_verify(key, external_aad, payload, tag):
    if not same_tag(mac0_tag(key, external_aad, payload), tag):
        raise WireError(BAD_TAG)


class _Mac:
    # What Sealer and Opener share: the key's pads, already followed by the MAC structure up to the payload's
    # length.

    def __init__(self, key, sid, external_aad):
        self.inner = _pad(key, 0x36) + _MAC0_STRUCTURE + enc_bstr(external_aad)
        self.outer = bytearray(_pad(key, 0x5C) + bytes(_TAG_BYTES))
        self.head = _MAC0_HEAD + enc_bstr(sid)

    def tag(self, payload):
        # payload: the encoded byte string, its length included.
        outer = self.outer
        h = hashlib.sha256(self.inner)
        h.update(payload)
        outer[64:96] = h.digest()
        return hashlib.sha256(outer).digest()


class Sealer(_Mac):
    # Device to server: op frames of one session, numbered from 1, +1 per transmission.

    def __init__(self, key, site, device, sid, th8):
        super().__init__(key, sid, aad("op", site, device, sid, th8))
        self.sequence = 0

    def frame_bytes(self, op_bytes):
        # The exact length the next frame will have around an op of op_bytes.
        sequence = self.sequence + 1
        payload = op_bytes + (
            2 if sequence < 24 else 3 if sequence < 0x100 else 4 if sequence < 0x10000 else 6
        )
        return (
            len(self.head) + payload + (1 if payload < 24 else 2 if payload < 0x100 else 3) + 2 + _TAG_BYTES
        )

    def seal_into(self, buf, pos, op):
        # Writes the next op frame into buf (a memoryview or bytearray) at pos; returns the position after it.
        sequence = self.sequence + 1
        if sequence > MAX_SEQUENCE:
            raise WireError(SEQUENCE_SPENT)
        self.sequence = sequence
        size = len(op)
        payload = size + (2 if sequence < 24 else 3 if sequence < 0x100 else 4 if sequence < 0x10000 else 6)
        head = self.head
        start = pos + len(head)
        buf[pos:start] = head
        pos = put_uint(buf, start, 2, payload)
        buf[pos] = 0x82
        pos = put_uint(buf, pos + 1, 0, sequence)
        end = pos + size
        buf[pos:end] = op
        tag = self.tag(memoryview(buf)[start:end])
        buf[end : end + 2] = _TAG_HEAD
        pos = end + 2
        end = pos + _TAG_BYTES
        buf[pos:end] = tag
        return end

    def seal(self, op):
        size = self.frame_bytes(len(op))
        if size > MAX_OP_FRAME_BYTES:
            raise WireError(TOO_LARGE)
        frame = bytearray(size)
        self.seal_into(frame, 0, op)
        return frame


class Opener(_Mac):
    # Server to device: reply frames of one session, checked and read where they lie.

    def __init__(self, key, site, device, sid, th8):
        super().__init__(key, sid, aad("reply", site, device, sid, th8))

    def open(self, frame):
        # frame: one whole frame, a bytes-like. Returns (op_id, status, arg, order_number, total_minor, lsn,
        # chain).
        size = len(frame)
        if size > MAX_REPLY_FRAME_BYTES:
            raise WireError(TOO_LARGE)
        head = self.head
        start = len(head)
        # payload: byte string of 24..255 bytes, that is 0x58 and one length byte; then the tag's own head
        end = size - _TAG_BYTES - 2
        if end < start + 2:
            raise WireError(TRUNCATED)
        frame = memoryview(frame)
        if frame[:start] != head:
            raise WireError(BAD_ENVELOPE if frame[: len(_MAC0_HEAD)] != _MAC0_HEAD else WRONG_KEY)
        if frame[start] != 0x58 or frame[start + 1] != end - start - 2 or frame[end : end + 2] != _TAG_HEAD:
            raise WireError(BAD_ENVELOPE)
        if not same_tag(self.tag(frame[start:end]), frame[end + 2 : size]):
            raise WireError(BAD_TAG)
        return read_reply(frame, start + 2, end)


def read_reply(buf, pos, end):
    # The authenticated payload buf[pos:end]; five unsigned integers between the op id and the chain head.
    if end - pos < 53 or buf[pos] != 0x87 or buf[pos + 1] != 0x4C:
        raise WireError(WRONG_TYPE)
    op_id = bytes(buf[pos + 2 : pos + 14])
    pos += 14
    last = end - 34
    numbers = []
    for _ in range(5):
        if pos >= last:
            raise WireError(TRUNCATED)
        value = buf[pos]
        pos += 1
        if value >= 24:
            if value > 27:
                raise WireError(WRONG_TYPE)
            size = 1 << (value - 24)
            shortest = 24 if size == 1 else 1 << (size << 2)
            value = int.from_bytes(buf[pos : pos + size], "big")
            pos += size
            if value < shortest:
                raise WireError(NOT_SHORTEST)
        numbers.append(value)
    if pos != last:
        raise WireError(TRAILING if pos < last else TRUNCATED)
    if buf[pos] != 0x58 or buf[pos + 1] != 32:
        raise WireError(WRONG_TYPE)
    status, arg, order_number, total, lsn = numbers
    if (status > 5 and status != 16) or arg > 0xFFFFFFFF or order_number > 0xFFFFFFFF or total > 0xFFFFFFFF:
        raise WireError(OUT_OF_RANGE)
    return op_id, status, arg, order_number, total, lsn, bytes(buf[pos + 2 : end])
