"""What the routes work with: the running server's parts, and the two ways of changing something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fastapi import Request, Response
from pydantic import BaseModel

from server.devices.keys import KeyStore
from server.devices.seams import Clock
from server.devices.verify import Session
from server.ordering.catalogue import Catalogue
from server.service.change import Change
from server.service.service import Service
from server.storage.database import Database
from server.storage.writer import Writer
from server.transport.ingest import Ingest
from server.transport.notices import Notices
from server.transport.observations import Observations
from server.transport.updates import Updates
from server.web.access import TokenBook
from server.web.feed import Hub
from server.web.idempotency import Call, Once, Stored, once_by_admin
from server.web.limits import WebLimiter
from server.web.metrics import Metrics
from server.web.reads import Reads


class Connected(Protocol):
    """The broker, as far as the API looks at it."""

    def connected(self) -> list[str]:
        """Devices with an open connection."""


@dataclass(slots=True)
class Services:
    """Everything a route may use. Made by the composition root."""

    site: str
    clock: Clock
    database: Database
    catalogue: Catalogue
    keystore: KeyStore
    writer: Writer
    ingest: Ingest
    sessions: dict[str, Session]
    observations: Observations
    broker: Connected
    executor: Executor
    tokens: TokenBook
    limiter: WebLimiter
    metrics: Metrics
    reads: Reads
    notices: Notices
    house: Service
    hub: Hub
    updates: Updates

    async def act(self, call: Call, change: Change, status: int = 200) -> Response:
        """Change the house at most once per Idempotency-Key; terminals are told after the commit."""
        stored = await self.writer.run(Once(self.site, call, change, status))
        if not stored.repeated:
            self.notices.tell(change.notices)
        return _response(stored)

    async def change(
        self,
        call: Call,
        change: Callable[[Database], BaseModel | dict[str, Any]],
        status: int = 200,
        *,
        secret: Callable[[bytes], bytes] | None = None,
    ) -> Response:
        """Change the registry at most once per Idempotency-Key and answer with what the change returns.

        ``secret`` adds to the first answer's body what must not be stored with it.
        """
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(
            self.executor, once_by_admin, self.database, self.site, call, change, status
        )
        if secret is not None and not stored.repeated:
            stored = replace(stored, body=secret(stored.body))
        return _response(stored)


def _response(stored: Stored) -> Response:
    headers = {"Idempotency-Replayed": "true"} if stored.repeated else None
    return Response(stored.body, stored.status, headers=headers, media_type="application/json")


def services_of(request: Request) -> Services:
    """The services of the application a call came to."""
    found: Services = request.app.state.services
    return found
