"""Judge a history: replay what was committed in LSN order through a plain model, then look at real time.

The model knows nothing of the server's code: money is a sum of integers, stock a dictionary, the chain a
SHA-256. Every rule that fails is reported under its own code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from hashlib import sha256

from bench.history.events import (
    Answer,
    History,
    MenuPrices,
    Replied,
    Reply,
    StoredLine,
    Submitted,
    Violation,
)

COMMITTED, REPRICE, SOLD_OUT, REJECTED = 0, 1, 2, 3
CHAIN_START = bytes(32)


def check(history: History) -> list[Violation]:
    """Every violation found, in a fixed order."""
    found: list[Violation] = []
    for rule in (_answers, _replies, _orders, _queued, _stock, _money, _tax, _honest, _chains, _real_time):
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


def _orders(history: History) -> Iterator[Violation]:
    """Committed orders are what their guests ordered, under numbers 1, 2, 3 ..."""
    wanted = {(op.device, op.op_id): op for op in history.submitted}
    number = 0
    for answer in sorted(history.answers, key=lambda answer: answer.reply.lsn):
        op = wanted.get((answer.device, answer.op_id))
        name = _name(answer.device, answer.op_id)
        if op is None:
            yield Violation("NOBODY_ORDERED", f"{name} is stored and no guest submitted it")
        if answer.reply.status != COMMITTED:
            continue
        number += 1
        if answer.reply.order_number != number:
            yield Violation(
                "ORDER_NUMBER", f"{name} has number {answer.reply.order_number}, {number} was due"
            )
        if op is not None:
            yield from _same_order(op, answer, name)


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


def _same_order(op: Submitted, answer: Answer, name: str) -> Iterator[Violation]:
    stored = tuple(line.wanted for line in answer.lines)
    if stored != op.lines:
        yield Violation("OTHER_LINES", f"{name}: ordered {op.lines}, stored {stored}")
    if answer.table != op.table:
        yield Violation("OTHER_TABLE", f"{name}: ordered at {op.table}, stored for {answer.table}")
    if answer.reply.total_minor != op.total_minor:
        yield Violation(
            "OTHER_TOTAL", f"{name}: {op.total_minor} shown, {answer.reply.total_minor} committed"
        )


def _stock(history: History) -> Iterator[Violation]:
    """Counted stock never falls below zero, and nothing of it vanishes."""
    if not history.restocked:
        return
    level: dict[int, int] = defaultdict(int)
    wanted = {(op.device, op.op_id): op for op in history.submitted}
    counted = {change.item for change in history.restocked}
    changes = sorted(history.restocked, key=lambda change: change.lsn)
    at = 0
    for answer in sorted(history.answers, key=lambda answer: answer.reply.lsn):
        while at < len(changes) and changes[at].lsn < answer.reply.lsn:
            level[changes[at].item] += changes[at].delta
            at += 1
        if answer.reply.status == SOLD_OUT:
            item, op = answer.reply.arg, wanted.get((answer.device, answer.op_id))
            asked = sum(line[1] for line in op.lines if line[0] == item) if op is not None else 0
            if item in counted and asked <= level[item]:
                yield Violation(
                    "FALSE_SOLD_OUT",
                    f"item {item}: {asked} refused at LSN {answer.reply.lsn}, {level[item]} there",
                )
        if answer.reply.status == COMMITTED:
            for item, count in _taken(answer).items():
                if item in counted:
                    level[item] -= count
                    if level[item] < 0:
                        yield Violation(
                            "OVERSOLD", f"item {item} fell to {level[item]} at LSN {answer.reply.lsn}"
                        )
    for change in changes[at:]:
        level[change.item] += change.delta
    for item in sorted(counted):
        if history.stock.get(item) != level[item]:
            yield Violation(
                "STOCK", f"item {item}: {history.stock.get(item)} stored, the model has {level[item]}"
            )


def _taken(answer: Answer) -> Counter[int]:
    taken: Counter[int] = Counter()
    for line in answer.lines:
        taken[line.item] += line.quantity
    return taken


def _money(history: History) -> Iterator[Violation]:
    """Totals are integer sums of line prices, and the bill of a table is the sum of its orders."""
    wanted = {(op.device, op.op_id): op for op in history.submitted}
    tables: Counter[str] = Counter()
    for answer in history.answers:
        if answer.reply.status != COMMITTED:
            continue
        name = _name(answer.device, answer.op_id)
        total = sum(line.total_minor for line in answer.lines)
        wrong = [line for line in answer.lines if line.quantity * line.unit_minor != line.total_minor]
        if wrong or total != answer.reply.total_minor:
            yield Violation(
                "MONEY", f"{name}: lines add up to {total}, {answer.reply.total_minor} was confirmed"
            )
        tables[answer.table] += answer.reply.total_minor
        op = wanted.get((answer.device, answer.op_id))
        menu = history.menus.get(op.menu_version) if op is not None else None
        if op is not None and menu is not None and menu.total_minor(op.lines) != op.total_minor:
            yield Violation("SHOWN_PRICE", f"{name}: the guest saw {op.total_minor}")
    for table, (total, _) in sorted(history.seatings.items()):
        if total != tables[table]:
            yield Violation("BILL", f"table {table}: bill {total}, orders {tables[table]}")


def _tax(history: History) -> Iterator[Violation]:
    """Tax follows the rounding rule that the menu declares.

    An order may be priced on a later menu that costs the guest the same: any published one may explain it.
    """
    menus = [menu for menu in history.menus.values() if menu.tax_basis_points]
    for answer in history.answers:
        if answer.reply.status == COMMITTED and menus:
            found = tuple(line.tax_minor for line in answer.lines)
            if all(found != expected_tax(menu, answer.lines) for menu in menus):
                yield Violation("TAX", f"{_name(answer.device, answer.op_id)}: tax {found}")


def expected_tax(menu: MenuPrices, lines: Sequence[StoredLine]) -> tuple[int, ...]:
    """Tax of each line: gross x rate / (1 + rate), half up; per bill: of the running sum of its rate."""
    gross: Counter[int] = Counter()
    found = []
    for line in lines:
        rate = menu.tax_basis_points.get(line.item, 0)
        before = gross[rate] if menu.rounds_per_bill else 0
        gross[rate] += line.total_minor
        found.append(_contained(before + line.total_minor, rate) - _contained(before, rate))
    return tuple(found)


def _contained(gross_minor: int, rate: int) -> int:
    exact = Fraction(gross_minor * rate, 10_000 + rate)
    return int(exact + Fraction(1, 2))


def _honest(history: History) -> Iterator[Violation]:
    """Who orders what is on the menu is not rejected, and is asked to pay another price only for a reason."""
    if not history.honest:
        return
    wanted = {(op.device, op.op_id): op for op in history.submitted}
    for answer in history.answers:
        op = wanted.get((answer.device, answer.op_id))
        reply, name = answer.reply, _name(answer.device, answer.op_id)
        if reply.status == REJECTED:
            yield Violation("FALSE_REJECT", f"{name} was rejected with code {reply.arg}")
        elif reply.status == REPRICE and op is not None:
            menu = history.menus.get(reply.arg)
            asked = menu.total_minor(op.lines) if menu is not None else None
            if asked != reply.total_minor or asked == op.total_minor:
                yield Violation("FALSE_REPRICE", f"{name}: {op.total_minor} shown, {reply.total_minor} asked")


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
