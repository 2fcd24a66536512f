"""The suites of `bench run`: one file each, holding a `SUITE`; this list is the order they run in."""

from __future__ import annotations

from importlib import import_module

from bench.errors import BenchError
from bench.suites.registry import Suite

NAMES = ("boot", "signing", "menu", "ota", "releases", "attacks", "throughput", "faults")
ON_REQUEST = ("releases", "attacks")  # longer than a main job should be: by its name, or by a case's


def load(name: str) -> Suite:
    """The suite of that name.

    Raises: BenchError(NO_SUCH_SUITE) naming those there are.
    """
    if name not in NAMES:
        raise BenchError("NO_SUCH_SUITE", f"There is no suite {name!r}: choose from {', '.join(NAMES)}.")
    suite = import_module(f"bench.suites.{name}").SUITE
    if not isinstance(suite, Suite):
        raise BenchError("BAD_SUITE", f"bench/suites/{name}.py has no SUITE.")
    return suite


def load_default() -> list[Suite]:
    """The suites that run when none is named."""
    return load_all([name for name in NAMES if name not in ON_REQUEST])


def load_all(names: list[str] | None = None) -> list[Suite]:
    """The chosen suites (all when None), in their fixed order."""
    chosen = list(NAMES) if names is None else names
    for name in chosen:
        if name not in NAMES:
            load(name)
    return [load(name) for name in NAMES if name in chosen]
