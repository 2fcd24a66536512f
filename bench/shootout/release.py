"""The application that is updated: four files, or one, that say which version they are."""

from __future__ import annotations

from random import Random

NAMES = ("menu.py", "prices.py", "receipt.py", "main.py")
SINGLE = ("main.py",)
_ROWS = 45
_WORDS = ("espresso", "flat white", "cola", "burrata", "tagliatelle", "tiramisu", "still water", "house wine")


def files(version: int, is_single: bool) -> dict[str, bytes]:
    """The application's files at a version, about 1.7 KB each; `STARTED` is set when all of it has run."""
    if is_single:
        parts = [_part(version, name) for name in NAMES]
        return {"main.py": ("\n".join(parts) + "\nSTARTED = [VERSION]\n").encode()}
    made = {name: _part(version, name).encode() for name in NAMES[:-1]}
    imports = "import menu\nimport prices\nimport receipt\n"
    started = "STARTED = [VERSION, menu.VERSION, prices.VERSION, receipt.VERSION]\n"
    made["main.py"] = (imports + _part(version, "main.py") + started).encode()
    return made


def _part(version: int, name: str) -> str:
    random = Random(f"{version} {name}")
    stem = name.removesuffix(".py").upper()
    rows = [
        f'{stem}_{n} = ("{random.choice(_WORDS)}", {random.randrange(100, 3000)})\n' for n in range(_ROWS)
    ]
    return "".join(rows) + f"VERSION = {version}\n"
