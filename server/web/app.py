"""The HTTP application: routes, error shape, guard, and an OpenAPI document that says who may call what."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from server.web import problems, uploads
from server.web.access import Role
from server.web.auth import Allow, Change
from server.web.guard import Guard
from server.web.routes import bills, devices, house, kitchen, live, ops, orders, public, registry, releases
from server.web.services import Services

TITLE = "Tableside"
VERSION = "1"
ROUTERS = (
    public.router, house.router, orders.router, kitchen.router, bills.router, ops.router, devices.router,
    registry.router, releases.router,
)  # fmt: skip


def create_app(services: Services) -> FastAPI:
    """The application over a running server's parts."""
    app = FastAPI(title=TITLE, version=VERSION, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.state.services = services
    for router in (*ROUTERS, live.router):
        app.include_router(router)
    problems.install(app)
    larger = {uploads.PATH: uploads.UPLOAD_MAX_BYTES}
    app.add_middleware(Guard, limiter=services.limiter, record=services.metrics.record, larger=larger)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def roles_of(route: APIRoute) -> frozenset[Role] | None:
    """The roles that may call a route, None when it needs no token."""
    gate = _gate(route.dependant)
    return gate.roles if gate is not None else None


def changes(route: APIRoute) -> bool:
    """Whether a route changes state and takes an Idempotency-Key."""
    return isinstance(_gate(route.dependant), Change)


def _gate(dependant: Dependant) -> Allow | None:
    for inner in dependant.dependencies:
        if isinstance(inner.call, Allow):
            return inner.call
    return None


def api_routes(app: FastAPI) -> list[APIRoute]:
    """Every documented route."""
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with roles and problem answers for every operation."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    schema = get_openapi(title=TITLE, version=VERSION, routes=app.routes)
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = problems.PROBLEM_SCHEMA
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for route in api_routes(app):
        for method in sorted(route.methods or ()):
            operation = schema["paths"][route.path][method.lower()]
            _complete(operation, roles_of(route))
    app.openapi_schema = schema
    return schema


def _complete(operation: dict[str, Any], roles: frozenset[Role] | None) -> None:
    answer = {
        "description": "refused: a problem with a stable code",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    operation["responses"]["4XX"] = answer
    operation["responses"]["5XX"] = answer
    operation["responses"].pop("422", None)
    if roles is not None:
        operation["security"] = [{"token": []}]
        operation["x-roles"] = sorted(roles)
