"""A server takes the open files it needs where it may, and says so where it may not."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
from server.transport.descriptors import room_for
resource.setrlimit(resource.RLIMIT_NOFILE, (300, {hard}))
print(room_for({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("hard", "wanted", "room", "soft", "warned"),
    [(4000, 2000, 2000, 2640, False), (1000, 2000, 360, 1000, True), (300, 2000, 1, 300, True)],
    ids=["raised", "as_far_as_allowed", "not_at_all"],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(
    hard: int, wanted: int, room: int, soft: int, warned: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(hard=hard, wanted=wanted)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(room), str(soft)]
    assert ("room for" in done.stderr) == warned
