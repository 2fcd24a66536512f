"""The command lines of ``tableside server devices|menu|keys|stock|orders|refusals``.

Parsers only: what a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from server.cli_guard import guarded
from server.config import DEFAULT_STATE, DEMO_ROOT_KEY

_RAW = argparse.RawDescriptionHelpFormatter


def add_commands(commands: Any) -> None:
    """Add every command but ``run``."""
    _add_devices(commands)
    _add_menu(commands)
    _add_keys(commands)
    _add_stock(commands)
    _add_orders(commands)
    _add_tokens(commands)
    _add_backup(commands)
    _leaf(
        commands,
        "migrate",
        "migrate",
        "bring the database to this version's schema (the server must be stopped; its start does the same)",
        "tableside server migrate",
    )
    _add_evidence(commands)
    _add_broker_config(commands)


def _common(parser: argparse.ArgumentParser, *, listing: bool = False) -> None:
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR",
                        help="the server's state folder (default: %(default)s)")  # fmt: skip
    if listing:
        parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _leaf(
    group: Any,
    name: str,
    command: str,
    help_: str,
    example: str,
    *,
    listing: bool = False,
    module: str = "admin_commands",
) -> Any:
    parser = group.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=_RAW,
    )
    _common(parser, listing=listing)
    parser.set_defaults(run=guarded(f"server.{module}:{command}"))
    return parser


def _group(commands: Any, name: str, help_: str) -> Any:
    parser = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    return parser.add_subparsers(dest=f"{name}_command", metavar="COMMAND", required=True)


def _add_devices(commands: Any) -> None:
    group = _group(commands, "devices", "register terminals and decide which may order")
    add = _leaf(group, "add", "devices_add", "register a terminal by its public key",
                "tableside server devices add t-0001 --table 4 --key t-0001.der --password pw1")  # fmt: skip
    add.add_argument("device", help="its name, also its MQTT client id and user name")
    add.add_argument("--table", required=True, help="the table it stands on")
    add.add_argument("--key", required=True, metavar="FILE",
                     help="its public key, DER SubjectPublicKeyInfo of an RSA-2048 key; - reads it from "
                          "stdin")  # fmt: skip
    add.add_argument("--password", required=True, help="its MQTT password")
    add.add_argument("--pending", action="store_true", help="register it without letting it order yet")
    password = _leaf(group, "password", "devices_password", "give a terminal another MQTT password",
                     "tableside server devices password t-0001 --password pw2")  # fmt: skip
    password.add_argument("device")
    password.add_argument("--password", required=True, help="its new MQTT password")
    _leaf(group, "list", "devices_list", "show registered terminals", "tableside server devices list --json",
          listing=True)  # fmt: skip
    for name, state, help_ in (
        ("activate", "active", "let a terminal order (again)"),
        ("suspend", "suspended", "stop a terminal now: its sessions are deleted at once"),
        ("retire", "retired", "stop a terminal for ever"),
    ):
        parser = _leaf(group, name, "devices_change", help_, f"tableside server devices {name} t-0001")
        parser.add_argument("device")
        parser.set_defaults(device_state=state, table=None)
        if state == "active":
            parser.add_argument("--table", help="move it to another table")


def _add_menu(commands: Any) -> None:
    group = _group(commands, "menu", "publish a menu, show the current one")
    publish = _leaf(group, "publish", "menu_publish", "sign a menu and make it the current one",
                    "tableside server menu publish fixtures/menu/demo.json --next")  # fmt: skip
    publish.add_argument("file", type=Path, help="the menu as JSON")
    publish.add_argument(
        "--next", action="store_true", help="number it one above the newest, whatever the file says"
    )
    _leaf(group, "show", "menu_show", "show the current menu", "tableside server menu show", listing=True)


def _add_keys(commands: Any) -> None:
    group = _group(commands, "keys", "make, show and renew the server's keys")
    init = _leaf(group, "init", "keys_init", "make the server's keys, certified by a root key",
                 "tableside server keys init --site trattoria --root-key root.pem")  # fmt: skip
    init.add_argument("--site", default="demo", help="name of the restaurant (default: %(default)s)")
    init.add_argument(
        "--root-key", type=Path, default=DEMO_ROOT_KEY, metavar="PEM", help="the site's root key"
    )
    _leaf(
        group, "show", "keys_show", "show the public keys", "tableside server keys show --json", listing=True
    )
    rotate = _leaf(group, "rotate", "keys_rotate",
                   "replace the signing key by one of the next epoch and sign the menu anew (the server "
                   "must be stopped)",
                   "tableside server keys rotate --root-key root.pem")  # fmt: skip
    rotate.add_argument(
        "--root-key", type=Path, default=DEMO_ROOT_KEY, metavar="PEM", help="the site's root key"
    )


def _add_stock(commands: Any) -> None:
    group = _group(commands, "stock", "count items that can run out")
    set_ = _leaf(group, "set", "stock_set", "count an item from now on, or stop counting it",
                 "tableside server stock set 101 12")  # fmt: skip
    set_.add_argument("item", type=int, help="item id")
    set_.add_argument("count", help="how many are left, or none")
    _leaf(group, "show", "stock_show", "show counted items", "tableside server stock show", listing=True)


def _add_orders(commands: Any) -> None:
    _leaf(
        commands, "orders", "orders", "show committed orders", "tableside server orders --json", listing=True
    )
    _leaf(commands, "refusals", "refusals", "show what was refused, counted by device and code",
          "tableside server refusals --json", listing=True)  # fmt: skip


def _add_tokens(commands: Any) -> None:
    module = "access_commands"
    group = _group(commands, "tokens", "issue and revoke tokens for the HTTP API")
    add = _leaf(group, "add", "tokens_add", "issue a token and show it once",
                "tableside server tokens add anna --role waiter --days 30", listing=True,
                module=module)  # fmt: skip
    add.add_argument("name", help="who will use it: author of what is done with it")
    add.add_argument("--role", required=True, choices=("manager", "waiter", "kitchen", "device"))
    add.add_argument("--device", help="the terminal a device token is for")
    add.add_argument("--days", type=int, help="how long it works (default: until it is revoked)")
    _leaf(group, "list", "tokens_list", "show tokens, without their secrets",
          "tableside server tokens list --json", listing=True, module=module)  # fmt: skip
    revoke = _leaf(group, "revoke", "tokens_revoke", "make a token worthless at once",
                   "tableside server tokens revoke 0123456789ab", module=module)  # fmt: skip
    revoke.add_argument("token_id", help="its id, from `tokens list`")


def _add_backup(commands: Any) -> None:
    backup = _leaf(commands, "backup", "backup",
                   "write database and keys to one file; the server may run meanwhile",
                   "tableside server backup monday.backup", listing=True,
                   module="access_commands")  # fmt: skip
    backup.add_argument("file", type=Path, help="a new file; it holds private keys and gets mode 0600")
    restore = _leaf(commands, "restore", "restore", "make a new state folder from a backup",
                    "tableside server restore monday.backup --state restored", listing=True,
                    module="access_commands")  # fmt: skip
    restore.add_argument("file", type=Path, help="the backup")
    after = _leaf(commands, "after-restore", "after_restore",
                  "once after pg_restore, before a server starts: let LSNs, order numbers and beacons go on "
                  "above what was said since the dump, and drop every session",
                  "tableside server after-restore --state restored --database @restored.url",
                  module="access_commands")  # fmt: skip
    after.add_argument("--database", metavar="URL",
                       help="the restored database, or @FILE that holds its URL (default: what the state "
                            "folder remembers)")  # fmt: skip


def _add_evidence(commands: Any) -> None:
    show = _leaf(commands, "evidence", "", "print what a third party needs to check a bill's seal",
                 "tableside server evidence 17 > bill-17.json")  # fmt: skip
    show.add_argument("bill", type=int, help="the bill's number")
    show.set_defaults(run=guarded("server.evidence_commands:show"))
    check = commands.add_parser(
        "check-evidence",
        help="check a bill's evidence with the terminal's public key alone",
        description="Check a bill's evidence offline: no server, no state folder, only the public key.",
        epilog="example:\n  tableside server check-evidence bill-17.json --key t-0001.der",
        formatter_class=_RAW,
    )
    check.add_argument("file", type=Path, help="the document `evidence` printed; - reads it from stdin")
    check.add_argument("--key", type=Path, required=True, metavar="DER",
                       help="the terminal's public key, DER SubjectPublicKeyInfo of an RSA-2048 "
                            "key")  # fmt: skip
    check.set_defaults(run=guarded("server.evidence_commands:check"))


def _add_broker_config(commands: Any) -> None:
    parser = _leaf(commands, "broker-config", "broker_config",
                   "write mosquitto's configuration, passwords and access list for this site (again after "
                   "terminals were registered, suspended or given a password: a running mosquitto reads it)",
                   "tableside server broker-config --out broker --listen 0.0.0.0:1883",
                   module="broker_commands")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--listen", default="127.0.0.1:1883", metavar="HOST:PORT",
                        help="where mosquitto is to listen (default: %(default)s)")  # fmt: skip
    parser.add_argument("--site", default="demo",
                        help="its name, where no server has run yet (default: %(default)s)")  # fmt: skip
    parser.add_argument("--run-as", metavar="USER",
                        help="whom mosquitto becomes when root starts it, often mosquitto (default: the user "
                             "of this command)")  # fmt: skip
