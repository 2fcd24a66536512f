"""Makes the kit of tests/unit/server_order importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "server_order"))
