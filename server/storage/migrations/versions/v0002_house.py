"""Version 2: the whole house - bookings, bills, payments, the event log, Resume, API tokens."""

from __future__ import annotations

import sqlalchemy
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
    Text,
    UniqueConstraint,
    text,
)

from server.storage import guards

revision = "0002"
down_revision = "0001"

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")

Table("seating", metadata, Column("id", Number, primary_key=True))  # of version 1, for references to it

Table(
    "dining_table",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("table_id", String(32), primary_key=True),
    Column("seats", Number, nullable=False, server_default=text("0")),
    CheckConstraint("seats BETWEEN 0 AND 999", name="seats_in_range"),
)

Table(
    "item_state",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Number, primary_key=True),
    Column("available", Number, nullable=False),
    CheckConstraint("available IN (0, 1)", name="available_is_a_flag"),
)

Table(
    "device_chain",
    metadata,
    Column("seating", Number, primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("head", LargeBinary(32), nullable=False),
    Column("first_op", LargeBinary(12), nullable=False),
    Column("first_lsn", Number, nullable=False),
    Column("count", Number, nullable=False),
    ForeignKeyConstraint(["seating"], ["seating.id"]),
    sqlite_with_rowid=False,
)

Table(
    "booking",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("booking", Number, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("covers", Number, nullable=False),
    Column("start_at", Number, nullable=False),
    Column("end_at", Number, nullable=False),
    Column("state", String, nullable=False),
    Column("seating", Number),
    CheckConstraint("state IN ('booked', 'seated', 'no_show', 'cancelled')", name="booking_state_known"),
    CheckConstraint("start_at < end_at", name="booking_takes_time"),
    CheckConstraint("covers BETWEEN 1 AND 999", name="booking_covers"),
    Index("bookings_by_start", "site", "start_at"),
)

Table(
    "booking_table",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("booking", Number, primary_key=True),
    Column("table_id", String(32), primary_key=True),
    Column("start_at", Number, nullable=False),
    Column("end_at", Number, nullable=False),
    Column("live", Number, nullable=False),
    ForeignKeyConstraint(["site", "booking"], ["booking.site", "booking.booking"]),
    ForeignKeyConstraint(["site", "table_id"], ["dining_table.site", "dining_table.table_id"]),
    CheckConstraint("start_at < end_at AND live IN (0, 1)", name="booking_range"),
    Index("bookings_of_a_table", "site", "table_id", "start_at"),
)

Table(
    "bill",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("bill", Number, primary_key=True),
    Column("seating", Number, nullable=False),
    Column("state", String, nullable=False),
    Column("total_minor", Number, nullable=False),
    Column("tax_minor", Number, nullable=False),
    Column("rounding", String, nullable=False),
    Column("paid_minor", Number, nullable=False, server_default=text("0")),
    Column("shares", Number, nullable=False, server_default=text("1")),
    Column("tender", Number, nullable=False, server_default=text("0")),
    Column("device", String(32)),
    Column("first_op", LargeBinary(12)),
    Column("last_op", LargeBinary(12)),
    Column("last_lsn", Number),
    Column("answers", Number),
    Column("chain", LargeBinary(32)),
    Column("seal", LargeBinary),
    Column("opened_at", Number, nullable=False),
    Column("closed_at", Number),
    UniqueConstraint("site", "seating", name="one_bill_per_seating"),
    ForeignKeyConstraint(["seating"], ["seating.id"]),
    CheckConstraint("state IN ('open', 'sealed', 'settled')", name="bill_state_known"),
    CheckConstraint("rounding IN ('line', 'bill')", name="bill_rounding_known"),
    CheckConstraint("tax_minor BETWEEN 0 AND total_minor", name="bill_tax_inside"),
    CheckConstraint("paid_minor BETWEEN 0 AND total_minor", name="never_overpaid"),
)

Table(
    "bill_part",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("bill", Number, primary_key=True),
    Column("part", Number, primary_key=True),
    Column("due_minor", Number, nullable=False),
    Column("tax_minor", Number, nullable=False),
    Column("lines", Text, nullable=False),
    ForeignKeyConstraint(["site", "bill"], ["bill.site", "bill.bill"]),
    CheckConstraint("tax_minor BETWEEN 0 AND due_minor", name="part_tax_inside"),
)

Table(
    "payment",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("payment", Number, primary_key=True),
    Column("bill", Number, nullable=False),
    Column("part", Number),
    Column("tender", String, nullable=False),
    Column("reference", String(80), nullable=False),
    Column("amount_minor", Number, nullable=False),
    Column("refunded_minor", Number, nullable=False, server_default=text("0")),
    Column("created_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "bill"], ["bill.site", "bill.bill"]),
    CheckConstraint("tender IN ('cash', 'card')", name="tender_known"),
    CheckConstraint("tender = 'cash' OR reference <> ''", name="card_has_reference"),
    CheckConstraint("amount_minor > 0", name="payment_positive"),
    CheckConstraint("refunded_minor BETWEEN 0 AND amount_minor", name="never_over_refunded"),
    Index("payments_of_a_bill", "site", "bill"),
)

Table(
    "refund",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("refund", Number, primary_key=True),
    Column("payment", Number, nullable=False),
    Column("amount_minor", Number, nullable=False),
    Column("created_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "payment"], ["payment.site", "payment.payment"]),
    CheckConstraint("amount_minor > 0", name="refund_positive"),
)

Table(
    "event",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("lsn", Number, primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("author", String(80), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Number, nullable=False),
)

Table(
    "telemetry",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("uptime_s", Number, nullable=False),
    Column("heap_free_bytes", Number, nullable=False),
    Column("reconnects", Number, nullable=False),
    Column("resent", Number, nullable=False),
    Column("rssi", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
)

Table(
    "access_token",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("token_id", String(16), primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("role", String, nullable=False),
    Column("name", String(64), nullable=False),
    Column("device", String(32)),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number),
    Column("revoked_at", Number),
    CheckConstraint("role IN ('manager', 'waiter', 'kitchen', 'device')", name="role_known"),
    CheckConstraint("(role = 'device') = (device IS NOT NULL)", name="device_tokens_name_a_device"),
    UniqueConstraint("hash", name="one_token_per_hash"),
)

Table(
    "call_result",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("token_id", String(16), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("request_hash", LargeBinary(32), nullable=False),
    Column("status", Number, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Number, nullable=False),
    Index("call_results_by_age", "site", "created_at"),
)


def _added() -> dict[str, list[sqlalchemy.Column[int]]]:
    return {
        "site": [Column("bill_number", Number, nullable=False, server_default=text("0"))],
        "session": [Column("rsa_at", Number, nullable=False, server_default=text("0"))],
        "seating": [
            Column("covers", Number, nullable=False, server_default=text("0")),
            Column("merged_into", Number),
        ],
        "order_line": [
            Column("basis_points", Number),
            Column("state", Number, nullable=False, server_default=text("0")),
            Column("course", Number, nullable=False, server_default=text("1")),
        ],
    }


def _answer(rule: str, *more: Column[bytes]) -> Table:
    """The answers' table as version 1 has it, with another rule and more columns."""
    return Table(
        "answer",
        MetaData(),
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
        *more,
        CheckConstraint("status BETWEEN 0 AND 5", name="only_final_answers"),
        CheckConstraint(rule, name="number_means_committed"),
        UniqueConstraint("site", "lsn", name="one_answer_per_lsn"),
        ForeignKeyConstraint(["seating"], ["seating.id"]),
        sqlite_with_rowid=False,
    )


_OLD_RULE = "(status = 0) = (order_number > 0)"
_NEW_RULE = "order_number = 0 OR status = 0"


def _new_tables() -> list[Table]:
    return [table for table in metadata.sorted_tables if table.name != "seating"]


def upgrade() -> None:
    """Add what is new; every order of version 1 keeps its lines, its tax and its answer."""
    bind = op.get_bind()
    for table, columns in _added().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index("orders_of_a_seating", "orders", ["seating"])
    with op.batch_alter_table("answer", copy_from=_answer(_OLD_RULE)) as answer:
        answer.add_column(Column("op", LargeBinary))
        answer.drop_constraint("number_means_committed", type_="check")
        answer.create_check_constraint("number_means_committed", _NEW_RULE)
    metadata.create_all(bind, tables=_new_tables())
    guards.install(bind.exec_driver_sql, bind.dialect.name)
    op.execute("INSERT INTO dining_table (site, table_id) SELECT DISTINCT site, table_id FROM device")
    _adopt_chains(bind)
    op.execute("UPDATE meta SET value = '2' WHERE name = 'schema_version'")


def _adopt_chains(bind: sqlalchemy.engine.Connection) -> None:
    """Open seatings go on with the chain they have; those shared by devices begin a new one per device."""
    bind.exec_driver_sql(
        "INSERT INTO device_chain (seating, device, head, first_op, first_lsn, count) "
        "SELECT s.id, MIN(a.device), s.chain, "
        "(SELECT f.op_id FROM answer f WHERE f.seating = s.id ORDER BY f.lsn LIMIT 1), MIN(a.lsn), COUNT(*) "
        "FROM seating s JOIN answer a ON a.seating = s.id WHERE s.closed_at IS NULL "
        "GROUP BY s.id, s.chain HAVING COUNT(DISTINCT a.device) = 1"
    )


def downgrade() -> None:
    """Back to version 1: staff's records go, and with them the answers version 1 could not hold."""
    bind = op.get_bind()
    op.execute("DELETE FROM answer WHERE status = 0 AND order_number = 0")
    metadata.drop_all(bind, tables=_new_tables())
    guards.remove_functions(bind.exec_driver_sql, bind.dialect.name)
    with op.batch_alter_table("answer", copy_from=_answer(_NEW_RULE, Column("op", LargeBinary))) as answer:
        answer.drop_column("op")
        answer.drop_constraint("number_means_committed", type_="check")
        answer.create_check_constraint("number_means_committed", _OLD_RULE)
    op.drop_index("orders_of_a_seating", "orders")
    for table, columns in _added().items():
        for column in columns:
            op.drop_column(table, column.name)
    op.execute("UPDATE meta SET value = '1' WHERE name = 'schema_version'")
