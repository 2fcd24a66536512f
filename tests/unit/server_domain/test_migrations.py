"""An old database is led to the newest schema with everything in it, and back; both ways give one schema."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from server.storage import migrations
from server.storage.database import StorageError, database_path, open_database
from server.storage.schema import HEAD_REVISION

ORDER = (
    "INSERT INTO device (site, device, kid, spki, table_id, state, password_hash, created_at) "
    "VALUES ('house', 't-0001', x'01', x'02', '4', 'active', '', 1)",
    "INSERT INTO site (site, lsn, order_number) VALUES ('house', 2, 1)",
    "INSERT INTO seating (id, site, table_id, opened_at, total_minor, chain) "
    "VALUES (7, 'house', '4', 1, 520, x'aa')",
    "INSERT INTO orders VALUES ('house', 1, 't-0001', x'11', 7, '4', 1, 520, 83, 1, 1)",
    "INSERT INTO order_line VALUES ('house', 1, 0, 1, 2, '101', 260, 520, 83)",
    "INSERT INTO answer VALUES ('house', 't-0001', x'11', x'22', 0, 0, 1, 520, 1, x'33', 7, 1)",
    "INSERT INTO answer VALUES ('house', 't-0001', x'12', x'23', 1, 1, 0, 520, 2, x'aa', 7, 1)",
)


def engine_of(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}")


def schema_of(path: Path) -> dict[str, str]:
    """Every table, index and trigger with its definition, whitespace and order of constraints apart."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: " ".join(sorted(re.findall(r"[\w<>=']+", sql))) for name, sql in rows}


def old_database(state: Path) -> Path:
    """A file as version 1 left it: with an order, and without Alembic's table."""
    path = database_path(state)
    engine = engine_of(path)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0001")
        connection.exec_driver_sql("DROP TABLE alembic_version")
        for statement in ORDER:
            connection.exec_driver_sql(statement)
    engine.dispose()
    return path


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_a_new_database_and_a_migrated_one_have_the_same_schema(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    open_database(tmp_path / "new", create=True).close()
    path = old_database(tmp_path)
    open_database(tmp_path, upgrade=True).close()
    assert schema_of(path) == schema_of(database_path(tmp_path / "new"))
    assert migrations.newest() == HEAD_REVISION
    assert rows(path, "SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]


def test_the_way_up_keeps_every_order_and_answer_and_says_so(tmp_path: Path) -> None:
    path = old_database(tmp_path)
    database = open_database(tmp_path, upgrade=True)
    database.close()
    assert database.upgraded_from == 1
    assert rows(path, "SELECT order_number, total_minor, tax_minor FROM orders") == [(1, 520, 83)]
    assert rows(path, "SELECT item, quantity, state, basis_points FROM order_line") == [(1, 2, 0, None)]
    assert rows(path, "SELECT hex(op_id), status, op FROM answer ORDER BY lsn") == [
        ("11", 0, None),
        ("12", 1, None),
    ]
    assert rows(
        path, "SELECT seating, device, hex(head), hex(first_op), first_lsn, count FROM device_chain"
    ) == [(7, "t-0001", "AA", "11", 1, 2)]
    assert rows(path, "SELECT table_id FROM dining_table") == [("4",)]


def test_the_way_down_restores_the_old_schema_with_its_orders(tmp_path: Path) -> None:
    path = old_database(tmp_path)
    before, orders = schema_of(path), rows(path, "SELECT * FROM orders")
    engine = engine_of(path)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with engine.begin() as connection:
        migrations.downgrade(connection, "0001")
    engine.dispose()
    after = schema_of(path)
    after.pop("table alembic_version")
    assert after == before
    assert rows(path, "SELECT * FROM orders") == orders
    assert len(rows(path, "SELECT * FROM answer")) == 2
    open_database(tmp_path, upgrade=True).close()


def test_what_was_on_offer_is_still_offered_to_everybody_after_the_way_up(tmp_path: Path) -> None:
    path = database_path(tmp_path)
    engine = engine_of(path)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0002")
        connection.exec_driver_sql(
            "INSERT INTO release VALUES ('house', x'0102030405060708', 65792, 'process', x'01', x'02', 5)"
        )
    engine.dispose()
    open_database(tmp_path, upgrade=True).close()
    assert rows(path, "SELECT hex(ref), state, share, group_name FROM rollout") == [
        ("0102030405060708", "running", 10_000, "")
    ]


def test_an_old_database_is_not_changed_by_a_command_that_only_wants_to_look(tmp_path: Path) -> None:
    path = old_database(tmp_path)
    before = schema_of(path)
    with pytest.raises(StorageError, match=r"schema version 1.*server migrate"):
        open_database(tmp_path)
    assert schema_of(path) == before


def test_what_a_terminal_said_of_its_updates_is_kept_for_each_layer_up_and_down(tmp_path: Path) -> None:
    path = database_path(tmp_path)
    engine = engine_of(path)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0004")
        for statement in (
            "INSERT INTO update_question VALUES ('house', 't-0001', 'esp32c3-image', 1, 2, 3)",
            "INSERT INTO update_state VALUES ('house', 't-0001', 4, 3, 0, 0, 7, 8)",
            "INSERT INTO update_state VALUES ('house', 't-0002', 5, 1, 0, 0, 0, 9)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    open_database(tmp_path, upgrade=True).close()
    layers = "SELECT device, layer, running, slot, reason, seen_at FROM update_state ORDER BY device"
    assert rows(path, layers) == [("t-0001", "image", 4, 3, 7, 8), ("t-0002", "application", 5, 1, 0, 9)]
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO update_question VALUES ('house', 't-0001', 'esp32', 4, 5, 6)",
            "INSERT INTO update_state VALUES ('house', 't-0001', 'application', 6, 0, 0, 0, 0, 8)",
        ):
            connection.exec_driver_sql(statement)
        migrations.downgrade(connection, "0004")
    engine.dispose()
    assert rows(path, "SELECT * FROM update_question") == [("house", "t-0001", "esp32", 4, 5, 6)]
    assert rows(path, "SELECT device, running, reason FROM update_state ORDER BY device") == [
        ("t-0001", 4, 7),
        ("t-0002", 5, 0),
    ]
