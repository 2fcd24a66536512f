"""Who may use the HTTP API, and what its calls were answered: on the same metadata as ``schema``.

A token is stored as the SHA-256 of 32 random bytes and is never shown again. A call's answer is kept under
its Idempotency-Key, written in the transaction that has the call's effect.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from server.storage.schema import metadata

ROLES = ("manager", "waiter", "kitchen", "device")

_Number = BigInteger().with_variant(Integer, "sqlite")

access_token = Table(
    "access_token",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("token_id", String(16), primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("role", String, nullable=False),
    Column("name", String(64), nullable=False),
    Column("device", String(32)),
    Column("created_at", _Number, nullable=False),
    Column("expires_at", _Number),
    Column("revoked_at", _Number),
    CheckConstraint(f"role IN {ROLES}", name="role_known"),
    CheckConstraint("(role = 'device') = (device IS NOT NULL)", name="device_tokens_name_a_device"),
    UniqueConstraint("hash", name="one_token_per_hash"),
)

call_result = Table(
    "call_result",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("token_id", String(16), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("request_hash", LargeBinary(32), nullable=False),
    Column("status", _Number, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", _Number, nullable=False),
    Index("call_results_by_age", "site", "created_at"),
)
