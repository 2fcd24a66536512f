"""Where things lie in a checkout, and where the bench may write (only below `build/`)."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
FIXTURE_KEYS = FIXTURES / "keys"
DEMO_MENU = FIXTURES / "menu" / "demo.json"
BUILD = Path(os.environ.get("TABLESIDE_BUILD", ROOT / "build"))
RUNS = BUILD / "runs"
