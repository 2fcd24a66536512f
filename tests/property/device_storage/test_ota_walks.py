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
    st.sampled_from([("verified",), ("armed",), ("cancelled",), ("confirmed",), ("settled",)]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_the_guarantees_hold_on_every_walk(walk: list[tuple[object, ...]]) -> None:
    state = states.factory()
    starts_in_a_row = 0
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
                assert starts_in_a_row <= states.MAX_STARTS, "a trial without end"
                assert (slot == state.target()) == (state.state == states.TRIAL)
            else:
                state = getattr(states, str(what))(state)
                starts_in_a_row = 0
        except (OtaError, ValueError):
            assert state == before
        assert state.floor >= before.floor, "the floor fell"
        if (state.hash, state.slot) != (before.hash, before.slot):
            assert what in ("confirmed", "boot"), "the confirmed bundle changed without a confirmation"
            assert what == "confirmed" or state.reason in (states.ACTIVE_BAD, states.BOTH_BAD)
        assert unpack(pack(state, 1)) == (state, 1)
