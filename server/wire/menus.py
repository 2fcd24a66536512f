"""The signed menu: categories, items, modifier groups and taxes; signed as one frame, carried in chunks.

Prices are integer minor units of `currency` with `exponent` decimal places and include tax.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.wire import aad, shapes
from server.wire.cbor import Value, decode, encode
from server.wire.cose import parse_sign1, sign1, verify_sign1
from server.wire.errors import Refusal, RefusalCode
from server.wire.rsa import Signer, VerifyKey

MENU_MAX_BYTES = 65_536
CHUNK_BYTES = 1024
CHUNKS_MAX = 64
_CHUNK_FRAME_MAX_BYTES = CHUNK_BYTES + 32
_DELTA_MAX_MINOR = 1_000_000


@dataclass(frozen=True, slots=True)
class Tax:
    """A tax class; `basis_points` of the net price, included in every price."""

    id: int
    name: str
    basis_points: int


@dataclass(frozen=True, slots=True)
class Category:
    """A heading of the menu."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Modifier:
    """A choice within a group; `delta_minor` is added to the item's price."""

    id: int
    name: str
    delta_minor: int


@dataclass(frozen=True, slots=True)
class Group:
    """A set of modifiers of which `minimum` to `maximum` must be chosen."""

    id: int
    name: str
    minimum: int
    maximum: int
    modifiers: tuple[Modifier, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """Something to order; `groups` names the modifier groups that apply to it."""

    id: int
    category_id: int
    name: str
    price_minor: int
    tax_id: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Menu:
    """One immutable version of a site's menu; `rounding` of tax is 0 per line or 1 per bill."""

    version: int
    currency: str
    exponent: int
    rounding: int
    taxes: tuple[Tax, ...]
    categories: tuple[Category, ...]
    groups: tuple[Group, ...]
    items: tuple[Item, ...]

    def payload(self) -> bytes:
        """Return the signed bytes. Raises: Refusal for a menu that may not be published."""
        taxes: list[Value] = [[tax.id, tax.name, tax.basis_points] for tax in self.taxes]
        categories: list[Value] = [[category.id, category.name] for category in self.categories]
        items: list[Value] = [
            [item.id, item.category_id, item.name, item.price_minor, item.tax_id, list(item.groups)]
            for item in self.items
        ]
        payload = encode(
            [
                self.version,
                self.currency,
                self.exponent,
                self.rounding,
                taxes,
                categories,
                [_group_value(group) for group in self.groups],
                items,
            ]
        )
        Menu.from_payload(payload)
        return payload

    def seal(self, signer: Signer, site: str) -> bytes:
        """Return the menu-frame. Raises: Refusal(BAD_MENU, BAD_SHAPE, TOO_LARGE)."""
        frame = sign1(signer, self.payload(), aad.menu(site))
        if len(frame) > MENU_MAX_BYTES:
            raise Refusal(RefusalCode.TOO_LARGE, f"the menu has {len(frame)} bytes of {MENU_MAX_BYTES}")
        return frame

    @classmethod
    def from_payload(cls, payload: bytes) -> "Menu":
        """Judge a menu's shape and its references. Raises: Refusal."""
        f = shapes.array(decode(payload, MENU_MAX_BYTES), 8, 8, "menu")
        menu = cls(
            version=shapes.u32(f[0], "menu version"),
            currency=shapes.text(f[1], 3, 3, "menu currency"),
            exponent=shapes.integer(f[2], 0, 4, "menu exponent"),
            rounding=shapes.integer(f[3], 0, 1, "menu rounding"),
            taxes=tuple(map(_tax, shapes.array(f[4], 1, 16, "menu taxes"))),
            categories=tuple(map(_category, shapes.array(f[5], 1, 64, "menu categories"))),
            groups=tuple(map(_group, shapes.array(f[6], 0, 256, "menu groups"))),
            items=tuple(map(_item, shapes.array(f[7], 1, 1024, "menu items"))),
        )
        _check_references(menu)
        return menu

    @classmethod
    def open(cls, frame: bytes, key: VerifyKey, site: str) -> "Menu":
        """Return the menu that the server-sign key `key` signed for `site`. Raises: Refusal."""
        return cls.from_payload(verify_sign1(frame, key, aad.menu(site), MENU_MAX_BYTES))

    @classmethod
    def read(cls, frame: bytes) -> "Menu":
        """Return the menu in a frame of the site's own store, whoever signed it. Raises: Refusal."""
        return cls.from_payload(parse_sign1(frame, MENU_MAX_BYTES).payload)


def _name(value: Value, what: str) -> str:
    return shapes.text(value, 1, 48, what)


def _tax(value: Value) -> Tax:
    f = shapes.array(value, 3, 3, "tax")
    return Tax(
        shapes.integer(f[0], 1, 255, "tax id"),
        _name(f[1], "tax name"),
        shapes.integer(f[2], 0, 10_000, "tax basis points"),
    )


def _category(value: Value) -> Category:
    f = shapes.array(value, 2, 2, "category")
    return Category(shapes.integer(f[0], 1, 255, "category id"), _name(f[1], "category name"))


def _group_value(group: Group) -> Value:
    modifiers: list[Value] = [[choice.id, choice.name, choice.delta_minor] for choice in group.modifiers]
    return [group.id, group.name, group.minimum, group.maximum, modifiers]


def _group(value: Value) -> Group:
    f = shapes.array(value, 5, 5, "group")
    return Group(
        shapes.integer(f[0], 1, 0xFFFF, "group id"),
        _name(f[1], "group name"),
        shapes.integer(f[2], 0, 8, "group minimum"),
        shapes.integer(f[3], 1, 8, "group maximum"),
        tuple(map(_modifier, shapes.array(f[4], 1, 32, "group modifiers"))),
    )


def _modifier(value: Value) -> Modifier:
    f = shapes.array(value, 3, 3, "modifier")
    return Modifier(
        shapes.integer(f[0], 1, 0xFFFF, "modifier id"),
        _name(f[1], "modifier name"),
        shapes.integer(f[2], -_DELTA_MAX_MINOR, _DELTA_MAX_MINOR, "modifier delta"),
    )


def _item(value: Value) -> Item:
    f = shapes.array(value, 6, 6, "item")
    groups = shapes.array(f[5], 0, 8, "item groups")
    return Item(
        shapes.integer(f[0], 1, 0xFFFF, "item id"),
        shapes.integer(f[1], 1, 255, "item category"),
        _name(f[2], "item name"),
        shapes.u32(f[3], "item price"),
        shapes.integer(f[4], 1, 255, "item tax"),
        tuple([shapes.integer(group, 1, 0xFFFF, "item group") for group in groups]),
    )


def _unique(ids: Sequence[int], what: str) -> set[int]:
    known = set(ids)
    if len(known) != len(ids):
        raise Refusal(RefusalCode.BAD_MENU, f"two {what} of the menu have the same id")
    return known


def _check_references(menu: Menu) -> None:
    """Refuse a menu with ids used twice, references to nothing, or groups nobody can satisfy."""
    taxes = _unique([tax.id for tax in menu.taxes], "tax classes")
    categories = _unique([category.id for category in menu.categories], "categories")
    groups = _unique([group.id for group in menu.groups], "modifier groups")
    _unique([choice.id for group in menu.groups for choice in group.modifiers], "modifiers")
    _unique([item.id for item in menu.items], "items")
    for group in menu.groups:
        if group.minimum > min(group.maximum, len(group.modifiers)):
            raise Refusal(RefusalCode.BAD_MENU, f"nobody can choose enough of modifier group {group.id}")
    for item in menu.items:
        known = item.tax_id in taxes and item.category_id in categories
        if not known or not groups.issuperset(item.groups):
            raise Refusal(
                RefusalCode.BAD_MENU, f"item {item.id} names a tax, category or group that is not there"
            )
        _unique(item.groups, f"groups of item {item.id}")


@dataclass(frozen=True, slots=True)
class MenuChunk:
    """One retained piece of a menu-frame; not authenticated by itself, only the whole frame is."""

    version: int
    index: int
    count: int
    data: bytes

    def encode(self) -> bytes:
        """Return the frame."""
        return encode([self.version, self.index, self.count, self.data])

    @classmethod
    def decode(cls, frame: bytes) -> "MenuChunk":
        """Judge a chunk. Raises: Refusal."""
        f = shapes.array(decode(frame, _CHUNK_FRAME_MAX_BYTES), 4, 4, "menu-chunk")
        count = shapes.integer(f[2], 1, CHUNKS_MAX, "menu-chunk count")
        return cls(
            shapes.u32(f[0], "menu-chunk version"),
            shapes.integer(f[1], 0, count - 1, "menu-chunk index"),
            count,
            shapes.binary(f[3], 0, CHUNK_BYTES, "menu-chunk data"),
        )


def split(menu_frame: bytes, version: int) -> list[MenuChunk]:
    """Cut a menu-frame into its chunks of 1024 bytes, in order. Raises: Refusal(TOO_LARGE)."""
    if not 0 < len(menu_frame) <= MENU_MAX_BYTES:
        raise Refusal(RefusalCode.TOO_LARGE, "a menu-frame has 1 to 65536 bytes")
    pieces = [menu_frame[at : at + CHUNK_BYTES] for at in range(0, len(menu_frame), CHUNK_BYTES)]
    return [MenuChunk(version, index, len(pieces), piece) for index, piece in enumerate(pieces)]


def join(chunks: Iterable[MenuChunk]) -> bytes:
    """Put a complete set of chunks together. Raises: Refusal(BAD_MENU) where they do not belong together."""
    ordered = sorted(chunks, key=lambda chunk: chunk.index)
    if not ordered or len({(chunk.version, chunk.count) for chunk in ordered}) != 1:
        raise Refusal(RefusalCode.BAD_MENU, "the chunks are of different menus")
    if [chunk.index for chunk in ordered] != list(range(ordered[0].count)):
        raise Refusal(RefusalCode.BAD_MENU, "chunks are missing or doubled")
    return b"".join([chunk.data for chunk in ordered])
