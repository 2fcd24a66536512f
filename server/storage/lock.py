"""One server per state folder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from server.config import ConfigError

LOCK_NAME = "server.lock"


class StateLock:
    """Keeps a second server off a state folder; the kernel lets go of it however the process ends."""

    def __init__(self, state: Path) -> None:
        self._path = state / LOCK_NAME
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Raises: ConfigError when somebody holds it."""
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(
                f"a server is already running on {self._path.parent}; stop it, or give this one another "
                f"--state"
            ) from None
        self._file = file

    def release(self) -> None:
        """Let go; harmless when it was never held."""
        if self._file is not None:
            self._file.close()
            self._file = None
