"""Refusals: why the server did not act on some bytes.

Every code is a stable string that counters, logs and tests may rely on. The detail is a sentence for people
and never carries key material.
"""

from enum import StrEnum


class RefusalCode(StrEnum):
    """Codes of everything that can be refused before an op reaches the order queue."""

    TOO_LARGE = "too_large"
    BAD_ENCODING = "bad_encoding"
    TRAILING_BYTES = "trailing_bytes"
    BAD_SHAPE = "bad_shape"
    BAD_ENVELOPE = "bad_envelope"
    WRONG_KEY = "wrong_key"
    BAD_KEY = "bad_key"
    BAD_SIGNATURE = "bad_signature"
    BAD_MAC = "bad_mac"
    BAD_CERTIFICATE = "bad_certificate"
    OLD_EPOCH = "old_epoch"
    WRONG_SITE = "wrong_site"
    WRONG_DEVICE = "wrong_device"
    UNKNOWN_DEVICE = "unknown_device"
    DEVICE_NOT_ACTIVE = "device_not_active"
    STALE_HANDSHAKE = "stale_handshake"
    UNKNOWN_BEACON = "unknown_beacon"
    STALE_BEACON = "stale_beacon"
    BAD_SECRET = "bad_secret"
    RESUME_TOO_OLD = "resume_too_old"
    UNKNOWN_SESSION = "unknown_session"
    SESSION_EXPIRED = "session_expired"
    SESSION_SPENT = "session_spent"
    BAD_MENU = "bad_menu"
    BAD_RELEASE = "bad_release"
    NO_IMAGE_NAMED = "no_image_named"
    WRONG_CODE = "wrong_code"
    UNKNOWN_RELEASE = "unknown_release"
    OUT_OF_RANGE = "out_of_range"


class Refusal(Exception):
    """Some bytes were refused; nothing changed.

    `code` is a stable string (usually a `RefusalCode`), `detail` a sentence for the log.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = str(code)
        self.detail = detail
