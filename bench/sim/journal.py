"""A run's memory: what happened, in order; counters of faults; violations; the digest over all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import sha256

from bench.history.events import Violation

MAX_VIOLATIONS = 50


class Journal:
    """Everything observed in one run. The digest covers decoded events only: signatures are random."""

    def __init__(self, now_s: Callable[[], float], trace: Callable[[str], None] | None = None) -> None:
        self.faults: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self._now_s = now_s
        self._hash = sha256()
        self._trace = trace

    def event(self, name: str, *fields: object) -> None:
        """One thing that happened now."""
        line = f"{self._now_s():.6f} {name} " + " ".join(str(field) for field in fields)
        self._hash.update(line.encode() + b"\n")
        if self._trace is not None:
            self._trace(line)

    def fault(self, name: str, *fields: object) -> None:
        """A fault was done to the system."""
        self.faults[name] += 1
        self.event("fault", name, *fields)

    def violated(self, code: str, text: str) -> None:
        """A promise was broken, seen while it happened."""
        self.event("violation", code)
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(code, f"at {self._now_s():.3f} s: {text}"))

    @property
    def digest(self) -> str:
        """SHA-256 over everything so far, hex."""
        return self._hash.hexdigest()
