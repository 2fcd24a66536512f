"""What a manager publishes and hands out: menu versions and API tokens."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from server.storage import admin
from server.storage.database import Database
from server.storage.tokens import TokenRow, add_token, revoke_token, tokens
from server.storage.transaction import Transaction
from server.web.access import TOKEN_BYTES, Caller, Role, hash_of, new_token
from server.web.auth import Allow, Change
from server.web.idempotency import Call
from server.web.menushape import MenuDocument
from server.web.services import services_of
from server.web.shapes import ID, Asked, Token, examples
from server.wire.menufile import parse_menu

_DAY_S = 24 * 3600
router = APIRouter()
Manager = Annotated[Caller, Depends(Allow(Role.MANAGER))]
Managing = Annotated[Call, Depends(Change(Role.MANAGER))]


class VersionView(BaseModel):
    """A published menu version; ``current`` is the one that counts. ``hash`` of its signed frame, hex."""

    version: int
    hash: str
    published_at: int
    current: bool


class TokenView(BaseModel):
    """A token without its secret; times in unix seconds."""

    token_id: str
    role: str
    name: str
    device: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class NewToken(Asked):
    """A token to issue; ``device`` for the role device, and only for it; without ``days`` it never ends."""

    model_config = examples({"role": "kitchen", "name": "grill display", "days": 365})
    role: Literal["manager", "waiter", "kitchen", "device"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")
    device: str | None = Field(default=None, pattern=ID)
    days: int | None = Field(default=None, ge=1, le=3650)

    @model_validator(mode="after")
    def _names_its_device(self) -> NewToken:
        if (self.role == "device") != (self.device is not None):
            raise ValueError("a token of role device names its device, and no other does")
        return self


@router.get("/v1/menus", tags=["menu"])
async def versions(request: Request, _: Manager) -> list[VersionView]:
    """Every menu version that was ever published, newest first."""
    services = services_of(request)
    return await services.reads.run(_versions, services.site)


def _versions(transaction: Transaction, site: str) -> list[VersionView]:
    rows = transaction.execute(
        "SELECT m.version, m.hash, m.published_at, s.current_menu FROM menu m JOIN site s ON s.site = m.site "
        "WHERE m.site = ? ORDER BY m.version DESC",
        (site,),
    )
    return [
        VersionView(version=version, hash=bytes(digest).hex(), published_at=at, current=version == current)
        for version, digest, at, current in rows
    ]


@router.post("/v1/menus", tags=["menu"], status_code=201)
async def publish(
    request: Request,
    call: Managing,
    body: MenuDocument,
    renumber: Annotated[bool, Query(description="number it one above the newest, whatever it says")] = False,
) -> Response:
    """Sign a menu and make it the current one; a published version never changes."""
    services = services_of(request)
    given = parse_menu(body.model_dump_json(by_alias=True))

    def change(database: Database) -> dict[str, Any]:
        menu = given
        if renumber:
            menu = replace(menu, version=admin.newest_menu_version(database, services.site) + 1)
        frame = menu.seal(services.keystore.server_sign, services.site)
        admin.publish_menu(database, services.site, menu.version, frame, call.now_s)
        return {"version": menu.version, "items": len(menu.items), "size_bytes": len(frame)}

    return await services.change(call, change, 201)


@router.get("/v1/tokens", tags=["tokens"])
async def list_tokens(request: Request, _: Manager) -> list[TokenView]:
    """Every token ever issued, oldest first; never a secret."""
    services = services_of(request)
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(services.executor, tokens, services.database, services.site)
    return [TokenView.model_validate(row, from_attributes=True) for row in found]


@router.post("/v1/tokens", tags=["tokens"], status_code=201)
async def issue(request: Request, call: Managing, body: NewToken) -> Response:
    """Issue a token. Its text is in this answer and nowhere else: a repeated call gets ``token`` null.

    Whoever lost the answer revokes the token by its id and issues another.
    """
    services = services_of(request)
    text = new_token(secrets.token_bytes(TOKEN_BYTES))
    digest = hash_of(text)
    assert digest is not None
    expires = None if body.days is None else call.now_s + body.days * _DAY_S
    row = TokenRow(secrets.token_hex(6), body.role, body.name, body.device, call.now_s, expires, None)

    def change(database: Database) -> dict[str, Any]:
        add_token(database, services.site, row, digest)
        return {"token_id": row.token_id, "role": row.role, "name": row.name, "device": row.device,
                "expires_at": expires, "token": None}  # fmt: skip

    return await services.change(
        call, change, 201, secret=lambda stored: json.dumps({**json.loads(stored), "token": text}).encode()
    )


@router.post("/v1/tokens/{token_id}/revoke", tags=["tokens"])
async def revoke(request: Request, call: Managing, token_id: Token) -> Response:
    """Make a token worthless; feeds that are open under it end."""
    services = services_of(request)

    def change(database: Database) -> dict[str, Any]:
        revoke_token(database, services.site, token_id, call.now_s)
        return {"token_id": token_id, "revoked_at": call.now_s}

    return await services.change(call, change)
