"""From a signed menu frame to the prices it promises."""

from __future__ import annotations

from server.ordering.price_list import PricedGroup, PricedItem, PriceList, price_list
from server.wire.menus import Menu
from server.wire.rsa import VerifyKey


def prices_of(menu: Menu) -> PriceList:
    """The price list of a menu."""
    return price_list(
        menu.version,
        menu.rounding,
        {tax.id: tax.basis_points for tax in menu.taxes},
        {
            group.id: PricedGroup(
                group.minimum, group.maximum, {choice.id: choice.delta_minor for choice in group.modifiers}
            )
            for group in menu.groups
        },
        {item.id: PricedItem(item.price_minor, item.tax_id, item.groups) for item in menu.items},
    )


def read_signed_prices(frame: bytes, key: VerifyKey, site: str) -> PriceList:
    """The price list of a menu frame that ``key`` signed for ``site``. Raises: Refusal."""
    return prices_of(Menu.open(frame, key, site))
