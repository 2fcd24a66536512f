"""Which firmware image may run: every row of the table in image_states.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from terminal.ota import image_states, states
from terminal.ota.image_states import ABORTED, NEW, PENDING, UNDEFINED, VALID, Entry
from terminal.ota.states import SLOT_A, SLOT_B, State

OLD = b"o" * 32
IMAGE = b"n" * 32


def whole(*good: tuple[int, bytes]) -> Callable[[int, bytes], bool]:
    return lambda slot, digest: (slot, digest) in good


GOOD = whole((SLOT_A, OLD), (SLOT_B, IMAGE))


def running_old() -> State:
    return states.factory().but(slot=SLOT_A, version=7, hash=OLD, floor=5)


def armed() -> State:
    return states.armed(states.verified(states.staging(running_old(), IMAGE, 8, 6)))


def on_trial() -> State:
    return states.start_trial(armed(), False, GOOD)


def entries(new: int | None, old: int = VALID) -> list[Entry | None]:
    """otadata: ota_0 chosen first, then ota_1 with this state, or its entry lost."""
    return [Entry(0, 1, old), None if new is None else Entry(1, 2, new)]


def boot(
    state: State,
    running: int,
    found: list[Entry | None],
    spent: bool = False,
    is_whole: Callable[[int, bytes], bool] = GOOD,
) -> tuple[State, int]:
    return image_states.boot(state, running, found, spent, is_whole)


def test_the_first_start_puts_what_runs_on_record() -> None:
    state, slot = boot(states.factory(), SLOT_B, entries(VALID))
    assert (state.slot, slot, state.version, state.state) == (SLOT_B, SLOT_B, 0, states.CONFIRMED)
    assert state.target() == SLOT_A, "the next image does not go where the running one is"


def test_an_armed_image_that_runs_is_on_trial() -> None:
    state, slot = boot(armed(), SLOT_B, entries(PENDING), spent=True)
    assert (state.state, state.starts, state.tries, slot) == (states.TRIAL, 1, 0, SLOT_B)


@pytest.mark.parametrize("state", [armed(), on_trial()], ids=["armed", "trial"])
@pytest.mark.parametrize(
    ("entry", "spent", "expected", "reason"),
    [
        (None, False, states.ARMED, states.NONE),
        (None, True, states.ARMED, states.NONE),
        (NEW, False, states.ARMED, states.NONE),
        (ABORTED, False, states.ARMED, states.NONE),
        (ABORTED, True, states.ROLLED_BACK, states.FELL_BACK),
        (PENDING, False, states.ROLLED_BACK, states.IMAGE_REFUSED),
        (UNDEFINED, False, states.ROLLED_BACK, states.IMAGE_REFUSED),
        (VALID, False, states.ROLLED_BACK, states.IMAGE_REFUSED),
    ],
)
def test_what_the_old_image_makes_of_its_return(
    state: State, entry: int | None, spent: bool, expected: int, reason: int
) -> None:
    after, slot = boot(state, SLOT_A, entries(entry), spent)
    assert (after.state, after.reason) == (expected, reason)
    assert slot == (SLOT_B if expected == states.ARMED else SLOT_A)
    assert after.is_quarantined(IMAGE) == (expected == states.ROLLED_BACK)
    if expected == states.ARMED:
        assert after.starts == state.starts + 1, "counted, so that it ends"


def test_an_image_that_lasted_without_a_network_spends_nothing_and_has_not_failed() -> None:
    state = armed()
    for spent in [False] * 12 + [True] * 12:
        state, slot = boot(state, SLOT_B, entries(PENDING), spent=True)
        assert (state.state, slot) == (states.TRIAL, SLOT_B)
        state, slot = boot(states.lasted(state), SLOT_A, entries(ABORTED), spent)
        assert (state.state, state.starts, slot) == (states.ARMED, 0, SLOT_B)
    assert boot(state, SLOT_A, entries(ABORTED), spent=True)[0].reason == states.FELL_BACK


def test_an_older_choice_of_the_slot_says_nothing_about_the_new_image() -> None:
    found = [Entry(0, 3, VALID), Entry(1, 2, VALID)]
    assert boot(armed(), SLOT_A, found)[0].state == states.ARMED


def test_starts_of_any_kind_are_bounded() -> None:
    state = armed()
    for _ in range(states.MAX_STARTS):
        state, slot = boot(state, SLOT_A, entries(ABORTED))
        assert slot == SLOT_B
    state, slot = boot(state, SLOT_A, entries(ABORTED))
    assert (state.reason, slot) == (states.STARTS_SPENT, SLOT_A)


def test_an_image_that_rotted_before_its_trial_is_not_chosen_again() -> None:
    state, slot = boot(armed(), SLOT_A, entries(None), is_whole=whole((SLOT_A, OLD)))
    assert (state.reason, slot) == (states.SLOT_BAD, SLOT_A)
    assert not state.is_quarantined(IMAGE)


def test_a_trial_without_the_bootloaders_help_ends_after_three_tries() -> None:
    state, found = armed(), entries(UNDEFINED)
    slots = []
    for _ in range(4):
        state, slot = boot(state, SLOT_B, found, spent=True)
        slots.append(slot)
    assert slots == [SLOT_B, SLOT_B, SLOT_B, SLOT_A]
    assert (state.state, state.reason) == (states.ROLLED_BACK, states.TRIES_SPENT)


def test_at_rest_the_confirmed_image_is_brought_back_and_that_ends() -> None:
    state = running_old()
    for _ in range(states.MAX_STARTS):
        state, slot = boot(state, SLOT_B, entries(VALID))
        assert slot == SLOT_A
    state, slot = boot(state, SLOT_B, entries(VALID))
    assert (state.slot, slot, state.reason, state.version) == (SLOT_B, SLOT_B, states.IMAGE_LOST, 0)
    assert state.floor == 5
    assert boot(running_old().but(starts=4), SLOT_A, entries(VALID))[0].starts == 0


def test_a_damaged_confirmed_image_gives_way_to_the_known_other_one() -> None:
    state = running_old().but(other_hash=IMAGE, other_version=3)
    after, slot = boot(state, SLOT_B, entries(VALID), is_whole=whole((SLOT_B, IMAGE)))
    assert (after.slot, slot, after.version, after.hash) == (SLOT_B, SLOT_B, 3, IMAGE)
    assert after.reason == states.IMAGE_LOST


def test_what_was_flashed_by_cable_is_not_called_by_the_recorded_release() -> None:
    state, slot = boot(running_old(), SLOT_A, entries(None), is_whole=whole())
    assert (state.version, state.hash, state.reason, slot) == (
        0,
        states.NO_HASH,
        states.IMAGE_UNKNOWN,
        SLOT_A,
    )


def test_the_entry_the_bootloader_goes_by() -> None:
    assert image_states.selected([None, None]) is None
    assert image_states.selected(entries(ABORTED)).slot == SLOT_A
    assert image_states.selected(entries(NEW)).slot == SLOT_B
    assert image_states.selected(entries(VALID, ABORTED)).slot == SLOT_B
