"""Compiled modules are judged by what mpy-cross really writes, for every processor there is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from bench import images
from server.releases.bundle import Target, draft_bundle
from server.releases.code import architecture_of, check_code
from server.releases.images import IMAGE_FILE, MODULES_FILE, image_file
from server.wire.errors import Refusal, RefusalCode

NATIVE = "import micropython\n@micropython.viper\ndef f(a: int) -> int:\n    return a + 1\n"
PLAIN = "VALUE = 42\n"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], bytes]:
    folder = tmp_path_factory.mktemp("mpy")
    compiler = images.mpy_cross()

    @cache
    def compile_for(text: str, march: str) -> bytes:
        source, made = Path(folder, "module.py"), Path(folder, "module.mpy")
        source.write_text(text)
        subprocess.run([compiler, f"-march={march}", "-o", made, source], check=True)
        return made.read_bytes()

    return compile_for


def refusal_of(content: bytes, hardware: str) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check_code({"terminal/app.mpy": content}, hardware)
    return refused.value


def test_native_code_is_known_by_its_processor_and_bytecode_by_none(
    compiled: Callable[[str, str], bytes],
) -> None:
    for march in ("x64", "xtensa", "xtensawin", "rv32imc", "armv7emsp"):
        assert architecture_of(compiled(NATIVE, march)) == march
        assert architecture_of(compiled(PLAIN, march)) == "bytecode"


@pytest.mark.parametrize(
    ("hardware", "runs"),
    [
        ("esp32-xtensawin", "xtensawin"),
        ("esp32-rv32imc", "rv32imc"),
        ("qemu-rv32", "rv32imc"),
        ("process", "x64"),
    ],
)
def test_a_hardware_class_takes_its_own_code_and_nobody_elses(
    compiled: Callable[[str, str], bytes], hardware: str, runs: str
) -> None:
    for march in ("x64", "xtensa", "xtensawin", "rv32imc"):
        check_code({"terminal/app.mpy": compiled(PLAIN, march)}, hardware)
        if march == runs:
            check_code({"terminal/app.mpy": compiled(NATIVE, march)}, hardware)
        else:
            refused = refusal_of(compiled(NATIVE, march), hardware)
            assert refused.code == RefusalCode.WRONG_CODE
            assert f"terminal/app.mpy holds code for {march}, but {hardware} runs {runs}" in refused.detail


def test_a_raspberry_pi_takes_no_compiled_module_and_any_class_takes_text() -> None:
    assert refusal_of(b"M\x06\x00\x1f", "pi").code == RefusalCode.WRONG_CODE
    check_code({"terminal/app.py": b"pass\n", "assets/x.bin": b"C"}, "pi")
    check_code({"terminal/app.py": b"pass\n", "assets/x.bin": b"C"}, "esp32-xtensawin")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "not a .mpy"),
        (b"M\x06\x2b", "not a .mpy"),
        (b"C\x06\x2b\x1f", "not a .mpy"),
        (b"M\x05\x2b\x1f", "version 5.3"),
        (b"M\x05\x00\x1f", "version 5,"),
        (b"M\x06\x2a\x1f", "version 6.2"),
        (b"M\x06\x00\x3f", "63 bits"),
    ],
)
def test_what_micropython_would_not_load_is_refused_for_a_class_nobody_knows(head: bytes, said: str) -> None:
    refused = refusal_of(head, "someone-elses")
    assert refused.code == RefusalCode.WRONG_CODE
    assert said in refused.detail


def test_a_bundle_of_code_for_another_chip_cannot_be_built(compiled: Callable[[str, str], bytes]) -> None:
    files = {"terminal/app.mpy": compiled(NATIVE, "rv32imc")}
    assert draft_bundle(files, Target("esp32-rv32imc", 2)).data == files["terminal/app.mpy"]
    with pytest.raises(Refusal) as refused:
        draft_bundle(files, Target("esp32-xtensawin", 2))
    assert refused.value.code == RefusalCode.WRONG_CODE


def test_a_bundle_over_an_image_has_to_name_it() -> None:
    files = {MODULES_FILE: b"slot terminal.version\n", "terminal/version.py": b"VERSION = 2\n"}
    with pytest.raises(Refusal) as refused:
        draft_bundle(files, Target("process", 2))
    assert refused.value.code == RefusalCode.NO_IMAGE_NAMED
    assert draft_bundle({**files, IMAGE_FILE: image_file(bytes(32))}, Target("process", 2))
    for junk in (b"", b"x" * 64 + b"\n", b"0" * 64, b"0" * 63 + b"\n", b"0" * 64 + b"\n\n"):
        with pytest.raises(Refusal) as refused:
            draft_bundle({**files, IMAGE_FILE: junk}, Target("process", 2))
        assert refused.value.code == RefusalCode.BAD_RELEASE
