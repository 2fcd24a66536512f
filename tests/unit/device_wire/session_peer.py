"""An order server's half of the handshake, small and independent of both products."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from terminal.wire import rsa
from wire_fixtures import load_key, load_spki

SITE, DEVICE, TABLE = "demo", "t-0001", "4"
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
PS256, HMAC_256 = {1: -37}, {1: 5}


def aad(kind: str, *rest: Any) -> bytes:
    return cbor2.dumps(["seal/1", kind, *rest])


def sign1(key_name: str, external_aad: bytes, payload: bytes) -> bytes:
    protected = cbor2.dumps(PS256)
    kid = hashlib.sha256(load_spki(key_name)).digest()[:8]
    signature = load_key(key_name).sign(
        cbor2.dumps(["Signature1", protected, external_aad, payload]), PSS, hashes.SHA256()
    )
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {4: kid}, payload, signature]))


def mac0(key: bytes, key_id: bytes, external_aad: bytes, payload: bytes) -> bytes:
    protected = cbor2.dumps(HMAC_256)
    tag = hmac.digest(key, cbor2.dumps(["MAC0", protected, external_aad, payload]), "sha256")
    return cbor2.dumps(cbor2.CBORTag(17, [protected, {4: key_id}, payload, tag]))


def certificate(
    key_name: str = "server-sign",
    *,
    purpose: str = "server-sign",
    epoch: int = 1,
    signer: str = "root",
    site: str = SITE,
) -> bytes:
    spki = load_spki(key_name)
    payload = cbor2.dumps([purpose, hashlib.sha256(spki).digest()[:8], spki, epoch])
    return sign1(signer, aad("cert", site, ""), payload)


@dataclass
class Counters:
    """The device's persistent counters, with a log of what was stored when."""

    mark: tuple[int, int] = (0, 0)
    handshake: int = 0
    log: list[str] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)

    def beacon(self) -> tuple[int, int]:
        return self.mark

    def store_beacon(self, epoch: int, counter: int) -> None:
        self.mark = (epoch, counter)
        self.log.append("beacon")

    def next_handshake(self) -> int:
        self.handshake += 1
        self.log.append("handshake")
        return self.handshake

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value
        self.log.append(key)


def identity() -> Any:
    """What provisioning would have written for t-0001."""
    numbers = load_key(DEVICE).private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    private = rsa.PrivateKey.from_parts(n, e, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    return SimpleNamespace(site=SITE, device=DEVICE, table=TABLE, private=private)


@dataclass
class Hello:
    """A Hello as the server reads it, and the keys that follow from it."""

    fields: list[Any]
    frame: bytes
    nonce_s: bytes
    th8: bytes
    keys: dict[str, bytes]


class Server:
    """Issues beacons, reads Hellos, answers them; every answer can be bent."""

    def __init__(self, *, epoch: int = 1, key_name: str = "server-sign") -> None:
        self.epoch = epoch
        self.counter = 0
        self.key_name = key_name
        self.sid = os.urandom(4)

    def beacon(self, **changes: Any) -> bytes:
        self.counter += 1
        values = {
            "site": SITE,
            "epoch": self.epoch,
            "counter": self.counter,
            "time": 1_800_000_000 + 30 * self.counter,
            "nonce": os.urandom(16),
            "decrypt": load_spki("server-decrypt"),
            "menu_version": 1,
            "menu_hash": b"\x11" * 32,
            "minimum_firmware": 256,
            "certificate": certificate(self.key_name, epoch=self.epoch),
        }
        signer = changes.pop("signer", self.key_name)
        values.update(changes)
        return sign1(signer, aad("beacon", values["site"], ""), cbor2.dumps(list(values.values())))

    def read_hello(self, beacon: bytes, frame: bytes) -> Hello:
        envelope = cbor2.loads(frame)
        protected, unprotected, payload, signature = envelope.value
        assert envelope.tag == 18
        assert cbor2.loads(protected) == PS256
        assert unprotected == {4: hashlib.sha256(load_spki(DEVICE)).digest()[:8]}
        to_verify = cbor2.dumps(["Signature1", protected, aad("hello", SITE, DEVICE), payload])
        load_key(DEVICE).public_key().verify(signature, to_verify, PSS, hashes.SHA256())
        fields = cbor2.loads(payload)
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), aad("oaep", SITE, DEVICE))
        secret = load_key("server-decrypt").decrypt(fields[5], scheme)
        return self._keys_of(beacon, frame, fields, secret)

    def read_resume(self, beacon: bytes, frame: bytes, old: Hello) -> Hello:
        """Open a Resume of the session that `old` began; its sid must be this server's."""
        envelope = cbor2.loads(frame)
        protected, unprotected, payload, tag = envelope.value
        assert envelope.tag == 17
        assert cbor2.loads(protected) == HMAC_256
        assert unprotected == {4: self.sid}
        to_mac = cbor2.dumps(["MAC0", protected, aad("resume", SITE, DEVICE, self.sid), payload])
        assert hmac.compare_digest(tag, hmac.digest(old.keys["resume"], to_mac, "sha256"))
        return self._keys_of(beacon, frame, cbor2.loads(payload), old.keys["resume"])

    @staticmethod
    def _keys_of(beacon: bytes, frame: bytes, fields: list[Any], secret: bytes) -> Hello:
        nonce_s = os.urandom(16)
        transcript = hashlib.sha256(beacon + frame).digest()
        prk = hmac.digest(fields[2] + nonce_s, secret, "sha256")
        keys = {
            use: HKDFExpand(
                hashes.SHA256(), 32, cbor2.dumps(["seal/1", use, SITE, DEVICE, transcript])
            ).derive(prk)
            for use in ("d2s", "s2d", "resume")
        }
        return Hello(fields, frame, nonce_s, transcript[:8], keys)

    def accept(self, hello: Hello, **changes: Any) -> bytes:
        values = {
            "sid": self.sid,
            "nonce_s": hello.nonce_s,
            "hello_hash": hashlib.sha256(hello.frame).digest(),
            "time": 1_800_000_000,
            "ttl_s": 43200,
            "window": 8,
            "table": TABLE,
            "menu_version": 1,
            "menu_hash": b"\x11" * 32,
            "committed": 0,
        }
        signer = changes.pop("signer", self.key_name)
        inner_aad = changes.pop("inner_aad", aad("accept", SITE, DEVICE))
        key = changes.pop("key", hello.keys["s2d"])
        values.update(changes)
        signed = sign1(signer, inner_aad, cbor2.dumps(list(values.values())))
        return mac0(key, hello.nonce_s, aad("accept", SITE, DEVICE, hello.th8), signed)

    def read_op(self, hello: Hello, frame: bytes) -> tuple[int, Any]:
        protected, unprotected, payload, tag = cbor2.loads(frame).value
        assert unprotected == {4: self.sid}
        to_mac = cbor2.dumps(["MAC0", protected, aad("op", SITE, DEVICE, self.sid, hello.th8), payload])
        assert hmac.compare_digest(tag, hmac.digest(hello.keys["d2s"], to_mac, "sha256"))
        sequence, op = cbor2.loads(payload)
        return sequence, op

    def reply(self, hello: Hello, op_id: bytes, *fields: int, kind: str = "reply", key: str = "s2d") -> bytes:
        payload = cbor2.dumps([op_id, *fields, b"\x22" * 32])
        external_aad = aad(kind, SITE, DEVICE, self.sid, hello.th8)
        return mac0(hello.keys[key], self.sid, external_aad, payload)
