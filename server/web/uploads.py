"""Bodies that are too large for JSON: a signed release as one CBOR array of two byte strings.

Whose call it is, and whether they may, is known before the first byte is read. One upload is taken at a time,
so that what arrives never takes more memory than one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from fastapi import Request
from starlette.exceptions import HTTPException

from server.releases.rules import IMAGE_MAX_BYTES
from server.web.auth import Change, IdempotencyKey, call_of
from server.web.idempotency import Call
from server.web.problems import Problem
from server.wire import shapes
from server.wire.cbor import decode
from server.wire.updates import OFFER_MAX_BYTES

PATH = "/v1/releases/upload"
MEDIA_TYPE = "application/cbor"
_HEADS_BYTES = 64  # of the array and its two strings, and to spare
UPLOAD_MAX_BYTES = IMAGE_MAX_BYTES + OFFER_MAX_BYTES + _HEADS_BYTES
UPLOAD_TIMEOUT_S = 120.0
_RETRY_S = 10


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A call whose body has arrived."""

    call: Call
    body: bytes

    def release(self) -> tuple[bytes, bytes]:
        """The offer-frame and the bundle, neither judged. Raises: Refusal (not of this shape)."""
        parts = shapes.array(decode(self.body, UPLOAD_MAX_BYTES), 2, 2, "upload")
        return (
            shapes.binary(parts[0], 1, OFFER_MAX_BYTES, "offer"),
            shapes.binary(parts[1], 1, IMAGE_MAX_BYTES, "bundle"),
        )


class Upload(Change):
    """Dependency of a route that takes a release: like `Change`, with the body it has read."""

    async def __call__(  # type: ignore[override]
        self, request: Request, idempotency_key: IdempotencyKey
    ) -> Uploaded:
        """Raises: Problem."""
        caller = await self.caller(request)
        if request.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
            raise Problem(415, "unsupported_media_type", f"A release is uploaded as {MEDIA_TYPE}.")
        with _alone(request):
            body = await _arrived(request)
        return Uploaded(call_of(request, caller, idempotency_key, sha256(body).digest()), body)


@contextmanager
def _alone(request: Request) -> Iterator[None]:
    state = request.app.state
    if getattr(state, "is_uploading", False):
        raise Problem(
            503,
            "upload_busy",
            "Another release is being uploaded; try again soon.",
            headers={"Retry-After": str(_RETRY_S)},
        )
    state.is_uploading = True
    try:
        yield
    finally:
        state.is_uploading = False


async def _arrived(request: Request) -> bytes:
    """The whole body; the guard ends it where it is too long or pauses for too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            async for part in request.stream():
                body += part
    except TimeoutError:
        raise HTTPException(408, f"The release did not arrive within {UPLOAD_TIMEOUT_S:g} s.") from None
    return bytes(body)
