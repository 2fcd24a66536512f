# The line console: words for people, JSON lines for machines.
#
# People: help, menu [words], order WORDS, add WORDS, basket, submit, clear, orders, status, reboot, repl.
# Machines: `!<n> {"do": COMMAND, ...}` is answered by exactly one `=<n> {"ok": true, ...}` or
# `=<n> {"ok": false, "error": CODE, "text": SENTENCE}`. COMMAND is one of
#   info                            who and what this is
#   heap                            free, used, largest block (bytes), after a collection
#   stats                           counters of link, sender, session, outbox, flash
#   screen                          what the guest sees
#   menu {find?, first?, count?}    items [id, name, price] that fit the words, or all; so many from there on
#   order {lines, table?, menu?, total?}   lines [[item id or words, quantity, [modifier id or words]]] ->
# op, total add {item, quantity?, modifiers?}  remove {index}  clear  submit    the basket
#   orders                          ops still in the outbox
#   change {op, lines, total?}  cancel {op, reason?}  -> op; of an order, by its op id
#   waiter {reason?}  bill {shares?, tender?}  pay       -> op; pay seals the bill that was asked for
#   claim                           what pay would seal
#   telemetry                       sends the terminal's own figures once
#   wait {for: "online"|"idle"|"menu", ms}   answers when it is so, or with TIMEOUT
#   drop                            closes the connection to the broker (it comes back)
#   reboot, repl, hang              restart; leave to the MicroPython prompt; stop yielding (the watchdog's
# case) and, in a bench image, what agent.py adds. Events are lines `@<name> {...}`: boot, ready, online,
# offline, session, menu, queued, reply, notice, ota, error.
import asyncio
import json
import sys

from terminal import heap, orderwords
from terminal.compat import const, sleep_ms, ticks_diff, ticks_ms
from terminal.flashlog import StorageError
from terminal.stdio import LineReader
from terminal.ui import UiError
from terminal.version import VERSION
from terminal.version import text as version_text
from terminal.wire.errors import WireError

_MAX_WAIT_MS = const(120000)
_HELP = (
    "help                      this list",
    "menu [words]              what there is, or what fits the words",
    'order 2x espresso + 1x "flat white" with oat milk',
    "add, basket, clear, submit   the same in steps",
    "orders                    what became of your orders",
    "change 1001 2x espresso   replaces what that order consists of",
    "cancel 1001 [mind | mistake | slow | other]",
    "waiter [order | pay | help]   calls somebody",
    "bill [3] [cash | card]    asks for the bill, here for three payers",
    "pay                       seals the bill and closes it",
    "status                    connection, menu, memory",
    "update                    which version runs",
    "reboot                    restart the terminal",
    "repl                      leave to the MicroPython prompt (Ctrl-C does the same)",
)


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
        self._write = write
        self._paying = None
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
        self._words = {
            "help": self._say_help,
            "menu": self._say_menu,
            "order": self._say_order,
            "add": self._say_add,
            "basket": self._say_basket,
            "clear": self._say_clear,
            "submit": self._say_submit,
            "orders": self._say_orders,
            "change": self._say_change,
            "cancel": self._say_cancel,
            "waiter": self._say_waiter,
            "bill": self._say_bill,
            "pay": self._say_pay,
            "status": self._say_status,
            "update": self._say_update,
            "reboot": self._reboot_words,
            "repl": self._repl_words,
        }

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
        self._write("=" + number + " " + text)

    def _human(self, line):
        word, _, rest = line.partition(" ")
        speak = self._words.get(word.lower())
        if speak is None:
            self._write(f'"{word}" is not a command; try help')
            return
        if self.app is None and word not in ("help", "reboot", "repl", "update"):
            self._write("the terminal did not start; see the error above")
            return
        try:
            speak(rest.strip())
        except (UiError, StorageError) as error:
            self._write(error.text)
        except WireError as error:
            self._write("refused: " + error.code)

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
        op_id, total = self._submit_basket()
        return {"op": _hex(op_id), "total": total}

    def _submit_basket(self):
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

    # ------------------------------------------------------------------ words for people

    def _say_help(self, rest):
        for line in _HELP:
            self._write(line)

    def _say_menu(self, rest):
        app = self.app
        if app.menu.current() is None:
            self._write(app.ui.banner())
            return
        if rest:
            items = app.menu.find(rest, 20)
            if not items:
                self._write(f'nothing on the menu fits "{rest}"')
            for item in items:
                self._write_item(item)
                for group_id in item.groups:
                    group = app.menu.group(group_id)
                    names = ", ".join([name for _, name, _ in group.modifiers])
                    need = "choose " if group.min else "with "
                    self._write(f"        {need}{group.name}: {names}")
            return
        for category, name in app.menu.categories():
            self._write(name)
            for item in app.menu.items(category):
                self._write_item(item)

    def _write_item(self, item):
        self._write(f"  {self.app.ui.money(item.price):>12}  {item.name}")

    def _say_add(self, rest):
        ui = self.app.ui
        before = len(ui.basket)
        try:
            for quantity, name, modifiers in orderwords.parse(rest, self._is_name):
                ui.add(name, quantity, modifiers)
        except (UiError, StorageError):
            del ui.basket[before:]  # all of it, or nothing
            raise
        for line in ui.basket[before:]:
            self._write("  " + ui.line_text(line))

    def _is_name(self, words):
        items = self.app.menu.find(words, 2)
        return len(items) == 1

    def _say_order(self, rest):
        kept = self.app.ui.basket
        self.app.ui.basket = []
        try:
            self._say_add(rest)
            self._say_submit("")
        finally:
            self.app.ui.basket = kept

    def _say_submit(self, rest):
        app = self.app
        _, total = self._submit_basket()
        fate = "sent to the kitchen" if app.ui.online else "kept in the terminal until the network is back"
        self._write(f"table {app.ui.table}: {app.ui.money(total)}, {fate}")

    def _say_change(self, rest):
        ui = self.app.ui
        order, words = self.app.requests().find_order(rest)
        kept = ui.basket
        ui.basket = []
        try:
            self._say_add(words)
            _, total = self.app.requests().change(order["op"], ui.basket)
        finally:
            ui.basket = kept
        self._write(f"asked for: {ui.money(total)} together")

    def _say_cancel(self, rest):
        requests = self.app.requests()
        order, words = requests.find_order(rest)
        requests.cancel(order["op"], requests.reason(words, requests.cancel_reasons, 4))
        self._write("asked to cancel it")

    def _say_waiter(self, rest):
        requests = self.app.requests()
        requests.call(requests.reason(rest, requests.call_reasons, 0))
        self._write("calling somebody")

    def _say_bill(self, rest):
        requests = self.app.requests()
        requests.bill(*requests.parse_bill(rest))
        self._write("asking for the bill")

    def _say_pay(self, rest):
        claim = self.app.requests().claim()
        self._write(f"sealing the bill of {self.app.ui.money(claim.total)}")
        self._paying = asyncio.create_task(self._pay_for())

    # What people asked for with `pay`, in the background: the signature takes a while.
    async def _pay_for(self):
        try:
            await self.app.requests().pay()
        except (UiError, StorageError) as error:
            self._write(error.text)
        except WireError as error:
            self._write("refused: " + error.code)

    def _say_basket(self, rest):
        ui = self.app.ui
        if not ui.basket:
            self._write("the basket is empty")
            return
        for line in ui.basket:
            self._write("  " + ui.line_text(line))
        self._write("  together " + ui.money(self.app.menu.total(ui.basket)))

    def _say_clear(self, rest):
        self.app.ui.clear()
        self._write("the basket is empty")

    def _say_orders(self, rest):
        ui = self.app.ui
        if not ui.orders:
            self._write("no orders yet")
        for order in ui.orders:
            what = f"{order['pieces']} pieces, table {order['table']}"
            self._write(f"  {ui.money(order['total']):>12}  {what}: {order['text']}")

    def _say_status(self, rest):
        app = self.app
        info = app.menu.current()
        link = "connected" if app.ui.online else "not connected"
        self._write(f"{app.identity.device} at {app.identity.site}, table {app.ui.table}: {link}")
        self._write(
            f"menu {info.version if info else 'none'}, {len(app.outbox)} orders waiting for their answer"
        )
        self._write(f"firmware {version_text(VERSION)} from {app.slot}, {heap.figures()['free']} bytes free")
        if app.ui.notice:
            self._write(app.ui.notice)

    def _say_update(self, rest):
        slot = self.app.slot if self.app is not None else "factory"
        self._write(f"firmware {version_text(VERSION)} from {slot}; updates are installed by themselves")

    def _reboot_words(self, rest):
        self._write("restarting")
        if self.app is not None:
            self.app.outbox.flush()
        self.board.reset()

    def _repl_words(self, rest):
        raise Stop


_CONDITIONS = {
    "online": lambda app: app.ui.online,
    "idle": lambda app: len(app.outbox) == 0,
    "menu": lambda app: app.menu.current() is not None,
}


def _failure(code, text):
    return {"ok": False, "error": code, "text": text}


def _hex(data):
    return "".join([f"{byte:02x}" for byte in data])
