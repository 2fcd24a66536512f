"""Handshakes of a crowd: everybody gets a turn, in order, at the stated rate; nobody is passed over."""

from __future__ import annotations

import heapq
import random

import pytest

from server.transport.limits import LATE_S, Limits, Rate, RateLimiter, Turns

CROWD = 10_000
PER_SECOND, BURST = 50.0, 200.0


def through(crowd: int, round_trip_s: float) -> list[float]:
    """When each of a crowd that comes at second 0 is let in, coming back when told."""
    turns = Turns(Rate(PER_SECOND, BURST), 0.0)
    chance = random.Random(1)
    coming = [(chance.uniform(0.0, round_trip_s), f"t-{number}") for number in range(crowd)]
    heapq.heapify(coming)
    let_in: list[float] = []
    asked = 0
    while coming:
        now, name = heapq.heappop(coming)
        asked += 1
        wait_ms = turns.wait_ms(name, now)
        if wait_ms == 0:
            turns.take(name)
            let_in.append(now)
        else:
            heapq.heappush(coming, (now + wait_ms / 1000 + chance.uniform(0.0, round_trip_s), name))
    assert asked <= 2 * crowd, "nobody asks more than twice"
    return let_in


def test_ten_thousand_that_come_at_once_are_through_in_the_time_the_rate_says() -> None:
    let_in = through(CROWD, 0.5)
    assert len(let_in) == CROWD
    assert max(let_in) <= (CROWD - BURST) / PER_SECOND + 2.0
    for second in range(int(max(let_in))):
        within = sum(1 for moment in let_in if second <= moment < second + 1)
        assert within <= BURST + PER_SECOND if second == 0 else within <= 2.5 * PER_SECOND


def test_a_small_house_never_waits() -> None:
    assert max(through(int(BURST), 0.0)) == 0.0


def test_whoever_comes_early_keeps_the_turn_and_gains_nothing() -> None:
    turns = Turns(Rate(1.0, 1.0), 0.0)
    assert turns.wait_ms("first", 0.0) == 0
    turns.take("first")
    assert turns.wait_ms("second", 0.0) == 1001
    assert turns.wait_ms("third", 0.0) == 2001
    assert [turns.wait_ms("second", moment) for moment in (0.25, 0.5, 0.75)] == [751, 501, 251]
    assert turns.wait_ms("third", 0.75) == 1251, "asking often moved nobody"
    assert turns.wait_ms("second", 1.0) == 0


def test_a_missed_turn_is_given_up_and_not_remembered_for_ever() -> None:
    turns = Turns(Rate(1.0, 1.0), 0.0)
    for number in range(100):
        turns.wait_ms(f"t-{number}", 0.0)
    assert turns.wait_ms("t-0", LATE_S + 1.0) > 0, "it queues again behind the others"
    turns.wait_ms("late", 1000.0)
    assert len(turns._turns) == 1, "bounded by who waits now"


@pytest.mark.parametrize("noisy", [1, 5])
def test_a_device_that_asks_all_the_time_keeps_nobody_else_waiting(noisy: int) -> None:
    now = 0.0
    limiter = RateLimiter(Limits(), lambda: now)
    for _ in range(10_000):
        for number in range(noisy):
            limiter.hello(f"noisy-{number}")
        now += 0.001
    assert limiter.hello("quiet") == 0
