"""Options shared by all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("long", deadline=None)  # the histories of tests/property run 40 times as long


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--board`: which kind of board tests/board runs on (a serial URL means an ESP32)."""
    parser.addoption(
        "--board",
        action="append",
        help="board for tests/board: qemu, process or a serial URL; repeatable (default: qemu and process)",
    )
