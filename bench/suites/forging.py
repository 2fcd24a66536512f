"""Beacons no honest server would make, for the suites that attack a terminal."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bench import provision
from bench.errors import BenchError
from bench.paths import FIXTURE_KEYS
from server.wire.cose import parse_sign1
from server.wire.frames import RELEASE, SERVER_SIGN, Beacon, Certificate, Hello
from server.wire.rsa import RsaSigner, Signer, VerifyKey

FAR_COUNTER = 4_000_000_000


@cache
def fixture_signer(name: str) -> RsaSigner:
    """A throw-away key from fixtures/keys: root, evil-root, release, server-sign.

    Raises: BenchError(BAD_KEY).
    """
    key = load_pem_private_key((FIXTURE_KEYS / f"{name}.pem").read_bytes(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise BenchError("BAD_KEY", f"fixtures/keys/{name}.pem is not an RSA key.")
    return RsaSigner(key)


class ClaimingSigner:
    """Signs with one key under the key id of another: only the signature itself gives it away."""

    def __init__(self, signer: Signer, kid: bytes) -> None:
        self._signer = signer
        self._kid = kid

    @property
    def kid(self) -> bytes:
        """The key id it claims."""
        return self._kid

    @property
    def spki(self) -> bytes:
        """The public half of the key it really has."""
        return self._signer.spki

    def sign(self, message: bytes) -> bytes:
        """A PS256 signature by the key it really has."""
        return self._signer.sign(message)


def open_beacon(frame: bytes, site: str) -> Beacon:
    """Read a genuine beacon."""
    return Beacon.open(frame, VerifyKey(provision.root_spki(), 3072), site)[0]


def false_beacon(
    genuine: Beacon, certifier: Signer, signer: str, purpose: str = SERVER_SIGN, epoch: int | None = None
) -> bytes:
    """Like the genuine one, but newer, announcing another menu, signed by a certified fixture key."""
    epoch = genuine.epoch if epoch is None else epoch
    key = fixture_signer(signer)
    site = "" if purpose == RELEASE else genuine.site
    certificate = Certificate(purpose, key.spki, epoch).seal(certifier, site)
    return replace(
        genuine,
        epoch=epoch,
        counter=FAR_COUNTER,
        nonce=os.urandom(16),
        menu_version=genuine.menu_version + 1,
        menu_hash=os.urandom(32),
        certificate=certificate,
    ).seal(key)


def beacon_named_by(hello_frame: bytes) -> bytes:
    """The beacon hash inside a Hello."""
    return Hello.from_payload(parse_sign1(hello_frame, 1024).payload).beacon_hash


def beacon_hash(frame: bytes) -> bytes:
    """What a Hello would name that beacon by."""
    return sha256(frame).digest()
