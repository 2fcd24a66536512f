"""The firmware, and what the unit tests of the wire share, on the import path."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "tests" / "unit" / "device_wire"
for folder in (ROOT / "firmware", UNIT, UNIT / "scripts"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
