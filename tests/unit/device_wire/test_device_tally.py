"""The chain a terminal works out for itself: whole whatever the order of answers, never made up."""

from __future__ import annotations

import hashlib
import random

import pytest
from session_peer import Counters
from terminal.tally import Claim, Tally

ORDER, CALL, BILL, CLOSE = 1, 4, 5, 6
Answer = tuple[bytes, bytes, int, int, int, int, bytes]


class Seating:
    """The server's side: answers with their chain."""

    def __init__(self, lsn: int = 0) -> None:
        self.chain, self.lsn, self.made = bytes(32), lsn, list[Answer]()

    def answer(self, kind: int = ORDER, status: int = 0, arg: int = 0, total: int = 260) -> Answer:
        self.lsn += 1
        op_id = self.lsn.to_bytes(12, "big")
        op = bytes([0x86, kind, 0x4C]) + op_id
        told = bytes([status]) + total.to_bytes(4, "big")
        self.chain = hashlib.sha256(self.chain + hashlib.sha256(op).digest() + told).digest()
        self.made.append((op_id, op, status, arg, total, self.lsn, self.chain))
        return self.made[-1]

    def claim(self, bill: int = 7, total: int = 520) -> Claim:
        self.answer(BILL, arg=bill, total=total)
        return Claim(bill, total, self.made[0][0], self.made[-1][0], len(self.made), self.chain)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def seating() -> Seating:
    return Seating()


def test_a_bill_claims_every_final_answer_of_its_seating(counters: Counters, seating: Seating) -> None:
    tally = Tally(counters)
    for status in (0, 5, 1, 2, 0):
        tally.answers.append(seating.answer(status=status))
    expected = seating.claim()
    tally.answers.append(seating.made[-1])
    assert tally.is_whole()
    assert tally.claim == expected


def test_answers_in_any_order_make_the_same_claim(seating: Seating) -> None:
    for _ in range(7):
        seating.answer()
    expected = seating.claim()
    for seed in range(50):
        tally = Tally(Counters())
        mixed = random.Random(seed).sample(seating.made, len(seating.made))
        for answer in mixed:
            tally.answers.append(answer)
            tally.fold()
        assert tally.is_whole()
        assert tally.claim == expected


def test_answers_given_twice_count_once(counters: Counters, seating: Seating) -> None:
    tally = Tally(counters)
    for _ in range(3):
        tally.answers += [seating.answer(), seating.made[0]]
        tally.fold()
        tally.answers.append(seating.made[-1])
    expected = seating.claim()
    tally.answers += [seating.made[-1], seating.made[0]]
    assert tally.is_whole()
    assert tally.claim == expected


@pytest.mark.parametrize("cut_after", range(9))
def test_a_power_cut_loses_nothing_that_is_asked_for_again(
    counters: Counters, seating: Seating, cut_after: int
) -> None:
    for _ in range(7):
        seating.answer()
    expected = seating.claim()
    tally = Tally(counters)
    for number, answer in enumerate(seating.made[:cut_after]):
        tally.answers.append(answer)
        if number % 3 == 2:
            tally.save()  # what came later is pending in the journal, is sent again and answered the same
    after = Tally(counters)
    after.answers += seating.made[cut_after - cut_after % 3 :]
    assert after.is_whole()
    assert after.claim == expected


def test_the_claim_survives_a_power_cut_until_the_bill_is_closed(
    counters: Counters, seating: Seating
) -> None:
    tally = Tally(counters)
    tally.answers.append(seating.answer())
    expected = seating.claim()
    tally.answers.append(seating.made[-1])
    tally.answers.append(seating.answer())  # ordered after the bill was asked for
    tally.save()
    after = Tally(counters)
    assert after.claim == expected
    after.answers.append(seating.answer(CLOSE))
    after.save()
    assert Tally(counters).claim is None


def test_a_missing_answer_makes_no_claim_and_a_new_seating_is_whole_again(
    counters: Counters, seating: Seating
) -> None:
    tally = Tally(counters)
    tally.answers.append(seating.answer())
    seating.answer()  # never arrives
    seating.claim()
    tally.answers.append(seating.made[-1])
    assert not tally.is_whole()
    assert tally.claim is None
    following = Seating(seating.lsn)
    tally.answers.append(following.answer())
    expected = following.claim()
    tally.answers.append(following.made[-1])
    tally.fold()
    assert tally.claim == expected


def test_an_answer_with_a_false_chain_is_not_taken(counters: Counters, seating: Seating) -> None:
    tally = Tally(counters)
    tally.answers.append(seating.answer())
    good = seating.answer()
    for bent in (
        (*good[:2], 5, *good[3:]),
        (*good[:4], 261, *good[5:]),
        (good[0], good[1] + b"x", *good[2:]),
        (*good[:6], bytes(32)),
    ):
        tally.answers.append(bent)
        assert not tally.is_whole()
        assert tally.count == 1
        tally.answers.clear()
    tally.answers.append(good)
    assert tally.is_whole()
    assert tally.count == 2


def test_the_first_answer_of_the_seating_does_not_begin_it_twice(
    counters: Counters, seating: Seating
) -> None:
    tally = Tally(counters)
    tally.answers += [seating.answer(), seating.answer(), seating.answer()]
    tally.fold()
    tally.answers.append(seating.made[0])
    tally.fold()
    assert (tally.count, tally.first) == (3, seating.made[0][0])


def test_what_waits_is_bounded(counters: Counters, seating: Seating) -> None:
    tally = Tally(counters)
    seating.answer()
    for _ in range(100):
        tally.answers.append(seating.answer())
        tally.fold()
        assert len(tally.answers) <= 32
    assert tally.lost == 99
    assert not tally.is_whole()


def test_nothing_is_written_when_nothing_is_new(counters: Counters, seating: Seating) -> None:
    tally = Tally(counters)
    tally.answers.append(seating.answer())
    tally.save()
    writes = len(counters.log)
    for _ in range(5):
        tally.save()
    assert len(counters.log) == writes
