"""``/v1/feed``: the live feed over a WebSocket, for kitchen displays and dashboards.

``?after=LSN`` resumes behind the last LSN handled (0: from the beginning; left out: from now on). The token
comes in ``Authorization`` or, from a browser, as a second subprotocol beside ``tableside.feed``.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from server.storage.database import StorageError
from server.web import feed as feed_rules
from server.web.access import STAFF, TOKEN_PREFIX, Caller
from server.web.auth import authenticate, bearer_of, permit
from server.web.feed import Entry, SlowConsumer, stream
from server.web.guard import address_of, refuse_limited
from server.web.problems import Problem, from_error
from server.web.services import Services
from server.web.shapes import MOST

PROTOCOL = "tableside.feed"
MAX_CLIENTS = 64
TOKEN_OVER, SLOW, AHEAD, STORAGE = 4401, 4408, 4409, 4503
router = APIRouter()


@router.websocket("/v1/feed")
async def feed(websocket: WebSocket) -> None:
    """Entries as JSON text messages: {lsn, kind, author, reason, at, body}; kind "heartbeat" when idle."""
    services: Services = websocket.app.state.services
    token = _token_of(websocket)
    try:
        caller, after = await _admit(websocket, services, token)
    except (Problem, StorageError) as refused:
        await websocket.send_denial_response(from_error(refused).response())
        return
    offered = websocket.scope.get("subprotocols", [])
    services.hub.clients += 1
    try:
        await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
        newest = await services.hub.refresh()
        if after is not None and after > newest:
            await websocket.close(AHEAD, f"this site has only come to LSN {newest}: start anew")
            return
        await _serve(websocket, services, caller, str(token), newest if after is None else after)
    except (StorageError, Problem):
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(STORAGE, "the database cannot be read now: come back")
    finally:
        services.hub.clients -= 1


async def _admit(websocket: WebSocket, services: Services, token: str | None) -> tuple[Caller, int | None]:
    """The caller and where to begin. Raises: Problem."""
    verdict = await services.limiter.take("address", address_of(websocket.scope))
    if not verdict.allowed:
        raise refuse_limited(verdict)
    caller = await authenticate(websocket, services, token)
    permit(caller, frozenset(STAFF))
    if services.hub.clients >= MAX_CLIENTS:
        raise Problem(503, "busy", f"{MAX_CLIENTS} feeds are open already.", headers={"Retry-After": "10"})
    given = websocket.query_params.get("after")
    if given is None:
        return caller, None
    if not given.isascii() or not given.isdecimal() or len(given) > 16 or int(given) > MOST:
        raise Problem(422, "invalid", "after is not an LSN.")
    return caller, int(given)


def _token_of(websocket: WebSocket) -> str | None:
    offered = websocket.scope.get("subprotocols", [])
    by_protocol = next((text for text in offered if text.startswith(TOKEN_PREFIX)), None)
    return bearer_of(websocket) or by_protocol


async def _serve(websocket: WebSocket, services: Services, caller: Caller, token: str, after: int) -> None:
    async def send(entry: Entry) -> None:
        await websocket.send_text(json.dumps(entry, separators=(",", ":")))

    def still_valid() -> bool:
        return services.tokens.find(token, services.clock.unix_time()) is not None

    sending = asyncio.create_task(
        stream(services.reads, services.hub, services.site, caller.role, after, send, still_valid)
    )
    hearing = asyncio.create_task(_until_gone(websocket))
    try:
        await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():
            return
        try:
            sending.result()
        except SlowConsumer:
            with suppress(TimeoutError):  # who reads nothing does not read this either: the connection ends
                async with asyncio.timeout(feed_rules.SEND_TIMEOUT_S):
                    await websocket.close(SLOW, "too slow: come back with the last LSN you handled")
        else:
            await websocket.close(TOKEN_OVER, "the token no longer counts")
    except (WebSocketDisconnect, RuntimeError):
        return  # gone while something was sent
    finally:
        for task in (sending, hearing):
            task.cancel()
        await asyncio.gather(sending, hearing, return_exceptions=True)


async def _until_gone(websocket: WebSocket) -> None:
    """Nothing is expected from the client; what it sends is thrown away."""
    with suppress(WebSocketDisconnect):
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
