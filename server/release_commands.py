"""What ``tableside release publish|rollout|...|status`` do to a state folder, also while it is served."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from server.admin_commands import opened, print_table
from server.config import KEYS_NAME, ConfigError, check_name
from server.devices.keys import KeyStore
from server.releases import files, words
from server.releases.lineage import verified_step
from server.releases.publishing import plan_of, prepare, share_of
from server.releases.rollout import RolloutState
from server.releases.views import release_view, retired, step_view, terminal_view
from server.storage import release_reads, releases, update_commands
from server.storage.admin import AdminError
from server.storage.database import Database
from server.wire.commands import WHAT, Layer

_STATES = {"pause": RolloutState.PAUSED, "resume": RolloutState.RUNNING, "halt": RolloutState.HALTED}


def publish(args: argparse.Namespace) -> int:
    """`publish`."""
    with opened(args) as (database, site):
        root = KeyStore(args.state / KEYS_NAME, site).root
        bundle = files.load(args.folder, root)
        rotations = [verified_step(path.read_bytes(), root) for path in args.rotation]
        new = prepare(bundle)
        plan = plan_of(new.ref, args.percent, args.group, args.halt_percent, args.halt_failures)
        fresh = releases.publish(database, site, new, plan, int(time.time()), rotations)
        left = retired(release_reads.published(database, site)) if rotations else []
    ref, version = new.ref.hex(), words.version(new.version)
    for warning in left:
        print(f"tableside server: {warning}", file=sys.stderr)
    if args.json:
        print(
            json.dumps(
                {
                    "reference": ref,
                    "version": version,
                    "hardware": new.hardware,
                    "new": fresh,
                    "warnings": left,
                }
            )
        )
        return 0
    size = bundle.manifest.size
    print(
        f"published {version} for {new.hardware}, {size} bytes"
        if fresh
        else f"{version} is published already"
    )
    print(f"reference {ref}")
    if fresh and not plan.share:
        print(f"no terminal gets it yet: tableside release rollout {version} --percent 1")
    return 0


@contextmanager
def _chosen(args: argparse.Namespace) -> Iterator[tuple[Database, str, bytes]]:
    """The database, the site, and the release a word names: version, reference, or its beginning."""
    with opened(args) as (database, site):
        word = str(args.release).lower()
        known = release_reads.published(database, site)
        found = [
            one for one in known
            if words.version(one.version) == word or (len(word) >= 4 and one.ref.hex().startswith(word))
        ]  # fmt: skip
        if not found:
            raise releases.ReleaseError(
                "UNKNOWN_RELEASE",
                f"no release {word!r} is published here; `release list` shows those that are",
            )
        if len(found) > 1:
            refs = ", ".join(f"{one.ref.hex()} ({one.hardware})" for one in found)
            raise ConfigError(f"{word!r} names several releases; give the reference: {refs}")
        yield database, site, found[0].ref


def rollout(args: argparse.Namespace) -> int:
    """`rollout`."""
    changed: dict[str, int | str] = {}
    if args.percent is not None:
        changed["share"] = share_of(args.percent)
    if args.group is not None:
        changed["group"] = check_name("group", args.group) if args.group else ""
    for name in ("halt_percent", "halt_failures"):
        if getattr(args, name) is not None:
            changed[name] = getattr(args, name)
    if not changed:
        raise ConfigError("say what to change, for example --percent 25")
    with _chosen(args) as (database, site, ref):
        plan_of(ref, "0", None, args.halt_percent, args.halt_failures)  # judges the numbers
        plan = releases.set_rollout(database, site, ref, int(time.time()), **changed)
    whom = f"of group {plan.group}" if plan.group else "of all terminals"
    _say(args, {"reference": ref.hex(), "share_percent": plan.share / 100, "group": plan.group},
         f"{ref.hex()}: {words.percent(plan.share)} {whom}, {plan.state}")  # fmt: skip
    return 0


def move(args: argparse.Namespace) -> int:
    """`pause`, `resume` and `halt`."""
    target = _STATES[args.release_command]
    with _chosen(args) as (database, site, ref):
        before = releases.move(
            database, site, ref, target, args.reason, int(time.time()), despite=args.despite_failures
        )
    _say(
        args,
        {"reference": ref.hex(), "state": target, "before": before},
        f"{ref.hex()}: {before} -> {target}",
    )
    return 0


def withdraw(args: argparse.Namespace) -> int:
    """`withdraw`."""
    with _chosen(args) as (database, site, ref):
        releases.withdraw(database, site, ref)
    _say(args, {"reference": ref.hex()}, f"{ref.hex()} is no longer published")
    return 0


def group(args: argparse.Namespace) -> int:
    """`group`."""
    name = check_name("group", args.name) if args.name else ""
    with opened(args) as (database, site):
        releases.set_group(database, site, args.device, name)
    _say(args, {"device": args.device, "group": name},
         f"{args.device} is in group {name}" if name else f"{args.device} is in no group")  # fmt: skip
    return 0


def command(args: argparse.Namespace) -> int:
    """`cancel` and `release-quarantine`."""
    with opened(args) as (database, site):
        layer, what = Layer[args.layer.upper()], WHAT[args.release_command]
        made = update_commands.command(database, site, args.device, layer, what, int(time.time()))
    _say(args, {"device": args.device, "layer": args.layer, "command": args.release_command,
                "number": made.number},
         f"{args.device} is told as soon as it is connected, within a day; "
         f"tableside release history {args.device} shows what becomes of it")  # fmt: skip
    return 0


def _say(args: argparse.Namespace, data: dict[str, Any], sentence: str) -> None:
    print(json.dumps(data) if args.json else sentence)


# ---------------------------------------------------------------- views


def listing(args: argparse.Namespace) -> int:
    """`list`."""
    with opened(args) as (database, site):
        known = release_reads.published(database, site)
    if args.json:
        print(json.dumps([release_view(one) for one in known]))
        return 0
    print_table(
        ("reference", "version", "hardware", "bytes", "rollout"),
        [
            (one.ref.hex(), words.version(one.version), one.hardware, one.size_bytes, one.rollout.state)
            for one in known
        ],
    )
    return 0


def status(args: argparse.Namespace) -> int:
    """`status`."""
    with opened(args) as (database, site):
        stored = release_reads.published(database, site)
        known, warnings = [release_view(one) for one in stored], retired(stored)
        terminals = [terminal_view(one) for one in release_reads.terminals(database, site)]
    if args.json:
        print(json.dumps({"releases": known, "terminals": terminals}))
        return 0
    print_table(
        ("reference", "version", "hardware", "rollout", "share", "group", "installed", "failed", "under way"),
        [
            (
                one["reference"], one["version"], one["hardware"], _shown_state(one),
                f"{one['share_percent']:g} %", one["group"] or "-", one["installed"], one["failed"],
                one["offered"] + one["started"],
            )
            for one in known
        ],
    )  # fmt: skip
    for one in known:
        if one["reason"]:
            print(f"  {one['version']} ({one['hardware']}): {one['reason']}")
    for warning in warnings:
        print(f"  {warning}")
    print()
    print_table(
        ("terminal", "group", "online", "hardware", "runs", "slot", "state", "why"),
        [row for one in terminals for row in _terminal_rows(one)],
    )  # fmt: skip
    return 0


def _terminal_rows(one: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line for a terminal's application, and one for its firmware image if it speaks of one."""
    online = {None: "never seen", True: "yes", False: "no"}[one["online"]]
    yield one["device"], one["group"] or "-", online, *_layer_columns(one)
    if one["image"] is not None:
        yield "", "", "", *_layer_columns(one["image"])


def _layer_columns(one: dict[str, Any]) -> tuple[str, ...]:
    return tuple(one[name] or "-" for name in ("hardware", "version", "slot", "state", "reason"))


def _shown_state(one: dict[str, Any]) -> str:
    """What is happening with a rollout: nobody is offered what a newer release supersedes."""
    instead = one["superseded_by"]
    return one["state"] if instead is None or one["state"] == "halted" else f"superseded by {instead}"


def history(args: argparse.Namespace) -> int:
    """`history`."""
    with opened(args) as (database, site):
        if not release_reads.is_registered(database, site, args.device):
            raise AdminError(
                f"there is no device {args.device!r}; `release status` shows those that are registered"
            )
        steps = [step_view(one) for one in release_reads.history(database, site, args.device)]
    if args.json:
        print(json.dumps(steps))
        return 0
    print_table(
        ("time (UTC)", "release", "runs", "slot", "state", "why"),
        [
            (
                datetime.fromtimestamp(one["at"], UTC).strftime("%Y-%m-%d %H:%M:%S"), one["reference"] or "-",
                one["version"], one["slot"], one["state"], one["reason"] or "-",
            )
            for one in steps
        ],
    )  # fmt: skip
    return 0
