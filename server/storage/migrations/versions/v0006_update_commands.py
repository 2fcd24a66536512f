"""Version 6: what an operator says to a terminal about its updates."""

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

revision = "0006"
down_revision = "0005"

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")

# Of an older version, for the reference to it.
Table(
    "device",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
)

update_command = Table(
    "update_command",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("number", Number, nullable=False),
    Column("layer", Number, nullable=False),
    Column("what", Number, nullable=False),
    Column("asked_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
    CheckConstraint(
        "number BETWEEN 1 AND 4294967295 AND layer IN (0, 1) AND what IN (0, 1)", name="update_command_known"
    ),
)


def upgrade() -> None:
    """Add the table: nothing was said to anybody yet."""
    update_command.create(op.get_bind())
    op.execute("UPDATE meta SET value = '6' WHERE name = 'schema_version'")


def downgrade() -> None:
    """Back to version 5: what was said and not heard yet is forgotten."""
    update_command.drop(op.get_bind())
    op.execute("UPDATE meta SET value = '5' WHERE name = 'schema_version'")
