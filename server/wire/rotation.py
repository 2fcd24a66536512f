"""From one release key to the next: the root certifies both, the old one names the new one, which agrees.

A stolen root key alone can therefore not bring a release key of its own to a terminal that knows one, and a
stolen release key alone cannot name its successor.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.wire import aad, shapes
from server.wire.cbor import decode, encode
from server.wire.cose import sign1, verify_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import CERTIFICATE_MAX_BYTES, RELEASE, Certificate
from server.wire.rsa import Signer, VerifyKey

ROTATION_MAX_BYTES = 4096
_CLAIM_MAX_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Rotation:
    """Two certificates (cert-frames) and the same claim signed by the old and by the new key."""

    old: bytes
    new: bytes
    by_old: bytes
    by_new: bytes

    @classmethod
    def make(
        cls, old: Signer, old_certificate: bytes, new: Signer, new_certificate: bytes, root: VerifyKey
    ) -> Rotation:
        """Return the statement that ``new`` follows ``old``.

        Raises: Refusal where the certificates do not allow it, or are not those of the keys.
        """
        before = Certificate.open(old_certificate, root, "", RELEASE)
        after = Certificate.open(new_certificate, root, "", RELEASE)
        claim = _claim(before, after)
        made = cls(
            old_certificate,
            new_certificate,
            sign1(old, claim, aad.rotation()),
            sign1(new, claim, aad.rotation()),
        )
        made.open(root)
        return made

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([self.old, self.new, self.by_old, self.by_new])

    @classmethod
    def decode(cls, frame: bytes) -> Rotation:
        """Judge a rotation's shape. Raises: Refusal."""
        f = shapes.array(decode(frame, ROTATION_MAX_BYTES), 4, 4, "rotation")
        return cls(
            shapes.binary(f[0], 1, CERTIFICATE_MAX_BYTES, "rotation old certificate"),
            shapes.binary(f[1], 1, CERTIFICATE_MAX_BYTES, "rotation new certificate"),
            shapes.binary(f[2], 1, _CLAIM_MAX_BYTES, "rotation by old"),
            shapes.binary(f[3], 1, _CLAIM_MAX_BYTES, "rotation by new"),
        )

    def open(self, root: VerifyKey) -> tuple[Certificate, Certificate]:
        """Return the old and the new key's certificates if root and both keys agree. Raises: Refusal."""
        before = Certificate.open(self.old, root, "", RELEASE)
        after = Certificate.open(self.new, root, "", RELEASE)
        if after.epoch <= before.epoch:
            raise Refusal(RefusalCode.OLD_EPOCH, "the new release key's epoch is not above the old one's")
        claim = _claim(before, after)
        for frame, key in ((self.by_old, before), (self.by_new, after)):
            if verify_sign1(frame, key.verify_key(), aad.rotation(), _CLAIM_MAX_BYTES) != claim:
                raise Refusal(
                    RefusalCode.BAD_SIGNATURE, "the rotation names other keys than its certificates"
                )
        return before, after


def _claim(before: Certificate, after: Certificate) -> bytes:
    return encode([before.kid, after.kid, before.epoch, after.epoch])
