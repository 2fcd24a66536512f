"""The server's half of the handshake: from a Hello's or a Resume's bytes to a session row and the Accept.

Pure: nothing is stored here. The caller stores the whole result in one transaction (which also deletes the
device's older session) and publishes `accept` only after that commit.
"""

from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from server.devices.beacons import Beacons
from server.devices.keys import KeyStore
from server.devices.records import (
    CLOCK_STEP_S,
    RESUME_CHAIN_S,
    SESSION_TTL_S,
    DeviceRecord,
    DeviceState,
    MenuReference,
    SessionRow,
)
from server.devices.seams import Clock, Entropy
from server.wire import aad
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import HELLO_MAX_BYTES, SID_BYTES, Accept, Hello
from server.wire.keyschedule import NONCE_BYTES, SECRET_BYTES, SessionKeys, derive, transcript_hash
from server.wire.resume import Resume, is_resume
from server.wire.rsa import VerifyKey, oaep_decrypt


@dataclass(frozen=True)
class HandshakeResult:
    """What a good Hello or Resume leads to.

    `session` is None where the identical bytes came again: then `accept` is the stored answer and nothing
    is stored.
    """

    handshake: int
    hello_hash: bytes
    accept: bytes
    session: SessionRow | None

    @property
    def repeated(self) -> bool:
        """Whether this is the stored answer to a Hello that came again."""
        return self.session is None


class Handshake:
    """Judges Hellos and prepares sessions; `window` is the number of ops a device may have in flight."""

    def __init__(
        self,
        keystore: KeyStore,
        beacons: Beacons,
        clock: Clock,
        entropy: Entropy,
        window: int = 32,
        ttl_s: int = SESSION_TTL_S,
    ) -> None:
        self._keystore = keystore
        self._beacons = beacons
        self._clock = clock
        self._entropy = entropy
        self._window = window
        self._ttl_s = ttl_s

    def prepare(self, device: DeviceRecord, frame: bytes, menu: MenuReference) -> HandshakeResult:
        """Judge one Hello or Resume of the device whose authenticated connection it came from.

        `menu` is what is published now. Costs one RSA-3072 signature, and for a Hello one RSA-2048
        verification and decryption (about 3 ms): call it outside the event loop, after the rate limit.
        Raises: Refusal; whatever the code, the device gets `server.wire.frames.hello_refused` and nothing
        else.
        """
        if device.state is not DeviceState.ACTIVE:
            raise Refusal(RefusalCode.DEVICE_NOT_ACTIVE, f"the device is {device.state}")
        if len(frame) > HELLO_MAX_BYTES:
            raise Refusal(RefusalCode.TOO_LARGE, "the Hello is too long")
        hello_hash = sha256(frame).digest()
        if is_resume(frame):
            return self._resume(device, frame, hello_hash, menu)
        hello = Hello.open(frame, VerifyKey(device.spki, 2048), device.site, device.device)
        if hello.handshake <= device.handshake:
            return self._repeat(device, hello, hello_hash)
        beacon = self._beacons.find(hello.beacon_counter, hello.beacon_hash)
        transcript = transcript_hash(beacon.frame, frame)
        secret, readable = self._secret(beacon.decrypt_kid, hello.secret, device)
        nonce_server = self._entropy.random(NONCE_BYTES)
        keys = derive(secret, hello.nonce_device, nonce_server, device.site, device.device, transcript)
        now = self._clock.unix_time()
        result = self._result(device, hello, hello_hash, nonce_server, keys, menu, rsa_at=now)
        if not readable:  # only here, after the same work as for a good Hello
            raise Refusal(RefusalCode.BAD_SECRET, "the session secret could not be decrypted")
        return result

    def _resume(
        self, device: DeviceRecord, frame: bytes, hello_hash: bytes, menu: MenuReference
    ) -> HandshakeResult:
        """Judge a Resume; the very bytes that were accepted last get their Accept again."""
        if hello_hash == device.hello_hash and device.accept is not None:
            return HandshakeResult(device.handshake, hello_hash, device.accept, None)
        parsed = Resume.parse(frame)
        known = device.resume
        if known is None or not compare_digest(known.sid, parsed.identifier):
            raise Refusal(RefusalCode.UNKNOWN_SESSION, "the Resume names a session that is not there")
        resume = Resume.open(parsed, known.key, device.site, device.device)
        if resume.handshake <= device.handshake:
            raise Refusal(RefusalCode.STALE_HANDSHAKE, "the handshake counter was used before")
        age_s = self._clock.unix_time() - known.rsa_at
        if age_s > RESUME_CHAIN_S:
            raise Refusal(RefusalCode.RESUME_TOO_OLD, "the last Hello is over 24 hours ago")
        if age_s < -CLOCK_STEP_S:  # the clock was ahead then: nobody knows how old the chain is
            raise Refusal(RefusalCode.RESUME_TOO_OLD, "the last Hello is dated after now")
        beacon = self._beacons.find(resume.beacon_counter, resume.beacon_hash)
        transcript = transcript_hash(beacon.frame, frame)
        nonce_server = self._entropy.random(NONCE_BYTES)
        keys = derive(known.key, resume.nonce_device, nonce_server, device.site, device.device, transcript)
        return self._result(device, resume, hello_hash, nonce_server, keys, menu, rsa_at=known.rsa_at)

    @staticmethod
    def _repeat(device: DeviceRecord, hello: Hello, hello_hash: bytes) -> HandshakeResult:
        same = hello.handshake == device.handshake and hello_hash == device.hello_hash
        if not same or device.accept is None:
            raise Refusal(RefusalCode.STALE_HANDSHAKE, "the handshake counter was used before")
        return HandshakeResult(hello.handshake, hello_hash, device.accept, None)

    def _secret(self, decrypt_kid: bytes, ciphertext: bytes, device: DeviceRecord) -> tuple[bytes, bool]:
        """Return the secret and whether it is the device's; a random one where decryption failed."""
        substitute = self._entropy.random(SECRET_BYTES)
        key = self._keystore.decrypt_key(decrypt_kid)
        secret = oaep_decrypt(key, ciphertext, aad.oaep_label(device.site, device.device))
        readable = secret is not None and len(secret) == SECRET_BYTES
        return (secret if readable and secret is not None else substitute), readable

    def _result(
        self,
        device: DeviceRecord,
        hello: Hello | Resume,
        hello_hash: bytes,
        nonce_server: bytes,
        keys: SessionKeys,
        menu: MenuReference,
        *,
        rsa_at: int,
    ) -> HandshakeResult:
        now = self._clock.unix_time()
        accept = Accept(
            sid=self._entropy.random(SID_BYTES),
            nonce_server=nonce_server,
            hello_hash=hello_hash,
            time=now,
            ttl_s=self._ttl_s,
            window=self._window,
            table=device.table,
            menu_version=menu.version,
            menu_hash=menu.hash,
            committed=device.committed,
        )
        frame = accept.seal(
            self._keystore.server_sign, keys.server_to_device, device.site, device.device, keys.th8
        )
        session = SessionRow(
            site=device.site,
            device=device.device,
            sid=accept.sid,
            k_d2s=keys.device_to_server,
            k_s2d=keys.server_to_device,
            k_resume=keys.resume,
            th8=keys.th8,
            created_at=now,
            expires_at=now + self._ttl_s,
            hello_hash=hello_hash,
            accept=frame,
            handshake=hello.handshake,
            rsa_at=rsa_at,
        )
        return HandshakeResult(hello.handshake, hello_hash, frame, session)
