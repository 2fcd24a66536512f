"""Where the firmware and the fixtures are, and the fixture keys."""

from __future__ import annotations

import functools
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "fixtures"
FIRMWARE = ROOT / "firmware"
SCRIPTS = Path(__file__).parent / "scripts"


@functools.cache
def load_key(name: str) -> RSAPrivateKey:
    pem = (FIXTURES / "keys" / f"{name}.pem").read_bytes()
    key = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, RSAPrivateKey)
    return key


def load_spki(name: str) -> bytes:
    return (FIXTURES / "keys" / f"{name}.spki.der").read_bytes()
