"""Who calls: bearer tokens, their roles, and what each role may do.

A token is ``ts_`` and 32 random bytes; the server knows its SHA-256 only. The book of tokens is replaced as
a whole whenever the registry changes, so a revoked token stops working within a quarter of a second.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

TOKEN_PREFIX = "ts_"
TOKEN_BYTES = 32


class Role(StrEnum):
    """What a token is for; a device's token names its device."""

    MANAGER = "manager"
    WAITER = "waiter"
    KITCHEN = "kitchen"
    DEVICE = "device"


STAFF = (Role.MANAGER, Role.WAITER, Role.KITCHEN)
SERVICE = (Role.MANAGER, Role.WAITER)
EVERYBODY = (*STAFF, Role.DEVICE)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller; ``device`` only for role device. Times in unix seconds."""

    token_id: str
    role: Role
    name: str
    device: str | None
    expires_at: int | None


def new_token(random: bytes) -> str:
    """The text of a token. Raises: ValueError unless given 32 bytes."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a token is made of {TOKEN_BYTES} random bytes")
    return TOKEN_PREFIX + base64.urlsafe_b64encode(random).decode().rstrip("=")


def hash_of(token: str) -> bytes | None:
    """The stored form of a token as it was sent, or None for text that is none."""
    if not token.startswith(TOKEN_PREFIX):
        return None
    text = token[len(TOKEN_PREFIX) :]
    if len(text) != 43 or not text.isascii():
        return None
    try:
        secret = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    if new_token(secret) != token:  # two spellings of one secret: only the issued one counts
        return None
    return sha256(secret).digest()


class TokenBook:
    """All tokens that count now, by hash. Swapped from the writer's thread, read on the loop."""

    def __init__(self) -> None:
        self._callers: Mapping[bytes, Caller] = {}

    def replace(self, callers: Iterable[tuple[bytes, Caller]]) -> None:
        """These and no others from now on."""
        self._callers = dict(callers)

    def find(self, token: str, now_s: int) -> Caller | None:
        """Whose token this is, or None for an unknown, revoked or expired one."""
        digest = hash_of(token)
        caller = self._callers.get(digest) if digest is not None else None
        if caller is None or (caller.expires_at is not None and now_s >= caller.expires_at):
            return None
        return caller

    def __len__(self) -> int:
        return len(self._callers)
