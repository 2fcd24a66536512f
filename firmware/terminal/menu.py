# The signed menu on this terminal: downloaded in chunks, verified, swapped in with one rename, usable
# offline.
#
# The stored file is the menu-frame followed by its SHA-256. It is written under another name, and gets its
# own name only after its hash was the announced one, its signature verified and its shape judged: at any
# moment the terminal has the whole old menu or the whole new one. At start the hash of the whole file is
# checked again.

import hashlib
import os
from collections import namedtuple

from .compat import const
from .menu_index import MenuError, Window, read_item, read_modifier, read_steps
from .wire.cose import aad, sign1_hash, sign1_head
from .wire.errors import WireError

CHUNK_BYTES = 1024
MAX_CHUNKS = 64
_HASH_BYTES = const(32)
_SIGNATURE_BYTES = const(384)
_HEAD_BYTES = const(32)
_ENOSPC = const(28)
_ENOENT = const(2)

MenuInfo = namedtuple("MenuInfo", ("version", "hash"))
# price in minor units; groups: ids of the modifier groups that apply
Item = namedtuple("Item", ("id", "category", "name", "price", "groups"))
# min..max: how many of its modifiers a line takes; modifiers: (id, name, delta in minor units)
Group = namedtuple("Group", ("id", "name", "min", "max", "modifiers"))


class MenuStore:
    # root: path of the file system; site: whose menus these are.
    # verify(kid, digest, signature): generator whose value says whether the server-sign key kid signed
    # digest.

    def __init__(self, root, site, verify):
        self._path = root + "/menu.bin"
        self._new = root + "/menu.new"
        self._aad = aad("menu", site, "")
        self._verify = verify
        self._info = None
        self._index = None
        self._span = (0, 0)  # where in the file the payload lies
        self._file = None  # of the download
        self._wanted = None
        self._count = 0
        self._have = bytearray()
        self._size = 0
        self.fault = None  # code of what was wrong with the stored menu at start
        self._open()

    # -- the menu in use

    def current(self):
        # -> MenuInfo of the menu in use, None if there is none.
        return self._info

    @property
    def index(self):
        # -> the Index (currency, exponent, rounding, prices). MenuError NO_MENU.
        if self._index is None:
            raise MenuError("NO_MENU", "this terminal has no menu yet: it needs the network once")
        return self._index

    def price(self, item):
        # -> an item's price in minor units. MenuError UNKNOWN_ITEM, NO_MENU.
        return self.index.item_price[self._row(item)]

    def total(self, lines):
        # lines: [item id, quantity, [modifier id, ...]] each -> total in minor units. Raises as
        # Index.total_minor.
        return self.index.total_minor(lines)

    def item(self, item):
        # -> Item, read from the file. MenuError UNKNOWN_ITEM, NO_MENU.
        at = self.index.item_at[self._row(item)]
        with open(self._path, "rb") as file:
            return _item(Window(file, at, self._span[1]).reader)

    def items(self, category=None):
        # Yield every Item of the menu, or of one category, in menu order.
        index = self.index
        with open(self._path, "rb") as file:
            window = Window(file, index.item_at[0], self._span[1])
            for _ in range(len(index.items)):
                window.more()
                item = _item(window.reader)
                if category is None or item.category == category:
                    yield item

    def categories(self):
        # Yield (id, name) of every category.
        index = self.index
        with open(self._path, "rb") as file:
            window = Window(file, index.categories_at, self._span[1])
            for _ in index.categories:
                window.more()
                window.reader.array(2)
                yield window.reader.uint(255, 1), window.reader.tstr(1, 48)

    def group(self, group):
        # -> Group, read from the file. MenuError UNKNOWN_GROUP, NO_MENU.
        row = self.index.groups.get(group)
        if row is None:
            raise MenuError("UNKNOWN_GROUP", "the menu has no such group of choices")
        with open(self._path, "rb") as file:
            window = Window(file, self.index.group_at[row], self._span[1])
            reader = window.reader
            reader.array(5)
            reader.uint()
            name = reader.tstr(1, 48)
            least = reader.uint(8)
            most = reader.uint(8)
            modifiers = []
            for _ in range(reader.array((1, 32))):
                window.more()
                modifiers.append(read_modifier(reader))
        return Group(group, name, least, most, modifiers)

    def find(self, words, limit=8):
        # -> the Items whose name fits (at most `limit`): an exact name alone, else every name in which each
        # word of the question begins a word. Case does not matter.
        wanted = words.lower().split()
        found = []
        for item in self.items():
            name = item.name.lower().split()
            if name == wanted:
                return [item]
            if len(found) < limit and all(any(n.startswith(w) for n in name) for w in wanted):
                found.append(item)
        return found

    def _row(self, item):
        row = self.index.items.get(item)
        if row is None:
            raise MenuError("UNKNOWN_ITEM", "the menu has no such item")
        return row

    # -- a new menu

    def begin(self, version, digest, count):
        # Start a download: version and hash as the verified beacon names them, count chunks. A download
        # under way is given up. -> False if this very menu is in use already. MenuError MENU_STALE,
        # MENU_TOO_LARGE.
        self.abort()
        if self._info is not None:
            if version == self._info.version and digest == self._info.hash:
                return False
            if version <= self._info.version:
                raise MenuError("MENU_STALE", "the offered menu is not newer than the one in use")
        if not 1 <= count <= MAX_CHUNKS:
            raise MenuError("MENU_TOO_LARGE", "a menu has 1 to 64 chunks")
        self._wanted = MenuInfo(version, bytes(digest))
        self._count = count
        self._have = bytearray(count)
        self._size = 0
        self._file = self._guard(open, self._new, "wb")
        return True

    def missing(self):
        # -> the indices of the chunks that have not arrived.
        return [index for index, have in enumerate(self._have) if not have]

    def chunk(self, index, data):
        # Store a chunk, in any order; one that is there already is ignored -> True when all have arrived.
        # MenuError MENU_SHAPE, MENU_NO_SPACE, MENU_IO: the download is over.
        if self._file is None:
            raise MenuError("MENU_STATE", "no menu download is under way")
        last = index == self._count - 1
        if not 0 <= index < self._count or (len(data) != CHUNK_BYTES and not (last and data)):
            self.abort()
            raise MenuError("MENU_SHAPE", "a chunk of the menu has the wrong index or length")
        if not self._have[index]:
            self._guard(self._store, index * CHUNK_BYTES, data)
            self._have[index] = 1
            if last:
                self._size = index * CHUNK_BYTES + len(data)
        return b"\0" not in self._have

    def finish_steps(self):
        # Generator; its value is the MenuInfo of the menu now in use. Yields between steps of bounded length.
        # MenuError (MENU_SHAPE, MENU_HASH, MENU_SIGNATURE, MENU_VERSION, ...): the old menu stays.
        try:
            if self._file is None or b"\0" in self._have:
                raise MenuError("MENU_STATE", "chunks of the menu are missing")
            self._guard(self._file.close)
            self._file = None
            with open(self._new, "rb") as file:
                span = yield from self._verify_steps(file)
                index = yield from read_steps(file, span[0], span[1])
            if index.version != self._wanted.version:
                raise MenuError("MENU_VERSION", "the menu is not of the announced version")
            self._guard(self._swap)
        except MemoryError:
            self.abort()
            raise MenuError("MENU_TOO_LARGE", "the menu does not fit this terminal's memory") from None
        except WireError as refusal:
            self.abort()
            raise MenuError("MENU_SHAPE", "the menu is not of the agreed shape: " + refusal.code) from None
        except MenuError:
            self.abort()
            raise
        self._info = self._wanted
        self._index = index
        self._span = span
        self.fault = None
        return self._info

    def abort(self):
        # Give up a download and free its space; the menu in use stays.
        if self._file is not None:
            self._file.close()
            self._file = None
        self._have = bytearray()
        try:
            os.remove(self._new)
        except OSError as error:
            if error.errno != _ENOENT:
                raise

    def _store(self, at, data):
        if self._file.tell() != at:
            self._file.seek(at)
        self._file.write(data)

    def _guard(self, action, *args):
        # Run a file operation; its failure ends the download with a code.
        try:
            return action(*args)
        except OSError as error:
            self._file = None
            try:
                os.remove(self._new)
            except OSError:
                self.fault = "MENU_IO"  # the rest of it is overwritten by the next download
            if error.errno == _ENOSPC:
                raise MenuError("MENU_NO_SPACE", "the file system has no room for the new menu") from None
            raise MenuError("MENU_IO", "the file system failed while the menu was stored") from None

    def _verify_steps(self, file):
        # Hash and signature of the stored frame in one pass -> (start, end) of the payload.
        kid, start, size = _layout(file, self._size)
        end = start + size
        whole = hashlib.sha256()
        signed = sign1_hash(self._aad, size)
        buf = memoryview(bytearray(CHUNK_BYTES))
        file.seek(0)
        at = 0
        while at < self._size:
            n = min(CHUNK_BYTES, self._size - at)
            _read_exactly(file, buf[:n])
            whole.update(buf[:n])
            a, b = max(start - at, 0), min(end - at, n)
            if a < b:
                signed.update(buf[a:b])
            at += n
            if at % 4096 == 0:
                yield
        if whole.digest() != self._wanted.hash:
            raise MenuError("MENU_HASH", "the menu is not the one the beacon announced")
        tail = bytearray(3 + _SIGNATURE_BYTES)
        file.seek(end)
        _read_exactly(file, tail)
        signature = memoryview(tail)[3:]
        try:
            good = tail[:3] == b"\x59\x01\x80" and (yield from self._verify(kid, signed.digest(), signature))
        except WireError:
            good = False
        if not good:
            raise MenuError("MENU_SIGNATURE", "the menu is not signed by this restaurant's server")
        return start, end

    def _swap(self):
        with open(self._new, "ab") as file:
            file.write(self._wanted.hash)
        os.rename(self._new, self._path)

    # -- start

    def _open(self):
        # Load the stored menu, if it is whole.
        self.abort()
        try:
            with open(self._path, "rb") as file:
                self._load(file)
        except OSError as error:
            if error.errno != _ENOENT:
                self.fault = "MENU_IO"
        except WireError:
            self.fault = "MENU_SHAPE"
        except MenuError as refusal:
            self.fault = refusal.code

    def _load(self, file):
        size = file.seek(0, 2) - _HASH_BYTES
        if size <= 0:
            raise MenuError("MENU_TORN", "the stored menu is too short")
        file.seek(0)
        whole = hashlib.sha256()
        buf = memoryview(bytearray(CHUNK_BYTES))
        for at in range(0, size, CHUNK_BYTES):
            part = buf[: min(CHUNK_BYTES, size - at)]
            _read_exactly(file, part)
            whole.update(part)
        digest = whole.digest()
        _read_exactly(file, buf[:_HASH_BYTES])
        if buf[:_HASH_BYTES] != digest:
            raise MenuError("MENU_TORN", "the stored menu's hash does not match")
        _kid, start, length = _layout(file, size)
        steps = read_steps(file, start, start + length)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            self._index = end.value
        self._info = MenuInfo(self._index.version, digest)
        self._span = (start, start + length)


def _layout(file, size):
    # -> (kid, payload offset, payload length) of the frame that is the file's first `size` bytes.
    head = bytearray(min(_HEAD_BYTES, size))
    file.seek(0)
    _read_exactly(file, head)
    return sign1_head(head, size, _SIGNATURE_BYTES)


def _read_exactly(file, buf):
    if file.readinto(buf) != len(buf):
        raise MenuError("MENU_TORN", "the stored menu is shorter than it says")


def _item(reader):
    item, category, name, price, _tax, groups = read_item(reader)
    return Item(item, category, name, price, groups)
