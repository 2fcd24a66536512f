"""What a terminal spends on an update is counted from what it did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.campaign import bounds, record
from bench.campaign.machine import CRASH, RESET, Life
from bench.campaign.trace import Trace

SILENT: tuple[dict[str, Any], ...] = ()
ON_TRIAL = ({"started": 7, "trial": True},)
AT_REST = ({"started": 6, "trial": False},)


def life(exit_code: int, events: tuple[dict[str, Any], ...]) -> Life:
    return Life(exit_code, events, "", Trace((), ()), None)


def test_a_reset_on_trial_is_a_failed_one_whether_or_not_it_told_of_itself() -> None:
    assert bounds.failed_trials([life(RESET, SILENT), life(CRASH, ON_TRIAL)]) == 2
    assert bounds.failed_trials([life(RESET, AT_REST), life(0, ON_TRIAL)]) == 0


def test_starts_on_trial_count_however_they_end() -> None:
    assert bounds.trials([life(RESET, ON_TRIAL), life(0, ON_TRIAL), life(0, AT_REST)]) == 2


def test_chunks_are_summed_over_requests_and_lives() -> None:
    first = life(RESET, ({"chunk": 0, "count": 1}, {"chunk": 1, "count": 4}))
    second = life(0, ({"chunk": 5, "count": 2}, {"messages": 9}))
    assert bounds.chunks([first, second]) == 7
    assert [bounds.furthest(one) for one in (first, second, life(0, SILENT))] == [1, 5, -1]


def test_a_record_on_trial_has_two_spent_tries_and_ten_starts_at_most() -> None:
    trial = replace(blank(), state=record.TRIAL, tries=2, starts=10)
    assert not bounds.is_over(trial)
    assert bounds.is_over(replace(trial, tries=3))
    assert bounds.is_over(replace(trial, starts=11))
    assert not bounds.is_over(replace(trial, starts=11, state=record.ROLLED_BACK))


def blank() -> record.Control:
    return record.Control(1, record.CONFIRMED, 0, 0, 0, 0, 6, 4, 5, 0, bytes(32), bytes(32), (bytes(6),) * 4)
