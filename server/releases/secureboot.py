"""Full ESP32 images for boards with secure boot v2: signed by esptool's espsecure, as the chip's ROM demands.

The image is padded to 4 KiB and a signature block (RSA-3072-PSS) is appended; our own manifest signs the
result like any other bytes. The key is a file of its own: it is no release key.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from server.errors import ServerError

FATAL = "A fatal error occurred: "


class SecureBootError(ServerError):
    """espsecure did not sign or verify an image; the message holds its own words."""

    code = "SECURE_BOOT"
    refused = True


def sign(image: Path, key: Path, out: Path) -> None:
    """Write `image` with a secure boot v2 signature by `key` (PEM, RSA-3072) to `out`.

    Raises: SecureBootError, OSError where a file cannot be read.
    """
    _must_be_readable(image, key)
    _espsecure("sign-data", "--version", "2", "--keyfile", str(key), "--output", str(out), str(image))


def verify(image: Path, key: Path) -> None:
    """Check a signed image with a public or private key in PEM. Raises: SecureBootError, OSError."""
    _must_be_readable(image, key)
    _espsecure("verify-signature", "--version", "2", "--keyfile", str(key), str(image))


def _must_be_readable(*paths: Path) -> None:
    for path in paths:
        path.open("rb").close()


def _espsecure(*arguments: str) -> None:
    if find_spec("espsecure") is None:
        raise SecureBootError("espsecure is not installed: it comes with esptool, see ci/setup")
    done = subprocess.run(
        [sys.executable, "-m", "espsecure", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SecureBootError(f"espsecure refuses: {_message(done.stderr) or f'exit code {done.returncode}'}")


def _message(said: str) -> str:
    """What espsecure names as the cause: behind FATAL, or inside the frame it draws around a wrong option."""
    _, fatal, cause = said.partition(FATAL)
    if not fatal:
        framed = re.findall(r"^│(.*)│$", said, re.MULTILINE)
        cause = "".join(framed) or said
    return " ".join(cause.split())
