"""Is there an update? The question with a nonce, and the answer that only this question can have.

Who replays yesterday's offer, or swallows today's, cannot make a terminal believe that it is up to date: the
answer repeats the terminal's nonce under the session's key.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.wire import aad, shapes
from server.wire.cbor import decode, encode
from server.wire.cose import mac0, mac_prefix, parse_mac0, verify_mac0
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import SID_BYTES, SMALL_MAX_BYTES
from server.wire.keyschedule import NONCE_BYTES
from server.wire.updates import REFERENCE_BYTES

_HARDWARE_MAX_BYTES = 32
_FRESH_MAX_BYTES = 128


@dataclass(frozen=True, slots=True)
class OtaAsk:
    """A terminal's question; ``key_epoch`` is that of the newest release key it knows, 0 for none.

    Not authenticated: it decides what is offered, never what is installed.
    """

    nonce: bytes
    hardware: str
    running: int
    key_epoch: int

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([self.nonce, self.hardware, self.running, self.key_epoch])

    @classmethod
    def decode(cls, frame: bytes) -> OtaAsk:
        """Judge a question. Raises: Refusal."""
        f = shapes.array(decode(frame, SMALL_MAX_BYTES), 4, 4, "ota-ask")
        return cls(
            shapes.exactly(f[0], NONCE_BYTES, "ota-ask nonce"),
            shapes.text(f[1], 1, _HARDWARE_MAX_BYTES, "ota-ask hardware"),
            shapes.u32(f[2], "ota-ask running"),
            shapes.u32(f[3], "ota-ask key epoch"),
        )


@dataclass(frozen=True, slots=True)
class OtaFresh:
    """The answer: the one bundle this terminal shall run now (8 bytes and its version), or b"" and 0."""

    nonce: bytes
    ref: bytes
    version: int

    def seal(self, mac_key: bytes, site: str, device: str, sid: bytes, th8: bytes) -> bytes:
        """Return the fresh-frame under the session's server-to-device key."""
        payload = encode([self.nonce, self.ref, self.version])
        return mac0(mac_key, sid, payload, mac_prefix(aad.fresh(site, device, sid, th8)))

    @classmethod
    def open(cls, frame: bytes, mac_key: bytes, site: str, device: str, sid: bytes, th8: bytes) -> OtaFresh:
        """Judge a fresh-frame as a device does. Raises: Refusal."""
        parsed = parse_mac0(frame, SID_BYTES, _FRESH_MAX_BYTES)
        if parsed.identifier != sid:
            raise Refusal(RefusalCode.UNKNOWN_SESSION, "the answer is of another session")
        verify_mac0(parsed, mac_key, mac_prefix(aad.fresh(site, device, sid, th8)))
        f = shapes.array(decode(parsed.payload, SMALL_MAX_BYTES), 3, 3, "ota-fresh")
        ref = shapes.binary(f[1], 0, REFERENCE_BYTES, "ota-fresh ref")
        if len(ref) not in (0, REFERENCE_BYTES):
            raise Refusal(RefusalCode.BAD_SHAPE, "ota-fresh ref has neither 0 nor 8 bytes")
        return cls(
            shapes.exactly(f[0], NONCE_BYTES, "ota-fresh nonce"), ref, shapes.u32(f[2], "ota-fresh version")
        )
