# What a screen on the table would show, without a screen: menu, basket, orders and their fate.
#
# No I/O: the application tells it what happened, whoever draws (console, bench, display) asks screen().
# Everything a guest reads is made here, so that a test can order like a guest and read what a guest would
# read.
from terminal.compat import const
from terminal.flashlog import StorageError
from terminal.wire.frames import COMMITTED, REJECTED, REPRICE, SOLD_OUT, TABLE_CLOSED

_MAX_LINES = const(32)
_MAX_ORDERS = const(12)
_PAGE_ITEMS = const(8)

# States of an order on the screen
QUEUED = "queued"  # in the journal, not yet on its way
SENT = "sent"
CONFIRMED = "confirmed"
REFUSED = "refused"

_REJECTIONS = {
    1: "this terminal asked for something the server does not know",
    2: "this terminal does not serve that table",
    3: "an item is not on the menu any more",
    4: "a choice is not on the menu any more",
    5: "a choice is missing, or there are too many",
    6: "the quantity is not possible",
    7: "the menu is not known to the kitchen",
    8: "this order was already sent with other contents",
    9: "the order could not be read",
    10: "the order is too large",
    11: "this table has no such order",
    12: "the kitchen has begun with it already",
    13: "there is no open bill",
    14: "the bill's seal was not accepted, please ask the staff",
    15: "it is closed already",
    16: "something was ordered or paid meanwhile: please ask for the bill again",
}
_STATES = ("in the kitchen", "being prepared", "ready", "served", "cancelled")
_PREPARING = const(1)
_CANCELLED = const(4)


class UiError(Exception):
    # What a guest did that cannot be done; code for machines, text for the guest.
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code
        self.text = text


class Ui:
    # menu: MenuStore. table: the table this terminal stands on.
    def __init__(self, menu, table):
        self.menu = menu
        self.table = table
        self.basket = []  # [item id, quantity, [modifier id, ...]]
        self.orders = []  # dicts, newest last, at most _MAX_ORDERS
        self.online = False
        self.seating = None  # {"id", "total"} while the server says that guests sit here
        self._party = 0  # the seating last heard of
        self.requests = {}  # op -> (kind, op of the order meant) of requests without an answer
        self.bill = None  # {"bill", "total"} that was asked for
        self.notice = ""  # one line for the guest: the last thing that went wrong
        self.page = 0

    # ------------------------------------------------------------------ choosing

    # The one item a guest means by a number or by words. Raises UiError when there is none, or more than one.
    def find(self, what):
        if isinstance(what, int):
            return self.menu.item(what)
        found = self.menu.find(what)
        if not found:
            raise UiError("NO_SUCH_ITEM", f'nothing on the menu is called "{what}"')
        if len(found) > 1:
            names = ", ".join([item.name for item in found])
            raise UiError("WHICH_ITEM", f'"{what}" could be: {names}')
        return found[0]

    # The id of a choice of this item, by id or by words.
    def find_modifier(self, item, what):
        if isinstance(what, int):
            return what
        wanted = what.lower().split()
        found = []
        for group_id in item.groups:
            for modifier_id, name, _ in self.menu.group(group_id).modifiers:
                words = name.lower().split()
                if words == wanted:
                    return modifier_id
                if all(any(word.startswith(w) for word in words) for w in wanted):
                    found.append((modifier_id, name))
        if not found:
            raise UiError("NO_SUCH_CHOICE", f'{item.name} does not come with "{what}"')
        if len(found) > 1:
            names = ", ".join([name for _, name in found])
            raise UiError("WHICH_CHOICE", f'"{what}" could be: {names}')
        return found[0][0]

    # Puts one line into the basket and returns it. what: item id or words; modifiers: ids or words.
    def add(self, what, quantity=1, modifiers=()):
        if not 1 <= quantity <= 99:
            raise UiError("BAD_QUANTITY", "between 1 and 99 of one thing, please")
        if len(self.basket) >= _MAX_LINES:
            raise UiError("BASKET_FULL", "the basket is full: order what is in it first")
        item = self.find(what)
        line = [item.id, quantity, [self.find_modifier(item, m) for m in modifiers]]
        self.menu.total([line])  # a missing or surplus choice is told at once
        self.basket.append(line)
        return line

    def remove(self, index):
        if not 0 <= index < len(self.basket):
            raise UiError("NO_SUCH_LINE", "the basket has no such line")
        return self.basket.pop(index)

    def clear(self):
        self.basket = []

    # A new menu: lines that do not fit it any more leave the basket, and the guest is told.
    def on_menu(self):
        kept = []
        for line in self.basket:
            try:
                self.menu.total([line])
                kept.append(line)
            except StorageError:
                self.notice = "the menu has changed: please look at your basket again"
        self.basket = kept

    # ------------------------------------------------------------------ orders

    def on_queued(self, op, lines, total_minor, table):
        if len(self.orders) >= _MAX_ORDERS:
            self._forget_one()
        self.orders.append(
            {
                "op": op,
                "state": SENT if self.online else QUEUED,
                "pieces": sum([line[1] for line in lines]),
                "total": total_minor,
                "table": table,
                "number": 0,
                "kitchen": 0,
                "text": "on its way" if self.online else "kept until the network is back",
            }
        )

    # The orders that are decided leave the list first.
    def _forget_one(self):
        for i, order in enumerate(self.orders):
            if order["state"] in (CONFIRMED, REFUSED):
                self.orders.pop(i)
                return
        self.orders.pop(0)

    # A change, cancellation, call or bill that was journaled. kind: see requests.py.
    def on_request(self, op, kind, target):
        while len(self.requests) >= _MAX_ORDERS:
            self.requests.pop(next(iter(self.requests)))
        self.requests[op] = (kind, target)

    # The order that staff and guest call by this number: the kitchen's, or the place in the list from 1.
    def order_number(self, number):
        for order in self.orders:
            if order["number"] == number:
                return order
        if 1 <= number <= len(self.orders):
            return self.orders[number - 1]
        raise UiError("NO_SUCH_ORDER", f"there is no order {number} here")

    def on_final(self, op, status, arg, number, total_minor):
        if op in self.requests:
            return self._on_request_final(op, status, arg, number, total_minor)
        text = self.explain(status, arg, number, total_minor)
        if status != COMMITTED:
            self.notice = text
        for order in self.orders:
            if order["op"] == op:
                order["state"] = CONFIRMED if status == COMMITTED else REFUSED
                order["number"] = number
                order["text"] = text
                if status == COMMITTED:
                    order["total"] = total_minor
        return text

    def _on_request_final(self, op, status, arg, number, total_minor):
        kind, target = self.requests.pop(op)
        if status != COMMITTED:
            self.notice = self.explain(status, arg, number, total_minor)
            return self.notice
        if kind == "waiter":
            return "somebody is on the way"
        if kind == "bill":
            self.bill = {"bill": arg, "total": total_minor}
            return f"the bill is {self.money(total_minor)}, somebody is on the way"
        if kind == "pay":
            self.bill = None
            self.seating = None
            return f"{self.money(total_minor)} sealed and closed, thank you"
        text = f"order {number} was cancelled"
        if kind == "change":
            text = f"order {number} was changed, it is {self.money(total_minor)} now"
        for order in self.orders:
            if order["op"] == target:
                order["text"] = text
                order["total"] = total_minor
                if kind == "cancel":
                    order["kitchen"] = _CANCELLED
        return text

    # A new session: who sits here is announced next, or nobody does. What happened meanwhile was not heard.
    def on_session(self, table):
        self.table = table
        self.seating = None

    # News about this table: what the server says goes on. arg of kind 5: order number << 3 | state.
    def on_notice(self, kind, table, seating, total_minor, arg):
        if kind in (1, 3):
            self.table = table
            self.seating = {"id": seating, "total": total_minor}
            if seating != self._party:
                self.bill = None  # another party's
            self._party = seating
            if kind == 3:
                self.notice = f"the guests now sit at table {table}"
        elif kind in (2, 4):
            self.seating = None
            self.bill = None
            if kind == 2:
                self.notice = "the guests have moved to another table"
        else:
            if self.seating is not None:
                self.seating["total"] = total_minor
            state = arg & 7
            for order in self.orders:
                if order["number"] == arg >> 3 and state < len(_STATES):
                    order["kitchen"] = state
                    if state >= _PREPARING:
                        order["text"] = f"order {order['number']} is {_STATES[state]}"

    def on_link(self, online):
        self.online = online
        for order in self.orders:
            if order["state"] == QUEUED and online:
                order["state"] = SENT
                order["text"] = "on its way"

    # A final answer in words.
    def explain(self, status, arg, number, total_minor):
        if status == COMMITTED and not number:
            return "done"  # asked for before a restart, not an order
        if status == COMMITTED:
            return f"order {number} is in the kitchen, {self.money(total_minor)}"
        if status == REPRICE:
            return f"prices have changed: it would be {self.money(total_minor)} now, please order again"
        if status == SOLD_OUT:
            return f"sold out: {self.item_name(arg)}"
        if status == TABLE_CLOSED:
            return "this table is closed, please ask the staff"
        if status == REJECTED:
            return "not accepted: " + _REJECTIONS.get(arg, f"reason {arg}")
        return f"not accepted: answer {status}"

    # ------------------------------------------------------------------ words

    def money(self, minor):
        if self.menu.current() is None:
            return str(minor)
        index = self.menu.index
        unit = 10**index.exponent
        if unit == 1:
            return f"{minor} {index.currency}"
        cents = str(unit + minor % unit)[1:]
        return f"{minor // unit}.{cents} {index.currency}"

    def item_name(self, item_id):
        if self.menu.current() is None or item_id not in self.menu.index.items:
            return f"item {item_id}"
        return self.menu.item(item_id).name

    # "2 x flat white with oat milk  8.20 EUR"
    def line_text(self, line):
        item = self.menu.item(line[0])
        names = []
        for group_id in item.groups:
            for modifier_id, name, _ in self.menu.group(group_id).modifiers:
                if modifier_id in line[2]:
                    names.append(name)
        extra = " with " + ", ".join(names) if names else ""
        return f"{line[1]} x {item.name}{extra}  {self.money(self.menu.total([line]))}"

    def banner(self):
        if self.menu.current() is None:
            return "no menu yet: the terminal needs the network once"
        if self.online:
            return ""
        waiting = len([order for order in self.orders if order["state"] in (QUEUED, SENT)])
        if waiting:
            return f"no connection: {waiting} kept, nothing is lost"
        return "no connection: orders are kept until it is back"

    # ------------------------------------------------------------------ the screen

    def screen(self):
        info = self.menu.current()
        page = []
        if info is not None:
            first = self.page * _PAGE_ITEMS
            for row, item in enumerate(self.menu.items()):
                if row >= first + _PAGE_ITEMS:
                    break
                if row >= first:
                    page.append([item.id, item.name, item.price])
        return {
            "table": self.table,
            "online": self.online,
            "banner": self.banner(),
            "notice": self.notice,
            "menu": {"version": info.version if info else 0, "page": self.page, "items": page},
            "basket": {
                "lines": self.basket,
                "total": self.menu.total(self.basket) if self.basket else 0,
            },
            "orders": self.orders,
            "seating": self.seating,
            "bill": self.bill,
        }
