"""The tables of the kitchen and of tables out of service, on the same metadata as ``schema``.

Which station makes what is the house's business, not the menu's: terminals never see it, and moving an item
to another station needs no new menu.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, String, Table

from server.storage.schema import Number, metadata

# Where an item is made; one without a row belongs to the station "".
item_station = Table(
    "item_station",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Number, primary_key=True),
    Column("station", String(32), nullable=False),
)

# Tables that take no orders and no guests until they are opened again.
closed_table = Table(
    "closed_table",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("table_id", String(32), primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("closed_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "table_id"], ["dining_table.site", "dining_table.table_id"]),
)

# Courses after the first wait until they are fired; the lines of an order belong to it, wherever it moves.
fired_course = Table(
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

# Every step staff took with a line: which state it came to, by whom and when. Only grows (``guards``).
line_step = Table(
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
