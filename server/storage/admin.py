"""What people change about a site: devices, menus, stock. Each change is one transaction that a running
server notices.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from server.devices.records import DeviceState
from server.errors import ServerError
from server.storage.database import Database
from server.storage.schema import device, menu, session, site, stock
from server.storage.schema_house import dining_table
from server.wire.rsa import kid_of

_NEXT: dict[DeviceState, frozenset[DeviceState]] = {
    DeviceState.PENDING: frozenset({DeviceState.ACTIVE, DeviceState.RETIRED}),
    DeviceState.ACTIVE: frozenset({DeviceState.ACTIVE, DeviceState.SUSPENDED, DeviceState.RETIRED}),
    DeviceState.SUSPENDED: frozenset({DeviceState.ACTIVE, DeviceState.SUSPENDED, DeviceState.RETIRED}),
    DeviceState.RETIRED: frozenset({DeviceState.RETIRED}),
}


class AdminError(ServerError):
    """A change that cannot be made; the message says why and what to do instead."""

    code = "ADMIN"
    refused = True


@dataclass(frozen=True, slots=True)
class PublishedMenu:
    """A stored menu version."""

    version: int
    frame: bytes
    hash: bytes


def ensure_site(database: Database, name: str) -> None:
    """Make the site's row if it is not there. Raises: AdminError when the file belongs to another site."""
    with database.begin() as connection:
        known = connection.execute(select(site.c.site)).scalars().all()
        if name in known:
            return
        if known:
            raise AdminError(
                f"the state belongs to site {known[0]!r}, not {name!r}; start with --site {known[0]} or "
                f"another --state"
            )
        connection.execute(insert(site).values(site=name))


def only_site(database: Database) -> str:
    """The site a state folder belongs to. Raises: AdminError when it has none yet."""
    with database.engine.connect() as connection:
        name = connection.execute(select(site.c.site)).scalar()
    if name is None:
        raise AdminError("this state has no site yet; start `tableside server run` with it once first")
    return str(name)


def add_device(
    database: Database,
    site_name: str,
    name: str,
    *,
    table: str,
    spki: bytes,
    password_hash: str,
    state: DeviceState,
    now_s: int,
) -> None:
    """Register a device by its public key (DER SubjectPublicKeyInfo). Raises: AdminError when name or key
    is taken.
    """
    row = {
        "site": site_name,
        "device": name,
        "kid": kid_of(spki),
        "spki": spki,
        "table_id": table,
        "state": state.value,
        "password_hash": password_hash,
        "created_at": now_s,
    }
    try:
        with database.admin() as connection:
            connection.execute(insert(device).values(row))
            _register_table(connection, site_name, table)
    except IntegrityError:
        raise AdminError(
            f"device {name!r} or its key is already registered; see `devices list`, or retire the old one "
            f"and "
            f"register the terminal under a new name"
        ) from None


def change_device(
    database: Database, site_name: str, name: str, state: DeviceState, *, table: str | None = None
) -> DeviceState:
    """Move a device to another state (and table) and return the state it had.

    Sessions and resume keys go in the same transaction whenever the device stops being active or moves to
    another table.
    Raises: AdminError for an unknown device or a step that is not allowed.
    """
    here = (device.c.site == site_name) & (device.c.device == name)
    with database.admin() as connection:
        row = connection.execute(select(device.c.state, device.c.table_id).where(here)).one_or_none()
        if row is None:
            raise AdminError(f"there is no device {name!r}; `devices list` shows those that are registered")
        before = DeviceState(row.state)
        if state not in _NEXT[before]:
            raise AdminError(
                f"device {name!r} is {before}: it cannot become {state}; register it anew instead"
            )
        moved = table is not None and table != row.table_id
        connection.execute(
            update(device).where(here).values(state=state.value, table_id=table or row.table_id)
        )
        _register_table(connection, site_name, table or row.table_id)
        if state is not DeviceState.ACTIVE or moved:
            connection.execute(delete(session).where(session.c.site == site_name, session.c.device == name))
            connection.execute(
                update(device).where(here).values(accept=None)
            )  # its Hello is not answered again
    return before


def _register_table(connection: Connection, site_name: str, table: str) -> None:
    known = (dining_table.c.site == site_name) & (dining_table.c.table_id == table)
    if connection.execute(select(dining_table.c.seats).where(known)).one_or_none() is None:
        connection.execute(insert(dining_table).values(site=site_name, table_id=table))


def set_password(database: Database, site_name: str, name: str, password_hash: str) -> None:
    """Give a device another broker password. Raises: AdminError for an unknown device."""
    with database.admin() as connection:
        changed = connection.execute(
            update(device)
            .where(device.c.site == site_name, device.c.device == name)
            .values(password_hash=password_hash)
        )
        if changed.rowcount != 1:
            raise AdminError(f"there is no device {name!r}; `devices list` shows those that are registered")


def newest_menu_version(database: Database, site_name: str) -> int:
    """The highest version ever published, 0 before the first."""
    with database.begin() as connection:  # the caller's own transaction, where it is in one
        return _newest(connection, site_name)


def _newest(connection: Connection, site_name: str) -> int:
    return int(
        connection.execute(select(func.max(menu.c.version)).where(menu.c.site == site_name)).scalar() or 0
    )


def publish_menu(database: Database, site_name: str, version: int, frame: bytes, now_s: int) -> None:
    """Store a signed menu and make it the current one. Raises: AdminError unless its version is a new
    highest.
    """
    with database.admin() as connection:
        newest = _newest(connection, site_name)
        if version <= newest:
            raise AdminError(
                f"menu version {version} is not newer than {newest}, and a published version never changes; "
                f"number the menu {newest + 1} or publish it with --next"
            )
        connection.execute(
            insert(menu).values(
                site=site_name, version=version, frame=frame, hash=sha256(frame).digest(), published_at=now_s
            )
        )
        connection.execute(update(site).where(site.c.site == site_name).values(current_menu=version))


def current_menu(database: Database, site_name: str) -> PublishedMenu | None:
    """The menu that counts now, or None before the first."""
    with database.engine.connect() as connection:
        row = connection.execute(
            select(menu.c.version, menu.c.frame, menu.c.hash)
            .join(site, (site.c.site == menu.c.site) & (site.c.current_menu == menu.c.version))
            .where(site.c.site == site_name)
        ).one_or_none()
    return None if row is None else PublishedMenu(row.version, row.frame, row.hash)


def set_stock(database: Database, site_name: str, item: int, count: int | None) -> None:
    """Count an item's stock from now on, or (None) stop counting it."""
    with database.admin() as connection:
        if count is None:
            connection.execute(delete(stock).where(stock.c.site == site_name, stock.c.item == item))
        else:
            here = (stock.c.site == site_name) & (stock.c.item == item)
            if connection.execute(update(stock).where(here).values(count=count)).rowcount == 0:
                connection.execute(insert(stock).values(site=site_name, item=item, count=count))
