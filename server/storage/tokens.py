"""API tokens as rows: issue, list, revoke, and load those that count."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from server.storage.admin import AdminError
from server.storage.database import Database
from server.storage.schema import device
from server.storage.schema_access import access_token
from server.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token without its secret; times in unix seconds."""

    token_id: str
    role: str
    name: str
    device: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None


def add_token(database: Database, site: str, row: TokenRow, digest: bytes) -> None:
    """Store a new token. Raises: AdminError when its device is not registered, or by bad luck its id is
    taken.
    """
    try:
        with database.admin() as connection:
            if row.device is not None:
                known = connection.execute(
                    select(device.c.device).where(device.c.site == site, device.c.device == row.device)
                ).one_or_none()
                if known is None:
                    raise AdminError(
                        f"there is no device {row.device!r}; `devices list` shows those that are registered"
                    )
            connection.execute(
                insert(access_token).values(
                    site=site,
                    token_id=row.token_id,
                    hash=digest,
                    role=row.role,
                    name=row.name,
                    device=row.device,
                    created_at=row.created_at,
                    expires_at=row.expires_at,
                )
            )
    except IntegrityError:
        raise AdminError("the token could not be stored; try once more") from None


def revoke_token(database: Database, site: str, token_id: str, now_s: int) -> None:
    """Make a token worthless. Raises: AdminError when there is none of this id that still counts."""
    with database.admin() as connection:
        changed = connection.execute(
            update(access_token)
            .where(
                access_token.c.site == site,
                access_token.c.token_id == token_id,
                access_token.c.revoked_at.is_(None),
            )
            .values(revoked_at=now_s)
        )
        if changed.rowcount != 1:
            raise AdminError(f"no token {token_id!r} is in use; `tokens list` shows those that are")


def tokens(database: Database, site: str) -> list[TokenRow]:
    """Every token ever issued, oldest first."""
    columns = access_token.c
    with database.engine.connect() as connection:
        rows = connection.execute(
            select(
                columns.token_id, columns.role, columns.name, columns.device, columns.created_at,
                columns.expires_at, columns.revoked_at,
            )
            .where(columns.site == site)
            .order_by(columns.created_at, columns.token_id)
        )  # fmt: skip
        return [TokenRow(*row) for row in rows]


def load_tokens(
    transaction: Transaction, site: str
) -> list[tuple[bytes, str, str, str, str | None, int | None]]:
    """(hash, id, role, name, device, expiry) of every token that was not revoked."""
    return transaction.execute(
        "SELECT hash, token_id, role, name, device, expires_at FROM access_token "
        "WHERE site = ? AND revoked_at IS NULL",
        (site,),
    ).fetchall()
