"""What the tests of the server's wire and device packages share: fixture keys, a clock, a small device."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any

from server.devices.beacons import Beacons
from server.devices.handshake import Handshake
from server.devices.keyfiles import load_signer
from server.devices.keys import KeyStore
from server.devices.records import DeviceRecord, DeviceState, IssuedBeacon, MenuReference
from server.wire import aad
from server.wire.cose import mac0, mac_prefix, parse_sign1
from server.wire.frames import Accept, Beacon, Hello
from server.wire.keyschedule import SessionKeys, derive, transcript_hash
from server.wire.ops import Line, Op, OpType, encode_op_message
from server.wire.rsa import RsaSigner, VerifyKey, load_public, oaep_encrypt

FIXTURES = Path(__file__).parents[3] / "fixtures"
SITE, DEVICE, TABLE = "demo", "t-0001", "4"
NOW = 1_800_000_000
MENU = MenuReference(7, sha256(b"a menu").digest())


@cache
def signer(name: str) -> RsaSigner:
    """Return a fixture key that can sign."""
    return load_signer(FIXTURES / "keys" / f"{name}.pem", 2048 if name.startswith("t-") else 3072)


@cache
def verify_key(name: str) -> VerifyKey:
    """Return a fixture key that can verify."""
    return VerifyKey(signer(name).spki, 2048 if name.startswith("t-") else 3072)


@cache
def vectors() -> dict[str, Any]:
    """Return the protocol vectors."""
    loaded: dict[str, Any] = json.loads((FIXTURES / "protocol" / "vectors.json").read_text())
    return loaded


def vector(name: str) -> dict[str, Any]:
    """Return one good frame of the vectors by its name."""
    found: dict[str, Any] = next(frame for frame in vectors()["frames"] if frame["name"] == name)
    return found


def vector_bytes(name: str) -> bytes:
    """Return the bytes of one good frame of the vectors."""
    return bytes.fromhex(vector(name)["hex"])


@dataclass
class ManualClock:
    """A clock that stands still until it is moved."""

    seconds: int = NOW

    def unix_time(self) -> int:
        return self.seconds


@dataclass
class SeededEntropy:
    """Reproducible bytes."""

    seed: bytes = b"tests"
    drawn: int = 0

    def random(self, count: int) -> bytes:
        self.drawn += 1
        return shake_256(self.seed + self.drawn.to_bytes(8, "big")).digest(count)


@dataclass
class MemoryLog:
    """A beacon log that survives a restart of the objects above it."""

    beacons: list[IssuedBeacon] = field(default_factory=list)

    def load(self) -> list[IssuedBeacon]:
        return list(self.beacons)

    def append(self, beacon: IssuedBeacon) -> None:
        self.beacons.append(beacon)


@dataclass
class Site:
    """The server's half for one site, with everything it is made of."""

    keystore: KeyStore
    clock: ManualClock = field(default_factory=ManualClock)
    entropy: SeededEntropy = field(default_factory=SeededEntropy)
    log: MemoryLog = field(default_factory=MemoryLog)

    def __post_init__(self) -> None:
        self.beacons = Beacons(SITE, self.keystore, self.log, self.clock, self.entropy)
        self.handshake = Handshake(self.keystore, self.beacons, self.clock, self.entropy)

    @staticmethod
    def record(name: str = DEVICE, **changes: Any) -> DeviceRecord:
        fields: dict[str, Any] = {
            "site": SITE,
            "device": name,
            "table": TABLE,
            "state": DeviceState.ACTIVE,
            "spki": signer(name).spki,
        }
        return DeviceRecord(**fields | changes)


@dataclass
class Device:
    """The device's half, as far as a server test needs one."""

    name: str = DEVICE
    site: str = SITE
    key: str = ""
    secret: bytes = bytes(range(32))
    nonce: bytes = bytes(range(16))

    def hello(self, beacon_frame: bytes, handshake: int = 1, **changes: Any) -> bytes:
        beacon = Beacon.from_payload(_payload(beacon_frame))
        label = aad.oaep_label(self.site, self.name)
        fields: dict[str, Any] = {
            "device": self.name,
            "handshake": handshake,
            "nonce_device": self.nonce,
            "beacon_counter": beacon.counter,
            "beacon_hash": sha256(beacon_frame).digest(),
            "secret": oaep_encrypt(load_public(beacon.decrypt_spki, 2048), self.secret, label),
            "firmware": 256,
            "menu_version": 7,
            "pending": 0,
        }
        return Hello(**fields | changes).seal(signer(self.key or self.name), self.site)

    def keys(self, beacon_frame: bytes, hello_frame: bytes, accept_frame: bytes) -> SessionKeys:
        transcript = transcript_hash(beacon_frame, hello_frame)
        nonce_server = Accept.nonce_of(accept_frame)
        return derive(self.secret, self.nonce, nonce_server, self.site, self.name, transcript)


def _payload(beacon_frame: bytes) -> bytes:
    return parse_sign1(beacon_frame, 2048).payload


def an_op(number: int = 1, **changes: Any) -> Op:
    """Return an order of one line."""
    fields: dict[str, Any] = {
        "type": OpType.ORDER,
        "op_id": number.to_bytes(12, "big"),
        "table": TABLE,
        "lines": (Line(1, 2),),
        "menu_version": 7,
        "total_minor": 520,
    }
    return Op(**fields | changes)


def op_frame(
    keys: SessionKeys, sid: bytes, seq: int, op_bytes: bytes, site: str = SITE, device: str = DEVICE
) -> bytes:
    """Return an op-frame as the device makes it."""
    prefix = mac_prefix(aad.op(site, device, sid, keys.th8))
    return mac0(keys.device_to_server, sid, encode_op_message(seq, op_bytes), prefix)
