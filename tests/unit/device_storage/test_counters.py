"""Counters never go back and are stored before anybody sees them."""

from __future__ import annotations

import pytest
from boards.host.nor import Nor
from terminal.counters import MAX_KEYS, MAX_VALUE_BYTES, Counters
from terminal.flashlog import StorageError

SECTOR = 4096


def counters(nor: Nor) -> Counters:
    return Counters(nor.region(0, len(nor.data)))


def test_every_start_gets_the_next_boot_number_once() -> None:
    nor = Nor(4 * SECTOR)
    for expected in range(1, 300):
        now = counters(nor)
        assert now.boot() == expected
        assert now.boot() == expected


def test_reading_the_counters_does_not_count_as_a_start() -> None:
    nor = Nor(4 * SECTOR)
    counters(nor).boot()
    image = bytes(nor.data)
    assert counters(nor).boots() == 1
    assert bytes(nor.data) == image


def test_handshake_numbers_rise_over_restarts() -> None:
    nor = Nor(4 * SECTOR)
    seen = [counters(nor).next_handshake() for _ in range(20)]
    now = counters(nor)
    seen += [now.next_handshake() for _ in range(1000)]
    assert seen == list(range(1, 1021))
    assert counters(nor).handshake() == 1020


def test_the_beacon_mark_only_rises() -> None:
    nor = Nor(4 * SECTOR)
    now = counters(nor)
    assert now.beacon() == (0, 0)
    now.store_beacon(1, 7)
    programs = nor.programs
    now.store_beacon(1, 7)
    assert nor.programs == programs
    for lower in ((1, 6), (0, 9)):
        with pytest.raises(StorageError, match="BEACON_BACK"):
            now.store_beacon(*lower)
    now.store_beacon(2, 0)
    assert counters(nor).beacon() == (2, 0)


def test_values_survive_many_rotations_and_an_empty_value_frees_its_key() -> None:
    nor = Nor(4 * SECTOR)
    now = counters(nor)
    now.put("resume", b"r" * 32)
    now.put("gone", b"x")
    now.put("gone", b"")
    for n in range(3000):
        now.store_beacon(1, n + 1)
        if n % 50 == 0:
            now.tidy()
    after = counters(nor)
    assert after.get("resume") == b"r" * 32
    assert after.get("gone") is None
    assert after.beacon() == (1, 3000)
    assert nor.violations == 0


def test_a_full_set_of_longest_values_still_rotates() -> None:
    nor = Nor(4 * SECTOR)
    now = counters(nor)
    for round_ in range(20):
        for key in range(MAX_KEYS):
            now.put(f"key-number-{key:04}", bytes([round_]) * MAX_VALUE_BYTES)
    after = counters(nor)
    assert all(after.get(f"key-number-{key:04}") == bytes([19]) * MAX_VALUE_BYTES for key in range(MAX_KEYS))


@pytest.mark.parametrize(
    ("key", "value"), [("", b"x"), ("a-key-far-too-long", b"x"), ("key", bytes(MAX_VALUE_BYTES + 1))]
)
def test_a_value_that_does_not_fit_is_refused(key: str, value: bytes) -> None:
    nor = Nor(4 * SECTOR)
    with pytest.raises(StorageError, match="BAD_VALUE"):
        counters(nor).put(key, value)
    assert nor.steps == 0
