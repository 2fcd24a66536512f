"""The tables of a site's database, with the rules that must hold whatever the code above them does.

Money columns end in ``_minor`` (integer minor units); times are UTC seconds. ``SCHEMA_VERSION`` is written
into the ``meta`` table when the file is created and checked whenever it is opened.
"""

from __future__ import annotations

from sqlalchemy import (
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

SCHEMA_VERSION = 1

DEVICE_STATES = ("pending", "active", "suspended", "retired")

metadata = MetaData()

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
    Column("lsn", Integer, nullable=False, server_default=text("0")),
    Column("order_number", Integer, nullable=False, server_default=text("0")),
    Column("current_menu", Integer, nullable=False, server_default=text("0")),
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
    Column("created_at", Integer, nullable=False),
    # Handshake state: the highest counter ever accepted, and the answer its exact bytes get again.
    Column("handshake", Integer, nullable=False, server_default=text("0")),
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
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("hello_hash", LargeBinary(32), nullable=False),
    Column("accept", LargeBinary, nullable=False),
    Column("handshake", Integer, nullable=False),
    UniqueConstraint("site", "sid", name="one_session_per_sid"),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
)

# Beacons a Hello may still name (10 minutes), kept so that a restart does not turn terminals away: the
# whole frame, because the key schedule hashes it.
beacon = Table(
    "beacon",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("time", Integer, nullable=False),
    Column("frame", LargeBinary, nullable=False),
    Column("decrypt_kid", LargeBinary(8), nullable=False),
)

# Published menus are immutable: a version is written once and only ever read.
menu = Table(
    "menu",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("frame", LargeBinary, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("published_at", Integer, nullable=False),
    CheckConstraint("version > 0", name="version_positive"),
)

# Only counted items have a row: an item without one is never sold out.
stock = Table(
    "stock",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    CheckConstraint("count >= 0", name="never_oversold"),
    sqlite_with_rowid=False,
)

seating = Table(
    "seating",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("site", String(32), nullable=False),
    Column("table_id", String(32), nullable=False),
    Column("opened_at", Integer, nullable=False),
    Column("closed_at", Integer),
    Column("total_minor", Integer, nullable=False, server_default=text("0")),
    Column("chain", LargeBinary(32), nullable=False),
    CheckConstraint("total_minor >= 0", name="total_not_negative"),
    Index("one_open_seating", "site", "table_id", unique=True, sqlite_where=text("closed_at IS NULL")),
)

order = Table(
    "orders",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("order_number", Integer, primary_key=True),
    Column("device", String(32), nullable=False),
    Column("op_id", LargeBinary(12), nullable=False),
    Column("seating", Integer, nullable=False),
    Column("table_id", String(32), nullable=False),
    Column("menu_version", Integer, nullable=False),
    Column("total_minor", Integer, nullable=False),
    Column("tax_minor", Integer, nullable=False),
    Column("lsn", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    UniqueConstraint("site", "device", "op_id", name="one_order_per_op"),
    UniqueConstraint("site", "lsn", name="one_order_per_lsn"),
    ForeignKeyConstraint(["seating"], ["seating.id"]),
    CheckConstraint("total_minor >= 0 AND tax_minor >= 0 AND tax_minor <= total_minor", name="order_money"),
)

order_line = Table(
    "order_line",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("order_number", Integer, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("item", Integer, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("modifiers", String, nullable=False),
    Column("unit_minor", Integer, nullable=False),
    Column("total_minor", Integer, nullable=False),
    Column("tax_minor", Integer, nullable=False),
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
    Column("status", Integer, nullable=False),
    Column("arg", Integer, nullable=False),
    Column("order_number", Integer, nullable=False),
    Column("total_minor", Integer, nullable=False),
    Column("lsn", Integer, nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
    Column("seating", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    CheckConstraint("status BETWEEN 0 AND 5", name="only_final_answers"),
    CheckConstraint("(status = 0) = (order_number > 0)", name="number_means_committed"),
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
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

presence = Table(
    "presence",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("online", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("menu_version", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("seen_at", Integer, nullable=False),
)

# Bundles on offer, as the release signer made them; the server can choose among them, never change one.
release = Table(
    "release",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("hardware", String, nullable=False),
    Column("offer", LargeBinary, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("published_at", Integer, nullable=False),
)

# Where each terminal's update stands, in its own words (not authenticated: for views only).
update_state = Table(
    "update_state",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("running", Integer, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("state", Integer, nullable=False),
    Column("offset", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("seen_at", Integer, nullable=False),
)
