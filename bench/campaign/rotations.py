"""Statements that would lead a terminal to another release key, each with one signature that is not genuine.

A terminal that follows one of them refuses the real releases from then on: their key counts as retired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.campaign.signer import fixture
from server.releases.bundle import certify
from server.wire import aad
from server.wire.cbor import encode
from server.wire.cose import sign1
from server.wire.rotation import Rotation
from server.wire.rsa import Signer

OLD_EPOCH, NEW_EPOCH = 1, 2


@dataclass(frozen=True)
class _Pretender:
    """Signs with one key under the name of another."""

    named: Signer
    signing: Signer

    @property
    def kid(self) -> bytes:
        return self.named.kid

    @property
    def spki(self) -> bytes:
        return self.named.spki

    def sign(self, message: bytes) -> bytes:
        return self.signing.sign(message)


def forged() -> dict[str, bytes]:
    """Rotation frames by name, each without the word of root, old key or new key."""
    root, old, new, evil = (fixture(name) for name in ("root", "release", "release-2", "evil-root"))
    claim = encode([old.kid, new.kid, OLD_EPOCH, NEW_EPOCH])
    genuine = Rotation(
        certify(root, old.spki, OLD_EPOCH),
        certify(root, new.spki, NEW_EPOCH),
        sign1(old, claim, aad.rotation()),
        sign1(new, claim, aad.rotation()),
    )
    uncertified = certify(_Pretender(root, evil), new.spki, NEW_EPOCH)
    without_old = sign1(_Pretender(old, evil), claim, aad.rotation())
    without_new = sign1(_Pretender(new, evil), claim, aad.rotation())
    frames = {
        "rotation-without-root": replace(genuine, new=uncertified),
        "rotation-without-old-key": replace(genuine, by_old=without_old),
        "rotation-without-new-key": replace(genuine, by_new=without_new),
    }
    return {name: frame.encode() for name, frame in frames.items()}
