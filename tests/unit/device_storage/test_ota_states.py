"""The update's state table: every promise of the design as a walk through pure functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from terminal.ota import states
from terminal.ota.states import FACTORY, SLOT_A, SLOT_B, OtaError, State

OLD = b"o" * 32
NEW = b"n" * 32


def whole(*good: tuple[int, bytes]) -> Callable[[int, bytes], bool]:
    return lambda slot, digest: (slot, digest) in good


GOOD = whole((SLOT_A, OLD), (SLOT_B, NEW))


def running_old(floor: int = 5) -> State:
    """A terminal that runs version 7 from slot a."""
    return states.factory().but(slot=SLOT_A, version=7, hash=OLD, floor=floor)


def armed(floor: int = 6) -> State:
    return states.armed(states.verified(states.staging(running_old(), NEW, 8, floor)))


def test_an_update_goes_through_every_state_and_changes_slots() -> None:
    state = running_old()
    seen = [state.state]
    for step in (lambda s: states.staging(s, NEW, 8, 6), states.verified, states.armed):
        state = step(state)
        seen.append(state.state)
        assert states.boot(state, False, whole((SLOT_A, OLD)))[1] == SLOT_A
    state, slot = states.boot(state, False, GOOD)
    seen.append(state.state)
    assert slot == SLOT_B
    state = states.confirmed(state)
    assert seen == [states.CONFIRMED, states.STAGING, states.VERIFIED, states.ARMED, states.TRIAL]
    assert (state.state, state.slot, state.version, state.hash) == (states.CONFIRMED, SLOT_B, 8, NEW)
    assert states.boot(state, False, GOOD) == (state, SLOT_B)
    assert state.target() == SLOT_A


def test_the_floor_rises_with_the_confirmation_and_not_before() -> None:
    state = armed(floor=8)
    assert state.floor == 5
    state, _ = states.boot(state, False, GOOD)
    assert state.floor == 5
    assert states.confirmed(state).floor == 8


def test_the_floor_never_falls() -> None:
    state, _ = states.boot(armed(floor=1), False, GOOD)
    assert states.confirmed(state).floor == 5
    rotten = states.confirmed(state)
    assert states.boot(rotten, False, whole())[0].floor == 5


def test_the_floor_limits_installing_and_never_booting() -> None:
    below = running_old(floor=100)
    assert states.boot(below, False, GOOD) == (below, SLOT_A)
    with pytest.raises(OtaError, match="below-floor"):
        states.staging(below, NEW, 99, 0)


def trial_of(reboots: list[bool]) -> tuple[State, list[int]]:
    """Boot an armed update once and then once per entry (True: the last start ended in a reset)."""
    state, slot = states.boot(armed(), True, GOOD)
    slots = [slot]
    for spent in reboots:
        if state.state != states.TRIAL:
            break
        state, slot = states.boot(state, spent, GOOD)
        slots.append(slot)
    return state, slots


def test_three_failed_tries_roll_back_and_quarantine() -> None:
    state, slots = trial_of([True] * 10)
    assert slots == [SLOT_B, SLOT_B, SLOT_B, SLOT_A]
    assert (state.state, state.reason) == (states.ROLLED_BACK, states.TRIES_SPENT)
    assert state.is_quarantined(NEW)
    settled = states.settled(state)
    assert (settled.state, settled.slot, settled.version, settled.hash) == (states.CONFIRMED, SLOT_A, 7, OLD)
    with pytest.raises(OtaError, match="quarantined"):
        states.staging(settled, NEW, 8, 0)
    assert states.staging(states.released(settled), NEW, 8, 0).state == states.STAGING


def test_pulling_the_plug_spends_no_try_but_ends_after_ten_starts() -> None:
    state, slots = trial_of([False] * 20)
    assert slots == [SLOT_B] * 10 + [SLOT_A]
    assert (state.state, state.reason) == (states.ROLLED_BACK, states.STARTS_SPENT)


def test_a_missing_network_spends_nothing_however_often_the_power_goes() -> None:
    state = armed()
    for spent in [False] * 30 + [True] * 30:
        state, slot = states.boot(state, spent, GOOD)
        assert (slot, state.state) == (SLOT_B, states.TRIAL)
        state = states.lasted(state)
        assert (state.starts, state.tries) == (0, 0)
    assert states.confirmed(state).version == 8


def test_a_start_is_given_back_once() -> None:
    state, _ = trial_of([False] * 4)
    assert state.starts == 5
    state = states.lasted(state)
    assert state.starts == 4
    assert states.lasted(state) == state


def test_starts_that_did_not_last_stay_counted_between_those_that_did() -> None:
    state = armed()
    slots = []
    for n in range(states.MAX_STARTS * 2 + 1):
        state, slot = states.boot(state, False, GOOD)
        slots.append(slot)
        if n % 2 == 0 and state.state == states.TRIAL:
            state = states.lasted(state)
    assert slots == [SLOT_B] * states.MAX_STARTS * 2 + [SLOT_A]
    assert state.reason == states.STARTS_SPENT


def test_a_crash_before_a_start_has_lasted_is_a_failed_try_whatever_came_before() -> None:
    state = states.lasted(states.boot(armed(), False, GOOD)[0])
    slots = []
    for _ in range(5):
        state, slot = states.boot(state, True, GOOD)
        slots.append(slot)
    assert slots == [SLOT_B] * 3 + [SLOT_A] * 2
    assert state.reason == states.TRIES_SPENT


def crash(state: State, times: int, is_whole: Callable[[int, bytes], bool] = GOOD) -> tuple[State, list[int]]:
    slots = []
    for _ in range(times):
        state, slot = states.boot(state, True, is_whole)
        slots.append(slot)
    return state, slots


def test_a_confirmed_bundle_that_never_lasts_gives_way_to_the_one_before_then_to_the_factory() -> None:
    state = states.confirmed(states.boot(armed(), False, GOOD)[0])
    state, slots = crash(state, states.MAX_CRASHES + 1)
    assert slots == [SLOT_B] * states.MAX_CRASHES + [SLOT_A]
    assert (state.hash, state.version, state.reason, state.starts) == (OLD, 7, states.CRASH_LOOP, 0)
    assert state.is_quarantined(NEW)
    assert state.floor == 6
    state, slots = crash(state, states.MAX_CRASHES + 2)
    assert slots == [SLOT_A] * states.MAX_CRASHES + [FACTORY] * 2
    assert (state.slot, state.reason, state.floor) == (FACTORY, states.CRASH_LOOP, 6)
    assert state.is_quarantined(NEW)
    assert state.is_quarantined(OLD)


def test_a_download_that_is_not_finished_is_not_run_after_a_crash_loop() -> None:
    state = states.verified(states.staging(running_old(), NEW, 8, 6))
    state, slots = crash(state, states.MAX_CRASHES + 1)
    assert slots == [SLOT_A] * states.MAX_CRASHES + [FACTORY]
    assert (state.state, state.other_hash) == (states.CONFIRMED, states.NO_HASH)


def test_the_power_going_is_no_crash_and_a_start_that_lasted_ends_the_count() -> None:
    state, _ = crash(running_old(), states.MAX_CRASHES)
    for _ in range(20):
        assert states.boot(state, False, GOOD) == (state, SLOT_A)
    for _ in range(10):
        state = states.lasted(state)
        state, slots = crash(state, states.MAX_CRASHES)
        assert set(slots) == {SLOT_A}
    assert states.lasted(armed()) == armed()


def test_the_factory_application_is_not_counted() -> None:
    assert crash(states.factory(), 20) == (states.factory(), [FACTORY] * 20)


def test_a_trial_slot_that_rotted_rolls_back_and_the_bundle_may_come_again() -> None:
    state, slot = states.boot(armed(), False, whole((SLOT_A, OLD)))
    assert (slot, state.state, state.reason) == (SLOT_A, states.ROLLED_BACK, states.SLOT_BAD)
    assert state.other_hash == NEW, "until it is told, the bundle has a name"
    state = states.settled(state)
    assert (state.state, state.other_hash, state.hash) == (states.CONFIRMED, states.NO_HASH, OLD)
    assert states.staging(state, NEW, 8, 6).state == states.STAGING


def test_flash_that_keeps_no_bundle_ends_the_fetching_and_says_why() -> None:
    state = running_old()
    for _ in range(states.MAX_ROTTEN):
        assert not state.is_quarantined(NEW)
        state = states.armed(states.verified(states.staging(state, NEW, 8, 6)))
        state = states.boot(state, False, whole((SLOT_A, OLD)))[0]
        told = state.reason
        state = states.settled(state)
    assert told == states.FLASH_FAILS
    with pytest.raises(OtaError, match="flash-fails"):
        states.staging(state, NEW, 8, 6)
    assert states.staging(states.released(state), NEW, 8, 6).rotten == 0
    other = states.armed(states.verified(states.staging(state, b"x" * 32, 9, 6)))
    other = states.boot(other, False, whole((SLOT_A, OLD), (SLOT_B, b"x" * 32)))[0]
    assert states.confirmed(other).rotten == 0, "a bundle that stayed whole clears the count"


def test_a_rotten_running_slot_falls_back_to_the_previous_bundle_then_to_the_factory() -> None:
    state, _ = states.boot(armed(), False, GOOD)
    state = states.confirmed(state)
    back, slot = states.boot(state, False, whole((SLOT_A, OLD)))
    assert (slot, back.version, back.reason) == (SLOT_A, 7, states.ACTIVE_BAD)
    lost, slot = states.boot(back, False, whole())
    assert (slot, lost.slot, lost.reason) == (FACTORY, FACTORY, states.BOTH_BAD)
    assert states.boot(lost, False, whole()) == (lost, FACTORY)
    assert states.staging(lost, NEW, 8, 0).target() == SLOT_A


def test_a_half_downloaded_slot_is_never_run_when_the_active_one_rots() -> None:
    state = states.staging(running_old(), NEW, 8, 0)
    assert states.boot(state, False, whole((SLOT_B, NEW)))[1] == FACTORY


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_cancelling_returns_to_what_was_confirmed(depth: int) -> None:
    state = running_old()
    for step in (lambda s: states.staging(s, NEW, 8, 6), states.verified, states.armed)[:depth]:
        state = step(state)
    state = states.cancelled(state)
    assert (state.state, state.slot, state.hash, state.floor) == (states.CONFIRMED, SLOT_A, OLD, 5)
    assert not state.is_quarantined(NEW)


def test_cancelling_a_trial_rolls_back() -> None:
    state, _ = states.boot(armed(), False, GOOD)
    assert states.cancelled(state).state == states.ROLLED_BACK


def test_the_running_bundle_is_not_installed_again() -> None:
    with pytest.raises(OtaError, match="already-there"):
        states.judge(running_old(), OLD, 7)


@pytest.mark.parametrize(
    ("start", "step"),
    [
        (running_old(), states.verified),
        (running_old(), states.armed),
        (running_old(), states.confirmed),
        (armed(), states.confirmed),
        (armed(), states.verified),
        (states.staging(running_old(), NEW, 8, 0), states.armed),
        (states.staging(running_old(), NEW, 8, 0), states.confirmed),
        (running_old(), states.settled),
    ],
)
def test_no_step_can_be_skipped(start: State, step: Callable[[State], State]) -> None:
    with pytest.raises(ValueError, match="no such step"):
        step(start)


def test_only_the_four_newest_quarantined_bundles_are_remembered() -> None:
    state = running_old()
    digests = [bytes([n]) * 32 for n in range(1, 6)]
    for digest in digests:
        state = states.armed(states.verified(states.staging(state, digest, 8, 0)))
        state, _ = states.boot(state, False, whole((SLOT_A, OLD), (SLOT_B, digest)))
        state = states.settled(states.cancelled(state))
    assert [state.is_quarantined(digest) for digest in digests] == [False, True, True, True, True]
