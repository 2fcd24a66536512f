"""Judge a history: replay what was committed in LSN order through a plain model, then look at real time.

Every rule that fails is reported under its own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from bench.history.books import compare
from bench.history.events import Acted, History, Replied, Reply, Submitted, Violation
from bench.history.model import Model

CHAIN_START = bytes(32)


def check(history: History) -> list[Violation]:
    """Every violation found, in a fixed order."""
    found: list[Violation] = []
    for rule in (_lsns, _answers, _replies, _staff, _queued, _model, _chains, _real_time):
        found += rule(history)
    return found


def _name(device: str, op_id: bytes) -> str:
    return f"{device} {op_id.hex()}"


def _lsns(history: History) -> Iterator[Violation]:
    """LSNs are 1, 2, 3 ..., each given once."""
    given = [answer.reply.lsn for answer in history.answers] + list(history.staff_lsns)
    expected = 1
    for lsn in sorted(given):
        if lsn != expected:
            yield Violation("LSN_ORDER", f"LSN {lsn} where {expected} was due")
            expected = lsn
        expected += 1


def _answers(history: History) -> Iterator[Violation]:
    """Each op is answered once."""
    seen: set[tuple[str, bytes]] = set()
    for answer in sorted(history.answers, key=lambda answer: answer.reply.lsn):
        if (answer.device, answer.op_id) in seen:
            yield Violation("DOUBLED", f"{_name(answer.device, answer.op_id)} is answered twice")
        seen.add((answer.device, answer.op_id))


def _replies(history: History) -> Iterator[Violation]:
    """What a device was told is what is stored, now and for ever."""
    stored = {(answer.device, answer.op_id): answer for answer in history.answers}
    first: dict[tuple[str, bytes], Reply] = {}
    for seen in history.replied:
        key = (seen.device, seen.op_id)
        name = _name(*key)
        plain = _plain(seen.reply)
        if first.setdefault(key, plain) != plain:
            yield Violation("ANSWER_CHANGED", f"{name}: {first[key]}, later {plain}")
        answer = stored.get(key)
        if answer is None:
            yield Violation(
                "LOST_CONFIRMED", f"{name} was answered {plain} at {seen.at_s:.3f} and is not stored"
            )
        elif _plain(answer.reply) != plain:
            yield Violation("ANSWER_CHANGED", f"{name}: told {plain}, stored {_plain(answer.reply)}")
        elif seen.reply.chain and answer.reply.chain != seen.reply.chain:
            yield Violation("CHAIN_CHANGED", f"{name}: the reply's chain head is not the stored one")


def _plain(reply: Reply) -> Reply:
    return Reply(reply.status, reply.arg, reply.order_number, reply.total_minor, reply.lsn)


def _staff(history: History) -> Iterator[Violation]:
    """What staff were told is done is stored, and nothing else is in their name."""
    stored = set(history.staff_lsns)
    told = {acted.lsn for acted in history.acted if acted.lsn}
    for acted in history.acted:
        if acted.lsn and acted.lsn not in stored:
            yield Violation("LOST_CONFIRMED", f"{acted.kind} was done at LSN {acted.lsn} and is not stored")
    for lsn in sorted(stored - told):
        yield Violation("DOUBLED", f"the change with LSN {lsn} was done once more than it was asked for")


def _queued(history: History) -> Iterator[Violation]:
    """What a guest was told is queued gets a final answer."""
    if not history.finished:
        return
    stored = {(answer.device, answer.op_id) for answer in history.answers}
    for op in history.submitted:
        if op.told and (op.device, op.op_id) not in stored:
            yield Violation(
                "LOST_QUEUED", f"{_name(op.device, op.op_id)} was queued at {op.at_s:.3f} and is gone"
            )


def _model(history: History) -> Iterator[Violation]:
    """Everything is what the plain model has after the same changes."""
    model = Model(history)
    yield from model.replay()
    yield from compare(model.house, history)


def _chains(history: History) -> Iterator[Violation]:
    """A device's chain in a seating is the hash of every answer it got there, in LSN order."""
    heads: dict[tuple[int, str], bytes] = {}
    newest: dict[int, bytes] = {}
    for answer in sorted(history.answers, key=lambda answer: answer.reply.lsn):
        if not answer.reply.chain or not answer.seating:
            continue
        reply, key = answer.reply, (answer.seating, answer.device)
        told = reply.total_minor.to_bytes(4, "big")
        head = sha256(heads.get(key, CHAIN_START) + answer.op_hash + bytes((reply.status,)) + told).digest()
        heads[key] = newest[answer.seating] = reply.chain
        if head != reply.chain:
            yield Violation("CHAIN", f"seating {key[0]}, {key[1]}: the chain breaks at LSN {reply.lsn}")
    for number, seating in sorted(history.seatings.items()):
        if seating.chain != newest.get(number, CHAIN_START):
            yield Violation("CHAIN", f"seating {number}: its head is not its last answer's")


def _real_time(history: History) -> Iterator[Violation]:
    """What is asked for after another's answer was seen has the higher LSN."""
    stored = {(answer.device, answer.op_id): answer.reply.lsn for answer in history.answers}
    events: list[tuple[float, int, Submitted | Replied | Acted]] = []
    events += [(e.at_s, 1, e) for e in history.submitted]
    events += [(e.at_s, 0, e) for e in history.replied]
    for acted in history.acted:
        if acted.lsn:
            events += [(acted.at_s, 1, acted), (acted.done_s, 0, acted)]
    events.sort(key=lambda event: event[:2])
    highest, answered = 0, ""
    for at_s, asks, event in events:
        if isinstance(event, Acted):
            name, lsn = event.kind, event.lsn
        else:
            name = _name(event.device, event.op_id)
            lsn = stored.get((event.device, event.op_id), 0)
            lsn = event.reply.lsn if isinstance(event, Replied) else lsn
        if not asks and lsn > highest:
            highest, answered = lsn, name
        elif asks and 0 < lsn <= highest:
            yield Violation(
                "REAL_TIME", f"{name} asked for at {at_s:.3f} has LSN {lsn}, {answered} had {highest}"
            )
