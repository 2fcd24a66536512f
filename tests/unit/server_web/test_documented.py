"""docs/operations.md knows every code the API can answer with, and every test it points at exists."""

from __future__ import annotations

import re
from pathlib import Path

from server.domain.errors import HouseCode
from server.web.routes import live

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
CODES = (ROOT / "docs" / "codes.md").read_text()


def test_every_code_of_the_api_is_documented() -> None:
    used: set[str] = set()
    for path in (ROOT / "server" / "web").rglob("*.py"):
        used |= set(re.findall(r'Problem\(\s*\d{3},\s*"([a-z_]+)"', path.read_text()))
    assert len(used) > 15
    known = set(re.findall(r"`([a-z_]+)`", OPERATIONS)) | {code.value for code in HouseCode}
    assert used - known == {"unknown_device"}
    assert "`unknown_device`" in CODES


def test_every_code_of_the_house_is_documented() -> None:
    known = set(re.findall(r"`([a-z_]+)`", CODES))
    assert {code.value for code in HouseCode} <= known


def test_every_close_code_of_the_feed_is_documented() -> None:
    for code in (live.TOKEN_OVER, live.SLOW, live.AHEAD, live.STORAGE, 1012):
        assert f"| {code} |" in OPERATIONS


def test_every_test_the_document_points_at_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", OPERATIONS))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 10
    for name in named:
        assert f"def {name}(" in sources, name
