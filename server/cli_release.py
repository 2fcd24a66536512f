"""The command lines of ``tableside release``: keys and signing offline, rollouts on a server's state.

Parsers only: what a command needs is imported when it runs. ``build`` needs the firmware and is added by the
bench.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from server.cli_guard import guarded
from server.config import DEFAULT_STATE

_RAW = argparse.RawDescriptionHelpFormatter
_ABOUT = """Build, sign, publish and roll out releases, and see what became of them.

  keygen        once: a root key and a release key; --rotate makes the next release key
  build         the same sources make the same bytes
  sign, verify  offline, with the key files
  publish       put a signed bundle into a server's store; nobody gets it yet
  rollout       offer it to a share of the terminals, all of them or a group
  pause, resume, halt, withdraw, group
  cancel        a terminal gives up the update that is under way there
  release-quarantine  a terminal may try again what failed there
  status        what every terminal runs, and why not the newest; history of one terminal"""
_EXAMPLES = """example:
  tableside release keygen keys
  tableside release build --version 1.1.0 --hardware esp32 --since v1.0.0 --out build/1.1.0
  tableside release sign build/1.1.0 --key keys/release-1.pem
  tableside release verify build/1.1.0 --root keys/root.pub.der
  tableside release publish build/1.1.0 --percent 1
  tableside release status
  tableside release rollout 1.1.0 --percent 100"""
_REFERENCE = "the release: its version, or its reference or the beginning of it"


def add_parser(subparsers: Any) -> Any:
    """Add ``release`` to a parser's subparsers; each command sets ``run(args) -> exit code``.

    Returns the group, for commands that live elsewhere.
    """
    parser = subparsers.add_parser(
        "release",
        help="build, sign, publish and roll out releases",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=_RAW,
    )
    group = parser.add_subparsers(dest="release_command", metavar="COMMAND", required=True)
    _add_keygen(group)
    _add_sign(group)
    _add_verify(group)
    _add_publish(group)
    _add_rollout(group)
    _add_moves(group)
    _add_group(group)
    _add_commands(group)
    _add_views(group)
    return group


def _leaf(group: Any, name: str, command: str, help_: str, example: str, *, offline: bool = False) -> Any:
    parser = group.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=_RAW,
    )
    module = "release_key_commands" if offline else "release_commands"
    parser.set_defaults(run=guarded(f"server.{module}:{command}"))
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    if not offline:
        parser.add_argument(
            "--state",
            type=Path,
            default=DEFAULT_STATE,
            metavar="DIR",
            help="the server's state folder (default: %(default)s)",
        )
    return parser


def _passphrase(parser: Any) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="file whose first line protects the key files (default: no passphrase)",
    )


def _add_keygen(group: Any) -> None:
    parser = _leaf(
        group,
        "keygen",
        "keygen",
        "make a root key and a release key, or the next release key",
        "tableside release keygen keys --passphrase-file phrase.txt",
        offline=True,
    )
    parser.add_argument("folder", type=Path, help="where the key files go; private ones get mode 0600")
    parser.add_argument(
        "--rotate",
        action="store_true",
        help="make the next release key, and the statement that leads terminals to it",
    )
    parser.add_argument(
        "--root", type=Path, metavar="PEM", help="the root key for --rotate (default: FOLDER/root.pem)"
    )
    _passphrase(parser)


def _add_sign(group: Any) -> None:
    parser = _leaf(
        group,
        "sign",
        "sign",
        "sign a built bundle with a release key, or a full ESP32 image",
        "tableside release sign build/1.1.0 --key keys/release-1.pem",
        offline=True,
    )
    parser.add_argument(
        "what", type=Path, help="folder from `release build`; with --secure-boot-key an image"
    )
    parser.add_argument("--key", type=Path, metavar="PEM", help="the release key, as `keygen` wrote it")
    parser.add_argument(
        "--certificate",
        type=Path,
        metavar="CBOR",
        help="the root's certificate, where the key's file holds none",
    )
    parser.add_argument(
        "--secure-boot-key",
        type=Path,
        metavar="PEM",
        help="sign a full image for secure boot v2 (RSA-3072) with esptool's espsecure",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the signed image (default: IMAGE with .signed.bin)"
    )
    _passphrase(parser)


def _add_verify(group: Any) -> None:
    parser = _leaf(
        group,
        "verify",
        "verify",
        "check a signed bundle with the root's public key alone",
        "tableside release verify build/1.1.0 --root keys/root.pub.der",
        offline=True,
    )
    parser.add_argument("folder", type=Path, help="folder with offer.cbor and bundle.bin")
    parser.add_argument("--root", type=Path, required=True, metavar="DER", help="the root's public key")


def _percentage(parser: Any, default: str | None) -> None:
    parser.add_argument(
        "--percent",
        default=default,
        metavar="P",
        help="share of the terminals that get it, 0 to 100, in steps of 0.01"
        + ("" if default is None else " (default: %(default)s)"),
    )
    parser.add_argument("--group", metavar="NAME", help='only terminals of this group; "" for all again')
    parser.add_argument(
        "--halt-percent",
        type=int,
        metavar="P",
        help="halt by itself when this share of the finished ones failed (default: 20)",
    )
    parser.add_argument(
        "--halt-failures", type=int, metavar="N", help="but not before so many failed (default: 1)"
    )


def _add_publish(group: Any) -> None:
    parser = _leaf(
        group,
        "publish",
        "publish",
        "put a signed bundle into the server's store",
        "tableside release publish build/1.1.0 --percent 1",
    )
    parser.add_argument("folder", type=Path, help="folder with offer.cbor and bundle.bin")
    parser.add_argument(
        "--rotation",
        type=Path,
        action="append",
        default=[],
        metavar="CBOR",
        help="statement that leads terminals to the key it is signed with; repeatable",
    )
    _percentage(parser, "0")


def _add_rollout(group: Any) -> None:
    parser = _leaf(
        group,
        "rollout",
        "rollout",
        "offer a published release to a share of the terminals",
        "tableside release rollout 1.1.0 --percent 25 --group terrace",
    )
    parser.add_argument("release", help=_REFERENCE)
    _percentage(parser, None)


def _add_moves(group: Any) -> None:
    for name, help_ in (
        ("pause", "offer a release to nobody for now; terminals that are fetching it may end"),
        ("resume", "go on with a paused rollout"),
        ("halt", "stop a rollout: nothing of it is offered or served any more"),
    ):
        parser = _leaf(group, name, "move", help_, f"tableside release {name} 1.1.0")
        parser.add_argument("release", help=_REFERENCE)
        parser.add_argument("--reason", default="", help="a sentence for whoever asks later")
        parser.set_defaults(despite_failures=False)
        if name == "resume":
            parser.add_argument("--despite-failures", action="store_true", help="also when it was halted")
    parser = _leaf(
        group,
        "withdraw",
        "withdraw",
        "take a release out of the store",
        "tableside release withdraw 0123456789abcdef",
    )
    parser.add_argument("release", help=_REFERENCE)


def _add_group(group: Any) -> None:
    parser = _leaf(
        group,
        "group",
        "group",
        "put a terminal into a group for rollouts",
        "tableside release group t-0001 terrace",
    )
    parser.add_argument("device", help="the terminal")
    parser.add_argument("name", help='the group\'s name; "" takes it out of its group')


def _add_commands(group: Any) -> None:
    for name, help_ in (
        ("cancel", "make a terminal give up the update that is under way there, on trial or not"),
        ("release-quarantine", "let a terminal try again what failed or was cancelled there"),
    ):
        parser = _leaf(group, name, "command", help_, f"tableside release {name} t-0001 --layer image")
        parser.add_argument("device", help="the terminal")
        parser.add_argument(
            "--layer",
            choices=["application", "image"],
            default="application",
            help="its application's updates, or its firmware images' (default: %(default)s)",
        )


def _add_views(group: Any) -> None:
    _leaf(group, "list", "listing", "show what is published", "tableside release list --json")
    _leaf(
        group,
        "status",
        "status",
        "show every release's rollout, and what every terminal runs",
        "tableside release status --json",
    )
    parser = _leaf(
        group,
        "history",
        "history",
        "show the steps of one terminal's updates",
        "tableside release history t-0001",
    )
    parser.add_argument("device", help="the terminal")
