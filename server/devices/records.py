"""What the storage keeps about devices, sessions and beacons, as plain frozen records."""

from dataclasses import dataclass, field
from enum import StrEnum

SESSION_TTL_S = 12 * 3600
SESSION_MESSAGES = 1 << 20
RESUME_CHAIN_S = 24 * 3600
CLOCK_STEP_S = 600  # a server's clock that is set back by less than this is not noticed by anybody


class DeviceState(StrEnum):
    """Life of a device row; only ACTIVE devices get sessions and are heard."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


@dataclass(frozen=True)
class ResumeKey:
    """What a device's session leaves for its next one; ``rsa_at``: the chain's Hello, unix seconds."""

    sid: bytes
    key: bytes = field(repr=False)
    rsa_at: int


@dataclass(frozen=True)
class DeviceRecord:
    """A device as a handshake sees it.

    `spki` is the DER of its RSA-2048 public key. `handshake`, `hello_hash` and `accept` are those of its last
    accepted Hello (0, None and None before the first); `committed` is its running count of final answers.
    """

    site: str
    device: str
    table: str
    state: DeviceState
    spki: bytes
    handshake: int = 0
    hello_hash: bytes | None = None
    accept: bytes | None = None
    committed: int = 0
    resume: ResumeKey | None = None


@dataclass(frozen=True)
class SessionRow:
    """A session as it is stored; times in unix seconds, keys of 32 bytes, sid of 4, th8 of 8."""

    site: str
    device: str
    sid: bytes
    k_d2s: bytes = field(repr=False)
    k_s2d: bytes = field(repr=False)
    k_resume: bytes = field(repr=False)
    th8: bytes
    created_at: int
    expires_at: int
    hello_hash: bytes
    accept: bytes
    handshake: int
    rsa_at: int = 0


@dataclass(frozen=True)
class MenuReference:
    """Version of the published menu and SHA-256 of its whole menu-frame."""

    version: int
    hash: bytes


@dataclass(frozen=True)
class IssuedBeacon:
    """A beacon that left, or may have left, the server.

    `time` is in unix seconds, `decrypt_kid` names the server-decrypt key it carries.
    """

    epoch: int
    counter: int
    time: int
    frame: bytes
    decrypt_kid: bytes
