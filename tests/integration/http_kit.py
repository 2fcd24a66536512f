"""A running server's HTTP API for the integration tests: addresses, tokens of each role, calls."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from server_bench import eventually

from bench.server import BenchServer
from server.storage.ledger import Ledger

ROLES = ("manager", "waiter", "kitchen", "device")
Json = Any


def new_key() -> dict[str, str]:
    """A header with a fresh Idempotency-Key."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def http_base(server: BenchServer) -> str:
    """The URL of a server's API."""
    found = json.loads((server.state / "server.json").read_text())["http"]
    return f"http://{found['host']}:{found['port']}"


def issue_token(server: BenchServer, role: str, *, device: str | None = None, name: str = "") -> Json:
    """Issue a token with the operator's command; {"token_id", "token", ...}."""
    words = ["tokens", "add", name or f"a {role}", "--role", role, "--json"]
    if role == "device":
        words += ["--device", device or "t-0001"]
    return json.loads(server.admin(*words))


@dataclass
class Api:
    """A client with one token per role."""

    client: httpx.Client
    tokens: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        role: str | None = "manager",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One call as a role (None: without a token); a state-changing one gets a fresh Idempotency-Key."""
        sent = dict(new_key()) if method != "GET" else {}
        if role is not None:
            sent["Authorization"] = f"Bearer {self.tokens[role]}"
        return self.client.request(method, path, headers={**sent, **(headers or {})}, **more)

    def get(self, path: str, *, role: str | None = "manager", **more: Any) -> httpx.Response:
        """GET as a role."""
        return self.call("GET", path, role=role, **more)

    def post(self, path: str, body: Json, *, role: str | None = "manager", **more: Any) -> httpx.Response:
        """POST JSON as a role."""
        return self.call("POST", path, role=role, json=body, **more)


def open_api(server: BenchServer) -> Api:
    """A client for a server, with tokens that already count."""
    api = Api(httpx.Client(base_url=http_base(server), timeout=15))
    for role in ROLES:
        api.tokens[role] = issue_token(server, role)["token"]
    wait_for_token(api, "device")
    return api


def wait_for_token(api: Api, role: str) -> None:
    """Until the server has read the registry anew: the error is no longer 401."""
    eventually(lambda: api.get("/v1/devices", role=role).status_code != 401, "the token counts")


def kid_of(server: BenchServer, device: str) -> str:
    """A device's key id as the header wants it."""
    return next(row.kid for row in Ledger(server.state).devices("demo") if row.device == device)


def problem(answer: httpx.Response, status: int, code: str) -> None:
    """Assert that an answer is this problem."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    found = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["detail"]
