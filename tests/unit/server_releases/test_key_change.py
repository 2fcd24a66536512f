"""An operator changes the release key by command: what is published, refused and warned of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from release_kit import KEYS, certificate, key_of, rotation

from server import cli
from server.config import KEYS_NAME
from server.devices.keys import KeyStore
from server.releases import files
from server.releases.bundle import Target, build_bundle
from server.releases.images import image_file
from server.storage import admin
from server.storage.database import open_database

CONTENT = {"assets/image.txt": image_file(bytes(32))}
LEFT = "is signed with the release key of epoch 1"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's state with nothing published."""
    KeyStore.open_or_create(tmp_path / KEYS_NAME, "demo", KEYS / "root.pem", 1)
    with closing(open_database(tmp_path, create=True)) as database:
        admin.ensure_site(database, "demo")
    return tmp_path


def test_an_operator_changes_the_release_key_and_hears_what_that_leaves_behind(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = state / "rotation-2.cbor"
    statement.write_bytes(rotation(1, 2).frame)

    def publish(version: int, epoch: int, *more: str | Path) -> tuple[int, str]:
        folder = state / f"{version}-{epoch}"
        target = Target("process", version, 0, 1, 1)
        files.save(build_bundle(CONTENT, target, key_of(epoch), certificate(epoch)), folder)
        words = ("release", "publish", folder, "--state", state, "--percent", "1", *more)
        return cli.main([*map(str, words)]), capsys.readouterr().err

    assert publish(5, 1) == (0, "")
    without, said = publish(6, 2)
    assert (without, "from 2 to 2" in said) == (1, True)
    assert publish(4, 2, "--rotation", statement)[0] == 1
    assert publish(6, 1)[0] == 0, "a release that was refused has retired the key"
    done, said = publish(7, 2, "--rotation", statement)
    assert (done, said.count(LEFT)) == (0, 2)
    late, said = publish(8, 1)
    assert (late, "sign it with release-2.pem" in said) == (1, True)
    assert cli.main(["release", "status", "--state", str(state)]) == 0
    assert capsys.readouterr().out.count(LEFT) == 2
