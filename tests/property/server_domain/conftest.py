"""Makes the kits of the unit tests importable here."""

import sys
from pathlib import Path

for room in ("server_order", "server_domain"):
    sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / room))
