"""Bodies of every op that is not an order: change, cancel, call for the waiter, bill, and telemetry.

Each is a frozen dataclass; ``parse`` judges a decoded body and raises Refusal(BAD_SHAPE), ``value`` gives
what is encoded. Shapes and limits are those of `fixtures/protocol/seal.cddl`.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.wire import aad, shapes
from server.wire.cbor import Value, decode, encode
from server.wire.cose import sign1, verify_sign1
from server.wire.rsa import Signer, VerifyKey

OP_ID_BYTES = 12
HASH_BYTES = 32
SEAL_MAX_BYTES = 512


@dataclass(frozen=True, slots=True)
class Change:
    """Replace the lines (the op's own) of the order that ``target`` made."""

    target: bytes

    @classmethod
    def parse(cls, value: Value) -> Change:
        """Judge the target of a change."""
        return cls(shapes.exactly(value, OP_ID_BYTES, "change target"))


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the order that ``target`` made; ``reason`` is 1..4."""

    target: bytes
    reason: int

    @classmethod
    def parse(cls, value: Value) -> Cancel:
        """Judge the body of a cancel-op."""
        f = shapes.array(value, 2, 2, "cancel body")
        return cls(
            shapes.exactly(f[0], OP_ID_BYTES, "cancel target"), shapes.integer(f[1], 1, 4, "cancel reason")
        )

    def value(self) -> Value:
        """What is encoded."""
        return [self.target, self.reason]


@dataclass(frozen=True, slots=True)
class CallWaiter:
    """Somebody is wanted at the table; ``reason`` is 0..3."""

    reason: int

    @classmethod
    def parse(cls, value: Value) -> CallWaiter:
        """Judge the body of a call-op."""
        return cls(shapes.integer(shapes.array(value, 1, 1, "call body")[0], 0, 3, "call reason"))

    def value(self) -> Value:
        """What is encoded."""
        return [self.reason]


@dataclass(frozen=True, slots=True)
class BillRequest:
    """The guests want to pay, in 1..20 shares; ``tender`` is 0 not said, 1 cash, 2 card."""

    shares: int
    tender: int

    @classmethod
    def parse(cls, value: Value) -> BillRequest:
        """Judge the body of a bill-request-op."""
        f = shapes.array(value, 2, 2, "bill request body")
        return cls(shapes.integer(f[0], 1, 20, "shares"), shapes.integer(f[1], 0, 2, "tender"))

    def value(self) -> Value:
        """What is encoded."""
        return [self.shares, self.tender]


@dataclass(frozen=True, slots=True)
class BillClose:
    """The device's seal over the bill numbered ``bill``; judged by ``BillClaim.open``."""

    bill: int
    seal: bytes

    @classmethod
    def parse(cls, value: Value) -> BillClose:
        """Judge the body of a bill-close-op."""
        f = shapes.array(value, 2, 2, "bill close body")
        return cls(shapes.u32(f[0], "bill"), shapes.binary(f[1], 1, SEAL_MAX_BYTES, "bill seal"))

    def value(self) -> Value:
        """What is encoded."""
        return [self.bill, self.seal]


Body = Change | Cancel | CallWaiter | BillRequest | BillClose


@dataclass(frozen=True, slots=True)
class BillClaim:
    """What a device signs when a bill is closed.

    ``first`` and ``last`` are op-ids, ``count`` the number of final answers between them, ``chain`` the head
    after the last one, ``total_minor`` the amount due.
    """

    bill: int
    first: bytes
    last: bytes
    count: int
    chain: bytes
    total_minor: int

    def seal(self, signer: Signer, site: str, device: str) -> bytes:
        """Return the bill-seal."""
        payload = encode([self.bill, self.first, self.last, self.count, self.chain, self.total_minor])
        return sign1(signer, payload, aad.bill(site, device))

    @classmethod
    def open(cls, seal: bytes, key: VerifyKey, site: str, device: str) -> BillClaim:
        """Return what ``device`` sealed with ``key``. Raises: Refusal."""
        payload = verify_sign1(seal, key, aad.bill(site, device), SEAL_MAX_BYTES)
        f = shapes.array(decode(payload, SEAL_MAX_BYTES), 6, 6, "bill claim")
        return cls(
            bill=shapes.u32(f[0], "claim bill"),
            first=shapes.exactly(f[1], OP_ID_BYTES, "claim first"),
            last=shapes.exactly(f[2], OP_ID_BYTES, "claim last"),
            count=shapes.u32(f[3], "claim count"),
            chain=shapes.exactly(f[4], HASH_BYTES, "claim chain"),
            total_minor=shapes.u32(f[5], "claim total"),
        )


_TELEMETRY = 7
_RSSI_LIMIT = 1 << 15


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a terminal measured about itself; never answered, never stored as an answer."""

    uptime_s: int
    heap_free_bytes: int
    reconnects: int
    resent: int
    rssi: int

    @classmethod
    def from_payload(cls, payload: bytes) -> tuple[int, Telemetry]:
        """Judge the payload of a telemetry-frame; returns its sequence number, too. Raises: Refusal."""
        message = shapes.array(decode(payload, 256), 2, 2, "telemetry message")
        seq = shapes.integer(message[0], 1, shapes.U32_MAX, "telemetry seq")
        op = shapes.array(message[1], 6, 6, "telemetry op")
        shapes.integer(op[0], _TELEMETRY, _TELEMETRY, "telemetry type")
        shapes.exactly(op[1], OP_ID_BYTES, "telemetry op-id")
        shapes.identifier(op[2], "telemetry table")
        shapes.u32(op[4], "telemetry menu version")
        shapes.integer(op[5], 0, 0, "telemetry total")
        f = shapes.array(op[3], 5, 5, "telemetry body")
        return seq, cls(
            uptime_s=shapes.u32(f[0], "uptime"),
            heap_free_bytes=shapes.u32(f[1], "free heap"),
            reconnects=shapes.u32(f[2], "reconnects"),
            resent=shapes.u32(f[3], "resent"),
            rssi=shapes.integer(f[4], -_RSSI_LIMIT, _RSSI_LIMIT, "rssi"),
        )

    def payload(self, seq: int, op_id: bytes, table: str, menu_version: int) -> bytes:
        """Return the MACed bytes of a telemetry-frame."""
        body = [self.uptime_s, self.heap_free_bytes, self.reconnects, self.resent, self.rssi]
        return encode([seq, [_TELEMETRY, op_id, table, body, menu_version, 0]])
