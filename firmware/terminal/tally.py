# The chain over every final answer of the seating, as this terminal works it out for itself: what it signs
# when the bill is closed.
#
# Answers are put aside when they arrive and hashed a few at a time, in lsn order, because they may come out
# of order: each must continue the chain, or begin a new one from 32 zero bytes (a new seating). What does
# neither waits for the answer before it. The state is stored before flash learns that the answered ops are
# done, so whatever a power cut takes is asked for again and answered the same. If the chain is lost all the
# same (a record rotted), no bill is sealed until the next seating begins: a terminal never signs what it
# cannot check.
import struct
from collections import namedtuple
from hashlib import sha256

from .compat import const

_KEY = "tally"
_BILL_KEY = "bill"
_STATE = ">Q12s12sI32s"  # lsn, first, last, count, chain
_BILL = ">II12s12sI32s"  # bill, total, first, last, count, chain
_START = bytes(32)
_MOST_WAITING = const(32)
_BILL_REQUEST = const(5)  # the types behind it: only bill-close is answered
_STATUS = tuple([bytes((status,)) for status in range(6)])

# What the seal claims. first, last: op ids; total in minor units.
Claim = namedtuple("Claim", ("bill", "total", "first", "last", "count", "chain"))


class Tally:
    # counters: .get(key), .put(key, bytes), durable on return.
    def __init__(self, counters):
        self.answers = []  # to come: (op_id, op, status, arg, total_minor, lsn, chain)
        self.lost = 0  # answers that continued nothing
        self._counters = counters
        stored = counters.get(_KEY)
        if stored:
            self.lsn, self.first, self.last, self.count, self.chain = struct.unpack(_STATE, stored)
        else:
            self.lsn, self.first, self.last, self.count, self.chain = 0, bytes(12), bytes(12), 0, _START
        stored = counters.get(_BILL_KEY)
        self.claim = Claim(*struct.unpack(_BILL, stored)) if stored else None

    # Hashes what has arrived. Cheap when nothing has; what continues the chain, which is nearly everything,
    # is dealt with in one loop without looking anything up twice.
    def fold(self):
        answers = self.answers
        if not answers:
            return
        if len(answers) > 1:
            answers.sort(key=_lsn)
        new = sha256
        status_byte = _STATUS
        head = self.chain
        done = 0
        for answer in answers:
            op = answer[1]
            status = answer[2]
            told = status_byte[status] + answer[4].to_bytes(4, "big")
            if op[1] >= _BILL_REQUEST or new(head + new(op).digest() + told).digest() != answer[6]:
                break
            head = answer[6]
            done += 1
        if done:
            last = answers[done - 1]
            if not self.count:
                self.first = answers[0][0]
            self.count += done
            self.lsn = last[5]
            self.last = last[0]
            self.chain = head
        if done == len(answers):
            answers.clear()
        else:
            self._sort_out(done)

    # The answers from `start` on, one by one: bills, repetitions, a new seating, what is not in its place.
    def _sort_out(self, start):
        answers = self.answers
        waiting = [answer for answer in answers[start:] if not self._link(answer)]
        if len(waiting) > _MOST_WAITING:  # the one before them will not come: they are not hashed again
            self.lost += len(waiting)
            waiting = []
        answers[:] = waiting

    # Makes durable what was folded; called before the ops concerned are forgotten.
    def save(self):
        self.fold()
        state = struct.pack(_STATE, self.lsn, self.first, self.last, self.count, self.chain)
        if state != self._counters.get(_KEY):
            self._counters.put(_KEY, state)

    # True if nothing is missing before the newest answer.
    def is_whole(self):
        self.fold()
        return not self.answers

    # -> True when the answer has found its place, or has none (it was never stored, or is an old one).
    def _link(self, answer):
        op_id, op, status, arg, total, lsn, chain = answer
        if lsn <= self.lsn:
            return True
        link = sha256(op).digest() + _STATUS[status] + total.to_bytes(4, "big")
        if self.count and sha256(self.chain + link).digest() == chain:
            self.count += 1
        elif sha256(_START + link).digest() == chain:
            self.count = 1
        else:
            return False
        if self.count == 1:
            self.first = op_id
            if self.claim is not None:
                self._set_claim(None)
        self.lsn = lsn
        self.last = op_id
        self.chain = chain
        kind = op[1]
        if kind >= _BILL_REQUEST and status == 0:
            self._set_claim(
                Claim(arg, total, self.first, op_id, self.count, chain) if kind == _BILL_REQUEST else None
            )
        return True

    def _set_claim(self, claim):
        if claim != self.claim:
            self.claim = claim
            self._counters.put(_BILL_KEY, struct.pack(_BILL, *claim) if claim else b"")


def _lsn(answer):
    return answer[5]
