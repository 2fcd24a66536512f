"""Offers and rotations by real keys of the fixtures, a key for every epoch; no bundle is behind them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from server.devices.keyfiles import load_signer
from server.releases.bundle import certify
from server.releases.lineage import Step, verified_step
from server.wire.rotation import Rotation
from server.wire.rsa import RsaSigner, VerifyKey
from server.wire.updates import Offer

KEYS = Path(__file__).parents[3] / "fixtures" / "keys"
ROOT = VerifyKey((KEYS / "root.pub.der").read_bytes(), 3072)
_NAMES = ("release", "server-sign", "evil-root")


@cache
def signer(name: str) -> RsaSigner:
    """A key of the fixtures."""
    return load_signer(KEYS / f"{name}.pem")


def key_of(epoch: int) -> RsaSigner:
    """The release key of an epoch, from 1 on."""
    return signer(_NAMES[(epoch - 1) % len(_NAMES)])


@cache
def certificate(epoch: int) -> bytes:
    """The root's certificate for it."""
    return certify(signer("root"), key_of(epoch).spki, epoch)


@cache
def offer(epoch: int) -> bytes:
    """An offer-frame with this certificate; its manifest is not one."""
    return Offer(b"manifest", certificate(epoch)).encode()


@cache
def rotation(before: int, after: int) -> Step:
    """What leads from one epoch's key to another's."""
    made = Rotation.make(key_of(before), certificate(before), key_of(after), certificate(after), ROOT)
    return verified_step(made.encode(), ROOT)
