"""Fixtures of the server's wire and device tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from server_kit import NOW, SITE, Site, signer

from server.devices.keys import KeyStore


@pytest.fixture(scope="session")
def key_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key directory made once, to be copied: making RSA keys is slow."""
    directory = tmp_path_factory.mktemp("site") / "keys"
    KeyStore.create(directory, SITE, signer("root"), NOW)
    return directory


@pytest.fixture
def keys_path(key_directory: Path, tmp_path: Path) -> Path:
    """A key directory of the test's own."""
    copy = tmp_path / "keys"
    shutil.copytree(key_directory, copy)
    return copy


@pytest.fixture
def site(keys_path: Path) -> Site:
    """The server's half of a site."""
    return Site(KeyStore(keys_path, SITE))
