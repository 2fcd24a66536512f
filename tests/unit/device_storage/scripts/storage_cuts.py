# Runs on MicroPython: outbox, counters and control record on the NOR model, cut at every n-th flash step.
# Arguments: the firmware directory, the stride. Prints one line with what was done.

import sys

sys.path.insert(0, sys.argv[1])

from boards.host.nor import Nor, PowerCut
from terminal.counters import Counters
from terminal.ota import states
from terminal.ota.record import ControlRecord
from terminal.outbox import Outbox

SECTOR = 4096
TEARS = ((-1, 0), (9, 0), (130, 0), (0, 77))


def zeros(n):
    return bytes(n)


def play(nor, promised, finished):
    # Three boots of orders and answers; `promised` and `finished` say what must and must not be pending.
    for boot in range(3):
        number = Counters(nor.region(0, 4 * SECTOR)).boot()
        assert number == boot + 1
        box = Outbox(nor.region(4 * SECTOR, 4 * SECTOR), number)
        for n in range(20):
            op_id = box.next_op_id(zeros)
            op = bytes([n]) * (80 + n * 31)
            box.append(op_id, op)
            promised[op_id] = op
            if n >= 3:
                oldest = min(promised)
                finished.add(oldest)
                del promised[oldest]
                box.done(oldest, 0)
        box.flush()
        box.tidy()


def check(nor, promised, finished, durable):
    found = dict(Outbox(nor.region(4 * SECTOR, 4 * SECTOR), 99).pending())
    for op_id, op in promised.items():
        assert found[op_id] == op, "lost"
    for op_id in found:
        assert op_id not in durable, "came back"
    assert nor.violations == 0
    Counters(nor.region(0, 4 * SECTOR)).boot()


def journal(stride):
    golden = Nor(8 * SECTOR)
    play(golden, {}, set())
    cuts = 0
    for step in range(1, golden.steps + 1, stride):
        keep, seed = TEARS[cuts % len(TEARS)]
        nor = Nor(8 * SECTOR)
        promised = {}
        finished = set()
        nor.cut_at(step, keep, seed)
        try:
            play(nor, promised, finished)
            raise AssertionError("the power never failed")
        except PowerCut:
            cuts += 1
        nor.cut_at(0)
        check(nor, promised, finished, ())
    return cuts


def control():
    nor = Nor(2 * SECTOR)
    record = ControlRecord(nor.region(0, 2 * SECTOR))
    state = states.factory()
    for n in range(50):
        state = states.staging(state, bytes([n + 1]) * 32, n, n)
        record.store(state)
        assert ControlRecord(nor.region(0, 2 * SECTOR)).state == state
        state = states.cancelled(state)
        record.store(state)
    assert nor.violations == 0


control()
print("ok", journal(int(sys.argv[2])), "cuts")
