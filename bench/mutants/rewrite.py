"""Load modules of server and firmware with some of their lines replaced."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType

_OURS = ("server", "terminal", "boards", "bench.sim", "bench.history", "bench.staff", "bench.mutants.checks")


class StaleEdit(Exception):
    """The text an edit replaces is not there, or not once: the planted bug has to be written anew."""

    code = "STALE_EDIT"


@dataclass(frozen=True, slots=True)
class Edit:
    """In the source of ``module``, ``old`` (which is there exactly once) becomes ``new``."""

    module: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The changed source. Raises: StaleEdit."""
        found = source.count(self.old)
        if found != 1:
            raise StaleEdit(f"{self.module}: {self.old.strip().splitlines()[0]!r} is there {found} times")
        return source.replace(self.old, self.new)


class _RewritingLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, edits: Sequence[Edit]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for edit in self._edits:
            source = edit.apply(source)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        mine = [edit for edit in self._edits if edit.module == fullname]
        if not mine:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        spec.loader = _RewritingLoader(fullname, spec.origin, mine)
        return spec


def plant(edits: Sequence[Edit]) -> None:
    """Forget every module of this project that could hold on to the old code, and load changed ones from now
    on. For a process that does nothing else: there is no way back.
    """
    for name in sorted(sys.modules):
        if any(name == ours or name.startswith(ours + ".") for ours in _OURS):
            del sys.modules[name]
    for package in ("bench", "bench.mutants"):
        for ours in ("sim", "history", "staff", "checks"):
            if package in sys.modules and hasattr(sys.modules[package], ours):
                delattr(sys.modules[package], ours)
    sys.meta_path.insert(0, _Finder(edits))
