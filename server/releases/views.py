"""Releases and terminals' updates as JSON: one shape for ``release status --json`` and the HTTP API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.releases import words
from server.releases.rollout import RolloutState
from server.storage.release_reads import HistoryStep, LayerUpdate, StoredRelease, TerminalUpdate


def release_view(one: StoredRelease) -> dict[str, Any]:
    """A published release with its rollout and how far it came."""
    plan = one.rollout
    return {
        "reference": one.ref.hex(),
        "version": words.version(one.version),
        "hardware": one.hardware,
        "bytes": one.size_bytes,
        "state": plan.state.value,
        "share_percent": plan.share / 100,
        "group": plan.group,
        "halt_percent": plan.halt_percent,
        "halt_failures": plan.halt_failures,
        "reason": one.reason,
        "superseded_by": None if one.superseded_by is None else words.version(one.superseded_by),
        "key_epoch": one.key_epoch,
        "key_retired": one.key_retired,
        **one.outcomes,
    }


def retired(known: Iterable[StoredRelease]) -> list[str]:
    """A sentence for every rollout whose release key has a successor: not all of its terminals take it."""
    return [
        f"{words.version(one.version)} ({one.hardware}, {one.ref.hex()}) is signed with the release key of "
        f"epoch {one.key_epoch}: terminals that know a newer one refuse it; sign a higher number anew"
        for one in known
        if one.key_retired and one.superseded_by is None and one.rollout.state is not RolloutState.HALTED
    ]


def terminal_view(one: TerminalUpdate) -> dict[str, Any]:
    """What a terminal runs, where its updates stand, and why it does not run the newest.

    What is about its application lies beside its name, what is about its firmware image below ``image``.
    """
    return {
        "device": one.device,
        "group": one.group,
        "online": one.online,
        **layer_view(one.application),
        "image": None if one.image is None else layer_view(one.image),
    }


def layer_view(one: LayerUpdate) -> dict[str, Any]:
    """Where the update of an application or a firmware image stands."""
    failed = one.outcome == "failed"
    # Offered again, a release that failed is refused as quarantined: that is not why it failed.
    cause = one.failure if failed and one.reason in (0, words.QUARANTINED) else one.reason
    return {
        "hardware": one.hardware,
        "version": None if one.running is None else words.version(one.running),
        "slot": None if one.slot is None else words.slot(one.slot),
        "state": None if one.state is None else words.state(one.state),
        "offset_bytes": one.offset,
        "reason": words.reason(cause),
        "release": one.release.hex() if one.release else None,
        "outcome": one.outcome or None,
        "seen_at": one.seen_at,
        "asked_at": one.asked_at,
    }


def step_view(one: HistoryStep) -> dict[str, Any]:
    """One step of a terminal's history."""
    return {
        "at": one.at,
        "reference": one.ref.hex() if one.ref else None,
        "version": words.version(one.running),
        "slot": words.slot(one.slot),
        "state": words.state(one.state),
        "reason": words.reason(one.reason),
    }
