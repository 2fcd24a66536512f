"""Every error of the API: one JSON shape (RFC 9457), one stable code each, one place that maps them.

``code`` is for programs and never changes; ``detail`` is a sentence for people. Codes of the services below
(``HouseError.code``, ``Refusal.code``) pass through unchanged; `docs/codes.md` lists them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from server.domain.errors import HouseError, Kind
from server.errors import ServerError
from server.storage.database import StorageError
from server.storage.writer import QueueFull
from server.wire.errors import Refusal

MEDIA_TYPE = "application/problem+json"
KEY_HEADER = "Idempotency-Key"
_log = logging.getLogger("tableside.web")


class Problem(Exception):
    """A refused call: HTTP status, stable code, sentence, further headers."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def body(self) -> dict[str, Any]:
        """The JSON members."""
        found: dict[str, Any] = {
            "type": f"urn:tableside:problem:{self.code.lower().replace('_', '-')}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            found["errors"] = self.errors
        return found

    def response(self) -> JSONResponse:
        """As an answer."""
        return JSONResponse(self.body(), self.status, headers=self.headers, media_type=MEDIA_TYPE)


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable, for programs"},
        "detail": {"type": "string", "description": "a sentence, for people"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}

_STATUS_OF_KIND = {Kind.NOT_FOUND: 404, Kind.CONFLICT: 409, Kind.INVALID: 422}


def from_error(error: Exception) -> Problem:
    """The problem a known error becomes."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFull):
        return Problem(503, "queue_full", "The order queue is full; try again soon.", headers=_retry(1))
    if isinstance(error, StorageError):
        _log.error("%s", error)
        return Problem(503, "storage", "The database cannot take this now; try again.", headers=_retry(5))
    if isinstance(error, Refusal):
        return Problem(422, str(error.code), error.detail)
    if isinstance(error, HouseError):
        return Problem(_STATUS_OF_KIND[error.kind], str(error.code), str(error))
    if isinstance(error, ServerError):
        return Problem(409 if error.refused else 422, error.code.lower(), str(error))
    raise error


def _retry(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}


_HTTP_CODES = {404: "no_such_route", 405: "method_not_allowed", 413: "too_large"}


def _of_http(error: HTTPException) -> Problem:
    code = _HTTP_CODES.get(error.status_code, HTTPStatus(error.status_code).name.lower())
    return Problem(error.status_code, code, str(error.detail), headers=error.headers)


def _of_validation(error: RequestValidationError) -> Problem:
    found = [
        {"where": "/".join(str(part) for part in item["loc"]), "what": str(item["msg"])}
        for item in error.errors()
    ]
    if any(item["type"] == "missing" and item["loc"][-1] == KEY_HEADER for item in error.errors()):
        return Problem(
            400, "idempotency_key_required", "Every state-changing call names itself with an Idempotency-Key."
        )
    where = found[0]["where"] if found else "request"
    return Problem(422, "invalid", f"The request is not of the documented shape: {where}.", errors=found)


def install(app: FastAPI) -> None:
    """Make an application answer every error as a problem."""

    async def known(_request: Request, error: Exception) -> JSONResponse:
        return from_error(error).response()

    async def http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _of_http(error).response()

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _of_validation(error).response()

    async def left(_request: Request, _error: Exception) -> JSONResponse:
        return Problem(408, "request_timeout", "The caller left before the body was there.").response()

    async def defect(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return Problem(500, "internal", "A defect in the server; the log has its trace.").response()

    for kind in (Problem, QueueFull, StorageError, Refusal, HouseError, ServerError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, defect)
