# What a guest or waiter asks for beside orders: change or cancel one, call somebody, get and pay the bill.
#
# Every request is an op like an order: journaled before it is sent, answered exactly once. This file is
# loaded with the first of them, or the first notice.
import gc

from terminal.compat import const
from terminal.ui import UiError
from terminal.wire import requests as wire
from terminal.wire.errors import STALE, WireError
from terminal.wire.rsa import run as run_steps

_MOST_SHARES = const(20)
_TENDERS = {"cash": 1, "card": 2}


class Requests:
    cancel_reasons = {"mind": 1, "mistake": 2, "slow": 3, "other": 4}  # noqa: RUF012 - no typing on the device
    call_reasons = {"order": 1, "pay": 2, "help": 3}  # noqa: RUF012

    # app: app.Terminal
    def __init__(self, app):
        self._app = app
        self._closing = False

    # Journals and sends the op that encode(op_id, table, menu version) makes -> op id. kind: "change",
    # "cancel", "waiter", "bill" or "pay", for the screen. Raises StorageError, WireError.
    def _submit(self, kind, encode, target=None):
        app = self._app
        info = app.menu.current()
        op_id = app.outbox.next_op_id(app.board.random)
        op = encode(op_id, app.ui.table, info.version if info else 0)
        app.outbox.append(op_id, op)
        app.ui.on_request(_hex(op_id), kind, target)
        app.send(op_id, op)
        return op_id

    # Replaces the lines of an order. op: its op id, hex; lines: as for an order -> (op id, new total).
    def change(self, op, lines, total_minor=None):
        total = self._app.menu.total(lines) if total_minor is None else total_minor
        target = _bytes(op)
        op_id = self._submit(
            "change",
            lambda op_id, table, menu: wire.encode_change(op_id, table, target, lines, menu, total),
            op,
        )
        return op_id, total

    # reason: 1..4, see cancel_reasons.
    def cancel(self, op, reason=4):
        target = _bytes(op)
        return self._submit(
            "cancel", lambda op_id, table, menu: wire.encode_cancel(op_id, table, target, reason, menu), op
        )

    # reason: 0 not said, or see call_reasons.
    def call(self, reason=0):
        return self._submit("waiter", lambda op_id, table, menu: wire.encode_call(op_id, table, reason, menu))

    # shares: 1..20 guests who pay a part each; tender: 0 not said, 1 cash, 2 card.
    def bill(self, shares=1, tender=0):
        return self._submit(
            "bill", lambda op_id, table, menu: wire.encode_bill_request(op_id, table, shares, tender, menu)
        )

    # The tally.Claim that pay() would seal now. Raises UiError: NO_BILL, UNSEALED.
    def claim(self):
        tally = self._app.tally
        whole = tally.is_whole()
        if tally.claim is not None:
            return tally.claim
        if whole:
            raise UiError("NO_BILL", "there is no bill yet: ask for it with bill")
        raise UiError(
            "UNSEALED", "this terminal has not seen every answer and signs no bill, please ask the staff"
        )

    # Seals the bill that was asked for and closes it -> op id. Takes the device's RSA key, some seconds of
    # a small core. Raises UiError, StorageError, WireError.
    async def pay(self):
        if self._closing:
            raise UiError("BILL_BUSY", "the bill is being sealed already")
        app = self._app
        me = app.identity
        claim = self.claim()
        self._closing = True
        try:
            seal = await run_steps(
                wire.bill_seal_steps(me.private, me.site, me.device, claim, app.board.random)
            )
        finally:
            self._closing = False
        return self._submit(
            "pay",
            lambda op_id, table, menu: wire.encode_bill_close(
                op_id, table, claim.bill, seal, menu, claim.total
            ),
        )

    # The notice in a frame of this session that is newer than `last`. Raises WireError.
    def open_notice(self, frame, last):
        session = self._app.session
        if session.keys is None:
            raise WireError(STALE)
        _, key, th8 = session.keys
        notice = wire.open_notice(key, self._app.identity, session.sid, th8, frame)
        if notice.seq <= last:
            raise WireError(STALE)
        return notice

    # Sends one telemetry frame; it is not journaled and not answered. Raises mqtt.Full, WireError.
    def telemetry(self, uptime_s):
        app = self._app
        session = app.session
        key, _, th8 = session.keys
        rssi = app.board.rssi() if hasattr(app.board, "rssi") else 0
        menu = app.menu.current()
        heap_free = gc.mem_free() if hasattr(gc, "mem_free") else 0
        op = wire.encode_telemetry(
            app.outbox.next_op_id(app.board.random),
            app.ui.table,
            uptime_s,
            heap_free,
            max(app.client.connections - 1, 0),
            app.sender.resent,
            rssi,
            menu.version if menu else 0,
        )
        sealer = session.sealer
        sealer.sequence += 1
        frame = wire.seal_telemetry(key, app.identity, session.sid, th8, sealer.sequence, op)
        app.client.publish(app.sender.topic, frame)
        app.client.flush()

    # ------------------------------------------------------------------ words

    # "1001 2x espresso" -> (the order meant, the rest). The number is the order's, as the kitchen calls it,
    # or counts the orders of this terminal from 1. Raises UiError.
    def find_order(self, words):
        number, _, rest = words.partition(" ")
        if not number.isdigit():
            raise UiError("WHICH_ORDER", "say which order, by the number that orders shows")
        return self._app.ui.order_number(int(number)), rest.strip()

    # "3 cash" -> (shares, tender). Raises UiError.
    def parse_bill(self, words):
        shares, tender = 1, 0
        for word in words.split():
            if word.isdigit() and 1 <= int(word) <= _MOST_SHARES:
                shares = int(word)
            elif word in _TENDERS:
                tender = _TENDERS[word]
            else:
                raise UiError("BAD_BILL", "say bill, bill 3 for three payers, bill cash or bill card")
        return shares, tender

    # A word of one of the tables above -> its number. Raises UiError.
    def reason(self, words, table, otherwise):
        if not words:
            return otherwise
        if words not in table:
            raise UiError("WHICH_REASON", "say " + ", ".join(sorted(table)))
        return table[words]


def _bytes(op):
    if len(op) != 24:
        raise UiError("NO_SUCH_ORDER", "an order has an op id of 24 hex digits")
    return bytes([int(op[i : i + 2], 16) for i in range(0, 24, 2)])


def _hex(data):
    return "".join([f"{byte:02x}" for byte in data])
