"""What an operator says to one terminal about its updates: give it up, or try again what failed there.

Under the session's key, so that nobody else can say it; with a number that only grows, so that it is obeyed
once. A terminal remembers the number before it obeys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from server.wire import aad, shapes
from server.wire.cbor import decode, encode
from server.wire.cose import mac0, mac_prefix, parse_mac0, verify_mac0
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import SID_BYTES, SMALL_MAX_BYTES

_COMMAND_MAX_BYTES = 128


class Layer(IntEnum):
    """Which of a terminal's two kinds of updates is meant."""

    APPLICATION = 0
    IMAGE = 1


class What(IntEnum):
    """Give up the update that is under way (its bundle goes into quarantine); or empty the quarantine."""

    CANCEL = 0
    RELEASE = 1


WHAT = {"cancel": What.CANCEL, "release-quarantine": What.RELEASE}  # in the words of operators


@dataclass(frozen=True, slots=True)
class OtaCommand:
    """One command; ``number`` is 1 or more and grows with every command for this terminal."""

    number: int
    layer: Layer
    what: What

    def seal(self, mac_key: bytes, site: str, device: str, sid: bytes, th8: bytes) -> bytes:
        """Return the command-frame under the session's server-to-device key."""
        payload = encode([self.number, int(self.layer), int(self.what)])
        return mac0(mac_key, sid, payload, mac_prefix(aad.command(site, device, sid, th8)))

    @classmethod
    def open(cls, frame: bytes, mac_key: bytes, site: str, device: str, sid: bytes, th8: bytes) -> OtaCommand:
        """Judge a command-frame as a device does. Raises: Refusal."""
        parsed = parse_mac0(frame, SID_BYTES, _COMMAND_MAX_BYTES)
        if parsed.identifier != sid:
            raise Refusal(RefusalCode.UNKNOWN_SESSION, "the command is of another session")
        verify_mac0(parsed, mac_key, mac_prefix(aad.command(site, device, sid, th8)))
        f = shapes.array(decode(parsed.payload, SMALL_MAX_BYTES), 3, 3, "ota-command")
        number, layer, what = (shapes.u32(value, "ota-command") for value in f)
        if not number or layer > Layer.IMAGE or what > What.RELEASE:
            raise Refusal(RefusalCode.BAD_SHAPE, "no such ota-command")
        return cls(number, Layer(layer), What(what))
