"""Menus: what people write, what is signed, and what may not be published."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from server_kit import FIXTURES, SITE, signer, verify_key

from server.wire.errors import Refusal, RefusalCode
from server.wire.menufile import parse_menu
from server.wire.menus import Category, Group, Item, Menu, MenuChunk, Modifier, Tax, join, split

SMALL = Menu(
    version=3,
    currency="EUR",
    exponent=2,
    rounding=0,
    taxes=(Tax(1, "food", 700),),
    categories=(Category(1, "Coffee"),),
    groups=(Group(1, "milk", 0, 1, (Modifier(10, "oat milk", 50),)),),
    items=(Item(1, 1, "espresso", 260, 1, (1,)),),
)


def refusal_of(call: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / "menu" / "demo.json").read_text())
    return loaded


def test_a_menu_survives_signing_cutting_joining_and_opening() -> None:
    frame = SMALL.seal(signer("server-sign"), SITE)
    assert Menu.open(join(split(frame, SMALL.version)), verify_key("server-sign"), SITE) == SMALL


def test_a_menu_of_another_site_or_server_is_refused() -> None:
    frame = SMALL.seal(signer("server-sign"), SITE)
    code = refusal_of(lambda: Menu.open(frame, verify_key("server-sign"), "other")).code
    assert code == RefusalCode.BAD_SIGNATURE
    assert refusal_of(lambda: Menu.open(frame, verify_key("evil-root"), SITE)).code == RefusalCode.WRONG_KEY


ITEM, GROUP = SMALL.items[0], SMALL.groups[0]


@pytest.mark.parametrize(
    "menu",
    [
        replace(SMALL, items=(ITEM, ITEM)),
        replace(SMALL, items=(replace(ITEM, tax_id=2),)),
        replace(SMALL, items=(replace(ITEM, category_id=2),)),
        replace(SMALL, items=(replace(ITEM, groups=(2,)),)),
        replace(SMALL, items=(replace(ITEM, groups=(1, 1)),)),
        replace(SMALL, groups=(replace(GROUP, minimum=2, maximum=2),)),
        replace(SMALL, groups=(GROUP, replace(GROUP, id=2))),
        replace(SMALL, taxes=SMALL.taxes * 2),
    ],
)
def test_a_menu_that_contradicts_itself_cannot_be_signed(menu: Menu) -> None:
    assert refusal_of(menu.payload).code == RefusalCode.BAD_MENU


@pytest.mark.parametrize(
    "menu",
    [
        replace(SMALL, items=()),
        replace(SMALL, currency="EURO"),
        replace(SMALL, items=(replace(ITEM, price_minor=-1),)),
        replace(SMALL, items=(replace(ITEM, price_minor=1 << 32),)),
        replace(SMALL, items=(replace(ITEM, name=""),)),
        replace(SMALL, items=(replace(ITEM, name="ä" * 25),)),
        replace(SMALL, items=(replace(ITEM, id=0),)),
        replace(SMALL, groups=(replace(GROUP, modifiers=(Modifier(10, "oat milk", 1_000_001),)),)),
        replace(SMALL, taxes=(Tax(1, "food", 10_001),)),
        replace(SMALL, rounding=2),
    ],
)
def test_a_menu_outside_the_contract_cannot_be_signed(menu: Menu) -> None:
    assert refusal_of(menu.payload).code == RefusalCode.BAD_SHAPE


def test_a_menu_that_would_not_fit_the_terminals_cannot_be_signed() -> None:
    groups = tuple(Group(1000 + i, "g", 0, 1, (Modifier(1000 + i, "m", 0),)) for i in range(8))
    named = tuple(group.id for group in groups)
    items = tuple(Item(number, 1, "x" * 48, 1, 1, named) for number in range(1, 1025))
    large = replace(SMALL, groups=groups, items=items)
    refusal = refusal_of(lambda: large.seal(signer("server-sign"), SITE))
    assert refusal.code == RefusalCode.TOO_LARGE
    assert "65536" in refusal.detail


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("taxes"), "lacks 'taxes'"),
        (lambda d: d.update(tax=1), "unknown key 'tax'"),
        (lambda d: d["items"][3].update(price=1), r"items\[3\] has an unknown key 'price'"),
        (lambda d: d["items"][0].update(price_minor=2.6), r"items\[0\].price_minor is not a 32-bit integer"),
        (lambda d: d["items"][0].update(price_minor=True), r"items\[0\].price_minor"),
        (lambda d: d["items"][0].update(name=5), r"items\[0\].name"),
        (lambda d: d["items"][0].update(name="a\nb"), r"items\[0\].name"),
        (lambda d: d.update(items={}), "items is not a list"),
        (lambda d: d.update(rounding="up"), "rounding"),
        (lambda d: d["groups"][0]["modifiers"].append(3), r"groups\[0\].modifiers\[\d\] is not an object"),
    ],
)
def test_a_mistake_in_the_menu_file_is_named(change: Any, words: str) -> None:
    changed = document()
    change(changed)
    with pytest.raises(Refusal, match=words) as refused:
        parse_menu(json.dumps(changed))
    assert refused.value.code == RefusalCode.BAD_MENU


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"version": NaN}'])
def test_text_that_is_no_menu_is_refused(text: str) -> None:
    assert refusal_of(lambda: parse_menu(text)).code == RefusalCode.BAD_MENU


def test_chunks_that_do_not_belong_together_are_refused() -> None:
    one, two = split(bytes(2048), 3)
    for chunks in ([one], [one, one], [one, replace(two, version=4)], []):
        assert refusal_of(lambda bad=chunks: join(bad)).code == RefusalCode.BAD_MENU
    assert join([two, one]) == bytes(2048)
    assert MenuChunk.decode(two.encode()) == two
    assert refusal_of(lambda: split(bytes(65_537), 1)).code == RefusalCode.TOO_LARGE
