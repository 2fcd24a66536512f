"""Judge a history: replay what was committed in LSN order through a plain model, then look at real time.

Every rule that fails is reported under its own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from bench.history.events import History, Replied, Reply, Submitted, Violation
from bench.history.model import Model

CHAIN_START = bytes(32)


def check(history: History) -> list[Violation]:
    """Every violation found, in a fixed order."""
    found: list[Violation] = []
    for rule in (_answers, _replies, _queued, _model, _chains, _real_time):
        found += rule(history)
    return found


def _name(device: str, op_id: bytes) -> str:
    return f"{device} {op_id.hex()}"


def _answers(history: History) -> Iterator[Violation]:
    """LSNs are 1, 2, 3 ... and each op is answered once."""
    expected = 1
    seen: set[tuple[str, bytes]] = set()
    for answer in sorted(history.answers, key=lambda answer: answer.reply.lsn):
        if answer.reply.lsn != expected:
            yield Violation("LSN_ORDER", f"LSN {answer.reply.lsn} where {expected} was due")
            expected = answer.reply.lsn
        expected += 1
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
    """Orders, stock and money are what the plain model has after the same answers."""
    return Model(history).replay()


def _chains(history: History) -> Iterator[Violation]:
    """Each table's chain is the hash of every answer given there, in LSN order."""
    heads: dict[str, bytes] = {}
    for answer in sorted(history.answers, key=lambda answer: answer.reply.lsn):
        if not answer.reply.chain or not answer.table:
            continue
        reply = answer.reply
        before = heads.get(answer.table, CHAIN_START)
        told = reply.total_minor.to_bytes(4, "big")
        head = sha256(before + answer.op_hash + bytes((reply.status,)) + told).digest()
        heads[answer.table] = reply.chain
        if head != reply.chain:
            yield Violation("CHAIN", f"table {answer.table}: the chain breaks at LSN {reply.lsn}")
    for table, (_, head) in sorted(history.seatings.items()):
        if head != heads.get(table, CHAIN_START):
            yield Violation("CHAIN", f"table {table}: the seating's head is not its last answer's")


def _real_time(history: History) -> Iterator[Violation]:
    """An op submitted after another's answer was seen has the higher LSN."""
    stored = {(answer.device, answer.op_id): answer.reply.lsn for answer in history.answers}
    events: list[tuple[float, int, Submitted | Replied]] = [(e.at_s, 1, e) for e in history.submitted]
    events += [(e.at_s, 0, e) for e in history.replied]
    events.sort(key=lambda event: event[:2])
    highest, answered = 0, ""
    for at_s, _, event in events:
        if isinstance(event, Replied):
            if event.reply.lsn > highest:
                highest, answered = event.reply.lsn, _name(event.device, event.op_id)
            continue
        lsn = stored.get((event.device, event.op_id))
        if lsn is not None and lsn <= highest:
            name = _name(event.device, event.op_id)
            yield Violation(
                "REAL_TIME", f"{name} submitted at {at_s:.3f} has LSN {lsn}, {answered} had {highest}"
            )
