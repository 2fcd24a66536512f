"""How long the state machines run: `pytest --hypothesis-profile long tests/property/server_order ...`."""

from __future__ import annotations

from hypothesis import settings

LONG_FACTOR = 40


def examples(few: int) -> int:
    """A number of examples for the profile in use."""
    return few * LONG_FACTOR if settings.get_current_profile_name() == "long" else few
