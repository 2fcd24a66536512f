"""Waiting for what can only be looked at, not subscribed to: the ledger, a counter inside the terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from bench.errors import DeadlinePassed

T = TypeVar("T")
LOOK_EVERY_S = 0.05


def until(
    look: Callable[[], T | None], what: str, deadline_s: float = 20.0, every_s: float = LOOK_EVERY_S
) -> T:
    """Look again and again until what is seen is true (not None, False, empty or 0), and return it.

    Raises: DeadlinePassed naming `what`.
    """
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= end:
            raise DeadlinePassed(f"not within {deadline_s:g} s: {what}")
        pause.wait(every_s)
