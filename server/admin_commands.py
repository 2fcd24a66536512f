"""What the administrative commands do to a state folder, also while it is served."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from server.config import KEYS_NAME, ConfigError, check_name, check_site
from server.devices import keyfiles
from server.devices.keys import KeyStore
from server.devices.records import DeviceState
from server.storage import admin
from server.storage.database import Database, StorageError, database_path, open_database
from server.storage.ledger import Ledger
from server.storage.location import remembered
from server.storage.lock import StateLock
from server.storage.schema import SCHEMA_VERSION
from server.transport.auth import hash_password
from server.wire.menufile import parse_menu
from server.wire.menus import Menu
from server.wire.ops import Status
from server.wire.rsa import VerifyKey, load_public


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[tuple[Database, str]]:
    """The database of the state folder that was named, and the site it belongs to."""
    database = open_database(args.state)
    try:
        yield database, admin.only_site(database)
    finally:
        database.close()


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their heads in columns."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *texts]) for column in range(len(head))]
    for row in [list(head), *texts]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _read_key(name: str) -> bytes:
    data = sys.stdin.buffer.read(4096) if name == "-" else Path(name).read_bytes()
    load_public(data, 2048)
    return data


def devices_add(args: argparse.Namespace) -> int:
    """`devices add`."""
    check_name("device", args.device)
    check_name("table", args.table)
    if not args.password:
        raise ConfigError("the password is empty")
    spki = _read_key(args.key)
    state = DeviceState.PENDING if args.pending else DeviceState.ACTIVE
    with opened(args) as (database, site):
        admin.add_device(
            database,
            site,
            args.device,
            table=args.table,
            spki=spki,
            password_hash=hash_password(args.password),
            state=state,
            now_s=int(time.time()),
        )
    print(f"registered {args.device} on table {args.table}, {state}")
    return 0


def devices_password(args: argparse.Namespace) -> int:
    """`devices password`."""
    if not args.password:
        raise ConfigError("the password is empty")
    with opened(args) as (database, site):
        admin.set_password(database, site, args.device, hash_password(args.password))
    print(f"{args.device} has another password from now on")
    return 0


def migrate(args: argparse.Namespace) -> int:
    """`migrate`: like the start of a server, without serving."""
    if remembered(args.state) is None and not database_path(args.state).exists():
        raise StorageError(f"there is no database in {args.state} to migrate")
    lock = StateLock(args.state)
    lock.acquire()
    try:
        database = open_database(args.state, upgrade=True)
        database.close()
    finally:
        lock.release()
    before = database.upgraded_from
    print(
        f"schema version {SCHEMA_VERSION}: nothing to do"
        if before is None
        else f"schema version {before} -> {SCHEMA_VERSION}"
    )
    return 0


def devices_list(args: argparse.Namespace) -> int:
    """`devices list`."""
    with opened(args) as (_, site):
        devices = Ledger(args.state).devices(site)
    if args.json:
        print(json.dumps([
            {"device": d.device, "table": d.table, "state": d.state, "kid": d.kid, "handshake": d.handshake,
             "online": d.online, "running": d.running, "menu_version": d.menu_version, "pending": d.pending}
            for d in devices
        ]))  # fmt: skip
        return 0
    seen = {None: "never seen", True: "yes", False: "no"}
    print_table(
        ("device", "table", "state", "online", "waiting", "key id"),
        [
            (d.device, d.table, d.state, seen[d.online], "-" if d.pending is None else d.pending, d.kid)
            for d in devices
        ],
    )
    return 0


def devices_change(args: argparse.Namespace) -> int:
    """`devices change`."""
    if args.table is not None:
        check_name("table", args.table)
    with opened(args) as (database, site):
        before = admin.change_device(
            database, site, args.device, DeviceState(args.device_state), table=args.table
        )
    print(f"{args.device}: {before} -> {args.device_state}")
    return 0


def menu_publish(args: argparse.Namespace) -> int:
    """`menu publish`."""
    menu = parse_menu(args.file.read_text("utf-8"))
    with opened(args) as (database, site):
        keystore = KeyStore(args.state / KEYS_NAME, site)
        if args.next:
            menu = replace(menu, version=admin.newest_menu_version(database, site) + 1)
        frame = menu.seal(keystore.server_sign, site)
        admin.publish_menu(database, site, menu.version, frame, int(time.time()))
    print(f"published menu version {menu.version}: {len(menu.items)} items, {len(frame)} bytes signed")
    return 0


def menu_show(args: argparse.Namespace) -> int:
    """`menu show`."""
    with opened(args) as (database, site):
        stored = admin.current_menu(database, site)
        if stored is None:
            raise admin.AdminError("no menu is published yet; publish one with `menu publish FILE`")
        key = VerifyKey(KeyStore(args.state / KEYS_NAME, site).server_sign.spki, 3072)
    menu = Menu.open(stored.frame, key, site)
    left = Ledger(args.state).stock(site)
    if args.json:
        print(json.dumps({
            "version": menu.version, "hash": stored.hash.hex(), "currency": menu.currency,
            "bytes": len(stored.frame),
            "items": [{"id": i.id, "name": i.name, "price_minor": i.price_minor, "stock": left.get(i.id)}
                      for i in menu.items],
        }))  # fmt: skip
        return 0
    print(f"menu version {menu.version}, prices in {menu.currency}, {len(menu.items)} items")
    scale = 10**menu.exponent
    print_table(
        ("id", "item", "price", "left"),
        [
            (
                i.id,
                i.name,
                f"{i.price_minor // scale}.{i.price_minor % scale:0{menu.exponent}d}",
                left.get(i.id, ""),
            )
            for i in menu.items
        ],
    )
    return 0


def keys_init(args: argparse.Namespace) -> int:
    """`keys init`."""
    args.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    root = keyfiles.load_signer(args.root_key)
    store = KeyStore.create(args.state / KEYS_NAME, check_site(args.site), root, int(time.time()))
    print(f"made keys for site {args.site} in {store.directory}")
    return 0


def keys_show(args: argparse.Namespace) -> int:
    """`keys show`."""
    with opened(args) as (_, site):
        store = KeyStore(args.state / KEYS_NAME, site)
    sign = VerifyKey(store.server_sign.spki, 3072)
    if args.json:
        print(json.dumps({
            "site": site, "epoch": store.epoch, "root_kid": store.root.kid.hex(),
            "root_spki": store.root_spki.hex(),
            "server_sign_kid": sign.kid.hex(), "server_sign_spki": store.server_sign.spki.hex(),
        }))  # fmt: skip
        return 0
    print(f"site {site}, epoch {store.epoch}")
    print(f"root key id         {store.root.kid.hex()}")
    print(f"server-sign key id  {sign.kid.hex()}")
    return 0


def keys_rotate(args: argparse.Namespace) -> int:
    """`keys rotate`."""
    root = keyfiles.load_signer(args.root_key)
    lock = StateLock(args.state)
    with opened(args) as (database, site):
        lock.acquire()
        try:
            store = KeyStore(args.state / KEYS_NAME, site)
            stored = admin.current_menu(database, site)
            menu = None
            if stored is not None:
                # By whichever key: a rotation that was interrupted left the key before this one on it.
                menu = Menu.read(stored.frame)
            epoch = store.rotate_sign(root)
            if menu is not None:
                menu = replace(menu, version=admin.newest_menu_version(database, site) + 1)
                admin.publish_menu(
                    database, site, menu.version, menu.seal(store.server_sign, site), int(time.time())
                )
        finally:
            lock.release()
    print(
        f"epoch {epoch} begins at the next start"
        + (f"; the menu is version {menu.version} now" if menu else "")
    )
    return 0


def stock_set(args: argparse.Namespace) -> int:
    """`stock set`."""
    count = None if args.count == "none" else int(args.count) if args.count.isdecimal() else -1
    if count is not None and not 0 <= count <= 1_000_000:
        raise ConfigError(f"{args.count!r} is not a count from 0 to 1000000, or none")
    if not 1 <= args.item <= 65_535:
        raise ConfigError(f"item {args.item} is not an item id from 1 to 65535; `menu show` lists them")
    with opened(args) as (database, site):
        admin.set_stock(database, site, args.item, count)
    print(f"item {args.item}: " + ("not counted" if count is None else f"{count} left"))
    return 0


def stock_show(args: argparse.Namespace) -> int:
    """`stock show`."""
    with opened(args) as (_, site):
        left = Ledger(args.state).stock(site)
    if args.json:
        print(json.dumps({str(item): count for item, count in left.items()}))
    else:
        print_table(("item", "left"), sorted(left.items()))
    return 0


def orders(args: argparse.Namespace) -> int:
    """`orders`."""
    with opened(args) as (_, site):
        orders = Ledger(args.state).orders(site)
    if args.json:
        print(json.dumps([
            {"order_number": o.order_number, "table": o.table, "device": o.device, "op_id": o.op_id.hex(),
             "total_minor": o.total_minor, "tax_minor": o.tax_minor, "lsn": o.lsn,
             "status": int(Status.COMMITTED),
             "lines": [[line.item, line.quantity, list(line.modifiers)] for line in o.lines]}
            for o in orders
        ]))  # fmt: skip
        return 0
    print_table(
        ("number", "table", "device", "total", "lines"),
        [
            (
                o.order_number,
                o.table,
                o.device,
                o.total_minor,
                ", ".join(f"{n.quantity}x {n.item}" for n in o.lines),
            )
            for o in orders
        ],
    )
    return 0


def refusals(args: argparse.Namespace) -> int:
    """`refusals`."""
    with opened(args) as (_, site):
        counts = Ledger(args.state).refusals(site)
    if args.json:
        print(
            json.dumps(
                [{"device": device, "code": code, "count": n} for (_, device, code), n in counts.items()]
            )
        )
    else:
        print_table(
            ("device", "code", "count"),
            [(device or "-", code, n) for (_, device, code), n in sorted(counts.items())],
        )
    return 0
