"""Who gets a release, and when it is stopped: the rules, without I/O.

A terminal's place in a rollout is a hash of its name and the release: the same after every restart, another
one for every release, and a larger share always contains the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from server.releases import words
from server.releases.serving import ServedBundle
from server.wire.updates import OtaState

WHOLE_SHARE = 10_000
SERVED_PER_GROUP = 8  # releases that are served at once, of a hardware class and group of terminals
SERVED_MAX_BYTES = 128 * 1024 * 1024  # of all bundles together; a running server holds them in memory
DEFAULT_HALT_PERCENT = 20
DEFAULT_HALT_FAILURES = 1
CONFIRMED, ROLLED_BACK = 0, 5
# Reasons that speak against the release; the others speak of the terminal, its operator or the offer.
FAILURES = frozenset(
    {
        words.TRIES_SPENT,
        words.STARTS_SPENT,
        words.NO_SPACE,
        words.BAD_BYTES,
        words.BAD_MANIFEST,
        words.FELL_BACK,
        words.IMAGE_REFUSED,
        words.WRONG_CODE,
        words.CRASH_LOOP,
    }
)
# Flash that does not keep what was verified: the terminal's fault, or chance. It goes back as well.
ROTTEN = frozenset({words.SLOT_BAD, words.FLASH_FAILS})


class RolloutState(StrEnum):
    """RUNNING offers; PAUSED offers no more, what is being fetched may end; HALTED serves nothing."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"


class Outcome(StrEnum):
    """What became of a release on one terminal."""

    OFFERED = "offered"
    STARTED = "started"
    INSTALLED = "installed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One release's rollout: to ``share`` hundredths of a percent of the terminals of ``group`` ("" for all).

    It halts by itself once at least ``halt_failures`` terminals failed and they are ``halt_percent`` of
    those that have finished.
    """

    ref: bytes
    state: RolloutState
    share: int
    group: str = ""
    halt_percent: int = DEFAULT_HALT_PERCENT
    halt_failures: int = DEFAULT_HALT_FAILURES

    def includes(self, device: str, group: str) -> bool:
        """Whether this terminal is among those that get the release."""
        return (not self.group or self.group == group) and place(device, self.ref) < self.share

    def must_halt(self, installed: int, failed: int) -> bool:
        """Whether so many failures are too many."""
        finished = installed + failed
        return failed >= self.halt_failures and failed * 100 >= self.halt_percent * finished


@dataclass(frozen=True, slots=True)
class Placed:
    """A published release with what decides who is served what; size in bytes."""

    version: int
    hardware: str
    size_bytes: int
    rollout: Rollout


def superseded_by(one: Placed, others: Iterable[Placed]) -> Placed | None:
    """The highest release that every terminal of this one's rollout is offered instead, if there is one."""
    instead = [
        other
        for other in others
        if other.hardware == one.hardware
        and other.version > one.version
        and other.rollout.state is RolloutState.RUNNING
        and other.rollout.share == WHOLE_SHARE
        and other.rollout.group in ("", one.rollout.group)
    ]
    return max(instead, key=lambda other: other.version, default=None)


def needed(known: Sequence[Placed]) -> list[Placed]:
    """The releases a server has to serve: all but the halted and the superseded ones."""
    return [
        one
        for one in known
        if one.rollout.state is not RolloutState.HALTED and superseded_by(one, known) is None
    ]


@dataclass(frozen=True, slots=True)
class Crowd:
    """More releases than a server holds at once; `hardware` and `group` are "" where it is their bytes."""

    hardware: str
    group: str
    oldest: Placed


def crowd(before: Sequence[Placed], after: Sequence[Placed]) -> Crowd | None:
    """Return what a change from one set of releases to another makes too many, if it does.

    Only what grows is judged: whatever was there before may stay, shrink or change.
    """
    had, have = _gathered(before), _gathered(after)
    for (hardware, group), found in have.items():
        if len(found) > max(SERVED_PER_GROUP, len(had.get((hardware, group), ()))):
            return Crowd(hardware, group, min(found, key=lambda one: one.version))
    size, new_size = (sum(one.size_bytes for one in needed(known)) for known in (before, after))
    if new_size > max(SERVED_MAX_BYTES, size):
        return Crowd("", "", needed(after)[0])
    return None


def _gathered(known: Sequence[Placed]) -> dict[tuple[str, str], list[Placed]]:
    found: dict[tuple[str, str], list[Placed]] = {}
    for one in needed(known):
        found.setdefault((one.hardware, one.rollout.group), []).append(one)
    return found


def place(device: str, ref: bytes) -> int:
    """A terminal's place in a release's rollout, 0 to 9999: uniform, and fixed for the pair."""
    return int.from_bytes(sha256(ref + device.encode()).digest()[:8], "big") % WHOLE_SHARE


def choose(
    device: str,
    group: str,
    running: int,
    bundles: Iterable[ServedBundle],
    rollouts: Mapping[bytes, Rollout],
    key_epoch: int = 0,
) -> ServedBundle | None:
    """Return the highest release above the running one that this terminal shall have now, if there is one.

    None of a release key older than `key_epoch`, the newest the terminal knows: it would refuse it.
    """
    fitting = [
        served
        for served in bundles
        if served.bundle.manifest.version > running
        and served.key_epoch >= key_epoch
        and (rollout := rollouts.get(served.ref)) is not None
        and rollout.state is RolloutState.RUNNING
        and rollout.includes(device, group)
    ]
    return max(fitting, key=lambda served: served.bundle.manifest.version, default=None)


def outcome_of(before: Outcome, version: int, report: OtaState) -> Outcome:
    """Return what a terminal's report makes of the release that it names, or was last offered.

    Where the report names no release, a reason alone says nothing before the terminal was seen to begin: it
    may be that of an older one. A failed release may still be installed: an operator let it be tried again.
    One that was installed fails once it is named as what did not last.
    """
    named = report.ref is not None
    if named and report.reason == words.CRASH_LOOP:
        return Outcome.FAILED
    if before is Outcome.INSTALLED or (report.running == version and report.state == CONFIRMED):
        return Outcome.INSTALLED
    begun = named or before is not Outcome.OFFERED
    against = report.reason in FAILURES or (named and report.reason == words.QUARANTINED)
    went_back = report.state == ROLLED_BACK and report.reason not in ROTTEN
    if before is Outcome.FAILED or went_back:
        return Outcome.FAILED
    if begun and report.state == CONFIRMED and against:
        return Outcome.FAILED
    if before is Outcome.OFFERED and CONFIRMED < report.state < ROLLED_BACK:
        return Outcome.STARTED
    return before


def halt_reason(installed: int, failed: int, device: str, reason: int) -> str:
    """The sentence an operator reads about an automatic halt."""
    return (
        f"{failed} of {installed + failed} terminals failed, last {device}: "
        f"{words.reason(reason) or 'it went back to what ran before'}"
    )
