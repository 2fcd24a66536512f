"""Terminals, as a manager sees and changes them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from server.devices.records import DeviceState
from server.storage import admin
from server.storage.database import Database
from server.storage.ledger import Ledger
from server.transport.auth import hash_password
from server.web.access import SERVICE, Caller, Role
from server.web.auth import Allow, Change
from server.web.idempotency import Call
from server.web.problems import Problem
from server.web.services import services_of
from server.web.shapes import ID, Asked, Name, examples
from server.wire.rsa import VerifyKey

router = APIRouter(tags=["devices"])


class DeviceView(BaseModel):
    """A registered terminal and what it last said about itself."""

    device: str
    kid: str
    table: str
    state: str
    connected: bool
    session: bool
    online: bool | None
    running: int | None
    menu_version: int | None
    pending: int | None


class NewDevice(Asked):
    """A terminal to register; ``spki`` is the hex DER of its RSA-2048 public key."""

    model_config = examples(
        {"device": "t-0012", "table": "12", "spki": "3082" + 584 * "0", "password": "8 or more letters"}
    )
    device: str = Field(pattern=ID)
    table: str = Field(pattern=ID)
    spki: str = Field(pattern="^[0-9a-f]{588}$")
    password: str = Field(min_length=8, max_length=128)
    pending: bool = False


class DeviceChange(Asked):
    """Another state for a terminal, and another table with it."""

    model_config = examples({"state": "suspended"}, {"state": "active", "table": "7"})
    state: Literal["active", "suspended", "retired"]
    table: str | None = Field(default=None, pattern=ID)


@router.get("/v1/devices")
async def devices(request: Request, _: Annotated[Caller, Depends(Allow(*SERVICE))]) -> list[DeviceView]:
    """All registered terminals by name."""
    services = services_of(request)
    loop = asyncio.get_running_loop()
    known = await loop.run_in_executor(
        services.executor, Ledger(services.database.path).devices, services.site
    )
    connected = set(services.broker.connected())
    return [
        DeviceView(
            device=row.device,
            kid=row.kid,
            table=row.table,
            state=row.state,
            connected=row.device in connected,
            session=row.device in services.sessions,
            online=row.online,
            running=row.running,
            menu_version=row.menu_version,
            pending=row.pending,
        )
        for row in known
    ]


@router.post("/v1/devices", status_code=201)
async def register(
    request: Request, call: Annotated[Call, Depends(Change(Role.MANAGER))], body: NewDevice
) -> Response:
    """Register a terminal by its public key."""
    services = services_of(request)
    spki = bytes.fromhex(body.spki)
    VerifyKey(spki, 2048)
    password_hash = await asyncio.get_running_loop().run_in_executor(
        services.executor, hash_password, body.password
    )

    def change(database: Database) -> dict[str, Any]:
        admin.add_device(
            database,
            services.site,
            body.device,
            table=body.table,
            spki=spki,
            password_hash=password_hash,
            state=DeviceState.PENDING if body.pending else DeviceState.ACTIVE,
            now_s=call.now_s,
        )
        return {"device": body.device, "table": body.table}

    return await services.change(call, change, 201)


@router.post("/v1/devices/{device}/state")
async def change_state(
    request: Request, call: Annotated[Call, Depends(Change(Role.MANAGER))], device: Name, body: DeviceChange
) -> Response:
    """Activate, suspend or retire a terminal; its sessions end with its right to order."""
    services = services_of(request)
    if device not in services.catalogue.snapshot.devices:
        raise Problem(404, "unknown_device", f"There is no device {device}.")

    def change(database: Database) -> dict[str, Any]:
        before = admin.change_device(
            database, services.site, device, DeviceState(body.state), table=body.table
        )
        return {"device": device, "state": body.state, "before": before.value}

    return await services.change(call, change)
