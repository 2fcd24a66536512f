"""Version 5: the updates of a terminal's application and of its firmware image, each by itself."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

revision = "0005"
down_revision = "0004"

Number = BigInteger().with_variant(Integer, "sqlite")
_STATE = ("running", "slot", "state", "offset", "reason", "seen_at")
_QUESTION = ("running", "key_epoch", "asked_at")
_IMAGE_SLOT = 3  # the first slot of a firmware image; those below are an application's


def _table(name: str, third: str | None, columns: tuple[str, ...], plain: str | None = None) -> Table:
    keys = [Column("site", String(32), primary_key=True), Column("device", String(32), primary_key=True)]
    if third is not None:
        keys.append(Column(third, String(32), primary_key=True))
    if plain is not None:
        keys.append(Column(plain, String(32), nullable=False))
    return Table(name, MetaData(), *keys, *(Column(column, Number, nullable=False) for column in columns))


def _rebuild(table: Table, select: str) -> None:
    """Make a table anew, with the rows ``select`` finds in what it was."""
    op.execute(f"CREATE TABLE older AS SELECT * FROM {table.name}")
    op.execute(f"DROP TABLE {table.name}")
    table.create(op.get_bind())
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    op.execute(f"INSERT INTO {table.name} ({names}) {select}")
    op.execute("DROP TABLE older")


def upgrade() -> None:
    """A row for each hardware class asked about, and one for each layer's state."""
    _rebuild(
        _table("update_question", "hardware", _QUESTION),
        "SELECT site, device, hardware, running, key_epoch, asked_at FROM older",
    )
    _rebuild(
        _table("update_state", "layer", _STATE),
        f"SELECT site, device, CASE WHEN slot >= {_IMAGE_SLOT} THEN 'image' ELSE 'application' END, running, "
        f'slot, state, "offset", reason, seen_at FROM older',
    )
    op.execute("UPDATE meta SET value = '5' WHERE name = 'schema_version'")


def downgrade() -> None:
    """Back to version 4: of a terminal's layers what it said last is kept."""
    last = "NOT EXISTS (SELECT 1 FROM older AS other WHERE other.site = older.site AND other.device = "
    last += "older.device AND (other.{at}, other.{name}) > (older.{at}, older.{name}))"
    _rebuild(
        _table("update_question", None, _QUESTION, "hardware"),
        "SELECT site, device, hardware, running, key_epoch, asked_at FROM older WHERE "
        + last.format(at="asked_at", name="hardware"),
    )
    _rebuild(
        _table("update_state", None, _STATE),
        'SELECT site, device, running, slot, state, "offset", reason, seen_at FROM older WHERE '
        + last.format(at="seen_at", name="layer"),
    )
    op.execute("UPDATE meta SET value = '4' WHERE name = 'schema_version'")
