"""Packages of the index, fetched by pip into build/ when they are first needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from bench.errors import BenchError
from bench.paths import ROOT
from bench.shootout.libraries import Library, Package

CACHE = ROOT / "build" / "shootout"
TIMEOUT_S = 120
_DEVICE_PYTHON = "3.12"  # the newest any of them asks of its host; what runs here is MicroPython


def files_of(library: Library, cache: Path = CACHE) -> dict[str, bytes]:
    """What goes below /lib on the device. Raises: BenchError(NOT_FETCHED)."""
    found: dict[str, bytes] = {}
    for package in library.packages:
        folder = _fetched(package, cache)
        for target, source in package.modules.items():
            path = folder / source
            if not path.is_file():
                raise BenchError("NOT_FETCHED", f"{package.name} {package.version} has no {source}.")
            found[target] = path.read_bytes()
    return found


def _fetched(package: Package, cache: Path) -> Path:
    """The folder that holds a package's files."""
    folder = cache / f"{package.name}-{package.version}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
        work = Path(name)
        said = _download(package, work)
        source = _unpacked(package, work)
        if source is None:
            last = (said.strip().splitlines() or ["pip said nothing"])[-1]
            raise BenchError(
                "NOT_FETCHED",
                f"{package.name} {package.version} could not be had from the package index: {last[:200]}",
            )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(source, folder)
    return folder


def _download(package: Package, work: Path) -> str:
    """Let pip fetch it. Packages made for MicroPython are often none that pip could build: what it unpacked
    on the way is kept.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    wanted = f"{package.name}=={package.version}"
    kept = work / "kept"
    kept.mkdir()
    said = ""
    for how in (
        ["--only-binary=:all:", "--python-version", _DEVICE_PYTHON],
        ["--no-binary=:all:", "--no-build-isolation", "--no-clean"],
    ):
        try:
            done = subprocess.run(
                [*pip, *how, "-d", str(work), wanted],
                env={**os.environ, "TMPDIR": str(kept)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError("NOT_FETCHED", f"pip took over {TIMEOUT_S} s for {wanted}.") from error
        if done.returncode == 0:
            break
        said = done.stderr
    return said


def _unpacked(package: Package, work: Path) -> Path | None:
    """The folder with the package's files, from what pip left behind."""
    source = work / "source"
    for archive in work.glob("*.whl"):
        zipfile.ZipFile(archive).extractall(source)
        return source
    for archive in work.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(source, filter="data")
        return next(path for path in source.iterdir() if path.is_dir())
    first = next(iter(package.modules.values()))
    for path in (work / "kept").rglob(first):
        return path.parents[len(Path(first).parts) - 1]
    return None
