"""Every code that a terminal, a waiter or a log may see is explained in docs/codes.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.domain.errors import HouseCode, HouseError, Kind
from server.wire.errors import RefusalCode
from server.wire.ops import RejectCode, Status

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "codes.md").read_text(encoding="utf-8")
EXPLAINED = set(re.findall(r"`([A-Za-z_]+)`", TEXT))
PREFIXES = ("mqtt_", "http_")


@pytest.mark.parametrize("code", [*HouseCode, *RefusalCode])
def test_every_coded_refusal_is_explained(code: str) -> None:
    assert str(code) in EXPLAINED


@pytest.mark.parametrize("code", list(RejectCode))
def test_every_reject_code_is_explained_with_its_number(code: RejectCode) -> None:
    assert f"| {int(code)} | `{code.name}` |" in TEXT


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.REJECTED])
def test_every_status_is_explained_with_its_number(status: Status) -> None:
    assert f"| status {int(status)} | `{status.name}` |" in TEXT


def test_every_code_the_server_counts_is_explained() -> None:
    found: set[str] = set()
    for path in (ROOT / "server").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'refuse\([^()"]*(?:"")?,\s*"([a-z_0-9]+)"\)', text))
    assert len(found) > 10
    assert {code for code in found if not code.startswith(PREFIXES)} <= EXPLAINED


def test_the_kind_of_a_refusal_is_the_one_the_table_gives() -> None:
    marked = set(re.findall(r"\| `([a-z_]+)` \* \|", TEXT))
    for code in HouseCode:
        kind = HouseError(code, "a sentence").kind
        expected = Kind.INVALID if code in marked else Kind.CONFLICT
        assert kind is (Kind.NOT_FOUND if code.startswith("unknown_") else expected), code
