"""The event log: one row per change that is not a plain order; audit trail and feed of live views."""

from __future__ import annotations

import json
from collections.abc import Mapping

from server.storage.transaction import Transaction

REASON_MAX = 200
AUTHOR_MAX = 80


def append_event(
    transaction: Transaction,
    site: str,
    lsn: int,
    kind: str,
    body: Mapping[str, object],
    *,
    author: str,
    now_s: int,
    reason: str = "",
) -> None:
    """Add the event of this LSN; it can never be changed or deleted."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    transaction.execute(
        "INSERT INTO event (site, lsn, kind, author, reason, body, created_at) VALUES (?,?,?,?,?,?,?)",
        (site, lsn, kind, author[:AUTHOR_MAX], reason[:REASON_MAX], text, now_s),
    )
