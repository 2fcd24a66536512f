"""Frames that make a session: certificate, beacon, Hello, Accept; and the two small ones, hint and presence.

Each frame is a frozen dataclass. `payload()` gives the bytes that are signed or MACed, `from_payload`
judges them, `seal` and `open` add the envelope. The shapes and limits are those of
`fixtures/protocol/seal.cddl`.
"""

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from server.wire import aad, shapes
from server.wire.cbor import decode, encode
from server.wire.cose import mac0, mac_prefix, parse_mac0, parse_sign1, sign1, verify_mac0, verify_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.keyschedule import NONCE_BYTES
from server.wire.rsa import KID_BYTES, SPKI_BYTES, Signer, VerifyKey, kid_of

HASH_BYTES = 32
SID_BYTES = 4
OAEP_BYTES = 256
CERTIFICATE_MAX_BYTES = 1024
BEACON_MAX_BYTES = 2048
HELLO_MAX_BYTES = 1024
ACCEPT_MAX_BYTES = 1024
SMALL_MAX_BYTES = 64

SERVER_SIGN = "server-sign"
RELEASE = "release"


@dataclass(frozen=True)
class Certificate:
    """The root key's word that `spki` (DER, RSA-3072) may serve `purpose` in `epoch`."""

    purpose: str
    spki: bytes
    epoch: int

    @property
    def kid(self) -> bytes:
        """Key id of the certified key, 8 bytes."""
        return kid_of(self.spki)

    def seal(self, root: Signer, site: str) -> bytes:
        """Return the cert-frame; `site` is "" for release keys."""
        return sign1(root, encode([self.purpose, self.kid, self.spki, self.epoch]), aad.certificate(site))

    @classmethod
    def open(cls, frame: bytes, root: VerifyKey, site: str, purpose: str) -> "Certificate":
        """Return the certificate in a cert-frame. Raises: Refusal, BAD_CERTIFICATE for another purpose."""
        return cls._read(verify_sign1(frame, root, aad.certificate(site), CERTIFICATE_MAX_BYTES), purpose)

    @classmethod
    def claimed(cls, frame: bytes, purpose: str) -> "Certificate":
        """Return what a cert-frame says without verifying who signed it. Raises: Refusal as `open` does."""
        return cls._read(parse_sign1(frame, CERTIFICATE_MAX_BYTES).payload, purpose)

    @classmethod
    def _read(cls, payload: bytes, purpose: str) -> "Certificate":
        fields = shapes.array(decode(payload, CERTIFICATE_MAX_BYTES), 4, 4, "cert")
        kid = shapes.exactly(fields[1], KID_BYTES, "cert kid")
        spki = shapes.exactly(fields[2], SPKI_BYTES[3072], "cert spki")
        epoch = shapes.u32(fields[3], "cert epoch")
        if fields[0] != purpose or kid != kid_of(spki):
            raise Refusal(RefusalCode.BAD_CERTIFICATE, f"the certificate is not one for {purpose}")
        return cls(purpose, spki, epoch)

    def verify_key(self) -> VerifyKey:
        """Return the certified key, ready to judge signatures. Raises: Refusal(BAD_KEY)."""
        return VerifyKey(self.spki, 3072)


@dataclass(frozen=True)
class Beacon:
    """What the site says about itself every 30 seconds; `time` is in unix seconds."""

    site: str
    epoch: int
    counter: int
    time: int
    nonce: bytes
    decrypt_spki: bytes
    menu_version: int
    menu_hash: bytes
    minimum_firmware: int
    certificate: bytes

    def seal(self, signer: Signer) -> bytes:
        """Return the beacon-frame."""
        payload = encode(
            [
                self.site,
                self.epoch,
                self.counter,
                self.time,
                self.nonce,
                self.decrypt_spki,
                self.menu_version,
                self.menu_hash,
                self.minimum_firmware,
                self.certificate,
            ]
        )
        return sign1(signer, payload, aad.beacon(self.site))

    @classmethod
    def from_payload(cls, payload: bytes) -> "Beacon":
        """Judge a beacon's shape. Raises: Refusal(TOO_LARGE, BAD_ENCODING, BAD_SHAPE)."""
        f = shapes.array(decode(payload, BEACON_MAX_BYTES), 10, 10, "beacon")
        return cls(
            site=shapes.identifier(f[0], "beacon site"),
            epoch=shapes.u32(f[1], "beacon epoch"),
            counter=shapes.u32(f[2], "beacon counter"),
            time=shapes.integer(f[3], 0, shapes.UNIX_TIME_MAX, "beacon time"),
            nonce=shapes.exactly(f[4], NONCE_BYTES, "beacon nonce"),
            decrypt_spki=shapes.exactly(f[5], SPKI_BYTES[2048], "beacon decrypt key"),
            menu_version=shapes.u32(f[6], "beacon menu version"),
            menu_hash=shapes.exactly(f[7], HASH_BYTES, "beacon menu hash"),
            minimum_firmware=shapes.u32(f[8], "beacon minimum firmware"),
            certificate=shapes.binary(f[9], 1, CERTIFICATE_MAX_BYTES, "beacon certificate"),
        )

    @classmethod
    def open(cls, frame: bytes, root: VerifyKey, site: str) -> tuple["Beacon", VerifyKey]:
        """Judge a beacon-frame as a device does: shape, certificate by `root`, signature, site, epoch.

        Returns the beacon and the server-sign key it certifies. Raises: Refusal.
        """
        beacon = cls.from_payload(parse_sign1(frame, BEACON_MAX_BYTES).payload)
        if beacon.site != site:
            raise Refusal(RefusalCode.WRONG_SITE, "the beacon belongs to another site")
        certificate = Certificate.open(beacon.certificate, root, site, SERVER_SIGN)
        if certificate.epoch != beacon.epoch:
            raise Refusal(RefusalCode.BAD_CERTIFICATE, "beacon and certificate name different epochs")
        key = certificate.verify_key()
        verify_sign1(frame, key, aad.beacon(site), BEACON_MAX_BYTES)
        return beacon, key


@dataclass(frozen=True)
class Hello:
    """A device's wish for a session, signed by its own key."""

    device: str
    handshake: int
    nonce_device: bytes
    beacon_counter: int
    beacon_hash: bytes
    secret: bytes
    firmware: int
    menu_version: int
    pending: int

    def payload(self) -> bytes:
        """Return the signed bytes."""
        return encode(
            [
                self.device,
                self.handshake,
                self.nonce_device,
                self.beacon_counter,
                self.beacon_hash,
                self.secret,
                self.firmware,
                self.menu_version,
                self.pending,
            ]
        )

    def seal(self, signer: Signer, site: str) -> bytes:
        """Return the hello-frame."""
        return sign1(signer, self.payload(), aad.hello(site, self.device))

    @classmethod
    def from_payload(cls, payload: bytes) -> "Hello":
        """Judge a Hello's shape. Raises: Refusal(TOO_LARGE, BAD_ENCODING, BAD_SHAPE)."""
        f = shapes.array(decode(payload, HELLO_MAX_BYTES), 9, 9, "hello")
        return cls(
            device=shapes.identifier(f[0], "hello device"),
            handshake=shapes.u32(f[1], "hello handshake counter"),
            nonce_device=shapes.exactly(f[2], NONCE_BYTES, "hello nonce"),
            beacon_counter=shapes.u32(f[3], "hello beacon counter"),
            beacon_hash=shapes.exactly(f[4], HASH_BYTES, "hello beacon hash"),
            secret=shapes.exactly(f[5], OAEP_BYTES, "hello secret"),
            firmware=shapes.u32(f[6], "hello firmware"),
            menu_version=shapes.u32(f[7], "hello menu version"),
            pending=shapes.u32(f[8], "hello pending count"),
        )

    @classmethod
    def open(cls, frame: bytes, key: VerifyKey, site: str, device: str) -> "Hello":
        """Return the Hello that `device` signed with `key` for `site`. Raises: Refusal."""
        payload = verify_sign1(frame, key, aad.hello(site, device), HELLO_MAX_BYTES)
        hello = cls.from_payload(payload)
        if hello.device != device:
            raise Refusal(RefusalCode.WRONG_DEVICE, "the Hello names another device than its connection")
        return hello


@dataclass(frozen=True)
class Accept:
    """The server's word that a session exists; `time` in unix seconds, `window` in ops in flight."""

    sid: bytes
    nonce_server: bytes
    hello_hash: bytes
    time: int
    ttl_s: int
    window: int
    table: str
    menu_version: int
    menu_hash: bytes
    committed: int

    def seal(self, signer: Signer, mac_key: bytes, site: str, device: str, th8: bytes) -> bytes:
        """Return the accept-frame: signed by server-sign, then MACed with the new server-to-device key."""
        payload = encode(
            [
                self.sid,
                self.nonce_server,
                self.hello_hash,
                self.time,
                self.ttl_s,
                self.window,
                self.table,
                self.menu_version,
                self.menu_hash,
                self.committed,
            ]
        )
        signed = sign1(signer, payload, aad.accept_signed(site, device))
        return mac0(mac_key, self.nonce_server, signed, mac_prefix(aad.accept(site, device, th8)))

    @classmethod
    def from_payload(cls, payload: bytes) -> "Accept":
        """Judge an Accept's shape. Raises: Refusal(TOO_LARGE, BAD_ENCODING, BAD_SHAPE)."""
        f = shapes.array(decode(payload, ACCEPT_MAX_BYTES), 10, 10, "accept")
        return cls(
            sid=shapes.exactly(f[0], SID_BYTES, "accept sid"),
            nonce_server=shapes.exactly(f[1], NONCE_BYTES, "accept nonce"),
            hello_hash=shapes.exactly(f[2], HASH_BYTES, "accept hello hash"),
            time=shapes.integer(f[3], 0, shapes.UNIX_TIME_MAX, "accept time"),
            ttl_s=shapes.u32(f[4], "accept ttl"),
            window=shapes.integer(f[5], 1, 255, "accept window"),
            table=shapes.identifier(f[6], "accept table"),
            menu_version=shapes.u32(f[7], "accept menu version"),
            menu_hash=shapes.exactly(f[8], HASH_BYTES, "accept menu hash"),
            committed=shapes.u32(f[9], "accept committed count"),
        )

    @staticmethod
    def nonce_of(frame: bytes) -> bytes:
        """Return nonce_S, which travels in the clear because the keys depend on it. Raises: Refusal."""
        return parse_mac0(frame, NONCE_BYTES, ACCEPT_MAX_BYTES).identifier

    @classmethod
    def open(
        cls, frame: bytes, key: VerifyKey, mac_key: bytes, site: str, device: str, th8: bytes
    ) -> "Accept":
        """Judge an accept-frame as a device does: MAC, signature, and the same nonce inside and outside."""
        outer = parse_mac0(frame, NONCE_BYTES, ACCEPT_MAX_BYTES)
        verify_mac0(outer, mac_key, mac_prefix(aad.accept(site, device, th8)))
        payload = verify_sign1(outer.payload, key, aad.accept_signed(site, device), ACCEPT_MAX_BYTES)
        accept = cls.from_payload(payload)
        if accept.nonce_server != outer.identifier:
            raise Refusal(RefusalCode.BAD_SHAPE, "the Accept names two different nonces")
        return accept


class HintStatus(IntEnum):
    """Unauthenticated hints; a device may retry or shake hands again on one, and nothing else."""

    RATE_LIMITED = 16
    UNKNOWN_SESSION = 17
    HELLO_REFUSED = 18


@dataclass(frozen=True)
class Hint:
    """An unauthenticated word to a device about `ref` (at most 16 bytes); `arg` is e.g. a retry in ms."""

    status: int
    ref: bytes
    arg: int

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([int(self.status), self.ref, self.arg])

    @classmethod
    def decode(cls, frame: bytes) -> "Hint":
        """Judge a hint. Raises: Refusal."""
        f = shapes.array(decode(frame, SMALL_MAX_BYTES), 3, 3, "hint")
        return cls(
            shapes.integer(f[0], 16, 31, "hint status"),
            shapes.binary(f[1], 0, 16, "hint ref"),
            shapes.u32(f[2], "hint arg"),
        )


def hello_reference(hello_frame: bytes) -> bytes:
    """Return what a hint about a Hello refers to: the first 8 bytes of the frame's SHA-256."""
    return sha256(hello_frame).digest()[:8]


def hello_refused(hello_frame: bytes) -> bytes:
    """Return the one answer every bad Hello gets."""
    return Hint(HintStatus.HELLO_REFUSED, hello_reference(hello_frame), 0).encode()


def hello_rate_limited(hello_frame: bytes, retry_ms: int) -> bytes:
    """Return the hint that a Hello came too early; `retry_ms` in milliseconds."""
    return Hint(HintStatus.RATE_LIMITED, hello_reference(hello_frame), retry_ms).encode()


def unknown_session(sid: bytes) -> bytes:
    """Return the hint that asks for a new handshake."""
    return Hint(HintStatus.UNKNOWN_SESSION, sid, 0).encode()


@dataclass(frozen=True)
class Presence:
    """A terminal's retained state, and its last will (offline). Not authenticated: for views only."""

    online: bool
    running: int
    menu_version: int
    pending: int

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([int(self.online), self.running, self.menu_version, self.pending])

    @classmethod
    def decode(cls, frame: bytes) -> "Presence":
        """Judge a presence frame. Raises: Refusal."""
        f = shapes.array(decode(frame, SMALL_MAX_BYTES), 4, 4, "presence")
        return cls(
            shapes.integer(f[0], 0, 1, "presence online") == 1,
            shapes.u32(f[1], "presence firmware"),
            shapes.u32(f[2], "presence menu version"),
            shapes.u32(f[3], "presence pending count"),
        )
