"""``tableside server devices|menu|keys|stock|orders``: changes and views of a state folder, also while it
is served.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from server.config import DEFAULT_STATE, DEMO_ROOT_KEY, KEYS_NAME, ConfigError, check_name, check_site
from server.devices import keyfiles
from server.devices.keys import KeyStore
from server.devices.records import DeviceState
from server.storage import admin
from server.storage.database import Database, open_database
from server.storage.ledger import Ledger
from server.storage.lock import StateLock
from server.transport.auth import hash_password
from server.wire.menufile import parse_menu
from server.wire.menus import Menu
from server.wire.ops import Status
from server.wire.rsa import VerifyKey, load_public

_RAW = argparse.RawDescriptionHelpFormatter


def add_commands(commands: Any) -> None:
    """Add every command but ``run``."""
    _add_devices(commands)
    _add_menu(commands)
    _add_keys(commands)
    _add_stock(commands)
    _add_orders(commands)


def _common(parser: argparse.ArgumentParser, *, listing: bool = False) -> None:
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR",
                        help="the server's state folder (default: %(default)s)")  # fmt: skip
    if listing:
        parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _leaf(group: Any, name: str, command: Any, help_: str, example: str, *, listing: bool = False) -> Any:
    from server.cli import guarded

    parser = group.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=_RAW,
    )
    _common(parser, listing=listing)
    parser.set_defaults(run=guarded(command))
    return parser


def _group(commands: Any, name: str, help_: str) -> Any:
    parser = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    return parser.add_subparsers(dest=f"{name}_command", metavar="COMMAND", required=True)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple[Database, str]]:
    database = open_database(args.state)
    try:
        yield database, admin.only_site(database)
    finally:
        database.close()


def _print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *texts]) for column in range(len(head))]
    for row in [list(head), *texts]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# ---------------------------------------------------------------- devices


def _add_devices(commands: Any) -> None:
    group = _group(commands, "devices", "register terminals and decide which may order")
    add = _leaf(group, "add", _devices_add, "register a terminal by its public key",
                "tableside server devices add t-0001 --table 4 --key t-0001.spki.der --password s3cret")  # fmt: skip
    add.add_argument("device", help="its name, also its MQTT client id and user name")
    add.add_argument("--table", required=True, help="the table it stands on")
    add.add_argument("--key", required=True, metavar="FILE",
                     help="its public key, DER SubjectPublicKeyInfo of an RSA-2048 key; - reads it from stdin")  # fmt: skip
    add.add_argument("--password", required=True, help="its MQTT password")
    add.add_argument("--pending", action="store_true", help="register it without letting it order yet")
    _leaf(group, "list", _devices_list, "show registered terminals", "tableside server devices list --json",
          listing=True)  # fmt: skip
    for name, state, help_ in (
        ("activate", DeviceState.ACTIVE, "let a terminal order (again)"),
        ("suspend", DeviceState.SUSPENDED, "stop a terminal now: its sessions are deleted at once"),
        ("retire", DeviceState.RETIRED, "stop a terminal for ever"),
    ):
        parser = _leaf(group, name, _devices_change, help_, f"tableside server devices {name} t-0001")
        parser.add_argument("device")
        parser.set_defaults(device_state=state, table=None)
        if state is DeviceState.ACTIVE:
            parser.add_argument("--table", help="move it to another table")


def _read_key(name: str) -> bytes:
    data = sys.stdin.buffer.read(4096) if name == "-" else Path(name).read_bytes()
    load_public(data, 2048)
    return data


def _devices_add(args: argparse.Namespace) -> int:
    check_name("device", args.device)
    check_name("table", args.table)
    if not args.password:
        raise ConfigError("the password is empty")
    spki = _read_key(args.key)
    state = DeviceState.PENDING if args.pending else DeviceState.ACTIVE
    with _opened(args) as (database, site):
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


def _devices_list(args: argparse.Namespace) -> int:
    with _opened(args) as (_, site):
        devices = Ledger(args.state).devices(site)
    if args.json:
        print(json.dumps([
            {"device": d.device, "table": d.table, "state": d.state, "kid": d.kid, "handshake": d.handshake,
             "online": d.online, "running": d.running, "menu_version": d.menu_version, "pending": d.pending}
            for d in devices
        ]))  # fmt: skip
        return 0
    seen = {None: "never seen", True: "yes", False: "no"}
    _print_table(
        ("device", "table", "state", "online", "waiting", "key id"),
        [
            (d.device, d.table, d.state, seen[d.online], "-" if d.pending is None else d.pending, d.kid)
            for d in devices
        ],
    )
    return 0


def _devices_change(args: argparse.Namespace) -> int:
    if args.table is not None:
        check_name("table", args.table)
    with _opened(args) as (database, site):
        before = admin.change_device(database, site, args.device, args.device_state, table=args.table)
    print(f"{args.device}: {before} -> {args.device_state}")
    return 0


# ---------------------------------------------------------------- menu


def _add_menu(commands: Any) -> None:
    group = _group(commands, "menu", "publish a menu, show the current one")
    publish = _leaf(group, "publish", _menu_publish, "sign a menu and make it the current one",
                    "tableside server menu publish fixtures/menu/demo.json --next")  # fmt: skip
    publish.add_argument("file", type=Path, help="the menu as JSON")
    publish.add_argument(
        "--next", action="store_true", help="number it one above the newest, whatever the file says"
    )
    _leaf(group, "show", _menu_show, "show the current menu", "tableside server menu show", listing=True)


def _menu_publish(args: argparse.Namespace) -> int:
    menu = parse_menu(args.file.read_text("utf-8"))
    with _opened(args) as (database, site):
        keystore = KeyStore(args.state / KEYS_NAME, site)
        if args.next:
            menu = replace(menu, version=admin.newest_menu_version(database, site) + 1)
        frame = menu.seal(keystore.server_sign, site)
        admin.publish_menu(database, site, menu.version, frame, int(time.time()))
    print(f"published menu version {menu.version}: {len(menu.items)} items, {len(frame)} bytes signed")
    return 0


def _menu_show(args: argparse.Namespace) -> int:
    with _opened(args) as (database, site):
        stored = admin.current_menu(database, site)
        if stored is None:
            raise admin.AdminError("no menu is published yet; publish one with `menu publish FILE`")
        key = VerifyKey(KeyStore(args.state / KEYS_NAME, site).server_sign.spki, 3072)
    menu = Menu.open(stored.frame, key, site)
    left = Ledger(args.state).stock(site)
    if args.json:
        print(json.dumps({
            "version": menu.version, "hash": stored.hash.hex(), "currency": menu.currency, "bytes": len(stored.frame),
            "items": [{"id": i.id, "name": i.name, "price_minor": i.price_minor, "stock": left.get(i.id)}
                      for i in menu.items],
        }))  # fmt: skip
        return 0
    print(f"menu version {menu.version}, prices in {menu.currency}, {len(menu.items)} items")
    scale = 10**menu.exponent
    _print_table(
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


# ---------------------------------------------------------------- keys


def _add_keys(commands: Any) -> None:
    group = _group(commands, "keys", "make, show and renew the server's keys")
    init = _leaf(group, "init", _keys_init, "make the server's keys, certified by a root key",
                 "tableside server keys init --site trattoria --root-key root.pem")  # fmt: skip
    init.add_argument("--site", default="demo", help="name of the restaurant (default: %(default)s)")
    init.add_argument(
        "--root-key", type=Path, default=DEMO_ROOT_KEY, metavar="PEM", help="the site's root key"
    )
    _leaf(
        group, "show", _keys_show, "show the public keys", "tableside server keys show --json", listing=True
    )
    rotate = _leaf(group, "rotate", _keys_rotate,
                   "replace the signing key by one of the next epoch and sign the menu anew (the server must be stopped)",
                   "tableside server keys rotate --root-key root.pem")  # fmt: skip
    rotate.add_argument(
        "--root-key", type=Path, default=DEMO_ROOT_KEY, metavar="PEM", help="the site's root key"
    )


def _keys_init(args: argparse.Namespace) -> int:
    args.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    root = keyfiles.load_signer(args.root_key)
    store = KeyStore.create(args.state / KEYS_NAME, check_site(args.site), root, int(time.time()))
    print(f"made keys for site {args.site} in {store.directory}")
    return 0


def _keys_show(args: argparse.Namespace) -> int:
    with _opened(args) as (_, site):
        store = KeyStore(args.state / KEYS_NAME, site)
    sign = VerifyKey(store.server_sign.spki, 3072)
    if args.json:
        print(json.dumps({
            "site": site, "epoch": store.epoch, "root_kid": store.root.kid.hex(), "root_spki": store.root_spki.hex(),
            "server_sign_kid": sign.kid.hex(), "server_sign_spki": store.server_sign.spki.hex(),
        }))  # fmt: skip
        return 0
    print(f"site {site}, epoch {store.epoch}")
    print(f"root key id         {store.root.kid.hex()}")
    print(f"server-sign key id  {sign.kid.hex()}")
    return 0


def _keys_rotate(args: argparse.Namespace) -> int:
    root = keyfiles.load_signer(args.root_key)
    lock = StateLock(args.state)
    with _opened(args) as (database, site):
        lock.acquire()
        try:
            store = KeyStore(args.state / KEYS_NAME, site)
            stored = admin.current_menu(database, site)
            menu = None
            if stored is not None:
                menu = Menu.open(stored.frame, VerifyKey(store.server_sign.spki, 3072), site)
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


# ---------------------------------------------------------------- stock and orders


def _add_stock(commands: Any) -> None:
    group = _group(commands, "stock", "count items that can run out")
    set_ = _leaf(group, "set", _stock_set, "count an item from now on, or stop counting it",
                 "tableside server stock set 101 12")  # fmt: skip
    set_.add_argument("item", type=int, help="item id")
    set_.add_argument("count", help="how many are left, or none")
    _leaf(group, "show", _stock_show, "show counted items", "tableside server stock show", listing=True)


def _stock_set(args: argparse.Namespace) -> int:
    count = None if args.count == "none" else int(args.count) if args.count.isdecimal() else -1
    if count is not None and not 0 <= count <= 1_000_000:
        raise ConfigError(f"{args.count!r} is not a count from 0 to 1000000, or none")
    if not 1 <= args.item <= 65_535:
        raise ConfigError(f"item {args.item} is not an item id from 1 to 65535; `menu show` lists them")
    with _opened(args) as (database, site):
        admin.set_stock(database, site, args.item, count)
    print(f"item {args.item}: " + ("not counted" if count is None else f"{count} left"))
    return 0


def _stock_show(args: argparse.Namespace) -> int:
    with _opened(args) as (_, site):
        left = Ledger(args.state).stock(site)
    if args.json:
        print(json.dumps({str(item): count for item, count in left.items()}))
    else:
        _print_table(("item", "left"), sorted(left.items()))
    return 0


def _add_orders(commands: Any) -> None:
    _leaf(
        commands, "orders", _orders, "show committed orders", "tableside server orders --json", listing=True
    )
    _leaf(commands, "refusals", _refusals, "show what was refused, counted by device and code",
          "tableside server refusals --json", listing=True)  # fmt: skip


def _orders(args: argparse.Namespace) -> int:
    with _opened(args) as (_, site):
        orders = Ledger(args.state).orders(site)
    if args.json:
        print(json.dumps([
            {"order_number": o.order_number, "table": o.table, "device": o.device, "op_id": o.op_id.hex(),
             "total_minor": o.total_minor, "tax_minor": o.tax_minor, "lsn": o.lsn, "status": int(Status.COMMITTED),
             "lines": [[line.item, line.quantity, list(line.modifiers)] for line in o.lines]}
            for o in orders
        ]))  # fmt: skip
        return 0
    _print_table(
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


def _refusals(args: argparse.Namespace) -> int:
    with _opened(args) as (_, site):
        counts = Ledger(args.state).refusals(site)
    if args.json:
        print(
            json.dumps(
                [{"device": device, "code": code, "count": n} for (_, device, code), n in counts.items()]
            )
        )
    else:
        _print_table(
            ("device", "code", "count"),
            [(device or "-", code, n) for (_, device, code), n in sorted(counts.items())],
        )
    return 0
