"""Backup of a site while its server runs, and the way back.

A backup is one SQLite file of mode 0600: the database as of one moment (``VACUUM INTO``, which reads one
snapshot and blocks nobody) and, in the table ``backup_file``, the server's keys, because neither is of use
without the other. It is written beside its final name, checked, synced and only then renamed.

A restored site must not say anything twice that terminals or guests may have seen after the backup was
taken: LSNs, order numbers and beacon counters go on well above the stored ones, and sessions are dropped, so
that nothing recorded on the wire since then can be replayed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.config import KEYS_NAME, ConfigError
from server.storage.database import StorageError, damaged
from server.storage.location import DATABASE_NAME, database_path, remembered
from server.storage.transaction import Transaction

LSN_LEAP = 1_000_000
NUMBER_LEAP = 10_000
BEACON_LEAP = 1_000_000
_NEW = ".new"


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What is in a backup."""

    site: str
    lsn: int
    orders: int
    size_bytes: int
    keys: int


def make_backup(state: Path, target: Path) -> BackupFacts:
    """Write a backup of ``state`` to the new file ``target``.

    Raises: StorageError when the database cannot be read or is damaged, ConfigError when the target exists,
    OSError when it cannot be written.
    """
    source = database_path(state)
    if remembered(state) is not None:
        raise ConfigError(
            f"the database of {state} is PostgreSQL, which backs itself up: run `pg_dump --format=custom "
            f"--file FILE URL` (the server may run), keep a copy of {state / KEYS_NAME} with it, and after a "
            f"pg_restore run `tableside server after-restore` once"
        )
    if not source.exists():
        raise StorageError(f"there is no database {source} to back up")
    if target.exists():
        raise ConfigError(f"{target} exists already; choose another name, a backup never overwrites")
    fresh = target.with_name(target.name + _NEW)
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with (
            _explained(source),
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=10)) as db,
        ):
            db.execute("VACUUM INTO ?", (str(fresh),))
        with _explained(fresh), closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            _store_keys(copy, state / KEYS_NAME)
            facts = _facts(copy, fresh)
        _sync(fresh)
        os.link(fresh, target)
        _sync(target.parent)
    finally:
        fresh.unlink(missing_ok=True)
    return facts


def restore_backup(backup: Path, state: Path) -> BackupFacts:
    """Make the new state folder ``state`` from a backup.

    Raises: StorageError when the file is no backup or damaged, ConfigError when the folder holds a site,
    OSError.
    """
    if not backup.is_file():
        raise ConfigError(f"there is no file {backup}")
    if database_path(state).exists() or (state / KEYS_NAME).exists():
        raise ConfigError(f"{state} already holds a site; restore into a new folder")
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = state / (DATABASE_NAME + _NEW)
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with _explained(backup), closing(_read_only(backup)) as source:
        facts = _facts(source, backup)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            source.backup(copy)
            keys = copy.execute("SELECT name, data FROM backup_file").fetchall()
            _go_on_above(copy)
    _write_keys(state / KEYS_NAME, keys)
    _sync(fresh)
    os.replace(fresh, database_path(state))
    _sync(state)
    return facts


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)


def _store_keys(copy: sqlite3.Connection, folder: Path) -> None:
    copy.execute("BEGIN")
    copy.execute("CREATE TABLE backup_file (name TEXT PRIMARY KEY, data BLOB NOT NULL)")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_file() or path.suffix == _NEW:
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # a running server destroyed an old decryption key meanwhile
            continue
        copy.execute("INSERT INTO backup_file (name, data) VALUES (?,?)", (path.name, data))
    copy.execute("COMMIT")


def _write_keys(folder: Path, keys: list[tuple[str, bytes]]) -> None:
    fresh = folder.with_name(folder.name + _NEW)
    fresh.mkdir(mode=0o700)
    for name, data in keys:
        descriptor = os.open(fresh / Path(name).name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    os.replace(fresh, folder)


def _facts(connection: sqlite3.Connection, path: Path) -> BackupFacts:
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, f"integrity_check: {found}")
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise damaged(path, f"foreign_key_check: {broken[0]}")
    row = connection.execute("SELECT site, lsn FROM site").fetchone()
    if row is None:
        raise StorageError(f"{path} holds no site")
    orders = connection.execute("SELECT COUNT(*) FROM orders").fetchone()[0]
    keys = connection.execute("SELECT COUNT(*) FROM backup_file").fetchone()[0]
    return BackupFacts(str(row[0]), int(row[1]), int(orders), path.stat().st_size, int(keys))


def _go_on_above(copy: sqlite3.Connection) -> None:
    copy.execute("BEGIN")
    copy.execute("DROP TABLE backup_file")
    leap(copy)
    copy.execute("COMMIT")


def leap(copy: Transaction) -> None:
    """Let everything numbered go on above what may have been said since the backup, inside a transaction."""
    copy.execute("UPDATE site SET lsn = lsn + ?, order_number = order_number + ?", (LSN_LEAP, NUMBER_LEAP))
    copy.execute("DELETE FROM session")
    copy.execute("UPDATE device SET accept = NULL")
    copy.execute(
        "DELETE FROM beacon WHERE (epoch, counter) <> (SELECT epoch, counter FROM beacon "
        "ORDER BY epoch DESC, counter DESC LIMIT 1)"
    )
    copy.execute("UPDATE beacon SET counter = counter + ?, time = 0", (BEACON_LEAP,))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path} cannot be read or copied now ({error})") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
