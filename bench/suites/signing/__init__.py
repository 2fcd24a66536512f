"""Suite signing: nobody between terminal and server can change what they say to each other.

One case a row of the threat table in docs/protocol.md, under the name given there. The attacks come over the
hostile link in front of a real terminal, or from an impostor with a registered terminal's keys.
"""

from __future__ import annotations

from importlib import import_module

from bench.suites.signing.common import SUITE

__all__ = ["SUITE"]
CHAPTERS = (  # the order in which their cases run
    "handshake",
    "altered",
    "replayed",
    "delivery",
    "keys",
    "malformed",
    "resumed",
    "house",
    "bills",
    "notices",
    "health",
)
for chapter in CHAPTERS:
    import_module(f"{__name__}.{chapter}")
