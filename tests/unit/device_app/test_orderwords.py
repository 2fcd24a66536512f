"""What guests and waiters type is understood, or answered with what is missing."""

import pytest
from terminal.orderwords import parse
from terminal.ui import UiError

NAMES = {"burrata with tomatoes", "espresso", "flat white"}


@pytest.mark.parametrize(
    ("text", "wishes"),
    [
        ("2x espresso", [(2, "espresso", [])]),
        ("espresso", [(1, "espresso", [])]),
        ("3 espresso", [(3, "espresso", [])]),
        ("3 x espresso", [(3, "espresso", [])]),
        ('1x "flat white"', [(1, "flat white", [])]),
        ('2x"flat white"', [(2, "flat white", [])]),
        ("flat white with oat milk", [(1, "flat white", ["oat milk"])]),
        ("flat white with oat milk, extra shot", [(1, "flat white", ["oat milk", "extra shot"])]),
        ("burrata with tomatoes", [(1, "burrata with tomatoes", [])]),
        ("burrata with tomatoes with rocket", [(1, "burrata with tomatoes", ["rocket"])]),
        (
            '2x espresso + 1x "flat white" with oat milk',
            [(2, "espresso", []), (1, "flat white", ["oat milk"])],
        ),
        ('"burrata with tomatoes"', [(1, "burrata with tomatoes", [])]),
        ("0x espresso", [(0, "espresso", [])]),
        ("2xespresso", [(1, "2xespresso", [])]),
    ],
)
def test_a_wish_is_read(text: str, wishes: list[tuple[int, str, list[str]]]) -> None:
    assert parse(text, NAMES.__contains__) == wishes


@pytest.mark.parametrize("text", ["", "  ", "+", "2x", "2x + +", '"flat white', '2x ""'])
def test_a_wish_without_a_name_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(UiError) as caught:
        parse(text, NAMES.__contains__)
    assert caught.value.text
