"""RSA as Seal/1 uses it: SubjectPublicKeyInfo of fixed sizes, kid, PS256 and OAEP-SHA-256 (RFC 8230).

Private operations go through the `Signer` seam, so that a simulation can replace `cryptography`'s random
salts.
"""

from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from server.wire.errors import Refusal, RefusalCode

SPKI_BYTES = {2048: 294, 3072: 422}
KID_BYTES = 8
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_SHA256 = hashes.SHA256()


def kid_of(spki: bytes) -> bytes:
    """Return the key id of a DER SubjectPublicKeyInfo: the first 8 bytes of its SHA-256."""
    return sha256(spki).digest()[:KID_BYTES]


def spki_of(key: RSAPublicKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a public key."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class VerifyKey:
    """A public key that judges PS256 signatures.

    `spki` is the DER it came from, `kid` its key id, `signature_bytes` the one length a signature may have.
    """

    __slots__ = ("_key", "bits", "kid", "signature_bytes", "spki")

    def __init__(self, spki: bytes, bits: int) -> None:
        """Load a DER SubjectPublicKeyInfo of `bits` (2048 or 3072), e = 65537. Raises: Refusal(BAD_KEY)."""
        self._key = load_public(spki, bits)
        self.spki = spki
        self.bits = bits
        self.kid = kid_of(spki)
        self.signature_bytes = bits // 8

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a PS256 signature (salt 32) over `message`. Raises: Refusal(BAD_SIGNATURE)."""
        if len(signature) != self.signature_bytes:
            raise Refusal(RefusalCode.BAD_SIGNATURE, "the signature has another length than the key")
        try:
            self._key.verify(signature, message, _PSS, _SHA256)
        except InvalidSignature:
            raise Refusal(RefusalCode.BAD_SIGNATURE, "the signature does not verify") from None


class Signer(Protocol):
    """Something that signs with one RSA key it does not show."""

    @property
    def kid(self) -> bytes:
        """Key id of the public half, 8 bytes."""
        ...

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo of the public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return a PS256 signature (salt 32) over `message`."""
        ...


class RsaSigner:
    """Signs with a private key in memory.

    OpenSSL blinds and verifies CRT results itself before they leave (`rsa_ossl_private_encrypt`), so a
    fault in one half does not leak the key.
    """

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key
        self._spki = spki_of(key.public_key())
        self._kid = kid_of(self._spki)

    @property
    def kid(self) -> bytes:
        """Key id of the public half, 8 bytes."""
        return self._kid

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo of the public half."""
        return self._spki

    def sign(self, message: bytes) -> bytes:
        """Return a PS256 signature (salt 32) over `message`."""
        return self._key.sign(message, _PSS, _SHA256)


def load_public(spki: bytes, bits: int) -> RSAPublicKey:
    """Load an RSA public key that is exactly what `seal.cddl` allows.

    `bits` is 2048 or 3072; the DER must be the one canonical encoding. Raises: Refusal(BAD_KEY).
    """
    if len(spki) != SPKI_BYTES[bits]:
        raise Refusal(RefusalCode.BAD_KEY, f"an RSA-{bits} public key has {SPKI_BYTES[bits]} bytes of DER")
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise Refusal(RefusalCode.BAD_KEY, "the bytes are not a DER SubjectPublicKeyInfo") from None
    if not isinstance(key, RSAPublicKey) or key.key_size != bits:
        raise Refusal(RefusalCode.BAD_KEY, f"the key is not RSA-{bits}")
    if key.public_numbers().e != 65537 or spki_of(key) != spki:
        raise Refusal(RefusalCode.BAD_KEY, "the key is not in its canonical form with e = 65537")
    return key


def _oaep(label: bytes) -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=label)


def oaep_encrypt(key: RSAPublicKey, message: bytes, label: bytes) -> bytes:
    """Encrypt with RSAES-OAEP-SHA-256 (RFC 8017 section 7.1); the bench's own devices need it."""
    return key.encrypt(message, _oaep(label))


def oaep_decrypt(key: RSAPrivateKey, ciphertext: bytes, label: bytes) -> bytes | None:
    """Decrypt RSAES-OAEP-SHA-256; None for every kind of failure, so that callers cannot tell them apart."""
    try:
        return key.decrypt(ciphertext, _oaep(label))
    except ValueError:
        return None
