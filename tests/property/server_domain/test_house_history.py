"""An evening's history on both databases is the model's."""

from __future__ import annotations

from database_kit import POSTGRESQL
from evening_more import LongEvening
from history_kit import examples
from hypothesis import settings


class PostgresEvening(LongEvening):
    """The same on PostgreSQL."""

    kind = POSTGRESQL


TestEvening = LongEvening.TestCase
TestEvening.settings = settings(max_examples=examples(20), stateful_step_count=40, deadline=None)
TestPostgresEvening = PostgresEvening.TestCase
TestPostgresEvening.settings = settings(max_examples=examples(4), stateful_step_count=40, deadline=None)
