"""Rules of the database that are more than a constraint, as triggers: for SQLite and for PostgreSQL.

No two live bookings of a table overlap; a payment is added to its bill and a refund taken off again (whose
CHECKs then judge the sums); payments, refunds, events and the steps of lines are never changed or deleted. A
broken rule aborts the statement with the rule's name in the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

_APPEND_ONLY = ("payment", "refund", "event")

_SQLITE = [
    *(
        f"""CREATE TRIGGER booking_overlap_{when.lower()} BEFORE {when} ON booking_table WHEN NEW.live = 1
        BEGIN SELECT RAISE(ABORT, 'booking_overlap') FROM booking_table b
        WHERE b.site = NEW.site AND b.table_id = NEW.table_id AND b.live = 1 AND b.booking <> NEW.booking
        AND b.start_at < NEW.end_at AND NEW.start_at < b.end_at; END"""
        for when in ("INSERT", "UPDATE")
    ),
    """CREATE TRIGGER payment_counts AFTER INSERT ON payment
    BEGIN UPDATE bill SET paid_minor = paid_minor + NEW.amount_minor
    WHERE site = NEW.site AND bill = NEW.bill; END""",
    """CREATE TRIGGER refund_counts AFTER INSERT ON refund
    BEGIN
    UPDATE bill SET paid_minor = paid_minor - NEW.amount_minor WHERE site = NEW.site
    AND bill = (SELECT p.bill FROM payment p WHERE p.site = NEW.site AND p.payment = NEW.payment);
    UPDATE payment SET refunded_minor = refunded_minor + NEW.amount_minor
    WHERE site = NEW.site AND payment = NEW.payment;
    END""",
    """CREATE TRIGGER payment_fixed BEFORE UPDATE OF bill, tender, reference, amount_minor ON payment
    BEGIN SELECT RAISE(ABORT, 'append_only'); END""",
    *(
        f"CREATE TRIGGER {table}_fixed BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'append_only'); END"
        for table in ("refund", "event")
    ),
    *(
        f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, 'append_only'); END"
        for table in _APPEND_ONLY
    ),
]

_POSTGRESQL = [
    "CREATE EXTENSION IF NOT EXISTS btree_gist",
    """ALTER TABLE booking_table ADD CONSTRAINT booking_overlap EXCLUDE USING gist
    (site WITH =, table_id WITH =, int8range(start_at, end_at) WITH &&) WHERE (live = 1)""",
    """CREATE FUNCTION tableside_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'append_only' USING ERRCODE = '23514'; END $$""",
    """CREATE FUNCTION tableside_payment_counts() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE bill SET paid_minor = paid_minor + NEW.amount_minor
    WHERE site = NEW.site AND bill = NEW.bill; RETURN NULL; END $$""",
    """CREATE FUNCTION tableside_refund_counts() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE bill SET paid_minor = paid_minor - NEW.amount_minor WHERE site = NEW.site
    AND bill = (SELECT p.bill FROM payment p WHERE p.site = NEW.site AND p.payment = NEW.payment);
    UPDATE payment SET refunded_minor = refunded_minor + NEW.amount_minor
    WHERE site = NEW.site AND payment = NEW.payment; RETURN NULL; END $$""",
    """CREATE TRIGGER payment_counts AFTER INSERT ON payment FOR EACH ROW
    EXECUTE FUNCTION tableside_payment_counts()""",
    """CREATE TRIGGER refund_counts AFTER INSERT ON refund FOR EACH ROW
    EXECUTE FUNCTION tableside_refund_counts()""",
    """CREATE TRIGGER payment_fixed BEFORE UPDATE OF bill, tender, reference, amount_minor ON payment
    FOR EACH ROW EXECUTE FUNCTION tableside_append_only()""",
    *(
        f"CREATE TRIGGER {table}_fixed BEFORE UPDATE ON {table} FOR EACH ROW "
        f"EXECUTE FUNCTION tableside_append_only()"
        for table in ("refund", "event")
    ),
    *(
        f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} FOR EACH ROW "
        f"EXECUTE FUNCTION tableside_append_only()"
        for table in _APPEND_ONLY
    ),
]

_POSTGRESQL_FUNCTIONS = ("append_only", "payment_counts", "refund_counts")


def install(execute: Callable[[str], object], dialect: str) -> None:
    """Make the triggers in a database that has the tables; ``execute`` runs one statement."""
    _each(execute, _SQLITE if dialect == "sqlite" else _POSTGRESQL)


def install_kitchen(execute: Callable[[str], object], dialect: str) -> None:
    """Make the triggers of the tables that came with version 4; those of ``install`` are there."""
    each, call = ("", "BEGIN SELECT RAISE(ABORT, 'append_only'); END")
    if dialect == "postgresql":
        each, call = ("FOR EACH ROW ", "EXECUTE FUNCTION tableside_append_only()")
    for name, what in (("fixed", "UPDATE"), ("kept", "DELETE")):
        execute(f"CREATE TRIGGER line_step_{name} BEFORE {what} ON line_step {each}{call}")


def remove_functions(execute: Callable[[str], object], dialect: str) -> None:
    """Drop what is left after the tables were dropped (triggers go with them)."""
    if dialect == "postgresql":
        _each(execute, [f"DROP FUNCTION tableside_{name}()" for name in _POSTGRESQL_FUNCTIONS])


def _each(execute: Callable[[str], object], statements: Iterable[str]) -> None:
    for statement in statements:
        execute(statement)
