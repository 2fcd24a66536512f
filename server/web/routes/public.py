"""What anybody may ask without a token: health, metrics, the public keys, the menu."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from server.storage.database import StorageError
from server.storage.transaction import Transaction
from server.storage.writer import QueueFull
from server.web.etags import is_known
from server.web.metrics import CONTENT_TYPE
from server.web.problems import Problem
from server.web.services import services_of
from server.wire.menus import Menu
from server.wire.rsa import VerifyKey, kid_of

COSE = "application/cose"
READY_TIMEOUT_S = 2.0
router = APIRouter()


class Health(BaseModel):
    """The server's word about itself."""

    status: str


class PublicKey(BaseModel):
    """A public key: hex key id, hex DER SubjectPublicKeyInfo."""

    kid: str
    spki: str


class SiteKeys(BaseModel):
    """What a terminal must trust; ``certificate`` is the root's cert-frame for ``server_sign``, hex."""

    site: str
    epoch: int
    root: PublicKey
    server_sign: PublicKey
    certificate: str


class TaxView(BaseModel):
    """A tax class."""

    id: int
    name: str
    basis_points: int


class CategoryView(BaseModel):
    """A heading."""

    id: int
    name: str


class ModifierView(BaseModel):
    """A choice and what it adds."""

    id: int
    name: str
    delta_minor: int


class GroupView(BaseModel):
    """A modifier group."""

    id: int
    name: str
    minimum: int
    maximum: int
    modifiers: list[ModifierView]


class ItemView(BaseModel):
    """Something to order; the price includes tax."""

    id: int
    category_id: int
    name: str
    price_minor: int
    tax_id: int
    groups: list[int]


class MenuView(BaseModel):
    """One immutable menu version; ``hash`` is the SHA-256 of its signed frame, hex."""

    version: int
    hash: str
    currency: str
    exponent: int
    rounding: int
    taxes: list[TaxView]
    categories: list[CategoryView]
    groups: list[GroupView]
    items: list[ItemView]


@router.get("/healthz", tags=["health"])
async def healthz() -> Health:
    """The process lives and its event loop turns."""
    return Health(status="ok")


@router.get("/readyz", tags=["health"])
async def readyz(request: Request) -> Health:
    """The server can commit and has a menu: terminals and calls will be served."""
    services = services_of(request)
    if services.catalogue.snapshot.current is None:
        raise Problem(503, "not_ready", "No menu is published yet.", headers={"Retry-After": "5"})
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await services.writer.run(_probe)
    except (TimeoutError, QueueFull, StorageError):
        raise Problem(
            503, "not_ready", "The database does not commit now.", headers={"Retry-After": "5"}
        ) from None
    return Health(status="ready")


def _probe(transaction: Transaction) -> None:
    transaction.execute("SELECT lsn FROM site")


@router.get("/metrics", tags=["health"], response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
async def metrics(request: Request) -> Response:
    """Figures in the Prometheus text format."""
    return Response(services_of(request).metrics.text(), media_type=CONTENT_TYPE)


@router.get("/v1/keys", tags=["keys"])
async def keys(request: Request) -> SiteKeys:
    """The site's public keys, certified by its root."""
    services = services_of(request)
    store = services.keystore
    return SiteKeys(
        site=services.site,
        epoch=store.epoch,
        root=PublicKey(kid=store.root.kid.hex(), spki=store.root_spki.hex()),
        server_sign=PublicKey(kid=kid_of(store.server_sign.spki).hex(), spki=store.server_sign.spki.hex()),
        certificate=store.certificate.hex(),
    )


@router.get(
    "/v1/menu",
    tags=["menu"],
    response_model=MenuView,
    responses={
        200: {"content": {COSE: {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "the menu named by If-None-Match is still the current one"},
    },
)
async def menu(
    request: Request,
    if_none_match: Annotated[str | None, Header(max_length=1024)] = None,
    accept: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """The current menu as JSON or (``Accept: application/cose``) as the signed frame, with an ETag."""
    services = services_of(request)
    current = services.catalogue.snapshot.current
    if current is None:
        raise Problem(404, "no_menu", "No menu is published yet.")
    signed = COSE in (accept or "")
    etag = f'"{current.hash.hex()}{"-cose" if signed else ""}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept"}
    if is_known(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    frame = await services.reads.run(_frame, services.site, current.version)
    if signed:
        return Response(frame, headers=headers, media_type=COSE)
    key = VerifyKey(services.keystore.server_sign.spki, 3072)
    view = _view(Menu.open(frame, key, services.site), current.hash)
    return Response(view.model_dump_json(), headers=headers, media_type="application/json")


def _frame(transaction: Transaction, site: str, version: int) -> bytes:
    row = transaction.execute(
        "SELECT frame FROM menu WHERE site = ? AND version = ?", (site, version)
    ).fetchone()
    return bytes(row[0])


def _view(menu: Menu, digest: bytes) -> MenuView:
    return MenuView(
        version=menu.version,
        hash=digest.hex(),
        currency=menu.currency,
        exponent=menu.exponent,
        rounding=menu.rounding,
        taxes=[TaxView(id=tax.id, name=tax.name, basis_points=tax.basis_points) for tax in menu.taxes],
        categories=[CategoryView(id=category.id, name=category.name) for category in menu.categories],
        groups=[
            GroupView(
                id=group.id,
                name=group.name,
                minimum=group.minimum,
                maximum=group.maximum,
                modifiers=[
                    ModifierView(id=choice.id, name=choice.name, delta_minor=choice.delta_minor)
                    for choice in group.modifiers
                ],
            )
            for group in menu.groups
        ],
        items=[
            ItemView(
                id=item.id,
                category_id=item.category_id,
                name=item.name,
                price_minor=item.price_minor,
                tax_id=item.tax_id,
                groups=list(item.groups),
            )
            for item in menu.items
        ],
    )
