"""Version 3: staged rollouts - who gets a release, what became of it, which image and which key it is for."""

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
    Text,
)

revision = "0003"
down_revision = "0002"

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")

# Of older versions, for references to them.
Table(
    "release",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
)
Table(
    "device",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
)

Table(
    "rollout",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
    Column("state", String(8), nullable=False),
    Column("share", Number, nullable=False),
    Column("group_name", String(32), nullable=False),
    Column("halt_percent", Number, nullable=False),
    Column("halt_failures", Number, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "ref"], ["release.site", "release.ref"]),
    CheckConstraint("state IN ('running', 'paused', 'halted')", name="rollout_state_known"),
    CheckConstraint("share BETWEEN 0 AND 10000", name="rollout_share"),
    CheckConstraint("halt_percent BETWEEN 1 AND 100 AND halt_failures >= 1", name="rollout_halts"),
)

Table(
    "rollout_device",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("version", Number, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Number, nullable=False),
    Column("changed_at", Number, nullable=False),
    CheckConstraint("outcome IN ('offered', 'started', 'installed', 'failed')", name="rollout_outcome_known"),
    Index("rollouts_of_a_device", "site", "device", "changed_at"),
)

Table(
    "update_history",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("number", Number, primary_key=True),
    Column("ref", LargeBinary(8)),
    Column("running", Number, nullable=False),
    Column("slot", Number, nullable=False),
    Column("state", Number, nullable=False),
    Column("reason", Number, nullable=False),
    Column("at", Number, nullable=False),
)

Table(
    "update_question",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("hardware", String(32), nullable=False),
    Column("running", Number, nullable=False),
    Column("key_epoch", Number, nullable=False),
    Column("asked_at", Number, nullable=False),
)

Table(
    "device_group",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("group_name", String(32), nullable=False),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
)

Table(
    "image_pin",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("hardware", String(32), primary_key=True),
    Column("number", Number, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
)

Table(
    "key_rotation",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("epoch", Number, primary_key=True),
    Column("frame", LargeBinary, nullable=False),
)


def _new_tables() -> list[Table]:
    return [table for table in metadata.sorted_tables if table.name not in ("release", "device")]


def upgrade() -> None:
    """Add the tables; what was on offer goes on being offered to every terminal."""
    metadata.create_all(op.get_bind(), tables=_new_tables())
    op.execute(
        "INSERT INTO rollout (site, ref, state, share, group_name, halt_percent, halt_failures, reason, "
        "changed_at) SELECT site, ref, 'running', 10000, '', 20, 1, '', published_at FROM release"
    )
    op.execute("UPDATE meta SET value = '3' WHERE name = 'schema_version'")


def downgrade() -> None:
    """Back to version 2: every release still stored is on offer to everybody again."""
    metadata.drop_all(op.get_bind(), tables=_new_tables())
    op.execute("UPDATE meta SET value = '2' WHERE name = 'schema_version'")
