"""A menu store holding the demo menu, signed by the throw-away server key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from terminal.menu import CHUNK_BYTES, MenuStore
from terminal.wire.rsa import run_now

from server.wire.menufile import parse_menu

ROOT = Path(__file__).resolve().parents[3]


def menu_frame(site: str = "demo") -> bytes:
    """The demo menu as a COSE_Sign1 frame."""
    payload = parse_menu((ROOT / "fixtures" / "menu" / "demo.json").read_text()).payload()
    key = serialization.load_pem_private_key((ROOT / "fixtures/keys/server-sign.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    protected = cbor2.dumps({1: -37})
    aad = cbor2.dumps(["seal/1", "menu", site, ""])
    structure = cbor2.dumps(["Signature1", protected, aad, payload])
    signature = key.sign(structure, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    kid = hashlib.sha256((ROOT / "fixtures/keys/server-sign.spki.der").read_bytes()).digest()[:8]
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {4: kid}, payload, signature]))


def _trust(kid: bytes, digest: bytes, signature: bytes) -> Iterator[None]:
    """The store's signature check is tested with the store; here the frame is our own."""
    yield
    return True


def demo_store(root: Path) -> MenuStore:
    """A store in `root` whose current menu is the demo menu, version 1."""
    os.makedirs(root, exist_ok=True)
    store = MenuStore(str(root), "demo", _trust)
    frame = menu_frame()
    chunks = [frame[i : i + CHUNK_BYTES] for i in range(0, len(frame), CHUNK_BYTES)]
    store.begin(1, hashlib.sha256(frame).digest(), len(chunks))
    for index, chunk in enumerate(chunks):
        store.chunk(index, chunk)
    run_now(store.finish_steps())
    return store
