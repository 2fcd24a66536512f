"""Changes of the registry over HTTP when the database takes nothing: said as such, and nothing stored."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.storage import admin
from server.storage.database import Database, StorageError, database_path, open_database
from server.web.access import Caller, Role
from server.web.idempotency import Call, once_by_admin

SITE = "house"
CALL = Call(Caller("1", Role.MANAGER, "boss", None, None), "key", b"hash", 1_700_000_000)


def stop_counting(database: Database) -> dict[str, object]:
    """A small change of the registry."""
    admin.set_stock(database, SITE, 1, None)
    return {"item": 1}


def test_a_locked_database_is_a_storage_error_and_the_call_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.storage.database.BUSY_TIMEOUT_MS", 20)
    with closing(open_database(tmp_path, create=True)) as database:
        admin.ensure_site(database, SITE)
        with closing(sqlite3.connect(database_path(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="locked"):
                once_by_admin(database, SITE, CALL, stop_counting, 200)
            other.execute("ROLLBACK")
        first = once_by_admin(database, SITE, CALL, stop_counting, 200)
        again = once_by_admin(database, SITE, CALL, stop_counting, 200)
    assert (first.repeated, again.repeated, again.body) == (False, True, first.body)


def test_what_a_change_reads_it_reads_in_its_own_transaction(tmp_path: Path) -> None:
    with closing(open_database(tmp_path, create=True)) as database:
        admin.ensure_site(database, SITE)
        versions: list[int] = []

        def publish(joined: Database) -> dict[str, object]:
            admin.publish_menu(joined, SITE, admin.newest_menu_version(joined, SITE) + 1, b"frame", 1)
            versions.append(admin.newest_menu_version(joined, SITE))
            return {}

        once_by_admin(database, SITE, CALL, publish, 201)
    assert versions == [1]
