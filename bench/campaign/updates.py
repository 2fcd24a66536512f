"""The updates that run once undisturbed and are interrupted then: what is offered, and how it has to end."""

from __future__ import annotations

from dataclasses import dataclass

from bench.campaign import bundles

INSTALLED, ROLLED_BACK = "new", "rollback"
TRIES_SPENT, STARTS_SPENT, SLOT_BAD, BAD_MANIFEST = 1, 2, 3, 14  # reasons, firmware/terminal/ota/states.py


@dataclass(frozen=True)
class Update:
    """One update of the terminal in service, or of what another update left (`after`).

    `flashed`: the terminal got its image by cable, and what it runs was made over another one; `offer`: a
    release; `outcome`: INSTALLED, or ROLLED_BACK for one of `reasons`.
    """

    offer: str
    outcome: str
    after: str = ""
    flashed: str = ""
    reasons: frozenset[int] = frozenset({TRIES_SPENT, STARTS_SPENT, SLOT_BAD})


UPDATES = {
    "new": Update(bundles.NEW, INSTALLED),
    "bad": Update(bundles.BAD, ROLLED_BACK),
    # more chunks than one run of hashes names, and than are written between two syncs
    "long": Update(bundles.LONG, INSTALLED),
    "lower-floor": Update(bundles.LOWER_FLOOR, INSTALLED),
    # its code gives another number than its manifest
    "liar": Update(bundles.LIAR, ROLLED_BACK, reasons=frozenset({BAD_MANIFEST})),
    "worse": Update(bundles.WORSE, ROLLED_BACK, after="bad"),
    "flashed": Update(bundles.NEW, INSTALLED, flashed=bundles.OTHER_RANGE),
    "flashed-alike": Update(bundles.NEW, INSTALLED, flashed=bundles.OTHER_DIGEST),
}
WHOLE = ("new", "bad")  # interrupted everywhere; of the others a sample is taken
