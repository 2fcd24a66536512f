"""Device modules are imported as they are on a board: `terminal` and `boards` are top-level packages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "firmware"))
