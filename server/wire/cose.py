"""COSE_Sign1 and COSE_Mac0 (RFC 9052) in the one form Seal/1 allows.

The heads, both header maps and their order are constant bytes, so they are compared, not interpreted: no
other algorithm, no further header and no other order exists. Only lengths are read, and only in shortest
form.
"""

from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import NamedTuple

from server.wire.cbor import read_bstr, string_head
from server.wire.errors import Refusal, RefusalCode
from server.wire.rsa import KID_BYTES, Signer, VerifyKey

_SIGN1_PROTECTED = b"\x44\xa1\x01\x38\x24"  # bstr .cbor {1: -37}
_MAC0_PROTECTED = b"\x43\xa1\x01\x05"  # bstr .cbor {1: 5}
_SIGN1_HEAD = b"\xd2\x84" + _SIGN1_PROTECTED + b"\xa1\x04\x48"
_MAC0_HEAD = b"\xd1\x84" + _MAC0_PROTECTED + b"\xa1\x04"
_SIGNATURE1 = b"\x84\x6aSignature1" + _SIGN1_PROTECTED
_MAC0 = b"\x84\x64MAC0" + _MAC0_PROTECTED
TAG_BYTES = 32
_SHORT_PROTECTED = b"\x43\xa1\x01\x04"  # bstr .cbor {1: 4}: HMAC 256/64, for telemetry only
_SHORT_HEAD = b"\xd1\x84" + _SHORT_PROTECTED + b"\xa1\x04"
_SHORT_MAC0 = b"\x84\x64MAC0" + _SHORT_PROTECTED
SHORT_TAG_BYTES = 8


class Sign1(NamedTuple):
    """A parsed, not yet verified COSE_Sign1."""

    kid: bytes
    payload: bytes
    signature: bytes


class Mac0(NamedTuple):
    """A parsed, not yet verified COSE_Mac0; `identifier` is the session id or nonce of header 4."""

    identifier: bytes
    payload: bytes
    tag: bytes


def _bstr(data: bytes) -> bytes:
    return string_head(len(data)) + data


def _limit(frame: bytes, max_bytes: int) -> None:
    if len(frame) > max_bytes:
        raise Refusal(RefusalCode.TOO_LARGE, f"{len(frame)} bytes where {max_bytes} are allowed")


def to_be_signed(payload: bytes, external_aad: bytes) -> bytes:
    """Return the Sig_structure of RFC 9052 section 4.4 for COSE_Sign1."""
    return _SIGNATURE1 + _bstr(external_aad) + _bstr(payload)


def sign1(signer: Signer, payload: bytes, external_aad: bytes) -> bytes:
    """Return a tagged COSE_Sign1 over `payload`, PS256."""
    signature = signer.sign(to_be_signed(payload, external_aad))
    return _SIGN1_HEAD + signer.kid + _bstr(payload) + _bstr(signature)


def parse_sign1(frame: bytes, max_bytes: int) -> Sign1:
    """Take a COSE_Sign1 apart without judging it. Raises: Refusal(TOO_LARGE, BAD_ENVELOPE, BAD_ENCODING)."""
    _limit(frame, max_bytes)
    start = len(_SIGN1_HEAD) + KID_BYTES
    if not frame.startswith(_SIGN1_HEAD) or len(frame) < start:
        raise Refusal(RefusalCode.BAD_ENVELOPE, "not a COSE_Sign1 with PS256 and a kid")
    payload_start, payload_end = read_bstr(frame, start)
    signature_start, signature_end = read_bstr(frame, payload_end)
    if signature_end != len(frame):
        raise Refusal(RefusalCode.BAD_ENVELOPE, "bytes follow the envelope")
    return Sign1(
        frame[len(_SIGN1_HEAD) : start],
        frame[payload_start:payload_end],
        frame[signature_start:signature_end],
    )


def verify_sign1(frame: bytes, key: VerifyKey, external_aad: bytes, max_bytes: int) -> bytes:
    """Return the payload of a COSE_Sign1 that `key` made over these bytes and this AAD.

    Raises: Refusal(TOO_LARGE, BAD_ENVELOPE, BAD_ENCODING, WRONG_KEY, BAD_SIGNATURE).
    """
    parsed = parse_sign1(frame, max_bytes)
    if parsed.kid != key.kid:
        raise Refusal(RefusalCode.WRONG_KEY, "the kid names another key")
    key.verify(parsed.signature, to_be_signed(parsed.payload, external_aad))
    return parsed.payload


def mac_prefix(external_aad: bytes) -> bytes:
    """Return the MAC_structure of RFC 9052 section 6.3 up to the payload."""
    return _MAC0 + _bstr(external_aad)


def mac0(key: bytes, identifier: bytes, payload: bytes, prefix: bytes) -> bytes:
    """Return a tagged COSE_Mac0, HMAC 256/256; `prefix` comes from `mac_prefix`."""
    sealed = _bstr(payload)
    tag = hmac_digest(key, prefix + sealed, "sha256")
    return _MAC0_HEAD + _bstr(identifier) + sealed + b"\x58\x20" + tag


def parse_mac0(frame: bytes, identifier_bytes: int, max_bytes: int) -> Mac0:
    """Take a COSE_Mac0 apart without judging it. Raises: Refusal(TOO_LARGE, BAD_ENVELOPE, BAD_ENCODING)."""
    _limit(frame, max_bytes)
    at = len(_MAC0_HEAD) + 1
    start = at + identifier_bytes
    if not frame.startswith(_MAC0_HEAD) or len(frame) < start or frame[at - 1] != 0x40 | identifier_bytes:
        raise Refusal(RefusalCode.BAD_ENVELOPE, "not a COSE_Mac0 with HMAC 256/256 and an id")
    payload_start, payload_end = read_bstr(frame, start)
    if len(frame) != payload_end + 2 + TAG_BYTES or frame[payload_end : payload_end + 2] != b"\x58\x20":
        raise Refusal(RefusalCode.BAD_ENVELOPE, "the envelope does not end with a tag of 32 bytes")
    return Mac0(frame[at:start], frame[payload_start:payload_end], frame[payload_end + 2 :])


def verify_mac0(parsed: Mac0, key: bytes, prefix: bytes) -> None:
    """Check the tag of a parsed COSE_Mac0 in constant time. Raises: Refusal(BAD_MAC)."""
    tag = hmac_digest(key, prefix + _bstr(parsed.payload), "sha256")
    if not compare_digest(tag, parsed.tag):
        raise Refusal(RefusalCode.BAD_MAC, "the MAC does not verify")


def is_short_mac0(frame: bytes) -> bool:
    """Whether a frame claims to be a COSE_Mac0 with the truncated tag of telemetry."""
    return frame.startswith(_SHORT_HEAD)


def short_mac0(key: bytes, identifier: bytes, payload: bytes, external_aad: bytes) -> bytes:
    """Return a tagged COSE_Mac0, HMAC 256/64: for what moves no state."""
    sealed = _bstr(payload)
    tag = hmac_digest(key, _SHORT_MAC0 + _bstr(external_aad) + sealed, "sha256")
    return _SHORT_HEAD + _bstr(identifier) + sealed + _bstr(tag[:SHORT_TAG_BYTES])


def parse_short_mac0(frame: bytes, identifier_bytes: int, max_bytes: int) -> Mac0:
    """Take a COSE_Mac0 with truncated tag apart. Raises: Refusal(TOO_LARGE, BAD_ENVELOPE, BAD_ENCODING)."""
    _limit(frame, max_bytes)
    at = len(_SHORT_HEAD) + 1
    start = at + identifier_bytes
    if not is_short_mac0(frame) or len(frame) < start or frame[at - 1] != 0x40 | identifier_bytes:
        raise Refusal(RefusalCode.BAD_ENVELOPE, "not a COSE_Mac0 with HMAC 256/64 and an id")
    payload_start, payload_end = read_bstr(frame, start)
    tag_start, tag_end = read_bstr(frame, payload_end)
    if tag_end != len(frame) or tag_end - tag_start != SHORT_TAG_BYTES:
        raise Refusal(RefusalCode.BAD_ENVELOPE, "the envelope does not end with a tag of 8 bytes")
    return Mac0(frame[at:start], frame[payload_start:payload_end], frame[tag_start:])


def verify_short_mac0(parsed: Mac0, key: bytes, external_aad: bytes) -> None:
    """Check the truncated tag in constant time. Raises: Refusal(BAD_MAC)."""
    tag = hmac_digest(key, _SHORT_MAC0 + _bstr(external_aad) + _bstr(parsed.payload), "sha256")
    if not compare_digest(tag[:SHORT_TAG_BYTES], parsed.tag):
        raise Refusal(RefusalCode.BAD_MAC, "the MAC does not verify")
