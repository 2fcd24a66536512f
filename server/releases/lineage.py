"""Which release key follows which at a site, and which of them its terminals still accept. Pure.

A terminal goes from one key's epoch to the next with a rotation and never back; it takes a release of the
very epoch it knows. What leads it on is handed out with the first release that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from server.wire.frames import RELEASE, Certificate
from server.wire.rotation import Rotation
from server.wire.rsa import VerifyKey


@dataclass(frozen=True, slots=True)
class Step:
    """A rotation: from the key of epoch ``before`` to the one of ``after``, its key id 8 bytes."""

    before: int
    after: int
    kid: bytes
    frame: bytes


def verified_step(frame: bytes, root: VerifyKey) -> Step:
    """Return a rotation that root, old and new key have signed. Raises: Refusal."""
    before, after = Rotation.decode(frame).open(root)
    return Step(before.epoch, after.epoch, after.kid, frame)


def stored_step(frame: bytes) -> Step:
    """Return a rotation that was verified when it was stored. Raises: Refusal."""
    rotation = Rotation.decode(frame)
    before = Certificate.claimed(rotation.old, RELEASE)
    after = Certificate.claimed(rotation.new, RELEASE)
    return Step(before.epoch, after.epoch, after.kid, frame)


def newest(steps: Iterable[Step]) -> int:
    """Return the epoch of the newest key they lead to, 0 without any."""
    return max((step.after for step in steps), default=0)


def stranded(known: Iterable[int], epoch: int, steps: Iterable[Step]) -> int | None:
    """Return the newest of the `known` epochs from which no steps lead to `epoch`, if there is one.

    A terminal follows every step that begins where it is, in the order of their ends.
    """
    ordered = sorted(steps, key=lambda step: step.after)
    for start in sorted(set(known), reverse=True):
        at = start
        for step in ordered:
            if step.before == at and step.after <= epoch:
                at = step.after
        if at < epoch:
            return start
    return None
