"""The outbox and the counters under a power cut at every flash step, torn in many ways.

The oracle is a plain record of what the program was told: appends that returned, answers that were flushed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from boards.host.nor import Nor, PowerCut
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal.counters import Counters
from terminal.outbox import Outbox

SECTOR = 4096
TEARS = [(-1, 0), (1, 0), (7, 0), (100, 0), (255, 0), (0, 12345), (3, 99)]


class Guest:
    """Drives an outbox and remembers what it was promised."""

    def __init__(self, nor: Nor, sectors: int) -> None:
        self.nor = nor
        self.sectors = sectors
        self.boot = 0
        self.promised: dict[bytes, bytes] = {}  # append returned, no answer yet
        self.answered: dict[bytes, bytes] = {}  # answered, the note may still be in RAM
        self.finished: set[bytes] = set()  # the note is durable
        self.in_flight: tuple[bytes, bytes] | None = None
        self.count = itertools.count()

    def start(self) -> None:
        """Boot, recover, and compare with what was promised."""
        self.boot += 1
        self.box = Outbox(self.nor.region(0, self.sectors * SECTOR), self.boot)
        found = dict(self.box.pending())
        allowed = self.promised | self.answered | (dict([self.in_flight]) if self.in_flight else {})
        assert self.promised.items() <= found.items(), "an op the guest was told is queued got lost"
        assert found.items() <= allowed.items(), "an op appeared that nobody queued"
        assert not found.keys() & self.finished, "a finished op came back"
        self.finished |= (self.promised.keys() | self.answered.keys()) - found.keys()
        self.promised, self.answered, self.in_flight = found, {}, None

    def order(self, size: int) -> None:
        op_id = self.box.next_op_id(lambda n: bytes(n))
        op = (b"%d." % next(self.count) * size)[:size]
        self.in_flight = (op_id, op)
        self.box.append(op_id, op)
        self.promised[op_id] = op
        self.in_flight = None

    def answer(self, which: int) -> None:
        if self.promised:
            op_id = sorted(self.promised)[which % len(self.promised)]
            self.answered[op_id] = self.promised.pop(op_id)
            self.box.done(op_id, 0)

    def flush(self) -> None:
        self.box.flush()
        self.finished |= self.answered.keys()
        self.answered = {}

    def play(self, script: list[tuple[str, int]]) -> None:
        for what, number in script:
            if what == "order":
                self.order(number)
            elif what == "answer":
                self.answer(number)
            elif what == "flush":
                self.flush()
            else:
                self.box.tidy()


def evening(orders: int) -> Iterator[tuple[str, int]]:
    """A busy script that goes round a small ring several times with a few ops always pending."""
    for n in range(orders):
        yield "order", 60 + n * 37 % 700
        if n >= 6:
            yield "answer", n * 5
        if n % 11 == 10:
            yield "flush", 0
        if n % 17 == 16:
            yield "tidy", 0


@pytest.mark.parametrize(("keep", "seed"), TEARS)
def test_no_cut_loses_or_revives_an_op(keep: int, seed: int) -> None:
    script = list(evening(75))
    golden = Guest(Nor(4 * SECTOR), 4)
    golden.start()
    golden.play(script)
    assert golden.nor.erases >= 5
    for step in range(1, golden.nor.steps + 1):
        guest = Guest(Nor(4 * SECTOR), 4)
        guest.start()
        guest.nor.cut_at(step, keep, seed)
        with pytest.raises(PowerCut):
            guest.play(script)
        guest.nor.cut_at(0)
        guest.start()
        guest.play([("answer", n) for n in range(len(guest.box) - 2)] + script[:40])
        guest.start()
        assert guest.nor.violations == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_repeated_cuts_lose_and_revive_nothing(data: st.DataObject) -> None:
    step = st.one_of(
        st.tuples(st.just("order"), st.integers(1, 1000)),
        st.tuples(st.just("answer"), st.integers(0, 50)),
        st.just(("flush", 0)),
        st.just(("tidy", 0)),
    )
    guest = Guest(Nor(5 * SECTOR), 5)
    for _ in range(data.draw(st.integers(1, 6))):
        guest.start()
        cut = data.draw(st.integers(1, 120))
        guest.nor.cut_at(cut, data.draw(st.integers(-1, 255)), data.draw(st.integers(0, 9)))
        script = data.draw(st.lists(step, max_size=40))
        try:
            guest.play([entry for entry in script if entry[0] != "order" or len(guest.box) < 8])
        except PowerCut:
            assert cut > 0
        finally:
            guest.nor.cut_at(0)
    guest.start()
    assert guest.nor.violations == 0


@pytest.mark.parametrize(("keep", "seed"), TEARS[::2])
def test_no_counter_is_ever_given_out_twice(keep: int, seed: int) -> None:
    def start(nor: Nor) -> Counters:
        return Counters(nor.region(0, 4 * SECTOR))

    def use(
        counters: Counters, boots: list[int], handshakes: list[int], beacons: list[tuple[int, int]]
    ) -> None:
        boots.append(counters.boot())
        for n in range(24):
            counters.put("resume", bytes([n]) * 180)
            handshakes.append(counters.next_handshake())
            mark = (1, beacons[-1][1] + 1 if beacons else 1)
            counters.store_beacon(*mark)
            beacons.append(mark)
            if n % 20 == 19:
                counters.tidy()

    def live(nor: Nor, boots: list[int], handshakes: list[int], beacons: list[tuple[int, int]]) -> None:
        for _ in range(3):
            use(start(nor), boots, handshakes, beacons)

    golden = Nor(4 * SECTOR)
    live(golden, [], [], [])
    assert golden.erases >= 1
    for step in range(1, golden.steps + 1):
        nor = Nor(4 * SECTOR)
        boots: list[int] = []
        handshakes: list[int] = []
        beacons: list[tuple[int, int]] = []
        nor.cut_at(step, keep, seed)
        with pytest.raises(PowerCut):
            live(nor, boots, handshakes, beacons)
        nor.cut_at(0)
        after = start(nor)
        assert after.beacon() >= (beacons[-1] if beacons else (0, 0))
        boots.append(after.boot())
        handshakes.append(after.next_handshake())
        assert boots == sorted(set(boots))
        assert handshakes == sorted(set(handshakes))
        assert nor.violations == 0
