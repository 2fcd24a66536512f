"""Key files of releases: a set is complete or not there, wherever the call that makes it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from release_kit import KEYS

from server.devices import keyfiles
from server.devices.keyfiles import KeyFileError
from server.releases import keys, together
from server.releases.lineage import verified_step

FIRST = {"root.pem", "root.pub.der", "release-1.pem"}
SECOND = FIRST | {"release-2.pem", "rotation-2.cbor"}
_CALLS = ("open", "fsync", "mkdir", "rename", "rmdir", "unlink")


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixtures' keys in turn, for each call one that takes no second to make."""
    made = cycle(_load(name) for name in ("root", "release", "server-sign", "evil-root"))
    monkeypatch.setattr(keyfiles, "generate", lambda _bits: next(made))


@cache
def _load(name: str) -> RSAPrivateKey:
    path = KEYS / f"{name}.pem"
    return keyfiles.parse_pem(path.read_bytes(), 3072, path, "")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def interrupted(call: Callable[[], object], at: int, after: bool) -> bool:
    """Call it and let the `at`-th change of the file system be its last, done or not; -> whether it came."""
    count = 0

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def stop(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at and not after:
                raise KeyboardInterrupt
            try:
                return real(*arguments, **more)
            finally:
                if count == at:
                    raise KeyboardInterrupt

        return stop

    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, wrapped(getattr(os, name)))
        try:
            call()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
def test_files_written_together_are_all_there_or_none_after_the_next_call(
    tmp_path: Path, after: bool
) -> None:
    files = {"root.pem": b"secret", "root.pub.der": b"public", "release-1.pem": b"another secret"}
    seen = set()
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        if not interrupted(lambda to=folder: together.write(to, files), at, after):  # type: ignore[misc]
            break
        waited, before = set(together.waiting(folder)), names(folder) & set(files)
        together.recover(folder)
        assert names(folder) in (set(), set(files)), at
        assert names(folder) == before | waited
        seen.add((bool(before), bool(names(folder))))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} in ({}, files)
    assert at > 15
    assert seen == {(False, False), (False, True), (True, True)}


def written(folder: Path, call: Callable[[], object]) -> None:
    """Interrupt a call between the writing of its files and their move to their places."""

    def rename(source: Path, target: Path, rename: Callable[[Path, Path], None] = os.rename) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            call()
    assert together.waiting(folder)


def test_the_next_call_ends_what_an_interrupted_one_has_begun(tmp_path: Path) -> None:
    written(tmp_path, lambda: keys.make(tmp_path, None))
    assert not names(tmp_path) & FIRST
    made = keys.make(tmp_path, None)
    assert (made.finished, made.epoch, names(tmp_path)) == (True, 1, FIRST)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.pem")} == {0o600}
    root = keys.load_public(tmp_path / "root.pub.der")
    assert keys.load_root(tmp_path / "root.pem", None).spki == root.spki
    written(tmp_path, lambda: keys.rotate(tmp_path, None))
    made = keys.rotate(tmp_path, None)
    assert (made.finished, made.epoch, names(tmp_path)) == (True, 2, SECOND)
    step = verified_step((tmp_path / "rotation-2.cbor").read_bytes(), root)
    assert (step.before, step.after) == (1, 2)


def test_an_interrupted_set_keeps_its_passphrase(tmp_path: Path) -> None:
    written(tmp_path, lambda: keys.make(tmp_path, b"correct horse"))
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        keys.make(tmp_path, b"battery staple")
    assert keys.make(tmp_path, b"correct horse").finished


def test_keys_of_a_set_that_never_was_do_not_stay_on_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert interrupted(lambda: keys.make(folder, None), 6, True)
    assert not names(folder) & FIRST
    keys.make(folder, None)
    assert names(folder) == FIRST


def test_a_root_key_alone_gets_its_release_key(tmp_path: Path) -> None:
    made = keys.make(tmp_path, None)
    (tmp_path / "release-1.pem").unlink()
    root = (tmp_path / "root.pem").read_bytes()
    again = keys.make(tmp_path, None)
    assert (again.finished, names(tmp_path)) == (True, FIRST)
    assert (tmp_path / "root.pem").read_bytes() == root
    assert not made.finished


def test_release_keys_whose_root_is_kept_elsewhere_are_not_written_over(tmp_path: Path) -> None:
    keys.make(tmp_path, None)
    (tmp_path / "root.pem").rename(tmp_path / "elsewhere.pem")
    with pytest.raises(KeyFileError, match=r"put root\.pem back"):
        keys.make(tmp_path, None)
    assert keys.rotate(tmp_path, None, tmp_path / "elsewhere.pem").epoch == 2


def test_a_chain_with_a_gap_is_mended_or_refused(tmp_path: Path) -> None:
    keys.make(tmp_path, None)
    for _ in range(2):
        keys.rotate(tmp_path, None)
    gap = tmp_path / "rotation-2.cbor"
    gap.unlink()
    mended = keys.rotate(tmp_path, None)
    assert (mended.files, mended.epoch, mended.finished) == ((gap,), 3, True)
    gap.unlink()
    (tmp_path / "release-1.pem").unlink()
    with pytest.raises(KeyFileError, match=r"rotation-2\.cbor is missing.*release-1\.pem"):
        keys.rotate(tmp_path, None)
    gap.write_bytes((tmp_path / "rotation-3.cbor").read_bytes())
    with pytest.raises(KeyFileError, match="from the key of epoch 2 to that of 3"):
        keys.rotate(tmp_path, None)
    gap.write_bytes(b"statement")
    with pytest.raises(KeyFileError, match="not a rotation"):
        keys.rotate(tmp_path, None)
    assert "release-4.pem" not in names(tmp_path)
