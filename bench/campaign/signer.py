"""Signatures that come out the same every time, so that a line of the campaign names the same flash for ever.

PS256 takes a random salt. Here the salt is derived from the message: any verifier accepts it, and it is as
good as the throw-away keys it is used with.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bench.errors import BenchError
from bench.paths import FIXTURE_KEYS
from server.wire.rsa import RsaSigner

_HASH_BYTES = 32


class RepeatableSigner:
    """A fixture key that signs the same message with the same bytes."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self._plain = RsaSigner(key)
        numbers = key.private_numbers()
        self.modulus = numbers.public_numbers.n
        self._numbers = numbers
        self._size = key.key_size // 8

    @property
    def kid(self) -> bytes:
        """Key id of the public half, 8 bytes."""
        return self._plain.kid

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo of the public half."""
        return self._plain.spki

    def sign(self, message: bytes) -> bytes:
        """Return the PS256 signature (RFC 8017 section 8.1.1) with SHA-256 of the message as salt."""
        salt = sha256(message).digest()
        digest = sha256(bytes(8) + sha256(message).digest() + salt).digest()
        block = bytes(self._size - 2 * _HASH_BYTES - 2) + b"\x01" + salt
        mask = _mask(digest, len(block))
        masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
        masked[0] &= 0x7F
        encoded = int.from_bytes(bytes(masked) + digest + b"\xbc", "big")
        return self._power(encoded).to_bytes(self._size, "big")

    def _power(self, base: int) -> int:
        """base ** d % n by the Chinese remainder theorem, RFC 8017 section 5.1.2."""
        key = self._numbers
        one, two = pow(base, key.dmp1, key.p), pow(base, key.dmq1, key.q)
        return two + key.q * ((one - two) * key.iqmp % key.p)


def _mask(seed: bytes, length: int) -> bytes:
    """MGF1 with SHA-256, RFC 8017 appendix B.2.1."""
    rounds = range(-(-length // _HASH_BYTES))
    return b"".join(sha256(seed + n.to_bytes(4, "big")).digest() for n in rounds)[:length]


@cache
def fixture(name: str) -> RepeatableSigner:
    """A throw-away key from fixtures/keys. Raises: BenchError(BAD_KEY)."""
    key = load_pem_private_key((FIXTURE_KEYS / f"{name}.pem").read_bytes(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise BenchError("BAD_KEY", f"fixtures/keys/{name}.pem is not an RSA key.")
    return RepeatableSigner(key)
