"""Terminals that lost the broker come back one by one, and ever more patiently."""

from terminal.link import Backoff


def test_delays_double_up_to_the_cap_and_stay_within_their_half() -> None:
    backoff = Backoff(lambda n: b"\xff" * n, base_ms=250, cap_ms=3000)
    assert [backoff.next_ms() for _ in range(6)] == [250, 500, 1000, 2000, 3000, 3000]
    backoff = Backoff(lambda n: b"\x00" * n, base_ms=250, cap_ms=3000)
    assert [backoff.next_ms() for _ in range(6)] == [125, 250, 500, 1000, 1500, 1500]


def test_a_connection_that_lived_starts_the_delays_anew_and_a_short_one_does_not() -> None:
    backoff = Backoff(lambda n: b"\xff" * n, base_ms=100, cap_ms=3000, stable_ms=4000)
    backoff.next_ms()
    backoff.next_ms()
    backoff.lived(3999)
    assert backoff.next_ms() == 400
    backoff.lived(4000)
    assert backoff.next_ms() == 100
