"""What ``tableside server tokens ...``, ``backup``, ``restore`` and ``after-restore`` do."""

from __future__ import annotations

import argparse
import json
import secrets
import time
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from server.config import ConfigError, check_name, parse_database
from server.storage import admin
from server.storage.backup import BackupFacts, leap, make_backup, restore_backup
from server.storage.database import open_database
from server.storage.location import remembered
from server.storage.lock import StateLock
from server.storage.tokens import TokenRow, add_token, revoke_token, tokens
from server.web.access import TOKEN_BYTES, hash_of, new_token

_DAY_S = 24 * 3600


def tokens_add(args: argparse.Namespace) -> int:
    """`tokens add`."""
    if (args.role == "device") != (args.device is not None):
        raise ConfigError("--device names the terminal of a device token, and only of one")
    if args.device is not None:
        check_name("device", args.device)
    if not 1 <= len(args.name) <= 64 or not args.name.isprintable():
        raise ConfigError(f"{args.name!r} is not a name of 1 to 64 printable characters")
    if args.days is not None and not 1 <= args.days <= 3650:
        raise ConfigError(f"--days {args.days} is not between 1 and 3650")
    now = int(time.time())
    expires = None if args.days is None else now + args.days * _DAY_S
    token = new_token(secrets.token_bytes(TOKEN_BYTES))
    digest = hash_of(token)
    assert digest is not None
    row = TokenRow(secrets.token_hex(6), args.role, args.name, args.device, now, expires, None)
    with closing(open_database(args.state)) as database:
        add_token(database, admin.only_site(database), row, digest)
    if args.json:
        print(json.dumps({"token_id": row.token_id, "token": token, "role": row.role, "name": row.name}))
        return 0
    print(f"token {row.token_id} for {row.role} {row.name}, shown this once:\n{token}")
    return 0


def tokens_list(args: argparse.Namespace) -> int:
    """`tokens list`."""
    with closing(open_database(args.state)) as database:
        found = tokens(database, admin.only_site(database))
    if args.json:
        print(json.dumps([
            {"token_id": t.token_id, "role": t.role, "name": t.name, "device": t.device,
             "created_at": t.created_at, "expires_at": t.expires_at, "revoked_at": t.revoked_at}
            for t in found
        ]))  # fmt: skip
        return 0
    now = int(time.time())
    for row in found:
        print(f"{row.token_id}  {row.role:8} {row.name:20} {row.device or '-':12} {_standing(row, now)}")
    return 0


def tokens_revoke(args: argparse.Namespace) -> int:
    """`tokens revoke`."""
    with closing(open_database(args.state)) as database:
        revoke_token(database, admin.only_site(database), args.token_id, int(time.time()))
    print(f"token {args.token_id} no longer opens anything")
    return 0


def _standing(row: TokenRow, now_s: int) -> str:
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is None:
        return "in use"
    day = datetime.fromtimestamp(row.expires_at, UTC).date().isoformat()
    return f"expired {day}" if row.expires_at <= now_s else f"in use until {day}"


def backup(args: argparse.Namespace) -> int:
    """`backup`."""
    return _tell(args, "backed up to", args.file, make_backup(args.state, args.file))


def restore(args: argparse.Namespace) -> int:
    """`restore`."""
    return _tell(args, "restored into", args.state, restore_backup(args.file, args.state))


def after_restore(args: argparse.Namespace) -> int:
    """`after-restore`: what `restore` does to a file, for a database that PostgreSQL restored."""
    url = parse_database(args.database) or remembered(args.state)
    if url is None:
        raise ConfigError(f"{args.state} has a file for a database; `restore` makes one from a backup")
    lock = StateLock(args.state)
    lock.acquire()
    try:
        with closing(open_database(args.state, url=url)) as database:
            with closing(database.driver_connection()) as connection:
                connection.begin()
                leap(connection)
                connection.commit()
            print(f"{database.name}: numbers go on above those of the backup, every session is dropped")
    finally:
        lock.release()
    return 0


def _tell(args: argparse.Namespace, what: str, where: Path, facts: BackupFacts) -> int:
    if args.json:
        print(json.dumps({"path": str(where), **asdict(facts)}))
    else:
        print(
            f"site {facts.site} {what} {where}: {facts.orders} orders up to LSN {facts.lsn}, "
            f"{facts.keys} key files, {facts.size_bytes} bytes"
        )
    return 0
