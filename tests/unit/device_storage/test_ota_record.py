"""The control record: newest valid copy wins, and no power cut or rotten bit brings an older state back."""

from __future__ import annotations

import pytest
from boards.host.nor import Nor, PowerCut
from terminal.ota import states
from terminal.ota.record import ControlRecord
from terminal.ota.states import State

SECTOR = 4096


def record(nor: Nor) -> ControlRecord:
    return ControlRecord(nor.region(0, 2 * SECTOR))


def numbered(n: int) -> State:
    """A state that says which it is, with every field in use."""
    prefixes = tuple(bytes([n & 255, k]) * 3 for k in range(4))
    return State(
        {
            "state": states.TRIAL,
            "slot": n % 3,
            "tries": n % 3,
            "starts": n % 11,
            "reason": n % 16,
            "lasted": n % 2,
            "rotten": n % 4,
            "version": n,
            "floor": n + 1,
            "other_version": n + 2,
            "other_floor": n + 3,
            "hash": bytes([n & 255]) * 32,
            "other_hash": bytes([~n & 255]) * 32,
            "quarantine": prefixes,
        }
    )


def test_an_erased_region_is_a_terminal_with_its_factory_application() -> None:
    assert record(Nor(2 * SECTOR)).state == states.factory()


def test_garbage_is_reported_as_a_lost_record() -> None:
    nor = Nor(2 * SECTOR, bytes(2 * SECTOR))
    now = record(nor)
    assert now.state == states.factory(states.RECORD_LOST)
    now.store(numbered(3))
    assert record(nor).state == numbered(3)


def test_every_field_survives_a_restart() -> None:
    nor = Nor(2 * SECTOR)
    now = record(nor)
    for n in range(100):
        now.store(numbered(n))
        assert record(nor).state == numbered(n)
    assert nor.violations == 0


def test_a_change_is_one_program_call_and_an_erase_every_sixteenth() -> None:
    nor = Nor(2 * SECTOR)
    now = record(nor)
    for n in range(160):
        now.store(numbered(n))
    assert nor.programs == 160
    assert nor.erases <= 10
    now.store(numbered(159))
    assert nor.programs == 160


def last_before_cut(now: ControlRecord) -> int:
    """Store states until the power fails -> the number of the last one that returned, -1 for none."""
    for n in range(40):
        try:
            now.store(numbered(n))
        except PowerCut:
            return n - 1
    raise AssertionError("the power never failed")


@pytest.mark.parametrize(
    ("keep", "seed"), [(-1, 0), (1, 0), (60, 0), (127, 0), (128, 0), (200, 0), (255, 0), (0, 7), (40, 9)]
)
def test_a_power_cut_at_any_step_leaves_the_state_before_or_after(keep: int, seed: int) -> None:
    golden = Nor(2 * SECTOR)
    full = record(golden)
    for n in range(40):
        full.store(numbered(n))
    for step in range(1, golden.steps + 1):
        nor = Nor(2 * SECTOR)
        now = record(nor)
        nor.cut_at(step, keep, seed)
        reached = last_before_cut(now)
        nor.cut_at(0)
        before = numbered(reached) if reached >= 0 else states.factory()
        after = record(nor)
        blank = reached < 0 and after.state.reason == states.RECORD_LOST
        assert after.state in (before, numbered(reached + 1)) or blank
        for n in range(100, 140):  # and it goes on working
            after.store(numbered(n))
            assert record(nor).state == numbered(n)
        assert nor.violations == 0


def test_a_rotten_bit_never_revives_an_older_state() -> None:
    nor = Nor(2 * SECTOR)
    now = record(nor)
    now.store(numbered(1))
    now.store(numbered(2))
    for bit in range(256 * 8):
        rotten = Nor(2 * SECTOR, nor.data)
        rotten.data[256 + bit // 8] ^= 1 << bit % 8
        assert record(rotten).state == numbered(2)
