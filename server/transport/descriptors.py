"""Open files: each terminal's connection is one, and the system's first limit is often 1,024."""

from __future__ import annotations

import logging
import resource

SPARE = 640
"""For the HTTP API's connections, the database and logs."""

_log = logging.getLogger("tableside.mqtt")


def room_for(connections: int) -> int:
    """How many connections there is room for: as many as wanted, after raising this process's soft limit of
    open files as far as that takes, or as many as the hard limit leaves.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    room = max(1, allowed - SPARE)
    if room < connections:
        _log.warning(
            "room for %d terminals only: raise the hard limit of open files (ulimit -Hn is %d, %d would do)",
            room, hard, wanted,
        )  # fmt: skip
    return room
