"""Gives a terminal its identity: the provisioning record in its flash and the row in the server's registry.

The record is b"TSID", a big-endian u32 length, deterministic CBOR and its CRC-32. Device keys come from the
pool of throw-away keys in fixtures/keys: generating RSA keys in every run would cost seconds, to no end.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from bench.boards.base import Board, Identity
from bench.boards.flashmap import SECTOR_BYTES
from bench.errors import BenchError
from bench.paths import FIXTURE_KEYS

RECORD_MAGIC = b"TSID"
RECORD_VERSION = 1


@dataclass(frozen=True)
class Endpoint:
    """Where the terminal finds its broker."""

    host: str
    port: int


def key_pool() -> Sequence[Path]:
    """The throw-away device keys, in order."""
    return sorted(FIXTURE_KEYS.glob("t-*.pem"))


def identity(number: int, site: str = "demo", table: str | None = None) -> Identity:
    """Identity of the n-th terminal (from 1): device t-000n at table n, with a throw-away key.

    Raises: BenchError when the pool has no such key.
    """
    pool = key_pool()
    if not 1 <= number <= len(pool):
        raise BenchError(
            "NO_DEVICE_KEY",
            f"fixtures/keys has {len(pool)} device keys, none is number {number}: run fixtures/make_keys.py.",
        )
    device = pool[number - 1].stem
    password = hashlib.sha256(f"throw-away password of {device}".encode()).hexdigest()[:24]
    return Identity(site, device, table or str(number), password, pool[number - 1].read_bytes())


def private_key(who: Identity) -> RSAPrivateKey:
    """The identity's key, ready to use."""
    key = load_pem_private_key(who.private_key_pem, password=None)
    if not isinstance(key, RSAPrivateKey):
        raise BenchError("BAD_KEY", f"The key of {who.device} is not an RSA key.")
    return key


def public_spki(who: Identity) -> bytes:
    """DER SubjectPublicKeyInfo of the device key, as the server registers it."""
    return private_key(who).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def root_spki() -> bytes:
    """DER SubjectPublicKeyInfo of the throw-away root."""
    path = FIXTURE_KEYS / "root.pub.der"
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError("NO_ROOT_KEY", f"{path} is missing: run fixtures/make_keys.py.") from error


def record(who: Identity, broker: Endpoint, root: bytes) -> bytes:
    """The provisioning record."""
    numbers = private_key(who).private_numbers()
    public = numbers.public_numbers
    parts = (public.n, public.e, numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    key = [part.to_bytes((part.bit_length() + 7) // 8, "big") for part in parts]
    body = cbor2.dumps(
        [RECORD_VERSION, who.site, who.device, who.table, who.password, broker.host, broker.port, root, key],
        canonical=True,
    )
    return RECORD_MAGIC + len(body).to_bytes(4, "big") + body + binascii.crc32(body).to_bytes(4, "big")


def copies(one: bytes) -> bytes:
    """The identity region (without the erased rest): each of its two sectors holds the whole record."""
    if len(one) > SECTOR_BYTES:
        raise BenchError(
            "DOES_NOT_FIT", f"The record of {len(one)} bytes does not fit a sector of {SECTOR_BYTES}."
        )
    return one.ljust(SECTOR_BYTES, b"\xff") + one


def provision(board: Board, who: Identity, broker: Endpoint) -> None:
    """Write the record into a board that is off, and remember who it is now.

    Raises: BenchError when the board's flash is out of the bench's reach.
    """
    if board.flash is None:
        raise BenchError(
            "NO_FLASH_ACCESS",
            f"The bench cannot write the flash of a {board.kind} board: use tableside firmware provision.",
        )
    board.flash.erase("identity")
    board.flash.write("identity", copies(record(who, broker, root_spki())))
    board.identity = who
