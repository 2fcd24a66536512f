"""The first thing every call meets: its address's limit, size and time limits of its body, and the books.

Plain ASGI, so that it sees every answer, also those of errors: it adds the rate-limit headers and a request
id, counts and times the call, and writes one structured log record.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.web.limits import Verdict, WebLimiter
from server.web.problems import Problem

MAX_BODY_BYTES = 256 * 1024
BODY_TIMEOUT_S = 10.0
UNLIMITED = ("/healthz", "/readyz")

_log = logging.getLogger("tableside.http")

Record = Callable[[str, str, int, float], None]


def address_of(scope: Scope) -> str:
    """The key of a caller's address: IPv4 as it is, IPv6 by its /64 network."""
    client = scope.get("client")
    host = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return host


def note_limit(state: dict[str, Any], verdict: Verdict) -> None:
    """Remember the verdict the answer's headers shall show: the one with the least left."""
    shown: Verdict | None = state.get("rate_limit")
    if shown is None or verdict.remaining < shown.remaining or not verdict.allowed:
        state["rate_limit"] = verdict


def refuse_limited(verdict: Verdict) -> Problem:
    """The problem of a caller who asks too often."""
    return Problem(
        429, "rate_limited", f"Too many calls of this {verdict.policy}; wait {max(1, verdict.reset_s)} s."
    )


class Guard:
    """Wraps the application; ``record(method, route, status, seconds)`` is called once per call.

    ``larger``: paths whose body may have more than MAX_BODY_BYTES, and how many bytes that is.
    """

    def __init__(
        self, app: ASGIApp, limiter: WebLimiter, record: Record, larger: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._larger = dict(larger or {})
        self._limiter = limiter
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = uuid.uuid4().hex
        begun = time.perf_counter()
        answered = _Answered(send, state)
        try:
            await self._judge(scope, receive, answered, state)
        finally:
            self._book(scope, state, answered.status, time.perf_counter() - begun)

    async def _judge(self, scope: Scope, receive: Receive, send: Send, state: dict[str, Any]) -> None:
        if scope["path"] not in UNLIMITED:
            verdict = await self._limiter.take("address", address_of(scope))
            note_limit(state, verdict)
            if not verdict.allowed:
                await refuse_limited(verdict).response()(scope, receive, send)
                return
        declared = _content_length(scope)
        if declared is None:
            await Problem(400, "bad_request", "Content-Length is not a number.").response()(
                scope, receive, send
            )
            return
        most = self._larger.get(scope["path"], MAX_BODY_BYTES)
        if declared > most:
            await _too_large(most).response()(scope, receive, send)
        else:
            await self._app(scope, _Bounded(receive, most), send)

    def _book(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        route = scope.get("route")
        path = str(getattr(route, "path", "other"))
        self._record(scope["method"], path, status, seconds)
        _log.info(
            "%s %s %d",
            scope["method"],
            path,
            status,
            extra={
                "method": scope["method"],
                "route": path,
                "status": status,
                "ms": round(seconds * 1000, 2),
                "request_id": state["request_id"],
                "token": state.get("token_id", ""),
            },
        )


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"The body is longer than {most} bytes.")


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 16 else None
    return 0


class _Bounded:
    """A ``receive`` that refuses a body which is too long or too slow."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._bytes = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()  # waits for the disconnect, however long that takes
        try:
            message = await asyncio.wait_for(self._receive(), BODY_TIMEOUT_S)
        except TimeoutError:
            raise HTTPException(408, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._bytes > self._most:
                raise HTTPException(413, _too_large(self._most).detail)
        return message


class _Answered:
    """A ``send`` that adds headers and remembers the status."""

    def __init__(self, send: Send, state: dict[str, Any]) -> None:
        self._send = send
        self._state = state
        self.status = 499

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._state["request_id"]
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            verdict: Verdict | None = self._state.get("rate_limit")
            if verdict is not None:
                for name, value in verdict.headers().items():
                    headers[name] = value
        await self._send(message)
