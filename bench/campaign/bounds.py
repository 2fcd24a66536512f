"""What a terminal may spend on an update, counted exactly: starts on trial, and chunks it asks for.

Counted from what the terminal did, not from its own counters: a bug in those must not hide here.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.campaign import record
from bench.campaign.machine import RESETS, Life

MAX_TRIES = 3  # starts of a release that end in a reset
MAX_STARTS = 10  # of any kind, without a confirmation
CHUNKS_PER_FAULT = (
    16  # asked for twice at most: eight that were not synced, a window under way, a part of one
)


def failed_trials(lives: Sequence[Life]) -> int:
    """How often a release on trial ended in a reset: one that does not even start tells nothing."""
    return sum(
        life.exit_code in RESETS and (_is_trial(life) or life.first("started") is None) for life in lives
    )


def trials(lives: Sequence[Life]) -> int:
    """How often a release started on trial and told of it."""
    return sum(map(_is_trial, lives))


def _is_trial(life: Life) -> bool:
    started = life.first("started")
    return started is not None and bool(started["trial"])


def is_over(control: record.Control) -> bool:
    """Whether a control record lets a release go on that has used up its starts."""
    spent = control.tries >= MAX_TRIES or control.starts > MAX_STARTS
    return control.state == record.TRIAL and spent


def chunks(lives: Sequence[Life]) -> int:
    """How many chunks were asked for."""
    return sum(int(event["count"]) for life in lives for event in life.events if "chunk" in event)


def furthest(life: Life) -> int:
    """The last chunk a request began with, -1 without one."""
    return max(life.all("chunk"), default=-1)
