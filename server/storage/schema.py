"""The tables of a site's database, with the rules that must hold whatever the code above them does.

Money columns end in ``_minor`` (integer minor units); times are UTC seconds. ``SCHEMA_VERSION`` is written
into the ``meta`` table when the file is created and checked whenever it is opened; ``migrations`` leads from
one version to the next. What staff do is in ``schema_house``, on the same metadata; rules that are more than
a constraint are triggers in ``guards``.
"""

from __future__ import annotations

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

SCHEMA_VERSION = 6
HEAD_REVISION = "0006"

DEVICE_STATES = ("pending", "active", "suspended", "retired")

metadata = MetaData()

# 64 bits everywhere; SQLite's INTEGER has them, and only INTEGER can be its row id.
Number = BigInteger().with_variant(Integer, "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

# One row per site: the running numbers that order everything the site ever answered.
site = Table(
    "site",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("lsn", Number, nullable=False, server_default=text("0")),
    Column("order_number", Number, nullable=False, server_default=text("0")),
    Column("current_menu", Number, nullable=False, server_default=text("0")),
    Column("bill_number", Number, nullable=False, server_default=text("0")),
    CheckConstraint("lsn >= 0 AND order_number >= 0 AND order_number <= lsn", name="running_numbers"),
)

device = Table(
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
    # Handshake state: the highest counter ever accepted, and the answer its exact bytes get again.
    Column("handshake", Number, nullable=False, server_default=text("0")),
    Column("hello_hash", LargeBinary(32)),
    Column("accept", LargeBinary),
    CheckConstraint(f"state IN {DEVICE_STATES}", name="state_known"),
    UniqueConstraint("site", "kid", name="one_device_per_key"),
)

session = Table(
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
    # When the device last proved itself by RSA; a chain of Resumes ends 24 hours later.
    Column("rsa_at", Number, nullable=False, server_default=text("0")),
    UniqueConstraint("site", "sid", name="one_session_per_sid"),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
)

# Beacons a Hello may still name (10 minutes), kept so that a restart does not turn terminals away: the
# whole frame, because the key schedule hashes it.
beacon = Table(
    "beacon",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("epoch", Number, primary_key=True),
    Column("counter", Number, primary_key=True),
    Column("time", Number, nullable=False),
    Column("frame", LargeBinary, nullable=False),
    Column("decrypt_kid", LargeBinary(8), nullable=False),
)

# Published menus are immutable: a version is written once and only ever read.
menu = Table(
    "menu",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("version", Number, primary_key=True),
    Column("frame", LargeBinary, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("published_at", Number, nullable=False),
    CheckConstraint("version > 0", name="version_positive"),
)

# Only counted items have a row: an item without one is never sold out.
stock = Table(
    "stock",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Number, primary_key=True),
    Column("count", Number, nullable=False),
    CheckConstraint("count >= 0", name="never_oversold"),
    sqlite_with_rowid=False,
)

seating = Table(
    "seating",
    metadata,
    Column("id", Number, primary_key=True),
    Column("site", String(32), nullable=False),
    Column("table_id", String(32), nullable=False),
    Column("opened_at", Number, nullable=False),
    Column("closed_at", Number),
    Column("total_minor", Number, nullable=False, server_default=text("0")),
    # The newest head of any device's chain here, for display; what a bill seals is in device_chain.
    Column("chain", LargeBinary(32), nullable=False),
    Column("covers", Number, nullable=False, server_default=text("0")),
    Column("merged_into", Number),
    CheckConstraint("total_minor >= 0", name="total_not_negative"),
    Index(
        "one_open_seating",
        "site",
        "table_id",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
)

order = Table(
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
    Index("orders_of_a_seating", "seating"),
)

order_line = Table(
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
    # NULL: ordered before tax classes were kept with the line; its stored tax counts.
    Column("basis_points", Number),
    Column("state", Number, nullable=False, server_default=text("0")),
    Column("course", Number, nullable=False, server_default=text("1")),
    ForeignKeyConstraint(["site", "order_number"], ["orders.site", "orders.order_number"]),
    CheckConstraint("quantity BETWEEN 1 AND 99", name="quantity_in_range"),
    CheckConstraint("total_minor = quantity * unit_minor", name="line_adds_up"),
    sqlite_with_rowid=False,
)

# Every final answer, kept and given again: (site, device, op_id) is used once, whatever happens around it.
answer = Table(
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
    Column("op", LargeBinary),  # the op as it was sent: what op_hash is over; NULL before version 2
    CheckConstraint("status BETWEEN 0 AND 5", name="only_final_answers"),
    CheckConstraint("order_number = 0 OR status = 0", name="number_means_committed"),
    UniqueConstraint("site", "lsn", name="one_answer_per_lsn"),
    ForeignKeyConstraint(["seating"], ["seating.id"]),
    sqlite_with_rowid=False,
)

refusal = Table(
    "refusal",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("code", String, primary_key=True),
    Column("count", Number, nullable=False),
    sqlite_with_rowid=False,
)

presence = Table(
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

# Bundles on offer, as the release signer made them; the server can choose among them, never change one.
release = Table(
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

# Where a terminal's updates stand, of its application and of its firmware image, in its own words (not
# authenticated: for views only).
update_state = Table(
    "update_state",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("layer", String(32), primary_key=True),
    Column("running", Number, nullable=False),
    Column("slot", Number, nullable=False),
    Column("state", Number, nullable=False),
    Column("offset", Number, nullable=False),
    Column("reason", Number, nullable=False),
    Column("seen_at", Number, nullable=False),
)
