"""What a bill seal proves: the device's signature over every answer of its seating, checked in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from server.wire.requests import BillClaim

CHAIN_START = bytes(32)


def next_chain(chain: bytes, op_hash: bytes, status: int, total_minor: int) -> bytes:
    """The head of a chain after one more answer, 32 bytes."""
    return sha256(chain + op_hash + bytes((int(status),)) + total_minor.to_bytes(4, "big")).digest()


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One final answer as the chain sees it."""

    op_id: bytes
    op_hash: bytes
    status: int
    total_minor: int


def claim_for(links: Sequence[ChainLink], bill: int, total_minor: int) -> BillClaim:
    """The claim a device makes over these answers, oldest first; there must be at least one."""
    head = CHAIN_START
    for link in links:
        head = next_chain(head, link.op_hash, link.status, link.total_minor)
    return BillClaim(bill, links[0].op_id, links[-1].op_id, len(links), head, total_minor)
