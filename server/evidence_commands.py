"""``tableside server evidence BILL`` and ``check-evidence FILE``."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing

from server import evidence
from server.config import ConfigError
from server.storage import admin
from server.storage.database import open_database
from server.wire.rsa import load_public


def show(args: argparse.Namespace) -> int:
    """`evidence BILL`: print the document a third party needs."""
    with closing(open_database(args.state)) as database:
        site = admin.only_site(database)
        with closing(database.driver_connection()) as connection:
            document = evidence.collect(connection, site, args.bill)
    print(json.dumps(document, indent=2))
    if not document["sealed"]:
        print(f"bill {args.bill} is unsealed: its device never signed it", file=sys.stderr)
    return 0


def check(args: argparse.Namespace) -> int:
    """`check-evidence FILE --key KEY`: verify a document with the public key alone."""
    text = sys.stdin.read() if str(args.file) == "-" else args.file.read_text("utf-8")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{args.file} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{args.file} is not a JSON object")
    key = args.key.read_bytes()
    load_public(key, 2048)
    proven = evidence.check(document, key)
    print(
        f"bill {proven.bill} of {proven.site}: {proven.total_minor} minor units, sealed by {proven.device} "
        f"(key {proven.kid}) over {proven.answers} answers, {proven.committed} of them committed"
    )
    return 0
