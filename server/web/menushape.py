"""The menu as a manager sends it: the document of ``server.wire.menufile``, for OpenAPI.

Only the shape is judged here; counts, ranges and references are judged where the menu is signed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.web.shapes import Asked, examples

_Id = Annotated[int, Field(ge=1, le=65_535)]
_Name = Annotated[str, Field(min_length=1, max_length=48)]
_MINOR_MOST = 2**32 - 1

_DEMO = {
    "version": 7, "currency": "EUR", "exponent": 2, "rounding": "line",
    "taxes": [{"id": 1, "name": "VAT 19", "basis_points": 1900}],
    "categories": [{"id": 1, "name": "coffee"}],
    "groups": [{"id": 1, "name": "milk", "min": 0, "max": 1,
                "modifiers": [{"id": 101, "name": "oat milk", "delta_minor": 50}]}],
    "items": [{"id": 1, "category": 1, "name": "espresso", "price_minor": 260, "tax": 1, "groups": [1]}],
}  # fmt: skip


class TaxEntry(Asked):
    """A tax class."""

    id: _Id
    name: _Name
    basis_points: int = Field(ge=0, le=10_000)


class CategoryEntry(Asked):
    """A heading."""

    id: _Id
    name: _Name


class ModifierEntry(Asked):
    """A choice and what it adds to the price."""

    id: _Id
    name: _Name
    delta_minor: int = Field(ge=-1_000_000, le=1_000_000)


class GroupEntry(Asked):
    """Choices of which ``min`` to ``max`` are taken; a ``min`` above 0 makes the choice required."""

    id: _Id
    name: _Name
    min: int = Field(ge=0, le=8)
    max: int = Field(ge=1, le=8)
    modifiers: list[ModifierEntry] = Field(min_length=1, max_length=32)


class ItemEntry(Asked):
    """Something to order; the price includes tax."""

    id: _Id
    category: _Id
    name: _Name
    price_minor: int = Field(ge=0, le=_MINOR_MOST)
    tax: _Id
    groups: list[_Id] = Field(max_length=8)


class MenuDocument(Asked):
    """A menu version to publish; money in integer minor units, ``exponent`` digits after the point."""

    model_config = examples(_DEMO)
    version: int = Field(ge=1, le=2**32 - 1)
    currency: str = Field(min_length=3, max_length=3)
    exponent: int = Field(ge=0, le=4)
    rounding: Literal["line", "bill"]
    taxes: list[TaxEntry] = Field(min_length=1, max_length=16)
    categories: list[CategoryEntry] = Field(min_length=1, max_length=64)
    groups: list[GroupEntry] = Field(max_length=256)
    items: list[ItemEntry] = Field(min_length=1, max_length=1024)
