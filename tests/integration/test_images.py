"""What bench.images promises: the right image, built only when needed, and errors that name the next step."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench import frozen, images, releases


def test_an_unchanged_source_is_not_built_again() -> None:
    first = images.build("process")
    again = images.build("process")
    assert not again.built
    assert (again.path, again.digest, again.sha256) == (first.path, first.digest, first.sha256)


def test_the_image_is_named_by_its_inputs_and_the_root_key_is_one_of_them(tmp_path: Path) -> None:
    plain = images.build("process")
    key = tmp_path / "other.der"
    key.write_bytes(b"another root key")
    other = images.build("process", root_key=key)
    assert other.digest != plain.digest
    assert other.path != plain.path
    shown = subprocess.run(
        [other.path, "-c", "from terminal.trust import ROOT_SPKI; print(ROOT_SPKI)"],
        capture_output=True,
        check=True,
    )
    assert shown.stdout.strip() == b"b'another root key'"


def test_an_image_knows_the_digest_that_its_bundles_name_whatever_root_key_it_trusts(tmp_path: Path) -> None:
    key = tmp_path / "other.der"
    key.write_bytes(b"another root key")
    for image in (images.build("process"), images.build("process", root_key=key)):
        shown = subprocess.run(
            [image.path, "-c", "from terminal.trust import IMAGE; print(IMAGE.hex())"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.strip() == releases.checkout_digest("process").hex()


def test_the_digest_names_every_module_a_bundle_relies_on_and_no_other() -> None:
    tree = frozen.tree()
    for board in ("process", "qemu", "esp32"):
        image = frozen.sources(tree, board)
        digest = frozen.digest(image)
        assert frozen.digest(dict(reversed(image.items()))) == digest
        for name in ("terminal/app.py", "terminal/version.py", "board.py", "main.py"):
            assert frozen.digest({**image, name: image[name] + b"\n"}) != digest, name
            assert frozen.digest({path: body for path, body in image.items() if path != name}) != digest, name
        for name in ("terminal/agent.py", "campaign.py", "terminal/trust.py"):
            assert frozen.digest({**image, name: b"another"}) == digest, name


def test_a_missing_compiler_names_the_set_up_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(images.ImageError, match="ci/setup") as caught:
        images.build("qemu")
    assert caught.value.code == "toolchain-missing"


def test_missing_sources_name_the_set_up_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MICROPYTHON", images.SOURCES / "no-such-version")
    with pytest.raises(images.ImageError, match="ci/setup") as caught:
        images.build("process")
    assert caught.value.code == "sources-missing"


def test_an_unknown_board_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(images.ImageError, match="qemu, process"):
        images.build("esp8266")  # type: ignore[arg-type]


def test_a_second_build_waits_for_the_first_and_says_so() -> None:
    waiting = threading.Event()
    with (images.BUILD / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder = threading.Thread(
            target=images.build, args=("process",), kwargs={"progress": lambda _text: waiting.set()}
        )
        builder.start()
        assert waiting.wait(10)
        assert builder.is_alive()
    builder.join(60)
    assert not builder.is_alive()


def test_the_compiler_makes_bytecode_the_board_loads(tmp_path: Path) -> None:
    source = tmp_path / "answer.py"
    source.write_text("VALUE = 42\n")
    subprocess.run([images.mpy_cross(), source], check=True)
    shown = subprocess.run(
        [images.build("process").path, "-c", "import answer; print(answer.VALUE)"],
        cwd=shutil.copytree(tmp_path, tmp_path / "run", ignore=shutil.ignore_patterns("*.py")),
        capture_output=True,
        check=True,
    )
    assert shown.stdout.strip() == b"42"


def test_the_command_line_prints_where_the_image_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.images", "process"],
        cwd=images.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    board, digest, path = done.stdout.split()
    assert board == "process"
    assert Path(path).parent.name == f"process-{digest}"
