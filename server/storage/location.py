"""Where a site's database is: a file in the state folder, or a PostgreSQL database the folder remembers.

The folder remembers the URL so that a server started without it does not begin a second, empty database with
the same keys, and so that commands find the database by ``--state`` alone.
"""

from __future__ import annotations

import os
from pathlib import Path

DATABASE_NAME = "tableside.db"
URL_NAME = "database.url"
SCHEMES = ("postgresql://", "postgres://")


def database_path(state: Path) -> Path:
    """The database file inside a state folder."""
    return state / DATABASE_NAME


def is_url(text: object) -> bool:
    """Whether a text names a PostgreSQL database."""
    return str(text).startswith(SCHEMES)


def remembered(state: Path) -> str | None:
    """The URL a state folder remembers, None where its database is a file of its own."""
    path = state / URL_NAME
    return path.read_text("utf-8").strip() if path.exists() else None


def remember(state: Path, url: str) -> None:
    """Write the URL, which may hold a password, into the state folder, readable by its owner alone."""
    if remembered(state) == url:
        return
    path = state / URL_NAME
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(url + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
