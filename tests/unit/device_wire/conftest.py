"""What the terminal's wire tests share: the firmware on the import path, and the vectors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

for folder in (HERE.parents[2] / "firmware", HERE / "scripts", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    path = HERE.parents[2] / "fixtures" / "protocol" / "vectors.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.fixture(scope="session")
def frames(vectors: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {frame["name"]: frame for frame in vectors["frames"]}
