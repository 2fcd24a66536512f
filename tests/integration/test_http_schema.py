"""Schemathesis against a real server: whatever the OpenAPI document allows or forbids, never a 5xx, and every
answer is of a documented shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import schemathesis
from http_kit import Api, http_base, open_api
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from server_bench import a_server, prepare_state

from bench.server import BenchServer

EXAMPLES = 6
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@schemathesis.serializer("application/cose", "application/cbor")
def raw(_context: Any, value: Any) -> bytes:
    """Sealed ops and uploaded releases are sent as they are."""
    found = getattr(value, "data", value)
    return found if isinstance(found, bytes) else str(found).encode()


MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    template = prepare_state(tmp_path_factory.mktemp("template"))
    with a_server(template, tmp_path_factory.mktemp("server"), "--limit-http", "1000000:10") as running:
        yield running


@pytest.fixture(scope="module")
def api(server: BenchServer) -> Iterator[Api]:
    with closing(open_api(server)) as opened:
        opened.post("/v1/tables", {"table": "1", "seats": 4})
        opened.post("/v1/seatings", {"table": "1"})
        yield opened


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_no_call_makes_the_server_fail(server: BenchServer, api: Api, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(http_base(server) + "/v1/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        role = "device" if operation.path == "/v1/ops" else "manager"
        tried += try_out(operation, mode, {"Authorization": f"Bearer {api.tokens[role]}"})
    assert tried > 50
    assert api.get("/readyz", role=None).status_code == 200


def try_out(operation: Any, mode: GenerationMode, headers: dict[str, str]) -> int:
    """Call one operation in several ways; returns how many."""
    tried = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        case.validate_response(case.call(headers=headers), checks=CHECKS)

    try:
        call()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # an operation without parameters cannot be called wrongly
    return tried
