"""``python -m server`` is ``tableside server`` for machines that only serve."""

import sys

from server.cli import main

sys.exit(main())
