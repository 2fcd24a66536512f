"""What operators say to terminals about their updates: the newest command for each, for a day."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from server.storage.admin import AdminError
from server.storage.database import Database
from server.storage.schema import device
from server.storage.schema_releases import update_command
from server.wire.commands import Layer, OtaCommand, What

KEPT_S = 24 * 3600


def command(database: Database, site: str, name: str, layer: Layer, what: What, now_s: int) -> OtaCommand:
    """Store a command for a terminal in place of an older one.

    Its number is the time, in seconds, unless the last one's was that or later: it grows also where a
    database was restored. Raises: AdminError for an unknown terminal.
    """
    here = (update_command.c.site == site) & (update_command.c.device == name)
    with database.admin() as connection:
        known = select(device.c.device).where(device.c.site == site, device.c.device == name)
        if connection.execute(known).one_or_none() is None:
            raise AdminError(f"there is no device {name!r}; `devices list` shows those that are registered")
        last = connection.execute(select(update_command.c.number).where(here)).scalar() or 0
        made = OtaCommand(max(int(last) + 1, now_s), layer, what)
        connection.execute(delete(update_command).where(here))
        connection.execute(
            insert(update_command).values(
                site=site, device=name, number=made.number, layer=int(layer), what=int(what), asked_at=now_s
            )
        )
    return made


def newest(database: Database, site: str, now_s: int) -> Mapping[str, OtaCommand]:
    """The command each terminal has to hear, by its name; older ones than KEPT_S are left out."""
    wanted = select(update_command).where(
        update_command.c.site == site, update_command.c.asked_at > now_s - KEPT_S
    )
    with database.engine.connect() as connection:
        rows = connection.execute(wanted).all()
    return {row.device: OtaCommand(int(row.number), Layer(row.layer), What(row.what)) for row in rows}
