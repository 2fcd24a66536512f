"""Resume: a device's wish for a new session in place of one it still has the resume key of; no RSA needed."""

from __future__ import annotations

from dataclasses import dataclass

from server.wire import aad, shapes
from server.wire.cbor import decode, encode
from server.wire.cose import Mac0, mac0, mac_prefix, parse_mac0, verify_mac0
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import HASH_BYTES, HELLO_MAX_BYTES, SID_BYTES
from server.wire.keyschedule import NONCE_BYTES

_MAC0_TAG = 0xD1


def is_resume(frame: bytes) -> bool:
    """Whether bytes on the hello topic claim to be a Resume: a COSE_Mac0 where a Hello is a COSE_Sign1."""
    return frame[:1] == bytes((_MAC0_TAG,))


@dataclass(frozen=True)
class Resume:
    """The fields of a Hello without its secret: the key is K_resume of the session the envelope names."""

    device: str
    handshake: int
    nonce_device: bytes
    beacon_counter: int
    beacon_hash: bytes
    firmware: int
    menu_version: int
    pending: int

    def seal(self, k_resume: bytes, sid: bytes, site: str) -> bytes:
        """Return the resume-frame."""
        payload = encode(
            [
                self.device,
                self.handshake,
                self.nonce_device,
                self.beacon_counter,
                self.beacon_hash,
                self.firmware,
                self.menu_version,
                self.pending,
            ]
        )
        return mac0(k_resume, sid, payload, mac_prefix(aad.resume(site, self.device, sid)))

    @staticmethod
    def parse(frame: bytes) -> Mac0:
        """Take a resume-frame apart without judging it. Raises: Refusal."""
        return parse_mac0(frame, SID_BYTES, HELLO_MAX_BYTES)

    @classmethod
    def open(cls, parsed: Mac0, k_resume: bytes, site: str, device: str) -> Resume:
        """Return the Resume that `device` made with the key of the session it names. Raises: Refusal."""
        verify_mac0(parsed, k_resume, mac_prefix(aad.resume(site, device, parsed.identifier)))
        f = shapes.array(decode(parsed.payload, HELLO_MAX_BYTES), 8, 8, "resume")
        resume = cls(
            device=shapes.identifier(f[0], "resume device"),
            handshake=shapes.u32(f[1], "resume handshake counter"),
            nonce_device=shapes.exactly(f[2], NONCE_BYTES, "resume nonce"),
            beacon_counter=shapes.u32(f[3], "resume beacon counter"),
            beacon_hash=shapes.exactly(f[4], HASH_BYTES, "resume beacon hash"),
            firmware=shapes.u32(f[5], "resume firmware"),
            menu_version=shapes.u32(f[6], "resume menu version"),
            pending=shapes.u32(f[7], "resume pending count"),
        )
        if resume.device != device:
            raise Refusal(RefusalCode.WRONG_DEVICE, "the Resume names another device than its connection")
        return resume
