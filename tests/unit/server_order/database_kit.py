"""Both databases for tests: a file in a folder, or a fresh database of one private PostgreSQL per run."""

from __future__ import annotations

import atexit
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import psycopg

from bench.postgres import PrivatePostgres
from server.storage.database import open_database

SQLITE, POSTGRESQL = "sqlite", "postgresql"
KINDS = (SQLITE, POSTGRESQL)
BROKEN_RULE = (sqlite3.IntegrityError, psycopg.IntegrityError)
_numbers = itertools.count(1)


@cache
def cluster() -> PrivatePostgres:
    """The test run's PostgreSQL, without fsync and without a password; it ends with the run."""
    server = PrivatePostgres(durable=False, trust=True).open()
    atexit.register(server.close)
    return server


class Closable(Protocol):
    """What was opened on a database."""

    def close(self) -> None:
        """Let go of it."""
        ...


def tables_only(folder: Path, url: str | None) -> Closable:
    """Nothing but the server's tables."""
    return open_database(folder, create=True, url=url)


@cache
def _filled(fill: Callable[[Path, str | None], Closable]) -> tuple[str, str]:
    """A database with what ``fill`` made of it, and the statements that bring it back to that."""
    url = cluster().make_database(f"house_{next(_numbers)}")
    with TemporaryDirectory() as folder, closing(fill(Path(folder), url)):
        pass
    back = ["SET session_replication_role = replica"]  # no triggers, no foreign keys: rows are only copied
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA kept")
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            connection.execute(f"CREATE TABLE kept.{name} AS TABLE public.{name}".encode())
            back += [f"DELETE FROM public.{name}", f"INSERT INTO public.{name} SELECT * FROM kept.{name}"]
    back.append("SELECT setval('seating_id_seq', 1, false)")
    return url, ";".join(back)


def url_for(kind: str, fill: Callable[[Path, str | None], Closable] = tables_only) -> str | None:
    """The URL of a database as ``fill`` makes it of an empty one; None for a file.

    There is one for each ``fill``: who asks next ends what is still connected and gets it anew.
    """
    if kind == SQLITE:
        return None
    url, back = _filled(fill)
    cluster().cut_sessions(url.rpartition("/")[2])
    with psycopg.connect(url) as connection:
        connection.execute(back.encode())
    return url


def empty_url() -> str:
    """The URL of a new database without any table."""
    return cluster().make_database(f"empty_{next(_numbers)}")


@contextmanager
def transaction(connection: Any, *, shared: bool = False) -> Iterator[Any]:
    """A transaction on a driver connection, begun as the writer of its database begins it."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection.begin(shared=shared)
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
