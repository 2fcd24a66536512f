"""The tables of what staff and guests do around orders: tables, bookings, bills, payments, the event log.

Same metadata as ``schema``. Ids that are not given by people are the LSN of the change that made the row, so
they are unique per site and tell when it happened.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from server.storage.schema import Number, metadata

dining_table = Table(
    "dining_table",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("table_id", String(32), primary_key=True),
    Column("seats", Number, nullable=False, server_default=text("0")),
    CheckConstraint("seats BETWEEN 0 AND 999", name="seats_in_range"),
)

# What the kitchen ran out of without counting it; an item without a row is available.
item_state = Table(
    "item_state",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Number, primary_key=True),
    Column("available", Number, nullable=False),
    CheckConstraint("available IN (0, 1)", name="available_is_a_flag"),
)

# The hash chain of each device's answers within a seating: what the device seals when the bill is closed.
device_chain = Table(
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

booking = Table(
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

# One row per table of a booking; no two live rows of a table may overlap (``guards``).
booking_table = Table(
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

bill = Table(
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
    # What the device that asked for the bill will have to seal, and its seal once it came.
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

bill_part = Table(
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

# Triggers add each payment to its bill and each refund to its payment; both tables only grow (``guards``).
payment = Table(
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

refund = Table(
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

# The audit log and the feed of live views: one row per change that is not a plain order. Only grows.
event = Table(
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

# What each terminal last measured about itself (authenticated by a short tag: for views only).
telemetry = Table(
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
