"""The anti-replay window (RFC 6479)."""

from __future__ import annotations

from server.devices.window import WINDOW_BITS, Freshness, ReplayWindow


def test_a_number_is_new_once() -> None:
    window = ReplayWindow()
    assert window.mark(1) is Freshness.NEW
    assert window.mark(1) is Freshness.DUPLICATE
    assert window.mark(2) is Freshness.NEW


def test_judging_changes_nothing() -> None:
    window = ReplayWindow()
    assert window.judge(5) is Freshness.NEW
    assert window.judge(5) is Freshness.NEW
    assert window.top == 0


def test_the_window_reaches_back_exactly_1024_numbers() -> None:
    window = ReplayWindow()
    window.mark(5000)
    assert window.judge(5000 - WINDOW_BITS) is Freshness.TOO_OLD
    assert window.mark(5000 - WINDOW_BITS + 1) is Freshness.NEW


def test_zero_is_never_new() -> None:
    assert ReplayWindow().mark(0) is Freshness.TOO_OLD


def test_a_leap_forgets_what_fell_out_and_nothing_else() -> None:
    window = ReplayWindow()
    for seq in range(1, 1025):
        assert window.mark(seq) is Freshness.NEW
    assert window.mark(1500) is Freshness.NEW
    assert {window.judge(seq) for seq in range(477, 1025)} == {Freshness.DUPLICATE}
    assert {window.judge(seq) for seq in range(1025, 1500)} == {Freshness.NEW}
    assert {window.judge(seq) for seq in range(1, 477)} == {Freshness.TOO_OLD}


def test_a_leap_over_the_whole_u32_range_leaves_no_stale_bits() -> None:
    window = ReplayWindow()
    for seq in range(1, 2000):
        window.mark(seq)
    assert window.mark(0xFFFF_FFFF) is Freshness.NEW
    assert {window.judge(seq) for seq in range(0xFFFF_FFFF - 1023, 0xFFFF_FFFF)} == {Freshness.NEW}
    assert window.mark(0xFFFF_FFFF) is Freshness.DUPLICATE
