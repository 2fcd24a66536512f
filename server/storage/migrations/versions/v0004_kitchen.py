"""Version 4: the kitchen - stations, courses that wait, every step of a line; and tables out of service."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
)

from server.storage import guards

revision = "0004"
down_revision = "0003"

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")

# Of older versions, for references to them.
_OLDER = {
    "dining_table": ("table_id",),
    "orders": ("order_number",),
    "order_line": ("order_number", "line"),
}
for _name, _columns in _OLDER.items():
    Table(
        _name,
        metadata,
        Column("site", String(32), primary_key=True),
        *(Column(column, Number, primary_key=True) for column in _columns),
    )

Table(
    "item_station",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Number, primary_key=True),
    Column("station", String(32), nullable=False),
)

Table(
    "closed_table",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("table_id", String(32), primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("closed_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "table_id"], ["dining_table.site", "dining_table.table_id"]),
)

Table(
    "fired_course",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("order_number", Number, primary_key=True),
    Column("course", Number, primary_key=True),
    Column("lsn", Number, nullable=False),
    Column("author", String(80), nullable=False),
    Column("fired_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "order_number"], ["orders.site", "orders.order_number"]),
    CheckConstraint("course BETWEEN 1 AND 9", name="course_in_range"),
)

Table(
    "line_step",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("order_number", Number, primary_key=True),
    Column("line", Number, primary_key=True),
    Column("lsn", Number, primary_key=True),
    Column("state", Number, nullable=False),
    Column("author", String(80), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("at", Number, nullable=False),
    ForeignKeyConstraint(
        ["site", "order_number", "line"], ["order_line.site", "order_line.order_number", "order_line.line"]
    ),
    CheckConstraint("state BETWEEN 0 AND 4", name="line_step_state"),
)


def _new_tables() -> list[Table]:
    return [table for table in metadata.sorted_tables if table.name not in _OLDER]


def upgrade() -> None:
    """Add the tables: every item is made at the station "", every table is open."""
    bind = op.get_bind()
    metadata.create_all(bind, tables=_new_tables())
    guards.install_kitchen(bind.exec_driver_sql, bind.dialect.name)
    op.execute("UPDATE meta SET value = '4' WHERE name = 'schema_version'")


def downgrade() -> None:
    """Back to version 3: courses are no longer held, and who took which step is in the event log only."""
    metadata.drop_all(op.get_bind(), tables=_new_tables())
    op.execute("UPDATE meta SET value = '3' WHERE name = 'schema_version'")
