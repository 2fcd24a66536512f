"""Random walks through the update's state table: whatever happens in whatever order, the guarantees hold."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from terminal.ota import states
from terminal.ota.record import pack, unpack
from terminal.ota.states import FACTORY, OtaError

DIGESTS = [bytes([n]) * 32 for n in range(1, 5)]
STEP = st.one_of(
    st.tuples(st.just("offer"), st.sampled_from(DIGESTS), st.integers(1, 9), st.integers(0, 9)),
    st.tuples(st.just("boot"), st.booleans(), st.sets(st.integers(0, 1))),
    st.sampled_from([("verified",), ("armed",), ("cancelled",), ("confirmed",), ("settled",), ("lasted",)]),
)


TRIED = (states.ARMED, states.TRIAL)
WENT_BACK = (states.ACTIVE_BAD, states.BOTH_BAD, states.CRASH_LOOP)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["plug", "crash", "stop"]), st.booleans()), max_size=80))
def test_a_trial_ends_after_the_starts_that_did_not_last_and_only_then(
    lives: list[tuple[str, bool]],
) -> None:
    """Every life on trial ends by the plug, in a crash, or by a stop; True: it had lasted by then."""
    state = states.armed(states.verified(states.staging(states.factory(), DIGESTS[0], 1, 0)))
    short = crashed = 0
    spent = False
    for end, has_lasted in lives:
        before = state
        state, slot = states.boot(state, spent, lambda _slot, _digest: True)
        if crashed >= states.MAX_TRIES or short >= states.MAX_STARTS:
            assert (slot, state.state) == (FACTORY, states.ROLLED_BACK)
            assert state.is_quarantined(DIGESTS[0])
            return
        assert (slot, state.state) == (states.SLOT_A, states.TRIAL), f"given up early: {before}"
        if has_lasted:
            state = states.lasted(states.lasted(state))
        spent = end != "plug"
        short += not has_lasted
        crashed += spent and not has_lasted
        assert state.starts == short


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_the_guarantees_hold_on_every_walk(walk: list[tuple[object, ...]]) -> None:
    state = states.factory()
    starts_in_a_row = crashes = 0
    for what, *arguments in walk:
        before = state
        try:
            if what == "offer":
                state = states.staging(state, *arguments)
                assert not before.is_quarantined(state.other_hash)
                assert state.other_version >= before.floor
            elif what == "boot":
                spent, good = arguments
                state, slot = states.boot(state, spent, lambda slot, _digest, good=good: slot in good)
                assert slot == FACTORY or slot in good, "something that is not whole was started"
                starts_in_a_row = starts_in_a_row + 1 if state.state == states.TRIAL else 0
                assert state.state not in TRIED or not state.lasted, "a start counts as one that has lasted"
                assert starts_in_a_row <= states.MAX_STARTS, "a trial without end"
                assert (slot == state.target()) == (state.state == states.TRIAL)
                if (
                    before.state in TRIED
                    or (slot, state.hash) != (before.slot, before.hash)
                    or slot == FACTORY
                ):
                    crashes = 0
                else:
                    crashes += spent
                assert crashes <= states.MAX_CRASHES, "a crash loop without end"
            else:
                state = getattr(states, str(what))(state)
                if what == "lasted":
                    if before.state == states.TRIAL:
                        assert before.starts - state.starts == (0 if before.lasted else 1), "given back twice"
                        starts_in_a_row -= before.starts - state.starts
                    crashes = 0
                else:
                    starts_in_a_row = 0
        except (OtaError, ValueError):
            assert state == before
        assert state.floor >= before.floor, "the floor fell"
        assert state.rotten <= states.MAX_ROTTEN
        if (state.hash, state.slot) != (before.hash, before.slot):
            assert what in ("confirmed", "boot"), "the confirmed bundle changed without a confirmation"
            assert what == "confirmed" or state.reason in WENT_BACK
        assert unpack(pack(state, 1)) == (state, 1)
