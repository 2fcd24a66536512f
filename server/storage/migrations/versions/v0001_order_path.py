"""Version 1: devices, sessions, menus, stock, orders and their answers."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")
_OPEN = text("closed_at IS NULL")

Table(
    "meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

Table(
    "site",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("lsn", Number, nullable=False, server_default=text("0")),
    Column("order_number", Number, nullable=False, server_default=text("0")),
    Column("current_menu", Number, nullable=False, server_default=text("0")),
    CheckConstraint("lsn >= 0 AND order_number >= 0 AND order_number <= lsn", name="running_numbers"),
)

Table(
    "device",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("kid", LargeBinary(8), nullable=False),
    Column("spki", LargeBinary, nullable=False),
    Column("table_id", String(32), nullable=False),
    Column("state", String, nullable=False),
    Column("password_hash", String, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("handshake", Number, nullable=False, server_default=text("0")),
    Column("hello_hash", LargeBinary(32)),
    Column("accept", LargeBinary),
    CheckConstraint("state IN ('pending', 'active', 'suspended', 'retired')", name="state_known"),
    UniqueConstraint("site", "kid", name="one_device_per_key"),
)

Table(
    "session",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("sid", LargeBinary(4), nullable=False),
    Column("k_d2s", LargeBinary(32), nullable=False),
    Column("k_s2d", LargeBinary(32), nullable=False),
    Column("k_resume", LargeBinary(32), nullable=False),
    Column("th8", LargeBinary(8), nullable=False),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number, nullable=False),
    Column("hello_hash", LargeBinary(32), nullable=False),
    Column("accept", LargeBinary, nullable=False),
    Column("handshake", Number, nullable=False),
    UniqueConstraint("site", "sid", name="one_session_per_sid"),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
)

Table(
    "beacon",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("epoch", Number, primary_key=True),
    Column("counter", Number, primary_key=True),
    Column("time", Number, nullable=False),
    Column("frame", LargeBinary, nullable=False),
    Column("decrypt_kid", LargeBinary(8), nullable=False),
)

Table(
    "menu",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("version", Number, primary_key=True),
    Column("frame", LargeBinary, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("published_at", Number, nullable=False),
    CheckConstraint("version > 0", name="version_positive"),
)

Table(
    "stock",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Number, primary_key=True),
    Column("count", Number, nullable=False),
    CheckConstraint("count >= 0", name="never_oversold"),
    sqlite_with_rowid=False,
)

Table(
    "seating",
    metadata,
    Column("id", Number, primary_key=True),
    Column("site", String(32), nullable=False),
    Column("table_id", String(32), nullable=False),
    Column("opened_at", Number, nullable=False),
    Column("closed_at", Number),
    Column("total_minor", Number, nullable=False, server_default=text("0")),
    Column("chain", LargeBinary(32), nullable=False),
    CheckConstraint("total_minor >= 0", name="total_not_negative"),
    Index("one_open_seating", "site", "table_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
)

Table(
    "orders",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("order_number", Number, primary_key=True),
    Column("device", String(32), nullable=False),
    Column("op_id", LargeBinary(12), nullable=False),
    Column("seating", Number, nullable=False),
    Column("table_id", String(32), nullable=False),
    Column("menu_version", Number, nullable=False),
    Column("total_minor", Number, nullable=False),
    Column("tax_minor", Number, nullable=False),
    Column("lsn", Number, nullable=False),
    Column("created_at", Number, nullable=False),
    UniqueConstraint("site", "device", "op_id", name="one_order_per_op"),
    UniqueConstraint("site", "lsn", name="one_order_per_lsn"),
    ForeignKeyConstraint(["seating"], ["seating.id"]),
    CheckConstraint("total_minor >= 0 AND tax_minor >= 0 AND tax_minor <= total_minor", name="order_money"),
)

Table(
    "order_line",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("order_number", Number, primary_key=True),
    Column("line", Number, primary_key=True),
    Column("item", Number, nullable=False),
    Column("quantity", Number, nullable=False),
    Column("modifiers", String, nullable=False),
    Column("unit_minor", Number, nullable=False),
    Column("total_minor", Number, nullable=False),
    Column("tax_minor", Number, nullable=False),
    ForeignKeyConstraint(["site", "order_number"], ["orders.site", "orders.order_number"]),
    CheckConstraint("quantity BETWEEN 1 AND 99", name="quantity_in_range"),
    CheckConstraint("total_minor = quantity * unit_minor", name="line_adds_up"),
    sqlite_with_rowid=False,
)

Table(
    "answer",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("op_id", LargeBinary(12), primary_key=True),
    Column("op_hash", LargeBinary(32), nullable=False),
    Column("status", Number, nullable=False),
    Column("arg", Number, nullable=False),
    Column("order_number", Number, nullable=False),
    Column("total_minor", Number, nullable=False),
    Column("lsn", Number, nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
    Column("seating", Number, nullable=False),
    Column("created_at", Number, nullable=False),
    CheckConstraint("status BETWEEN 0 AND 5", name="only_final_answers"),
    CheckConstraint("(status = 0) = (order_number > 0)", name="number_means_committed"),
    UniqueConstraint("site", "lsn", name="one_answer_per_lsn"),
    ForeignKeyConstraint(["seating"], ["seating.id"]),
    sqlite_with_rowid=False,
)

Table(
    "refusal",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("code", String, primary_key=True),
    Column("count", Number, nullable=False),
    sqlite_with_rowid=False,
)

Table(
    "presence",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("online", Number, nullable=False),
    Column("running", Number, nullable=False),
    Column("menu_version", Number, nullable=False),
    Column("pending", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
)

Table(
    "release",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
    Column("version", Number, nullable=False),
    Column("hardware", String, nullable=False),
    Column("offer", LargeBinary, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("published_at", Number, nullable=False),
)

Table(
    "update_state",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("running", Number, nullable=False),
    Column("slot", Number, nullable=False),
    Column("state", Number, nullable=False),
    Column("offset", Number, nullable=False),
    Column("reason", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
)


def upgrade() -> None:
    """Make the tables of version 1."""
    metadata.create_all(op.get_bind())
    op.execute("INSERT INTO meta (name, value) VALUES ('schema_version', '1'), ('admin_revision', '1')")


def downgrade() -> None:
    """Drop everything."""
    metadata.drop_all(op.get_bind())
