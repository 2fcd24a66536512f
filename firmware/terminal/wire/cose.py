# COSE_Sign1 with PS256, COSE_Mac0 with HMAC-SHA-256, HKDF: the exact envelopes of Seal/1 (RFC 9052, 8230,
# 5869).
#
# Envelopes have one byte pattern each, so they are compared, not interpreted. Sealer and Opener are the hot
# path of every order: the pads, the MAC structure up to the payload and the frame head are laid out once per
# session; a message costs four hash calls and no copy of its payload.
from hashlib import sha256

from .cbor import U32, U64, Reader, enc_array_head, enc_bstr, enc_tstr, limit
from .errors import (
    BAD_ENVELOPE,
    BAD_TAG,
    OUT_OF_RANGE,
    SEQUENCE_SPENT,
    TOO_LARGE,
    TRUNCATED,
    WRONG_KEY,
    WireError,
)
from .fast import put_op, put_uint, reply_end, reply_numbers, same_tag
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
        key = sha256(key).digest()
    return bytes([b ^ value for b in key]) + bytes((value,)) * (64 - len(key))


def hmac_sha256(key, message):
    inner = sha256(_pad(key, 0x36))
    inner.update(message)
    outer = sha256(_pad(key, 0x5C))
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


# ---------------------------------------------------------------- COSE_Sign1


def sign1_head(head, total_bytes, signature_bytes):
    # Reads an envelope's first bytes (at least 24 of them) when the whole does not fit in memory.
    # Returns (kid, payload offset, payload length); the signature is the frame's last signature_bytes.
    if len(head) < SIGN1_PAYLOAD + 1:
        raise WireError(TRUNCATED)
    if head[:SIGN1_KID] != _SIGN1_HEAD:
        raise WireError(BAD_ENVELOPE)
    reader = Reader(head, SIGN1_PAYLOAD)
    size = reader.bstr_head(0, U32)
    if reader.pos + size > total_bytes:
        raise WireError(TRUNCATED)
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
    h = sha256(_SIGN1_STRUCTURE)
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


def mac0_tag(key, external_aad, payload, structure=_MAC0_STRUCTURE):
    return hmac_sha256(key, structure + enc_bstr(external_aad) + enc_bstr(payload))


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
    payload = reader.bstr(0, U32)
    tag = reader.bstr(_TAG_BYTES)
    reader.end()
    return key_id, payload, tag


def mac0_verify(key, external_aad, payload, tag):
    # tag: 32 bytes, as mac0_parse returns it
    if not same_tag(tag, 0, mac0_tag(key, external_aad, payload)):
        raise WireError(BAD_TAG)


class _Mac:
    # What Sealer and Opener share: the key's pads, the inner one already followed by the MAC structure up to
    # the payload's length.

    def __init__(self, key, sid, external_aad):
        self.inner = _pad(key, 0x36) + _MAC0_STRUCTURE + enc_bstr(external_aad)
        self.outer = bytearray(_pad(key, 0x5C) + bytes(_TAG_BYTES))
        self.head = _MAC0_HEAD + enc_bstr(sid)

    def tag(self, payload):
        # payload: the encoded byte string, its length included.
        h = sha256(self.inner)
        h.update(payload)
        outer = self.outer
        outer[64:] = h.digest()
        return sha256(outer).digest()


class Sealer(_Mac):
    # Device to server: op frames of one session, numbered from 1, +1 per transmission.

    def __init__(self, key, site, device, sid, th8):
        super().__init__(key, sid, aad("op", site, device, sid, th8))
        self.sequence = 0

    def seal(self, op):
        # The next op frame, a new bytearray. Raises WireError: SEQUENCE_SPENT, TOO_LARGE.
        sequence = self.sequence + 1
        if sequence > MAX_SEQUENCE:
            raise WireError(SEQUENCE_SPENT)
        head = self.head
        start = len(head)
        payload = len(op) + (
            2 if sequence < 24 else 3 if sequence < 0x100 else 4 if sequence < 0x10000 else 6
        )
        end = start + payload + (1 if payload < 24 else 2 if payload < 0x100 else 3)
        if end + 34 > MAX_OP_FRAME_BYTES:
            raise WireError(TOO_LARGE)
        self.sequence = sequence
        frame = bytearray(end + 34)
        put_op(frame, head, payload, sequence, op)
        frame[end + 2 :] = self.tag(memoryview(frame)[start:end])
        return frame


class Opener(_Mac):
    # Server to device: reply frames of one session, checked and read where they lie.

    def __init__(self, key, site, device, sid, th8):
        super().__init__(key, sid, aad("reply", site, device, sid, th8))
        self._numbers = [0, 0, 0, 0, 0]

    def open(self, frame):
        # frame: one whole frame, bytes-like. Returns (op_id, status, arg, order_number, total_minor, lsn,
        # chain). Raises WireError if it is anything but an authentic reply of this session.
        head = self.head
        end = reply_end(frame, head)
        if not end:
            self._refuse(frame)
        start = len(head)
        if not same_tag(frame, end + 2, self.tag(frame[start:end])):
            raise WireError(BAD_TAG)
        start += 2
        numbers = self._numbers
        if not reply_numbers(frame, start, end, numbers):
            return read_reply(frame, start, end)
        status, arg, order_number, total, lsn = numbers
        if status > 5 and status != 16:
            raise WireError(OUT_OF_RANGE)
        op_id = bytes(frame[start + 2 : start + 14])
        return op_id, status, arg, order_number, total, lsn, bytes(frame[end - 32 : end])

    def _refuse(self, frame):
        # Says why reply_end() found no reply of this session.
        limit(frame, MAX_REPLY_FRAME_BYTES)
        key_id, payload, _ = mac0_parse(frame, 4)
        if _MAC0_HEAD + enc_bstr(key_id) != self.head:
            raise WireError(WRONG_KEY)
        raise WireError(TRUNCATED if len(payload) < 24 else BAD_ENVELOPE)


def read_reply(buf, pos, end):
    # The authenticated payload buf[pos:end] of a reply, whatever the width of its numbers.
    reader = Reader(buf, pos, end)
    reader.array(7)
    op_id = bytes(reader.bstr(12))
    status = reader.uint(16)
    if status > 5 and status != 16:
        raise WireError(OUT_OF_RANGE)
    arg, order_number, total, lsn = reader.uint(), reader.uint(), reader.uint(), reader.uint(U64)
    chain = bytes(reader.bstr(32))
    reader.end()
    return op_id, status, arg, order_number, total, lsn, chain
