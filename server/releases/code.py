"""Compiled modules in a bundle: for which MicroPython and which processor they are, from their first bytes.

A .mpy file begins with "M", the version, a byte of sub-version (bits 0 and 1) and architecture (from bit 2
on, 0 for bytecode alone), and the bits of a small integer; native code needs the sub-version as well as its
own architecture (MicroPython, py/persistentcode.h and .c). A terminal judges the same before it starts a
bundle; here a mistake is found before anybody downloads it.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.wire.errors import Refusal, RefusalCode

MPY_VERSION = 6  # of MicroPython 1.23 to 1.29
MPY_SUB_VERSION = 3
_HEAD_BYTES = 4
_SMALL_INT_BITS = 31
_NAMES = (
    "bytecode", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp", "xtensa",
    "xtensawin", "rv32imc", "debug", "rv64imc",
)  # fmt: skip
# Hardware class -> the architecture whose native code runs there, None where no .mpy does.
_RUNS = {
    "process": "x64",
    "qemu-rv32": "rv32imc",
    "esp32-xtensawin": "xtensawin",
    "esp32-rv32imc": "rv32imc",
    "esp32-bytecode": "bytecode",
    "pi": None,
}


def architecture_of(head: bytes) -> str:
    """Return the architecture a .mpy file's native code is for, "bytecode" without any.

    Raises: Refusal(WRONG_CODE) for what the MicroPython of these terminals does not load.
    """
    if len(head) < _HEAD_BYTES or head[0] != ord("M"):
        raise Refusal(RefusalCode.WRONG_CODE, "it is not a .mpy file")
    number, sub_version = head[2] >> 2, head[2] & 3
    if head[1] != MPY_VERSION or (number and sub_version != MPY_SUB_VERSION):
        said = f"{head[1]}.{sub_version}" if number else str(head[1])
        raise Refusal(
            RefusalCode.WRONG_CODE,
            f"it is a .mpy of version {said}, terminals load {MPY_VERSION}.{MPY_SUB_VERSION}",
        )
    if head[3] > _SMALL_INT_BITS:
        raise Refusal(RefusalCode.WRONG_CODE, f"it was compiled for small integers of {head[3]} bits")
    return _NAMES[number] if number < len(_NAMES) else f"architecture {number}"


def check_code(files: Mapping[str, bytes], hardware: str) -> None:
    """Refuse compiled modules that no terminal of this hardware class loads; `files` by path.

    Of a class that is not known here only the version is judged. Raises: Refusal(WRONG_CODE).
    """
    for path, content in files.items():
        if not path.endswith(".mpy"):
            continue
        try:
            found = architecture_of(content[:_HEAD_BYTES])
        except Refusal as refusal:
            raise Refusal(refusal.code, f"{path} does not load: {refusal.detail}") from None
        if hardware not in _RUNS:
            continue
        runs = _RUNS[hardware]
        if runs is None:
            raise Refusal(RefusalCode.WRONG_CODE, f"{path}: {hardware} runs CPython, which loads no .mpy")
        if found not in ("bytecode", runs):
            raise Refusal(
                RefusalCode.WRONG_CODE, f"{path} holds code for {found}, but {hardware} runs {runs}"
            )
