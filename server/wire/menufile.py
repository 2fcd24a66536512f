"""The menu as people write it, a JSON document, turned into what is signed.

    {"version", "currency", "exponent", "rounding": "line"|"bill",
     "taxes": [{"id", "name", "basis_points"}], "categories": [{"id", "name"}],
     "groups": [{"id", "name", "min", "max", "modifiers": [{"id", "name", "delta_minor"}]}],
     "items": [{"id", "category", "name", "price_minor", "tax", "groups": [id]}]}

Money is in integer minor units. Every key is required and no other is allowed, so that a misspelt one is
noticed.
"""

import json
from collections.abc import Mapping, Sequence

from server.wire.errors import Refusal, RefusalCode
from server.wire.menus import Category, Group, Item, Menu, Modifier, Tax

_ROUNDING = {"line": 0, "bill": 1}


def parse_menu(text: str) -> Menu:
    """Return the menu in a JSON text.

    Raises: Refusal(BAD_MENU, BAD_SHAPE, TOO_LARGE) whose detail says where the document is wrong.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(RefusalCode.BAD_MENU, f"the menu is not JSON: {error}") from None
    keys = ("version", "currency", "exponent", "rounding", "taxes", "categories", "groups", "items")
    top = _object(document, keys, "the menu")
    if not isinstance(top["rounding"], str) or top["rounding"] not in _ROUNDING:
        raise Refusal(RefusalCode.BAD_MENU, 'rounding is "line" or "bill"')
    menu = Menu(
        version=_integer(top["version"], "version"),
        currency=_text(top["currency"], "currency"),
        exponent=_integer(top["exponent"], "exponent"),
        rounding=_ROUNDING[top["rounding"]],
        taxes=tuple(_tax(entry, where) for entry, where in _list(top["taxes"], "taxes")),
        categories=tuple(_category(entry, where) for entry, where in _list(top["categories"], "categories")),
        groups=tuple(_group(entry, where) for entry, where in _list(top["groups"], "groups")),
        items=tuple(_item(entry, where) for entry, where in _list(top["items"], "items")),
    )
    menu.payload()  # judges ranges, counts and references
    return menu


def _object(value: object, keys: Sequence[str], where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Refusal(RefusalCode.BAD_MENU, f"{where} is not an object")
    missing, unknown = set(keys) - set(value), set(value) - set(keys)
    if missing or unknown:
        problem = f"lacks {min(missing)!r}" if missing else f"has an unknown key {min(unknown)!r}"
        raise Refusal(RefusalCode.BAD_MENU, f"{where} {problem}")
    return value


def _list(value: object, where: str) -> list[tuple[object, str]]:
    if not isinstance(value, list):
        raise Refusal(RefusalCode.BAD_MENU, f"{where} is not a list")
    return [(entry, f"{where}[{index}]") for index, entry in enumerate(value)]


def _integer(value: object, where: str) -> int:
    if type(value) is not int or abs(value) > 0xFFFF_FFFF:
        raise Refusal(RefusalCode.BAD_MENU, f"{where} is not a 32-bit integer")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise Refusal(RefusalCode.BAD_MENU, f"{where} is not printable text")
    return value


def _tax(value: object, where: str) -> Tax:
    entry = _object(value, ("id", "name", "basis_points"), where)
    return Tax(
        _integer(entry["id"], f"{where}.id"),
        _text(entry["name"], f"{where}.name"),
        _integer(entry["basis_points"], f"{where}.basis_points"),
    )


def _category(value: object, where: str) -> Category:
    entry = _object(value, ("id", "name"), where)
    return Category(_integer(entry["id"], f"{where}.id"), _text(entry["name"], f"{where}.name"))


def _modifier(value: object, where: str) -> Modifier:
    entry = _object(value, ("id", "name", "delta_minor"), where)
    return Modifier(
        _integer(entry["id"], f"{where}.id"),
        _text(entry["name"], f"{where}.name"),
        _integer(entry["delta_minor"], f"{where}.delta_minor"),
    )


def _group(value: object, where: str) -> Group:
    entry = _object(value, ("id", "name", "min", "max", "modifiers"), where)
    return Group(
        _integer(entry["id"], f"{where}.id"),
        _text(entry["name"], f"{where}.name"),
        _integer(entry["min"], f"{where}.min"),
        _integer(entry["max"], f"{where}.max"),
        tuple(_modifier(choice, place) for choice, place in _list(entry["modifiers"], f"{where}.modifiers")),
    )


def _item(value: object, where: str) -> Item:
    entry = _object(value, ("id", "category", "name", "price_minor", "tax", "groups"), where)
    return Item(
        _integer(entry["id"], f"{where}.id"),
        _integer(entry["category"], f"{where}.category"),
        _text(entry["name"], f"{where}.name"),
        _integer(entry["price_minor"], f"{where}.price_minor"),
        _integer(entry["tax"], f"{where}.tax"),
        tuple(_integer(group, place) for group, place in _list(entry["groups"], f"{where}.groups")),
    )
