"""Sealed ops over HTTP: the same bytes, the same verification, the same queue as over MQTT.

The answer is the sealed reply, sent after the commit. A frame that proves nothing gets no answer over MQTT;
here it gets one and the same refusal, whatever is wrong with it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from server.storage.transaction import Transaction
from server.web.access import Caller, Role
from server.web.auth import Allow
from server.web.guard import note_limit, refuse_limited
from server.web.problems import Problem
from server.web.routes.public import COSE
from server.web.services import Services, services_of
from server.wire.ops import OP_MAX_BYTES

COMMIT_TIMEOUT_S = 15.0
router = APIRouter(tags=["ops"])


@router.post(
    "/v1/ops",
    response_class=Response,
    responses={200: {"content": {COSE: {"schema": {"type": "string", "format": "binary"}}}}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {COSE: {"schema": {"type": "string", "format": "binary", "maxLength": OP_MAX_BYTES}}},
        }
    },
)
async def post_op(
    request: Request,
    caller: Annotated[Caller, Depends(Allow(Role.DEVICE))],
    tableside_kid: Annotated[
        str, Header(pattern="^[0-9a-f]{16}$", description="the device's key id: 16 hex digits")
    ],
) -> Response:
    """Apply one op-frame of the token's device and answer with its reply-frame.

    Repeating the same bytes is safe: the op-id decides, so no Idempotency-Key is needed.
    """
    services = services_of(request)
    device = str(caller.device)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != COSE:
        raise Problem(415, "unsupported_media_type", f"An op-frame is sent as {COSE}.")
    verdict = await services.limiter.take("device", device)
    note_limit(request.scope["state"], verdict)
    if not verdict.allowed:
        raise refuse_limited(verdict)
    frame = await request.body()
    if len(frame) > OP_MAX_BYTES:
        raise Problem(413, "too_large", f"An op-frame has at most {OP_MAX_BYTES} bytes.")
    if await services.reads.run(_kid, services.site, device) != bytes.fromhex(tableside_kid):
        services.observations.refuse(device, "http_wrong_kid")
        raise Problem(403, "wrong_key", "Tableside-Kid is not the key of this token's device.")
    return Response(await _apply(services, device, frame), media_type=COSE)


async def _apply(services: Services, device: str, frame: bytes) -> bytes:
    """The reply-frame or hint. Raises: Problem(frame_refused, storage, timeout)."""
    settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    answers: list[bytes] = []

    def done(stored: bool) -> None:
        if not settled.done():
            settled.set_result(stored)

    services.ingest.op(device, frame, answers.append, done)
    try:
        stored = await asyncio.wait_for(settled, COMMIT_TIMEOUT_S)
    except TimeoutError:
        raise Problem(
            504, "timeout", "Not committed in time; send the same frame again.", headers={"Retry-After": "1"}
        ) from None
    if not stored:
        raise Problem(
            503, "storage", "Nothing was stored; send the same frame again.", headers={"Retry-After": "5"}
        )
    if not answers:
        raise Problem(422, "frame_refused", "The frame is not one this server can take.")
    return answers[0]


def _kid(transaction: Transaction, site: str, device: str) -> bytes | None:
    row = transaction.execute(
        "SELECT kid FROM device WHERE site = ? AND device = ?", (site, device)
    ).fetchone()
    return None if row is None else bytes(row[0])
