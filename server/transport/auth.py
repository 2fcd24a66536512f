"""Broker logins: one password per device, stored hashed, compared in constant time.

The stored form is mosquitto's own, PBKDF2-SHA-512, so that one row serves the embedded broker and the
password file of an external one; rows of older versions hold scrypt. Hashing is slow on purpose, and after a
power cut every terminal of a house reconnects at once: a password that was verified is remembered as an HMAC
under a key of this process, so it costs microseconds the next time. Hashing happens in one worker thread and
is rate limited, so a guesser neither blocks the loop nor the terminals whose passwords are known. At most
``MAX_WAITING`` hashes wait: when thousands of terminals come back at once, the others are told to come
again, instead of waiting until they have given up themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from concurrent.futures import Executor

from server.devices.records import DeviceState
from server.ordering.catalogue import Catalogue
from server.transport.limits import RateLimiter

_ITERATIONS = 10_000
_SALT_BYTES = 12
_UNKNOWN = ""
MAX_WAITING = 64


class LoginsBusy(Exception):
    """Too many passwords are being checked: come again soon."""

    code = "logins_busy"


def hash_password(password: str, salt: bytes | None = None) -> str:
    """The stored form of a password: ``$7$iterations$salt$hash``, as mosquitto_passwd(1) writes it."""
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def fits_mosquitto(stored: str) -> bool:
    """Whether a stored password can go into mosquitto's password file."""
    return stored.startswith("$7$")


def verify_password(stored: str, password: str) -> bool:
    """Whether a password matches its stored form (slow: tens of milliseconds)."""
    secret = password.encode()
    if fits_mosquitto(stored):
        iterations, salt, digest = stored.split("$")[2:]
        found = hashlib.pbkdf2_hmac("sha512", secret, b64decode(salt), int(iterations))
        return hmac.compare_digest(found, b64decode(digest))
    scheme, n, r, p, salt, digest = stored.split("$")
    if scheme != "scrypt":
        return False
    found = hashlib.scrypt(secret, salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p), dklen=32)
    return hmac.compare_digest(found, bytes.fromhex(digest))


class Authenticator:
    """Decides about logins from the newest snapshot of the device registry."""

    def __init__(self, catalogue: Catalogue, limiter: RateLimiter, executor: Executor) -> None:
        self._catalogue = catalogue
        self._limiter = limiter
        self._executor = executor
        self._key = os.urandom(32)
        self._verified: dict[str, tuple[str, bytes]] = {}
        self.waiting = 0

    async def __call__(self, device: str, password: str) -> bool:
        """Whether ``device`` is active and this is its password. Raises: LoginsBusy."""
        known = self._catalogue.snapshot.devices.get(device)
        tag = hmac.digest(self._key, f"{device}\0{password}".encode(), "sha256")
        if known is not None:
            stored, verified = self._verified.get(device, ("", b""))
            if stored == known.password_hash and hmac.compare_digest(verified, tag):
                return known.state is DeviceState.ACTIVE
        if self.waiting >= MAX_WAITING:
            raise LoginsBusy
        if self._limiter.login(_UNKNOWN if known is None else device) > 0:
            return False
        against = known.password_hash if known is not None else _DUMMY
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            right = await loop.run_in_executor(self._executor, verify_password, against, password)
        finally:
            self.waiting -= 1
        if known is None or not right:
            return False
        self._verified[device] = (known.password_hash, tag)
        return known.state is DeviceState.ACTIVE


_DUMMY = f"$7${_ITERATIONS}${b64encode(bytes(_SALT_BYTES)).decode()}${b64encode(bytes(64)).decode()}"
