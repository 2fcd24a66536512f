"""Every body the API takes has an example in the OpenAPI document, and the example is one it takes."""

from __future__ import annotations

import pytest

from server.web import app  # its routes define the bodies
from server.web.menushape import MenuDocument
from server.web.shapes import Asked
from server.wire.menufile import parse_menu

assert app.ROUTERS
_PARTS_OF_A_MENU = {"TaxEntry", "CategoryEntry", "ModifierEntry", "GroupEntry", "ItemEntry"}
BODIES = [body for body in Asked.__subclasses__() if body.__name__ not in _PARTS_OF_A_MENU]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body.__name__))
def test_a_body_has_an_example_that_fits(body: type[Asked]) -> None:
    examples = body.model_json_schema().get("examples", [])
    assert examples
    for example in examples:
        body.model_validate(example)


def test_the_example_of_a_menu_is_one_that_can_be_signed() -> None:
    (example,) = MenuDocument.model_json_schema()["examples"]
    assert parse_menu(MenuDocument.model_validate(example).model_dump_json()).version == example["version"]
