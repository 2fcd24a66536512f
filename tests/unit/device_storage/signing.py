"""COSE_Sign1 frames signed with the fixture keys, made by libraries the device does not use."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

KEYS = Path(__file__).parents[3] / "fixtures" / "keys"


def private_key(name: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key((KEYS / f"{name}.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def spki(name: str) -> bytes:
    return (KEYS / f"{name}.spki.der").read_bytes()


def kid(name: str) -> bytes:
    return hashlib.sha256(spki(name)).digest()[:8]


def sign1(name: str, aad: list[Any], payload: bytes) -> bytes:
    """Return the tagged COSE_Sign1 of `payload` by the fixture key `name`, PS256, RFC 9052 section 4."""
    protected = cbor2.dumps({1: -37})
    structure = cbor2.dumps(["Signature1", protected, cbor2.dumps(aad), payload])
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    signature = private_key(name).sign(structure, pss, hashes.SHA256())
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {4: kid(name)}, payload, signature]))
