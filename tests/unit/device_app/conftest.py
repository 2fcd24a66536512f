"""The firmware package is imported from its source folder, as the host board does."""

import sys
from pathlib import Path

_FIRMWARE = str(Path(__file__).resolve().parents[3] / "firmware")
if _FIRMWARE not in sys.path:
    sys.path.insert(0, _FIRMWARE)
