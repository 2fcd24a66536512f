"""Makes the kit of tests/unit/server_order importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "server_order"))
