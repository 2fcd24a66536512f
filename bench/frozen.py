"""Which Python files an image is made of, and the digest that names it.

One rule for whatever holds the files: a checkout on disk, or a git revision. The digest goes into the image
as `terminal.trust.IMAGE` and into every bundle made over that image. It is taken over the files' names and
contents; left out are `terminal/trust.py` itself and what only a bench adds to an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.errors import BenchError
from bench.paths import ROOT
from server.releases.images import image_digest

FOLDER = "firmware"
TRUST = "terminal/trust.py"
BENCH_ONLY = frozenset({"terminal/agent.py", "campaign.py"})  # cut the flash and flood the link
_OTHER_INTERPRETERS = frozenset({"terminal/mqtt/transport_cpython.py"})

# Folder below firmware/boards -> which of its files; None: all. A later folder's file wins.
_EMULATED: tuple[tuple[str, frozenset[str] | None], ...] = (("shared/frozen", None), ("common", None))
_LAYERS = {
    "qemu": (*_EMULATED, ("qemu_rv32", frozenset({"board.py"}))),
    # esp32 and partitions: a model of a chip
    "process": (*_EMULATED, ("process", frozenset({"board.py", "esp32.py", "partitions.py"}))),
    "esp32": (("shared/frozen", frozenset({"_boot.py", "main.py"})), ("common", None), ("esp32", None)),
    "host": (),
}
_RENAMED = {("esp32", "_boot.py"): "boot.py"}  # emulated boards freeze it: it mounts, and refuses FAT
_BOARDS = {
    "qemu-rv32": "qemu",
    "process": "process",
    "esp32-xtensawin": "esp32",
    "esp32-rv32imc": "esp32",
    "pi": "host",
}


def board_of(hardware: str) -> str:
    """The board whose images a hardware class has. Raises: BenchError(UNKNOWN_HARDWARE)."""
    if hardware not in _BOARDS:
        raise BenchError(
            "UNKNOWN_HARDWARE",
            f"There is no hardware class {hardware!r}; there are: {', '.join(_BOARDS)}.",
        )
    return _BOARDS[hardware]


def names(paths: Iterable[str], board: str) -> dict[str, str]:
    """Name in the image of a board -> path below firmware/, of its Python files among `paths`."""
    found = {}
    present = sorted(path for path in paths if path.endswith(".py"))
    for folder, chosen in _LAYERS[board]:
        for path in present:
            place, _, name = path.rpartition("/")
            if place == f"boards/{folder}" and (chosen is None or name in chosen):
                found[_RENAMED.get((board, name), name)] = path
    return found | {path: path for path in present if path.startswith("terminal/")}


def tree(root: Path = ROOT) -> dict[str, bytes]:
    """Path below firmware/ -> content, of every Python file of a checkout."""
    folder = root / FOLDER
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}


def sources(files: Mapping[str, bytes], board: str) -> dict[str, bytes]:
    """Name in the image -> content; `files` by their path below firmware/."""
    return {name: files[path] for name, path in names(files, board).items()}


def digest(image: Mapping[str, bytes]) -> bytes:
    """The digest that names an image made of these sources (name in the image -> content), 32 bytes."""
    left_out = {TRUST} | BENCH_ONLY | _OTHER_INTERPRETERS
    return image_digest({name: body for name, body in image.items() if name not in left_out})


def trust(image: Mapping[str, bytes], root_key: bytes | None) -> bytes:
    """The module that is made with an image: the root key it trusts, and the digest that names it."""
    return f"ROOT_SPKI = {root_key!r}\nIMAGE = {digest(image)!r}\n".encode()
