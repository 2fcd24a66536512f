"""State-changing calls that may be repeated: the effect and the remembered answer share one transaction.

The first call with a key stores its answer; the same call again gets that answer and has no effect; another
call under the same key is refused. A refused call stores nothing: its key may be used again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from server.storage.database import Database, StorageError, bump_admin_revision
from server.storage.transaction import Transaction, as_psycopg
from server.web.access import Caller
from server.web.problems import Problem

KEEP_S = 48 * 3600
_PRUNE_AT_MOST = 64

Execute = Callable[[str, Sequence[Any]], Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One state-changing call: who, under which key, and the hash of everything it asks for."""

    caller: Caller
    key: str
    request_hash: bytes
    now_s: int

    @property
    def author(self) -> str:
        """Who did it, for the event log."""
        return f"{self.caller.role}:{self.caller.name}"


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer to give; ``repeated`` when it was given before."""

    status: int
    body: bytes
    repeated: bool


def as_json(value: BaseModel | dict[str, Any]) -> bytes:
    """The bytes of an answer."""
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Once:
    """Writer job: run ``job`` unless its call was answered before, and remember its answer."""

    site: str
    call: Call
    job: Callable[[Transaction], BaseModel | dict[str, Any]]
    status: int = 200

    def __call__(self, transaction: Transaction) -> Stored:
        """Raises: Problem(key_reused), whatever the job raises; nothing is stored then."""
        return _once(self.site, self.call, transaction.execute, lambda: self.job(transaction), self.status)


class Joined(Database):
    """A database whose every transaction is the one that is already open."""

    def __init__(self, database: Database, connection: Connection) -> None:
        super().__init__(database.path, database.engine)
        self._connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """The open transaction; the one who opened it commits."""
        yield self._connection

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """Like ``begin``, and marks the change."""
        yield self._connection
        bump_admin_revision(self._connection)


def once_by_admin(
    database: Database,
    site: str,
    call: Call,
    change: Callable[[Database], BaseModel | dict[str, Any]],
    status: int,
) -> Stored:
    """Like ``Once`` for a change of the registry; blocks its thread. Raises: Problem(key_reused),
    StorageError (locked, full, read-only: nothing was stored), the change's own errors.
    """
    try:
        return _once_in(database, site, call, change, status)
    except OperationalError as error:
        raise StorageError(
            f"the database {database.name} took no change of the registry: {error.orig}"
        ) from error


def _once_in(
    database: Database,
    site: str,
    call: Call,
    change: Callable[[Database], BaseModel | dict[str, Any]],
    status: int,
) -> Stored:
    with database.begin() as connection:

        def execute(sql: str, parameters: Sequence[Any]) -> Any:
            spelled = sql if database.dialect == "sqlite" else as_psycopg(sql)
            return connection.exec_driver_sql(spelled, tuple(parameters))

        return _once(site, call, execute, lambda: change(Joined(database, connection)), status)


def _once(
    site: str, call: Call, execute: Execute, act: Callable[[], BaseModel | dict[str, Any]], status: int
) -> Stored:
    row = execute(
        "SELECT request_hash, status, body FROM call_result WHERE site = ? AND token_id = ? AND key = ?",
        (site, call.caller.token_id, call.key),
    ).fetchone()
    if row is not None:
        if bytes(row[0]) != call.request_hash:
            raise Problem(
                422,
                "key_reused",
                "This Idempotency-Key belongs to another call; use a new key for each call.",
            )
        return Stored(int(row[1]), bytes(row[2]), repeated=True)
    body = as_json(act())
    execute(
        "INSERT INTO call_result (site, token_id, key, request_hash, status, body, created_at) "
        "VALUES (?,?,?,?,?,?,?)",
        (site, call.caller.token_id, call.key, call.request_hash, status, body, call.now_s),
    )
    execute(
        "DELETE FROM call_result WHERE (site, token_id, key) IN (SELECT site, token_id, key FROM call_result "
        "WHERE site = ? AND created_at < ? ORDER BY created_at LIMIT ?)",
        (site, call.now_s - KEEP_S, _PRUNE_AT_MOST),
    )
    return Stored(status, body, repeated=False)
