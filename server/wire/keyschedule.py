"""Key schedule of a session: HKDF-SHA-256 (RFC 5869) over the secret and the transcript.

PRK = HKDF-Extract(salt = nonce_D || nonce_S, ikm = secret)
th  = SHA-256(beacon-frame || hello-frame)
K_x = HKDF-Expand(PRK, CBOR ["seal/1", x, site, device, th], 32), x in "d2s", "s2d", "resume"
"""

from dataclasses import dataclass, field
from hashlib import sha256
from hmac import digest as hmac_digest

from server.wire.aad import PROTOCOL
from server.wire.cbor import encode

SECRET_BYTES = 32
NONCE_BYTES = 16


@dataclass(frozen=True)
class SessionKeys:
    """The three keys of a session, 32 bytes each, and the first 8 bytes of its transcript hash."""

    device_to_server: bytes = field(repr=False)
    server_to_device: bytes = field(repr=False)
    resume: bytes = field(repr=False)
    th8: bytes


def extract(salt: bytes, ikm: bytes) -> bytes:
    """Return HKDF-Extract (RFC 5869 section 2.2), 32 bytes."""
    return hmac_digest(salt, ikm, "sha256")


def expand_one(prk: bytes, info: bytes) -> bytes:
    """Return HKDF-Expand (RFC 5869 section 2.3) for a length of exactly one block, 32 bytes."""
    return hmac_digest(prk, info + b"\x01", "sha256")


def transcript_hash(beacon_frame: bytes, hello_frame: bytes) -> bytes:
    """Return th, 32 bytes."""
    return sha256(beacon_frame + hello_frame).digest()


def derive(
    secret: bytes, nonce_device: bytes, nonce_server: bytes, site: str, device: str, transcript: bytes
) -> SessionKeys:
    """Derive the session keys; secret and transcript hash have 32 bytes, the nonces 16."""
    prk = extract(nonce_device + nonce_server, secret)

    def key(direction: str) -> bytes:
        return expand_one(prk, encode([PROTOCOL, direction, site, device, transcript]))

    return SessionKeys(key("d2s"), key("s2d"), key("resume"), transcript[:8])
