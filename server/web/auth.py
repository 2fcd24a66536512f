"""Dependencies of the routes: who may call this, how often, and under which Idempotency-Key."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated

from fastapi import Header, Request
from starlette.requests import HTTPConnection

from server.web.access import Caller, Role
from server.web.guard import address_of, note_limit, refuse_limited
from server.web.idempotency import Call
from server.web.problems import KEY_HEADER, Problem
from server.web.services import Services, services_of

_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="tableside"'}


def bearer_of(connection: HTTPConnection) -> str | None:
    """The bearer token of a call, or None."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def authenticate(connection: HTTPConnection, services: Services, token: str | None) -> Caller:
    """Whose call this is. Raises: Problem(unauthenticated, rate_limited)."""
    address = address_of(connection.scope)
    failures = await services.limiter.look("failures", address)
    if not failures.allowed:
        note_limit(connection.scope.setdefault("state", {}), failures)
        raise refuse_limited(failures)
    caller = services.tokens.find(token, services.clock.unix_time()) if token is not None else None
    if caller is None:
        if token is not None:
            await services.limiter.take("failures", address)
            services.observations.refuse("", "http_bad_token")
        raise Problem(
            401,
            "unauthenticated",
            "This call needs a valid token: Authorization: Bearer ts_...",
            headers=_CHALLENGE,
        )
    state = connection.scope.setdefault("state", {})
    state["token_id"] = caller.token_id
    verdict = await services.limiter.take("token", caller.token_id)
    note_limit(state, verdict)
    if not verdict.allowed:
        raise refuse_limited(verdict)
    return caller


def permit(caller: Caller, roles: frozenset[Role]) -> None:
    """Raises: Problem(forbidden) unless the caller has one of the roles."""
    if caller.role not in roles:
        wanted = ", ".join(sorted(roles))
        raise Problem(403, "forbidden", f"A {caller.role} may not do this; it takes: {wanted}.")


IdempotencyKey = Annotated[
    str,
    Header(
        alias=KEY_HEADER,
        description="names this call; the same call again has no further effect",
        min_length=1,
        max_length=128,
    ),
]


def call_of(request: Request, caller: Caller, key: str, body_hash: bytes) -> Call:
    """A state-changing call under its Idempotency-Key. Raises: Problem(invalid)."""
    if _KEY.fullmatch(key) is None:
        raise Problem(422, "invalid", "The Idempotency-Key is not 1 to 128 visible ASCII characters.")
    digest = sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    digest.update(body_hash)
    return Call(caller, key, digest.digest(), services_of(request).clock.unix_time())


class Allow:
    """Dependency of a reading route: the caller, who has one of ``roles``."""

    def __init__(self, *roles: Role) -> None:
        self.roles = frozenset(roles)

    async def __call__(self, request: Request) -> Caller:
        """Raises: Problem."""
        return await self.caller(request)

    async def caller(self, request: Request) -> Caller:
        """Whose call it is; nothing of its body is read for that. Raises: Problem."""
        services = services_of(request)
        caller = await authenticate(request, services, bearer_of(request))
        permit(caller, self.roles)
        return caller


class Change(Allow):
    """Dependency of a state-changing route: the call with its Idempotency-Key."""

    async def __call__(  # type: ignore[override]
        self, request: Request, idempotency_key: IdempotencyKey
    ) -> Call:
        """Raises: Problem."""
        caller = await self.caller(request)
        return call_of(request, caller, idempotency_key, sha256(await request.body()).digest())
