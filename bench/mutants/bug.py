"""What a planted bug is."""

from __future__ import annotations

from dataclasses import dataclass

from bench.mutants.rewrite import Edit


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug. ``check`` names the check that must notice it; simulated runs where it is empty."""

    name: str
    bug: str
    edits: tuple[Edit, ...]
    check: str = ""


def mutant(name: str, bug: str, module: str, old: str, new: str, check: str = "") -> Mutant:
    """A bug in one place: in the source of ``module``, ``old`` becomes ``new``."""
    return Mutant(name, bug, (Edit(module, old, new),), check)
