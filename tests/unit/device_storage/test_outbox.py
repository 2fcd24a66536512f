"""The outbox journal: what it promises while the power stays on."""

from __future__ import annotations

import os

import pytest
from boards.host.nor import Nor
from terminal.outbox import MAX_OP_BYTES, Full, Outbox

SECTOR = 4096


def outbox(nor: Nor, boot: int = 1, capacity: int = 128) -> Outbox:
    return Outbox(nor.region(0, len(nor.data)), boot, capacity)


def test_a_queued_op_is_pending_after_a_restart() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    op_id = box.next_op_id(os.urandom)
    box.append(op_id, b"two espressos")

    again = outbox(nor, boot=2)

    assert list(again.pending()) == [(op_id, b"two espressos")]
    assert again.get(op_id) == b"two espressos"


def test_op_ids_never_repeat_over_boots_even_with_a_stuck_entropy_source() -> None:
    nor = Nor(4 * SECTOR)
    ids = [box.next_op_id(lambda n: bytes(n)) for box in (outbox(nor, 1), outbox(nor, 2)) for _ in range(50)]

    assert len(set(ids)) == 100
    assert ids == sorted(ids)
    assert all(len(op_id) == 12 for op_id in ids)


def test_an_append_is_one_program_call() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    box.append(box.next_op_id(os.urandom), b"x" * 60)  # opens the first sector
    before = nor.programs

    box.append(box.next_op_id(os.urandom), b"y" * 60)

    assert nor.programs == before + 1


def test_pending_ops_come_oldest_first() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    ids = []
    for n in range(30):
        ids.append(box.next_op_id(os.urandom))
        box.append(ids[-1], b"op %d" % n)
    for op_id in ids[::3]:
        box.done(op_id, 0)

    left = [op_id for n, op_id in enumerate(ids) if n % 3]
    assert [op_id for op_id, _ in box.pending()] == left
    box.flush()
    assert [op_id for op_id, _ in outbox(nor, 2).pending()] == left


def test_a_flushed_done_survives_and_an_unflushed_one_is_only_sent_again() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    first, second = box.next_op_id(os.urandom), box.next_op_id(os.urandom)
    box.append(first, b"1")
    box.append(second, b"2")
    assert box.done(first, 0)
    box.flush()
    assert box.done(second, 2)

    assert [op_id for op_id, _ in outbox(nor, 2).pending()] == [second]


def test_an_answer_to_an_op_that_is_not_pending_changes_nothing() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    assert not box.done(b"\x00" * 12, 0)
    op_id = box.next_op_id(os.urandom)
    box.append(op_id, b"1")
    assert box.done(op_id, 0)
    assert not box.done(op_id, 0)
    assert len(box) == 0


def test_a_full_outbox_says_so_and_writes_nothing() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor, capacity=3)
    for _ in range(3):
        box.append(box.next_op_id(os.urandom), b"op")
    image = bytes(nor.data)

    with pytest.raises(Full) as refusal:
        box.append(box.next_op_id(os.urandom), b"one too many")

    assert refusal.value.code == "OUTBOX_FULL"
    assert bytes(nor.data) == image


def fill(box: Outbox) -> int:
    """Append ops of the greatest length until the outbox is full -> how many it took."""
    for count in range(1000):
        try:
            box.append(box.next_op_id(os.urandom), bytes([count]) * MAX_OP_BYTES)
        except Full:
            return count
    raise AssertionError("the outbox is never full")


def test_longest_ops_fill_the_byte_budget_and_not_more() -> None:
    nor = Nor(16 * SECTOR)
    box = outbox(nor)
    count = fill(box)
    assert count >= 40
    # Full of live ops, the ring still turns: each answer makes room for one more op, as long as one likes.
    for turn in range(200):
        oldest = min(op_id for op_id, _ in box.pending())
        box.done(oldest, 0)
        box.append(box.next_op_id(os.urandom), bytes([turn]) * MAX_OP_BYTES)
    assert len(box) == count
    assert len(outbox(nor, 2)) == count
    assert nor.violations == 0


def test_one_unanswered_op_does_not_pin_the_ring() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    stuck = box.next_op_id(os.urandom)
    box.append(stuck, b"never answered")
    for n in range(2000):
        op_id = box.next_op_id(os.urandom)
        box.append(op_id, b"%d" % n * 10)
        box.done(op_id, 0)
        if n % 7 == 0:
            box.tidy()
    box.flush()

    assert list(outbox(nor, 2).pending()) == [(stuck, b"never answered")]
    assert nor.violations == 0


def test_erases_spread_evenly_over_the_sectors() -> None:
    nor = Nor(16 * SECTOR)
    box = outbox(nor)
    erased = [0] * 16
    erase = nor.erase

    def count(offset: int) -> None:
        erased[offset // SECTOR] += 1
        erase(offset)

    nor.erase = count  # type: ignore[method-assign]
    for n in range(8000):
        op_id = box.next_op_id(os.urandom)
        box.append(op_id, b"%060d" % n)
        box.done(op_id, 0)

    assert max(erased) - min(erased) <= 1


def test_a_rotten_record_is_dropped_and_counted() -> None:
    nor = Nor(4 * SECTOR)
    box = outbox(nor)
    good, bad = box.next_op_id(os.urandom), box.next_op_id(os.urandom)
    box.append(good, b"good" * 10)
    location = box.append(bad, b"bad!" * 10)
    nor.data[location + 30] ^= 1

    assert list(box.pending()) == [(good, b"good" * 10)]
    assert box.lost == 1
    assert bad not in box


def test_an_id_in_use_and_an_oversized_op_are_refused() -> None:
    box = outbox(Nor(4 * SECTOR))
    op_id = box.next_op_id(os.urandom)
    box.append(op_id, b"op")
    for candidate, op in ((op_id, b"again"), (box.next_op_id(os.urandom), bytes(MAX_OP_BYTES + 1))):
        with pytest.raises(Exception, match="BAD_OP"):
            box.append(candidate, op)
    assert list(box.pending()) == [(op_id, b"op")]
