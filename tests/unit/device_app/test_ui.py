"""What a guest sees and can do, without a screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo import demo_store
from terminal.menu_index import MenuError
from terminal.ui import Ui, UiError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fs")


@pytest.fixture(scope="module")
def store(root: Path):  # type: ignore[no-untyped-def]  # the device package has no types
    return demo_store(root)


@pytest.fixture
def ui(store) -> Ui:  # type: ignore[no-untyped-def]
    return Ui(store, "4")


def test_a_guest_finds_an_item_by_the_beginnings_of_its_words(ui: Ui) -> None:
    assert ui.find("flat").name == "flat white"
    assert ui.find("Pinot GRI").name == "pinot grigio 0.2 l"


def test_an_exact_name_wins_over_longer_ones(ui: Ui) -> None:
    assert ui.find("espresso").name == "espresso"


def test_an_ambiguous_wish_names_the_candidates(ui: Ui) -> None:
    with pytest.raises(UiError, match=r"cappuccino, cortado") as caught:
        ui.find("c")
    assert caught.value.code == "WHICH_ITEM"


def test_an_unknown_wish_says_so(ui: Ui) -> None:
    with pytest.raises(UiError, match="currywurst"):
        ui.find("currywurst")


def test_the_basket_adds_up_in_minor_units(ui: Ui) -> None:
    ui.add("espresso", 2)
    ui.add("flat white", 1, ["oat milk"])
    screen = ui.screen()
    assert screen["basket"] == {"lines": [[1, 2, []], [3, 1, [101]]], "total": 990}
    assert ui.line_text(ui.basket[1]) == "1 x flat white with oat milk  4.70 EUR"


def test_a_choice_of_another_item_is_not_offered(ui: Ui) -> None:
    with pytest.raises(UiError, match="does not come with"):
        ui.add("espresso", 1, ["rare"])


def test_a_missing_required_choice_keeps_the_line_out_of_the_basket(ui: Ui) -> None:
    with pytest.raises(MenuError):
        ui.add("rib-eye", 1)
    assert ui.basket == []
    ui.add("rib-eye", 1, ["medium rare", "fries"])
    assert len(ui.basket) == 1


@pytest.mark.parametrize("quantity", [0, -1, 100])
def test_an_impossible_quantity_is_refused(ui: Ui, quantity: int) -> None:
    with pytest.raises(UiError):
        ui.add("espresso", quantity)


def test_the_basket_is_bounded(ui: Ui) -> None:
    for _ in range(32):
        ui.add(1)
    with pytest.raises(UiError) as caught:
        ui.add(1)
    assert caught.value.code == "BASKET_FULL"


def test_an_order_is_followed_from_queued_to_confirmed(ui: Ui) -> None:
    ui.on_queued("aa", [[1, 2, []]], 520, "4")
    assert ui.screen()["orders"][0]["state"] == "queued"
    assert ui.screen()["banner"] == "no connection: 1 kept, nothing is lost"
    ui.on_link(True)
    assert ui.screen()["orders"][0]["state"] == "sent"
    assert ui.screen()["banner"] == ""
    assert ui.on_final("aa", 0, 0, 17, 520) == "order 17 is in the kitchen, 5.20 EUR"
    order = ui.screen()["orders"][0]
    assert (order["state"], order["number"], order["total"]) == ("confirmed", 17, 520)


@pytest.mark.parametrize(
    ("status", "arg", "words"),
    [
        (1, 2, "prices have changed: it would be 5.20 EUR now"),
        (2, 1, "sold out: espresso"),
        (2, 9999, "sold out: item 9999"),
        (3, 0, "table is closed"),
        (4, 0, "answer 4"),
        (5, 6, "quantity is not possible"),
        (5, 99, "reason 99"),
    ],
)
def test_every_refusal_is_told_in_words(ui: Ui, status: int, arg: int, words: str) -> None:
    ui.on_queued("aa", [[1, 2, []]], 500, "4")
    ui.on_final("aa", status, arg, 0, 520)
    order = ui.screen()["orders"][0]
    assert order["state"] == "refused"
    assert words in order["text"]
    assert ui.screen()["notice"] == order["text"]


def test_the_list_of_orders_is_bounded_and_keeps_the_undecided(ui: Ui) -> None:
    for number in range(30):
        ui.on_queued(str(number), [[1, 1, []]], 260, "4")
        if number != 3:
            ui.on_final(str(number), 0, 0, number, 260)
    assert len(ui.orders) == 12
    assert ui.orders[0]["op"] == "3"


def test_a_new_menu_drops_what_it_does_not_have_and_says_so(ui: Ui) -> None:
    ui.add("espresso")
    ui.basket.append([9999, 1, []])
    ui.on_menu()
    assert ui.basket == [[1, 1, []]]
    assert "menu has changed" in ui.notice


def test_without_a_menu_the_screen_says_what_to_do(tmp_path: Path) -> None:
    from terminal.menu import MenuStore

    ui = Ui(MenuStore(str(tmp_path), "demo", None), "4")
    screen = ui.screen()
    assert screen["menu"]["items"] == []
    assert "no menu yet" in screen["banner"]
    with pytest.raises(MenuError):
        ui.add("espresso")
