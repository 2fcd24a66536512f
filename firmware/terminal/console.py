# The line console: words for people, JSON lines for machines.
#
# People: see spoken.py, or type help.
# Machines: `!<n> {"do": COMMAND, ...}` is answered by exactly one `=<n> {"ok": true, ...}` or
# `=<n> {"ok": false, "error": CODE, "text": SENTENCE}`. COMMAND is one of
#   info                            who and what this is
#   heap                            free, used, largest block (bytes), after a collection
#   stats                           counters of link, sender, session, outbox, flash
#   screen                          what the guest sees
#   menu {find?, first?, count?}    items [id, name, price] that fit the words, or all; so many from there on
#   order {lines, table?, menu?, total?}   -> op, total; lines [[item id or words, quantity,
#                                   [modifier id or words, ...]], ...]
#   add {item, quantity?, modifiers?}  remove {index}  clear  submit    the basket
#   orders                          ops still in the outbox
#   change {op, lines, total?}  cancel {op, reason?}  -> op; of an order, by its op id
#   waiter {reason?}  bill {shares?, tender?}  pay       -> op; pay seals the bill that was asked for
#   claim                           what pay would seal
#   telemetry                       sends the terminal's own figures once
#   wait {for: "online"|"idle"|"menu", ms}   answers when it is so, or with TIMEOUT
#   drop                            closes the connection to the broker (it comes back)
#   reboot, repl, hang              restart; leave to the MicroPython prompt; stop yielding, for the watchdog
# and, in a bench image, what agent.py adds. Events are lines `@<name> {...}`: boot, ready, online, offline,
# session, menu, queued, reply, notice, ota, error.
import asyncio
import json
import sys

from terminal import heap
from terminal.compat import const, sleep_ms, ticks_diff, ticks_ms
from terminal.flashlog import StorageError
from terminal.stdio import LineReader
from terminal.ui import UiError
from terminal.version import VERSION
from terminal.version import text as version_text
from terminal.wire.errors import WireError

_MAX_WAIT_MS = const(120000)


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code
        self.text = text


class Stop(Exception):
    # The operator asked for the prompt.
    pass


def emit(name, data):
    print("@" + name, json.dumps(data))


def python_name():
    return ".".join([str(n) for n in sys.implementation.version[:3]])


class Console:
    # app: app.Terminal, or None when it could not start; board: the board; write(text): prints one line.
    def __init__(self, app, board, write=print):
        self.app = app
        self.board = board
        self.write = write
        self._spoken = None
        self.commands = {
            "info": self._info,
            "heap": self._heap,
            "stats": self._stats,
            "reboot": self._reboot,
            "repl": self._repl,
            "hang": self._hang,
        }
        if app is not None:
            self.commands.update(
                {
                    "screen": self._screen,
                    "menu": self._menu,
                    "order": self._order,
                    "add": self._add,
                    "remove": self._remove,
                    "clear": self._clear,
                    "submit": self._submit,
                    "orders": self._orders,
                    "change": self._change,
                    "cancel": self._cancel,
                    "waiter": self._waiter,
                    "bill": self._bill,
                    "pay": self._pay,
                    "claim": self._claim,
                    "telemetry": self._telemetry,
                    "wait": self._wait,
                    "drop": self._drop,
                }
            )

    # ------------------------------------------------------------------ lines

    # Until the input ends; raises Stop for `repl`.
    async def run(self):
        reader = LineReader(sys.stdout.write)
        while True:
            line = await reader.line()
            if line is None:
                return
            await self.handle(line)

    async def handle(self, line):
        line = line.strip()
        if line.startswith("!"):
            await self._machine(line)
        elif line:
            self._human(line)

    async def _machine(self, line):
        number, _, body = line[1:].partition(" ")
        try:
            request = json.loads(body)
            command = self.commands.get(request.get("do"))
        except (ValueError, AttributeError):
            self._answer(number, _failure("BAD_LINE", 'a line reads: !1 {"do": "info"}'))
            return
        if command is None:
            self._answer(number, _failure("NO_COMMAND", "no such command"))
            return
        await self._execute(number, command, request)

    async def _execute(self, number, command, request):
        try:
            answer = command(request)
            if hasattr(answer, "send"):  # a coroutine
                answer = await answer
            answer = answer or {}
            answer["ok"] = True
        except (UiError, StorageError, Refused) as error:
            answer = _failure(error.code, error.text)
        except WireError as error:
            answer = _failure(error.code, "the terminal refused it")
        except MemoryError:
            answer = _failure("NO_MEMORY", "there is not enough memory for this now")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            answer = _failure("BAD_ARGUMENT", f"{type(error).__name__}: {error}")
        self._answer(number, answer)

    # An answer too large for the memory at hand becomes a refusal; it never stops the terminal.
    def _answer(self, number, answer):
        try:
            text = json.dumps(answer)
        except MemoryError:
            text = json.dumps(
                _failure("NO_MEMORY", "the answer does not fit the memory at hand: ask for less")
            )
        self.write("=" + number + " " + text)

    def _human(self, line):
        if self._spoken is None:
            from terminal.spoken import Spoken

            self._spoken = Spoken(self, Stop)
        try:
            self._spoken.speak(line)
        except MemoryError:
            self.write("there is not enough memory for this now")

    # ------------------------------------------------------------------ machine commands

    def _info(self, request):
        app = self.app
        info = {
            "firmware": version_text(VERSION),
            "micropython": python_name(),
            "board": self.board.name,
            "hardware": self.board.hardware,
            "reset_cause": self.board.reset_cause(),
        }
        if app is not None:
            menu = app.menu.current()
            info.update(
                {
                    "site": app.identity.site,
                    "device": app.identity.device,
                    "table": app.ui.table,
                    "slot": app.slot,
                    "boots": app.boots,
                    "online": app.ui.online,
                    "linked": app.client.online,
                    "menu": menu.version if menu else 0,
                    "pending": len(app.outbox),
                }
            )
        return info

    def _heap(self, request):
        return heap.figures()

    def _stats(self, request):
        stats = {"flash": self.board.stats()}
        app = self.app
        if app is not None:
            protocol = app.client.protocol
            stats["mqtt"] = {
                "connections": app.client.connections,
                "received": protocol.received,
                "oversized": protocol.oversized,
                "strange_acks": protocol.strange_acks,
                "inflight": protocol.flying,
            }
            stats["sender"] = {
                "replies": app.sender.replies,
                "repeated": app.sender.repeated,
                "resent": app.sender.resent,
                "unanswered": app.sender.unanswered(),
                "refused": app.sender.refused,
            }
            stats["control"] = {
                "handshakes": app.control.handshakes,
                "resumes": app.control.resumes,
                "refused": app.control.refused,
                "costs": app.control.costs,
            }
            stats["outbox"] = {"pending": len(app.outbox), "lost": app.outbox.lost}
            tally = app.tally
            stats["tally"] = {"count": tally.count, "waiting": len(tally.answers), "lost": tally.lost}
        return stats

    def _screen(self, request):
        return {"screen": self.app.ui.screen()}

    def _menu(self, request):
        words = request.get("find")
        first = request.get("first", 0)
        last = first + request.get("count", 100)
        items = self.app.menu.find(words, 100) if words else self.app.menu.items()
        return {"items": [[i.id, i.name, i.price] for row, i in enumerate(items) if first <= row < last]}

    def _order(self, request):
        lines = [self._line(*line) for line in request["lines"]]
        op_id, total = self.app.submit(lines, request.get("table"), request.get("menu"), request.get("total"))
        return {"op": _hex(op_id), "total": total}

    def _line(self, what, quantity=1, modifiers=()):
        ui = self.app.ui
        if isinstance(what, int) and all(isinstance(m, int) for m in modifiers):
            return [what, quantity, list(modifiers)]
        item = ui.find(what)
        return [item.id, quantity, [ui.find_modifier(item, m) for m in modifiers]]

    def _add(self, request):
        line = self.app.ui.add(request["item"], request.get("quantity", 1), request.get("modifiers", ()))
        return {"line": line}

    def _remove(self, request):
        return {"line": self.app.ui.remove(request["index"])}

    def _clear(self, request):
        self.app.ui.clear()

    def _submit(self, request):
        op_id, total = self.submit_basket()
        return {"op": _hex(op_id), "total": total}

    def submit_basket(self):
        ui = self.app.ui
        if not ui.basket:
            raise UiError("BASKET_EMPTY", "the basket is empty")
        result = self.app.submit(ui.basket)
        ui.clear()
        return result

    def _orders(self, request):
        return {"pending": [_hex(op_id) for op_id, _ in self.app.outbox.pending()]}

    def _change(self, request):
        lines = [self._line(*line) for line in request["lines"]]
        op_id, total = self.app.requests().change(request["op"], lines, request.get("total"))
        return {"op": _hex(op_id), "total": total}

    def _cancel(self, request):
        return {"op": _hex(self.app.requests().cancel(request["op"], request.get("reason", 4)))}

    def _waiter(self, request):
        return {"op": _hex(self.app.requests().call(request.get("reason", 0)))}

    def _bill(self, request):
        op_id = self.app.requests().bill(request.get("shares", 1), request.get("tender", 0))
        return {"op": _hex(op_id)}

    async def _pay(self, request):
        return {"op": _hex(await self.app.requests().pay())}

    def _claim(self, request):
        claim = self.app.requests().claim()
        return {
            "bill": claim.bill,
            "total": claim.total,
            "first": _hex(claim.first),
            "last": _hex(claim.last),
            "count": claim.count,
            "chain": _hex(claim.chain),
        }

    def _telemetry(self, request):
        if not self.app.ui.online:
            raise Refused("OFFLINE", "there is no session")
        self.app.requests().telemetry(request.get("uptime_s", 0))

    async def _wait(self, request):
        reached = _CONDITIONS[request["for"]]
        limit_ms = min(request.get("ms", 10000), _MAX_WAIT_MS)
        started = ticks_ms()
        changed = self.app.changed
        while not reached(self.app):
            left_ms = limit_ms - ticks_diff(ticks_ms(), started)
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), max(left_ms, 0) / 1000)
            except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no built-in of that name
                raise Refused("TIMEOUT", f"not so after {limit_ms} ms") from None
        return {"ms": ticks_diff(ticks_ms(), started)}

    def _drop(self, request):
        self.app.client.drop("DROPPED", "asked for on the console")

    async def _reboot(self, request):
        if self.app is not None:
            self.app.outbox.flush()
        await sleep_ms(50)  # lets the last line reach the wire
        self.board.reset()

    def _repl(self, request):
        raise Stop

    def _hang(self, request):
        while True:
            pass


_CONDITIONS = {
    "online": lambda app: app.ui.online,
    "idle": lambda app: len(app.outbox) == 0,
    "menu": lambda app: app.menu.current() is not None,
}


def _failure(code, text):
    return {"ok": False, "error": code, "text": text}


def _hex(data):
    return "".join([f"{byte:02x}" for byte in data])
