"""The tables of staged rollouts, on the same metadata as ``schema``: who is offered what, what came of it.

``release`` itself, the bundles, is in ``schema``. Shares are in hundredths of a percent.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, LargeBinary, String, Table, Text

from server.storage.schema import Number, metadata

ROLLOUT_STATES = ("running", "paused", "halted")
OUTCOMES = ("offered", "started", "installed", "failed")
WHOLE_SHARE = 10_000

# Who gets a release: a share of the terminals of a group ("" for all), until it is paused or halts.
rollout = Table(
    "rollout",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
    Column("state", String(8), nullable=False),
    Column("share", Number, nullable=False),
    Column("group_name", String(32), nullable=False),
    Column("halt_percent", Number, nullable=False),
    Column("halt_failures", Number, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "ref"], ["release.site", "release.ref"]),
    CheckConstraint(f"state IN {ROLLOUT_STATES}", name="rollout_state_known"),
    CheckConstraint(f"share BETWEEN 0 AND {WHOLE_SHARE}", name="rollout_share"),
    CheckConstraint("halt_percent BETWEEN 1 AND 100 AND halt_failures >= 1", name="rollout_halts"),
)

# What became of a release on each terminal it was offered to; kept when the release is withdrawn.
rollout_device = Table(
    "rollout_device",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("ref", LargeBinary(8), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("version", Number, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Number, nullable=False),
    Column("changed_at", Number, nullable=False),
    CheckConstraint(f"outcome IN {OUTCOMES}", name="rollout_outcome_known"),
    Index("rollouts_of_a_device", "site", "device", "changed_at"),
)

# The last steps of each terminal's updates, in its own words (not authenticated: for views only).
update_history = Table(
    "update_history",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("number", Number, primary_key=True),
    Column("ref", LargeBinary(8)),
    Column("running", Number, nullable=False),
    Column("slot", Number, nullable=False),
    Column("state", Number, nullable=False),
    Column("reason", Number, nullable=False),
    Column("at", Number, nullable=False),
)

# What a terminal said when it asked for an update, once for each hardware class; without a row it never did.
update_question = Table(
    "update_question",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("hardware", String(32), primary_key=True),
    Column("running", Number, nullable=False),
    Column("key_epoch", Number, nullable=False),
    Column("asked_at", Number, nullable=False),
)

device_group = Table(
    "device_group",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("group_name", String(32), nullable=False),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
)

# What an operator said to a terminal about its updates: the newest command.
update_command = Table(
    "update_command",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
    Column("number", Number, nullable=False),
    Column("layer", Number, nullable=False),
    Column("what", Number, nullable=False),
    Column("asked_at", Number, nullable=False),
    ForeignKeyConstraint(["site", "device"], ["device.site", "device.device"]),
    CheckConstraint(
        "number BETWEEN 1 AND 4294967295 AND layer IN (0, 1) AND what IN (0, 1)", name="update_command_known"
    ),
)

# Which image a number stands for: one number never names two images.
image_pin = Table(
    "image_pin",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("hardware", String(32), primary_key=True),
    Column("number", Number, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
)

# From one release key to the next, for terminals that know an older one; ``epoch`` is the newer key's.
key_rotation = Table(
    "key_rotation",
    metadata,
    Column("site", String(32), primary_key=True),
    Column("epoch", Number, primary_key=True),
    Column("frame", LargeBinary, nullable=False),
)
