"""On PostgreSQL, too: an old database is led to the newest schema with everything in it, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from database_kit import cluster, empty_url
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from server.storage import migrations
from server.storage.database import OtherSchema, StorageError, open_database
from server.storage.postgres import PostgresConnection
from server.storage.schema import HEAD_REVISION, SCHEMA_VERSION

ORDER = (
    "INSERT INTO device (site, device, kid, spki, table_id, state, password_hash, created_at) "
    r"VALUES ('house', 't-0001', '\x01', '\x02', '4', 'active', '', 1)",
    "INSERT INTO site (site, lsn, order_number) VALUES ('house', 2, 1)",
    "INSERT INTO seating (id, site, table_id, opened_at, total_minor, chain) "
    r"VALUES (7, 'house', '4', 1, 520, '\xaa')",
    r"INSERT INTO orders VALUES ('house', 1, 't-0001', '\x11', 7, '4', 1, 520, 83, 1, 1)",
    "INSERT INTO order_line VALUES ('house', 1, 0, 1, 2, '101', 260, 520, 83)",
    r"INSERT INTO answer VALUES ('house', 't-0001', '\x11', '\x22', 0, 0, 1, 520, 1, '\x33', 7, 1)",
    r"INSERT INTO answer VALUES ('house', 't-0001', '\x12', '\x23', 1, 1, 0, 520, 2, '\xaa', 7, 1)",
)
SCHEMA = (
    "SELECT table_name || '.' || column_name, data_type || coalesce(character_maximum_length::text, '') || "
    "is_nullable || coalesce(column_default, '') FROM information_schema.columns "
    "WHERE table_schema = 'public'",
    "SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger "
    "WHERE NOT tgisinternal",
    "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'tableside%%'",
)


def engine_of(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql, ())]
    finally:
        engine.dispose()


def schema_of(url: str) -> dict[str, str]:
    """Every column, constraint, index, trigger and function with its definition."""
    return {str(name): str(definition) for sql in SCHEMA for name, definition in rows(url, sql)}


def migrated(url: str, target: str | None = None, *, down: str | None = None) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        if down is not None:
            migrations.downgrade(connection, down)
        else:
            migrations.upgrade(connection, target or "head")
    engine.dispose()


@pytest.fixture
def old() -> Iterator[str]:
    """A database of version 1 with an order."""
    url = empty_url()
    migrated(url, "0001")
    engine = engine_of(url)
    with engine.begin() as connection:
        for statement in ORDER:
            connection.exec_driver_sql(statement)
    engine.dispose()
    yield url
    cluster().drop_database(url.rpartition("/")[2])


def test_a_new_database_and_a_migrated_one_have_the_same_schema(old: str, tmp_path: Path) -> None:
    fresh = empty_url()
    (tmp_path / "new").mkdir()
    open_database(tmp_path / "new", create=True, url=fresh).close()
    open_database(tmp_path, upgrade=True, url=old).close()
    made, led = schema_of(fresh), schema_of(old)
    assert led == made
    assert len(made) > 200
    assert rows(old, "SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]


def test_the_way_up_keeps_every_order_and_answer_and_says_so(old: str, tmp_path: Path) -> None:
    with closing(open_database(tmp_path, upgrade=True, url=old)) as database:
        assert database.upgraded_from == 1
    assert rows(old, "SELECT order_number, total_minor, tax_minor FROM orders") == [(1, 520, 83)]
    assert rows(old, "SELECT item, quantity, state, basis_points FROM order_line") == [(1, 2, 0, None)]
    assert rows(old, "SELECT encode(op_id, 'hex'), status, op FROM answer ORDER BY lsn") == [
        ("11", 0, None),
        ("12", 1, None),
    ]
    assert rows(old, "SELECT seating, device, encode(head, 'hex'), first_lsn, count FROM device_chain") == [
        (7, "t-0001", "aa", 1, 2)
    ]
    assert rows(old, "SELECT table_id FROM dining_table") == [("4",)]


def test_the_way_down_restores_the_old_schema_with_its_orders_and_up_again(old: str, tmp_path: Path) -> None:
    before, orders = schema_of(old), rows(old, "SELECT * FROM orders")
    migrated(old)
    migrated(old, down="0001")
    assert schema_of(old) == before
    assert rows(old, "SELECT * FROM orders") == orders
    assert len(rows(old, "SELECT * FROM answer")) == 2
    open_database(tmp_path, upgrade=True, url=old).close()


def test_a_server_does_not_change_a_schema_that_others_may_be_using(old: str, tmp_path: Path) -> None:
    before = schema_of(old)
    with pytest.raises(OtherSchema, match=r"schema version 1.*stop every server.*server migrate") as refused:
        open_database(tmp_path, create=True, upgrade=True, url=old)
    assert refused.value.code == "DATABASE_SCHEMA"
    assert schema_of(old) == before


def test_a_schema_is_not_changed_under_a_server_that_is_connected(old: str, tmp_path: Path) -> None:
    running = PostgresConnection(old)
    running.begin()
    running.rollback()
    with pytest.raises(StorageError, match=r"1 connections of a server .* stop every server"):
        open_database(tmp_path, upgrade=True, url=old)
    running.close()
    open_database(tmp_path, upgrade=True, url=old).close()


def test_a_database_from_a_newer_server_is_left_alone(tmp_path: Path) -> None:
    url = empty_url()
    open_database(tmp_path, create=True, url=url).close()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE meta SET value = '{SCHEMA_VERSION + 1}' WHERE name = 'schema_version'"
        )
    engine.dispose()
    with pytest.raises(OtherSchema, match="use the server version that wrote it"):
        open_database(tmp_path, upgrade=True)


def test_an_empty_database_is_not_filled_by_a_command_that_only_wants_to_look(tmp_path: Path) -> None:
    url = empty_url()
    with pytest.raises(StorageError, match="is empty; start `tableside server run`"):
        open_database(tmp_path, url=url)
    assert rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_what_a_terminal_said_of_its_updates_is_kept_for_each_layer_up_and_down(old: str) -> None:
    migrated(old, "0004")
    engine = engine_of(old)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO update_state VALUES ('house', 't-0001', 4, 3, 0, 0, 7, 8)")
        connection.exec_driver_sql("INSERT INTO update_question VALUES ('house', 't-0001', 'esp32', 1, 2, 3)")
    migrated(old)
    assert rows(old, "SELECT layer, running, slot FROM update_state") == [("image", 4, 3)]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO update_state VALUES ('house', 't-0001', 'application', 6, 0, 0, 0, 0, 9)"
        )
    engine.dispose()
    migrated(old, down="0004")
    assert rows(old, "SELECT device, running, slot FROM update_state") == [("t-0001", 6, 0)]
    assert rows(old, "SELECT hardware, asked_at FROM update_question") == [("esp32", 3)]
