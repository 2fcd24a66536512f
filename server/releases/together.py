"""Files that appear together or not at all, however the process ends.

They are written into the folder PENDING, synced, and made valid by one rename to READY; from there each is
moved to its place. What an interrupted call left in PENDING is destroyed by the next one, what it left in
READY is moved on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from server.devices import keyfiles
from server.devices.keyfiles import KeyFileError

PENDING, READY = ".keygen-unfinished", ".keygen-ready"


def write(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write new files by name into `folder`, made if missing; those that end in .pem get mode 0600.

    Raises: KeyFileError("exists") where one is there, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    recover(folder)
    for name in files:
        _must_be_new(folder / name)
    pending = folder / PENDING
    pending.mkdir(mode=0o700)
    for name, data in files.items():
        _write(pending / name, data, 0o600 if name.endswith(".pem") else 0o644)
    keyfiles.sync_directory(pending)
    pending.rename(folder / READY)
    keyfiles.sync_directory(folder)
    recover(folder)
    return tuple(folder / name for name in files)


def waiting(folder: Path) -> tuple[str, ...]:
    """The names of the files an interrupted call has written and not yet moved to their places."""
    ready = folder / READY
    return tuple(sorted(path.name for path in ready.iterdir())) if ready.is_dir() else ()


def recover(folder: Path) -> tuple[Path, ...]:
    """End what an interrupted call has begun; -> the files it moved to their places.

    Raises: KeyFileError("exists") where somebody else has put one there, OSError.
    """
    ready, pending = folder / READY, folder / PENDING
    names = waiting(folder)
    for name in names:
        _must_be_new(folder / name)
    for name in names:
        (ready / name).rename(folder / name)
    if ready.is_dir():
        keyfiles.sync_directory(folder)
        ready.rmdir()
    if pending.is_dir():
        for path in pending.iterdir():
            keyfiles.destroy(path)
        pending.rmdir()
    return tuple(folder / name for name in names)


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise KeyFileError("exists", path, f"There is a file {path} already: move it away first.")


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
