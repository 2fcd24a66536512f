"""The application as it lies on the chip: which files, compiled how, in which littlefs image."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from littlefs import LittleFS
from littlefs.errors import LittleFSError

from bench import frozen
from bench.errors import BenchError
from bench.esp32.layout import Chip

_STAYS_SOURCE = {"boot.py", "main.py"}  # MicroPython looks for exactly these names
_NEEDED = {"main.py", "board.py", "terminal/ota/loader.py", "terminal/app.py"}

# MicroPython's VfsLfs2 defaults on ESP32 (bytes)
_BLOCK, _READ, _PROGRAM, _LOOKAHEAD, _CACHE = 4096, 32, 32, 32, 128


def sources(root_key: bytes | None, *, with_agent: bool = False) -> dict[str, bytes]:
    """Path on the chip -> Python source. Bench-only files stay out but for `with_agent`.

    Raises: BenchError(INCOMPLETE_SOURCES) when the chip would stop at the prompt for want of a file.
    """
    found = frozen.sources(frozen.tree(), "esp32")
    for name in sorted(_NEEDED - set(found)):
        raise BenchError(
            "INCOMPLETE_SOURCES", f"firmware has no {name} for the ESP32: is this checkout complete?"
        )
    left_out = frozenset() if with_agent else frozen.BENCH_ONLY
    files = {name: body for name, body in sorted(found.items()) if name not in left_out}
    files[frozen.TRUST] = frozen.trust(found, root_key)
    return files


def settings_file(content: bytes, what: str) -> bytes:
    """Check a settings file: JSON with the Wi-Fi's name and key, as the board's start-up reads it.

    Raises: BenchError(BAD_SETTINGS).
    """
    try:
        wifi = json.loads(content)["wifi"]
        sound = bool(wifi["ssid"]) and isinstance(wifi["ssid"], str) and isinstance(wifi["key"], str)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        example = '{"wifi": {"ssid": "...", "key": "..."}}'
        raise BenchError("BAD_SETTINGS", f"{what} does not name a Wi-Fi: write {example}.")
    return content


def compile_files(files: dict[str, bytes], mpy_cross: Path, chip: Chip) -> dict[str, bytes]:
    """The same files as .mpy, except those MicroPython starts by name.

    Raises: BenchError(COMPILE_FAILED) with the compiler's last line.
    """
    compiled: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.py"), Path(folder, "out.mpy")
        for name, content in files.items():
            if name in _STAYS_SOURCE or not name.endswith(".py"):
                compiled[name] = content
                continue
            source.write_bytes(content)
            march = f"-march={chip.mpy_architecture}"
            command = [str(mpy_cross), march, "-s", name, "-o", str(output), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode != 0:
                lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
                raise BenchError("COMPILE_FAILED", f"{name} does not compile for the chip: {lines[-1]}")
            compiled[name.removesuffix(".py") + ".mpy"] = output.read_bytes()
    return compiled


def littlefs_image(files: dict[str, bytes], size: int) -> bytes:
    """A littlefs2 image of `size` bytes that MicroPython mounts; the same files give the same bytes.

    Raises: BenchError(DOES_NOT_FIT).
    """
    volume = LittleFS(
        block_size=_BLOCK,
        block_count=size // _BLOCK,
        read_size=_READ,
        prog_size=_PROGRAM,
        lookahead_size=_LOOKAHEAD,
        cache_size=_CACHE,
        mount=False,
    )
    volume.format()
    volume.mount()
    try:
        for name, content in sorted(files.items()):
            if "/" in name:
                volume.makedirs(name.rpartition("/")[0], exist_ok=True)
            with volume.open(name, "wb") as handle:
                handle.write(content)
    except LittleFSError as error:
        total = sum(map(len, files.values()))
        raise BenchError(
            "DOES_NOT_FIT",
            f"{total} bytes of application do not fit the vfs partition of {size} bytes: {error}",
        ) from error
    volume.unmount()
    return bytes(volume.context.buffer)
