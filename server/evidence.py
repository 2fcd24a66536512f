"""A bill as evidence: everything a third party needs to check the device's seal, and the check itself.

The document carries the device's public key, the seal and every final answer the seal covers, each with the
op as the device sent it. Whoever trusts the public key (and nothing else) can check offline: the signature
is the device's; the chain over the answers, recomputed from the ops' own bytes, is the one that was signed;
the amount is the one that was signed. Answers of other devices at the table, and orders that staff merged
in, are listed as not covered. A bill without a seal says so; it is never made to look sealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from server.domain.seals import ChainLink, claim_for
from server.errors import ServerError
from server.ordering import bills
from server.storage.transaction import Transaction
from server.wire.errors import Refusal
from server.wire.ops import Status
from server.wire.requests import BillClaim
from server.wire.rsa import VerifyKey, kid_of

SCHEMA = "tableside.bill-evidence/1"

# An op begins with array head, type and op-id; its body may be anything a terminal signed for.
_OP_ID_HEAD = b"\x4c"
_OP_ID_END = 20


class EvidenceError(ServerError):
    """The evidence is not there, or does not hold; the sentence says what is wrong."""

    code = "EVIDENCE"
    refused = True


@dataclass(frozen=True, slots=True)
class Proven:
    """What a checked document proves; amounts in minor units."""

    site: str
    device: str
    kid: str
    bill: int
    total_minor: int
    answers: int
    committed: int


def collect(transaction: Transaction, site: str, number: int) -> dict[str, Any]:
    """The evidence of one bill as JSON values. Raises: EvidenceError for an unknown bill."""
    bill = bills.find_bill(transaction, site, number)
    if bill is None:
        raise EvidenceError(f"there is no bill {number}")
    seal, first_lsn, last_lsn = transaction.execute(
        "SELECT b.seal, c.first_lsn, b.last_lsn FROM bill b "
        "LEFT JOIN device_chain c ON c.seating = b.seating AND c.device = b.device "
        "WHERE b.site = ? AND b.bill = ?",
        (site, number),
    ).fetchone()
    answers = transaction.execute(
        "SELECT op_id, op_hash, op, status, arg, order_number, total_minor, lsn FROM answer "
        "WHERE site = ? AND seating = ? AND device = ? AND lsn BETWEEN ? AND ? ORDER BY lsn",
        (site, bill.seating, bill.device or "", first_lsn or 0, last_lsn or 0),
    ).fetchall()
    covered = {row[5] for row in answers if row[5]}
    orders = transaction.execute(
        "SELECT order_number FROM orders WHERE site = ? AND seating = ? ORDER BY order_number",
        (site, bill.seating),
    ).fetchall()
    spki = transaction.execute(
        "SELECT spki FROM device WHERE site = ? AND device = ?", (site, bill.device or "")
    ).fetchone()
    names = ("op_id", "op_hash", "op", "status", "arg", "order_number", "total_minor", "lsn")
    return {
        "schema": SCHEMA, "site": site, "bill": number, "state": bill.state.value,
        "total_minor": bill.total_minor, "tax_minor": bill.tax_minor, "rounding": bill.rounding.value,
        "paid_minor": bill.paid_minor, "device": bill.device, "spki": _hex(spki[0] if spki else None),
        "kid": kid_of(bytes(spki[0])).hex() if spki else None, "sealed": seal is not None,
        "seal": _hex(seal),
        "answers": [
            dict(zip(names, (*map(_hex, row[:3]), *row[3:]), strict=True)) for row in answers
        ],
        "orders_not_covered": [row[0] for row in orders if row[0] not in covered],
    }  # fmt: skip


def _hex(value: bytes | None) -> str | None:
    return None if value is None else bytes(value).hex()


def check(document: Mapping[str, Any], spki: bytes) -> Proven:
    """Check a document with the device's public key alone (DER SubjectPublicKeyInfo, RSA-2048).

    Raises: EvidenceError with the first thing that does not hold.
    """
    try:
        return _check(document, spki)
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"this is not a document of the form {SCHEMA} ({error})") from error
    except Refusal as refusal:
        raise EvidenceError(f"the seal does not hold: {refusal.detail or refusal.code}") from refusal


def _check(document: Mapping[str, Any], spki: bytes) -> Proven:
    if document["schema"] != SCHEMA:
        raise EvidenceError(f"this is a document of the form {document['schema']!r}, not {SCHEMA}")
    if not document["sealed"] or document["seal"] is None:
        raise EvidenceError(f"bill {document['bill']} is unsealed: its device never signed it")
    key = VerifyKey(spki, 2048)
    claim = BillClaim.open(
        bytes.fromhex(document["seal"]), key, str(document["site"]), str(document["device"])
    )
    links = [_link(answer) for answer in document["answers"]]
    if not links:
        raise EvidenceError("the document has no answers to check the seal against")
    if claim_for(links, int(document["bill"]), int(document["total_minor"])) != claim:
        raise EvidenceError("the seal is the device's, but covers other answers or another amount than these")
    committed = sum(1 for link in links if link.status == Status.COMMITTED)
    return Proven(
        str(document["site"]), str(document["device"]), kid_of(spki).hex(), claim.bill, claim.total_minor,
        claim.count, committed,
    )  # fmt: skip


def _link(answer: Mapping[str, Any]) -> ChainLink:
    """An answer as the chain has it; the op's own bytes count, where they were kept."""
    op_id, op_hash = bytes.fromhex(answer["op_id"]), bytes.fromhex(answer["op_hash"])
    if answer["op"] is not None:
        data = bytes.fromhex(answer["op"])
        if sha256(data).digest() != op_hash or _OP_ID_HEAD + op_id not in data[:_OP_ID_END]:
            raise EvidenceError(f"the op {op_id.hex()} is not the one its answer is about")
    return ChainLink(op_id, op_hash, int(answer["status"]), int(answer["total_minor"]))
