# What people type on the console, and what they read. Loaded with the first line somebody types.
import asyncio

from terminal import heap, orderwords
from terminal.flashlog import StorageError
from terminal.ui import UiError
from terminal.version import VERSION
from terminal.version import text as version_text
from terminal.wire.errors import WireError

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
_WITHOUT_APP = ("help", "update", "reboot", "repl")


# Every say_<word>(rest) is a command.
class Spoken:
    # console: Console; stop: the exception that ends the application.
    def __init__(self, console, stop):
        self.app = console.app
        self._console = console
        self._write = console.write
        self._stop = stop
        self._paying = None

    def speak(self, line):
        word, _, rest = line.partition(" ")
        word = word.lower()
        say = getattr(self, "say_" + word, None)
        if say is None:
            self._write(f'"{word}" is not a command; try help')
            return
        if self.app is None and word not in _WITHOUT_APP:
            self._write("the terminal did not start; see the error above")
            return
        try:
            say(rest.strip())
        except (UiError, StorageError) as error:
            self._write(error.text)
        except WireError as error:
            self._write("refused: " + error.code)

    def say_help(self, rest):
        for line in _HELP:
            self._write(line)

    def say_menu(self, rest):
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

    def say_add(self, rest):
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

    def say_order(self, rest):
        kept = self.app.ui.basket
        self.app.ui.basket = []
        try:
            self.say_add(rest)
            self.say_submit("")
        finally:
            self.app.ui.basket = kept

    def say_submit(self, rest):
        app = self.app
        _, total = self._console.submit_basket()
        fate = "sent to the kitchen" if app.ui.online else "kept in the terminal until the network is back"
        self._write(f"table {app.ui.table}: {app.ui.money(total)}, {fate}")

    def say_change(self, rest):
        ui = self.app.ui
        order, words = self.app.requests().find_order(rest)
        kept = ui.basket
        ui.basket = []
        try:
            self.say_add(words)
            _, total = self.app.requests().change(order["op"], ui.basket)
        finally:
            ui.basket = kept
        self._write(f"asked for: {ui.money(total)} together")

    def say_cancel(self, rest):
        requests = self.app.requests()
        order, words = requests.find_order(rest)
        requests.cancel(order["op"], requests.reason(words, requests.cancel_reasons, 4))
        self._write("asked to cancel it")

    def say_waiter(self, rest):
        requests = self.app.requests()
        requests.call(requests.reason(rest, requests.call_reasons, 0))
        self._write("calling somebody")

    def say_bill(self, rest):
        requests = self.app.requests()
        requests.bill(*requests.parse_bill(rest))
        self._write("asking for the bill")

    def say_pay(self, rest):
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

    def say_basket(self, rest):
        ui = self.app.ui
        if not ui.basket:
            self._write("the basket is empty")
            return
        for line in ui.basket:
            self._write("  " + ui.line_text(line))
        self._write("  together " + ui.money(self.app.menu.total(ui.basket)))

    def say_clear(self, rest):
        self.app.ui.clear()
        self._write("the basket is empty")

    def say_orders(self, rest):
        ui = self.app.ui
        if not ui.orders:
            self._write("no orders yet")
        for order in ui.orders:
            what = f"{order['pieces']} pieces, table {order['table']}"
            self._write(f"  {ui.money(order['total']):>12}  {what}: {order['text']}")

    def say_status(self, rest):
        app = self.app
        info = app.menu.current()
        link = "connected" if app.ui.online else "not connected"
        self._write(f"{app.identity.device} at {app.identity.site}, table {app.ui.table}: {link}")
        waiting = len(app.outbox)
        self._write(
            f"menu {info.version if info else 'none'}, "
            f"{waiting} order{'' if waiting == 1 else 's'} waiting for an answer"
        )
        self._write(f"firmware {version_text(VERSION)} from {app.slot}, {heap.figures()['free']} bytes free")
        if app.ui.notice:
            self._write(app.ui.notice)

    def say_update(self, rest):
        slot = self.app.slot if self.app is not None else "factory"
        self._write(f"firmware {version_text(VERSION)} from {slot}; updates are installed by themselves")

    def say_reboot(self, rest):
        self._write("restarting")
        if self.app is not None:
            self.app.outbox.flush()
        self._console.board.reset()

    def say_repl(self, rest):
        raise self._stop
