"""A fresh staffed house for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from house_kit import StaffedHouse, staffed_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[StaffedHouse]:
    made = staffed_house(tmp_path)
    yield made
    made.house.close()
