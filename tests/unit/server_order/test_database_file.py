"""A database that cannot be trusted is named, with the next step; nothing starts on it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.storage import admin
from server.storage.database import StorageError, database_path, open_database
from server.storage.ledger import Ledger


def test_a_missing_database_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no database .*tableside\.db.*server run"):
        open_database(tmp_path)


def test_a_file_that_is_no_database_is_called_damaged(tmp_path: Path) -> None:
    database_path(tmp_path).write_bytes(b"not a database, whatever its name says" * 50)
    with pytest.raises(StorageError, match=r"tableside\.db is damaged.*restore"):
        open_database(tmp_path, create=True)


def test_a_database_with_a_torn_page_is_called_damaged(tmp_path: Path) -> None:
    database = open_database(tmp_path, create=True)
    admin.ensure_site(database, "house")
    database.close()
    path = database_path(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        open_database(tmp_path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    database = open_database(tmp_path, create=True)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    database.close()
    with pytest.raises(StorageError, match="schema version 99"):
        open_database(tmp_path)


def test_a_state_folder_belongs_to_one_site(tmp_path: Path) -> None:
    database = open_database(tmp_path, create=True)
    admin.ensure_site(database, "house")
    with pytest.raises(admin.AdminError, match="belongs to site 'house'"):
        admin.ensure_site(database, "villa")
    database.close()


def test_a_published_menu_version_never_changes(tmp_path: Path) -> None:
    database = open_database(tmp_path, create=True)
    admin.ensure_site(database, "house")
    admin.publish_menu(database, "house", 3, b"three", 1)
    with pytest.raises(admin.AdminError, match="number the menu 4"):
        admin.publish_menu(database, "house", 3, b"other", 2)
    current = admin.current_menu(database, "house")
    assert current is not None
    assert current.frame == b"three"
    database.close()


def test_the_ledger_cannot_write(tmp_path: Path) -> None:
    open_database(tmp_path, create=True).close()
    ledger = Ledger(tmp_path)
    with pytest.raises(StorageError):
        ledger._rows("DELETE FROM site")
