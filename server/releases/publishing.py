"""From a verified bundle and an operator's numbers to what is stored: the same for command line and HTTP."""

from __future__ import annotations

from decimal import Decimal

from server.config import ConfigError, check_name
from server.releases.bundle import Bundle, check_contents
from server.releases.rollout import (
    DEFAULT_HALT_FAILURES,
    DEFAULT_HALT_PERCENT,
    WHOLE_SHARE,
    Rollout,
    RolloutState,
)
from server.storage.releases import NewRelease
from server.wire.updates import REFERENCE_BYTES


def prepare(bundle: Bundle) -> NewRelease:
    """A verified bundle as it is stored. Raises: Refusal(BAD_RELEASE, NO_IMAGE_NAMED, WRONG_CODE)."""
    manifest = bundle.manifest
    return NewRelease(
        ref=bundle.hash[:REFERENCE_BYTES],
        version=manifest.version,
        hardware=manifest.hardware,
        offer=bundle.offer.encode(),
        bundle=bundle.data,
        images=(manifest.firmware_minimum, manifest.firmware_maximum),
        image_digest=check_contents(bundle.files, manifest.hardware, manifest.chunk_size),
        key_epoch=bundle.offer.key_epoch,
    )


def share_of(percent: str) -> int:
    """Hundredths of a percent, 0 to 10000. Raises: ConfigError."""
    try:
        share = Decimal(percent) * 100
    except ArithmeticError:  # no number, or one that no computer holds
        share = Decimal(-1)
    if not share.is_finite() or not 0 <= share <= WHOLE_SHARE or share != share.to_integral_value():
        raise ConfigError(f"{percent!r} is not a percentage from 0 to 100 in steps of 0.01")
    return int(share)


def plan_of(
    ref: bytes, percent: str, group: str | None, halt_percent: int | None, halt_failures: int | None
) -> Rollout:
    """A rollout from an operator's words; None takes the default. Raises: ConfigError."""
    limit = DEFAULT_HALT_PERCENT if halt_percent is None else halt_percent
    least = DEFAULT_HALT_FAILURES if halt_failures is None else halt_failures
    if not 1 <= limit <= 100 or not 1 <= least <= 1_000_000:
        raise ConfigError("a rollout halts at 1 to 100 percent failures, and not before at least one")
    name = check_name("group", group) if group else ""
    return Rollout(ref, RolloutState.RUNNING, share_of(percent), name, limit, least)
