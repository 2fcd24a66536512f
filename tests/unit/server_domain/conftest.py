"""A fresh staffed house for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "server_order"))
sys.path.insert(0, str(Path(__file__).parent))
from database_kit import KINDS, url_for
from house_kit import StaffedHouse, staffed_house


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StaffedHouse]:
    made = staffed_house(tmp_path, url_for(request.param, staffed_house))
    yield made
    made.close()
