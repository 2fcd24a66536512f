"""What the terminal's wire tests share: the firmware on the import path, the vectors, the fixture keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "fixtures"
FIRMWARE = ROOT / "firmware"
SCRIPTS = Path(__file__).parent / "scripts"

for folder in (FIRMWARE, SCRIPTS, Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / "protocol" / "vectors.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def frames(vectors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {frame["name"]: frame for frame in vectors["frames"]}


def load_key(name: str) -> RSAPrivateKey:
    key = load_pem_private_key((FIXTURES / "keys" / f"{name}.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def load_spki(name: str) -> bytes:
    return (FIXTURES / "keys" / f"{name}.spki.der").read_bytes()
