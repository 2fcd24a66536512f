# What the terminal keeps in RAM of its menu: prices, choice rules, and where the names stand in the file.
#
# Built by one pass over the stored frame, which is also the full judgement of its shape: every bound of the
# CDDL, ids unique, references valid, no group that nobody can satisfy. About 20 bytes an item.

from array import array

from .compat import const
from .flashlog import StorageError
from .wire.cbor import U16, U32, Reader
from .wire.errors import WireError

MAX_DELTA = const(1000000)
MAX_TOTAL_MINOR = const(100000000)  # what the server accepts in one order
MAX_MODIFIERS = const(1024)
_MAX_NAME = const(48)
_ENTRY_BYTES = const(128)  # longer than any tax, category, group head, modifier or item
_WINDOW_BYTES = const(512)
_STEP_ENTRIES = const(12)


class MenuError(StorageError):
    # A menu that is refused, or an order that does not fit the menu.
    pass


class Window:
    # A wire Reader that slides over file[start:end]: `more` before each entry, then read through .reader.

    def __init__(self, file, start, end):
        self._buf = bytearray(_WINDOW_BYTES)
        self._file = file
        self._next = start
        self._end = end
        self.reader = Reader(self._buf, 0, 0)
        file.seek(start)
        self.more()

    def more(self):
        reader = self.reader
        left = reader.stop - reader.pos
        if left >= _ENTRY_BYTES or self._next == self._end:
            return
        buf = self._buf
        buf[:left] = buf[reader.pos : reader.stop]
        n = min(_WINDOW_BYTES - left, self._end - self._next)
        if self._file.readinto(memoryview(buf)[left : left + n]) != n:
            raise MenuError("MENU_TORN", "the stored menu is shorter than it says")
        self._next += n
        reader.pos = 0
        reader.stop = left + n

    def offset(self):
        # Where in the file the next item begins.
        return self._next - (self.reader.stop - self.reader.pos)


class Index:
    # Filled by `read_steps`; the rows are in menu order.

    def __init__(self):
        self.version = 0
        self.currency = ""
        self.exponent = 0
        self.rounding = 0
        self.categories_at = 0  # file offset of the first category
        self.categories = bytearray()  # ids
        self.items = {}  # item id -> row
        self.item_at = array("H")  # row -> file offset
        self.item_price = array("I")
        self.item_category = bytearray()
        self.item_plain = bytearray()  # row -> 1 if no choice is required
        self.item_groups = bytearray()  # group rows of item 0, of item 1, ...
        self.item_groups_end = array("H")  # row -> end of its group rows
        self.groups = {}  # group id -> row
        self.group_at = array("H")  # row -> file offset of [id, name, min, max, modifiers]
        self.group_min = bytearray()
        self.group_max = bytearray()
        self.modifiers = {}  # modifier id -> row
        self.modifier_delta = array("i")
        self.modifier_group = bytearray()  # row -> group row

    def groups_of(self, row):
        # -> the group rows of an item row.
        end = self.item_groups_end
        return self.item_groups[end[row - 1] if row else 0 : end[row]]

    def unit_minor(self, row, modifiers):
        # -> what one piece of an item row costs with these modifier ids, in minor units.
        # Raises MenuError UNKNOWN_MODIFIER, MODIFIER_RULE.
        if len(modifiers) > 8:
            raise MenuError("MODIFIER_RULE", "a line takes at most 8 choices")
        groups = self.groups_of(row)
        taken = bytearray(len(groups))
        unit = self.item_price[row]
        for modifier in modifiers:
            chosen = self.modifiers.get(modifier)
            if chosen is None:
                raise MenuError("UNKNOWN_MODIFIER", "the menu has no such choice")
            place = groups.find(self.modifier_group[chosen : chosen + 1])
            if place < 0:
                raise MenuError("MODIFIER_RULE", "this choice does not belong to this item")
            taken[place] += 1
            unit += self.modifier_delta[chosen]
        for place, group in enumerate(groups):
            if not self.group_min[group] <= taken[place] <= self.group_max[group]:
                raise MenuError("MODIFIER_RULE", "a required choice is missing, or there are too many")
        if unit < 0:
            raise MenuError("MODIFIER_RULE", "these choices make the item cost less than nothing")
        return unit

    def total_minor(self, lines):
        # lines: [item id, quantity, [modifier id, ...]] each -> the order's total in minor units.
        # Raises MenuError UNKNOWN_ITEM, BAD_QUANTITY, UNKNOWN_MODIFIER, MODIFIER_RULE, TOO_LARGE.
        total = 0
        for item, quantity, modifiers in lines:
            row = self.items.get(item)
            if row is None:
                raise MenuError("UNKNOWN_ITEM", "the menu has no such item")
            if not 1 <= quantity <= 99:
                raise MenuError("BAD_QUANTITY", "a line takes 1 to 99 pieces")
            if modifiers or not self.item_plain[row]:
                total += quantity * self.unit_minor(row, modifiers)
            else:
                total += quantity * self.item_price[row]
        if not 1 <= len(lines) <= 32 or total > MAX_TOTAL_MINOR:
            raise MenuError("TOO_LARGE", "an order takes 1 to 32 lines and a limited total")
        return total


def _refuse(text):
    raise MenuError("MENU_SHAPE", text)


def read_steps(file, start, end):
    # Generator; its value is the Index of the menu at file[start:end]. Yields every few entries.
    # Raises MenuError MENU_SHAPE.
    try:
        return (yield from _read_steps(Window(file, start, end)))
    except WireError as refusal:
        raise MenuError("MENU_SHAPE", "the menu is not of the agreed shape: " + refusal.code) from None


def _read_steps(window):
    index = Index()
    reader = window.reader
    reader.array(8)
    index.version = reader.uint(U32)
    index.currency = reader.tstr(3, 3)
    index.exponent = reader.uint(4)
    index.rounding = reader.uint(1)
    taxes = bytearray()
    for _ in range(reader.array((1, 16))):
        window.more()
        reader.array(3)
        _add_id(taxes, reader.uint(255, 1))
        reader.tstr(1, _MAX_NAME)
        reader.uint(10000)
    window.more()
    count = reader.array((1, 64))
    index.categories_at = window.offset()
    for row in range(count):
        window.more()
        reader.array(2)
        _add_id(index.categories, reader.uint(255, 1))
        reader.tstr(1, _MAX_NAME)
        if row % _STEP_ENTRIES == 0:
            yield
    window.more()
    for _ in range(reader.array((0, 256))):
        _read_group(index, window)
        yield
    window.more()
    for row in range(reader.array((1, 1024))):
        _read_item(index, window, taxes)
        if row % _STEP_ENTRIES == 0:
            yield
    reader.end()
    return index


def _add_id(ids, new):
    if bytes((new,)) in ids:
        _refuse("two taxes or categories have the same id")
    ids.append(new)


def _read_group(index, window):
    window.more()
    reader = window.reader
    row = len(index.groups)
    index.group_at.append(window.offset())
    reader.array(5)
    group = reader.uint(U16, 1)
    reader.tstr(1, _MAX_NAME)
    least = reader.uint(8)
    most = reader.uint(8, 1)
    count = reader.array((1, 32))
    if group in index.groups or least > min(most, count):
        _refuse("two groups have the same id, or nobody can choose enough of one")
    if len(index.modifiers) + count > MAX_MODIFIERS:
        raise MenuError("MENU_TOO_LARGE", "the menu has more choices than this terminal keeps")
    index.groups[group] = row
    index.group_min.append(least)
    index.group_max.append(most)
    for _ in range(count):
        window.more()
        modifier, _name, delta = read_modifier(reader)
        if modifier in index.modifiers:
            _refuse("two choices have the same id")
        index.modifiers[modifier] = len(index.modifiers)
        index.modifier_delta.append(delta)
        index.modifier_group.append(row)


def read_modifier(reader):
    # -> (id, name, delta in minor units)
    reader.array(3)
    return reader.uint(U16, 1), reader.tstr(1, _MAX_NAME), reader.int(-MAX_DELTA, MAX_DELTA)


def _read_item(index, window, taxes):
    window.more()
    at = window.offset()
    item, category, _name, price, tax, groups = read_item(window.reader)
    known = bytes((category,)) in index.categories and bytes((tax,)) in taxes
    if item in index.items or not known:
        _refuse("two items have the same id, or one names a category or tax that is not there")
    index.items[item] = len(index.items)
    index.item_at.append(at)
    index.item_price.append(price)
    index.item_category.append(category)
    first = len(index.item_groups)
    plain = 1
    for group in groups:
        row = index.groups.get(group)
        if row is None or bytes((row,)) in index.item_groups[first:]:
            _refuse("an item names a group twice, or one that is not there")
        index.item_groups.append(row)
        if index.group_min[row]:
            plain = 0
    index.item_plain.append(plain)
    index.item_groups_end.append(len(index.item_groups))


def read_item(reader):
    # -> (id, category, name, price in minor units, tax, group ids)
    reader.array(6)
    item = reader.uint(U16, 1)
    category = reader.uint(255, 1)
    name = reader.tstr(1, _MAX_NAME)
    price = reader.uint(U32)
    tax = reader.uint(255, 1)
    groups = [reader.uint(U16, 1) for _ in range(reader.array((0, 8)))]
    return item, category, name, price, tax, groups
