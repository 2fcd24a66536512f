"""Releases: built, signed, stored, served; and what an attacker may try with them."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from server_kit import SITE, signer, vector_bytes, verify_key

from server.releases import files
from server.releases.bundle import Bundle, Draft, Target, build_bundle, certify, draft_bundle, open_bundle
from server.releases.publishing import prepare
from server.releases.serving import Releases
from server.wire.errors import Refusal, RefusalCode
from server.wire.frames import SERVER_SIGN, Certificate
from server.wire.updates import Offer, OtaChunk, OtaGet

MPY = b"M\x06\x00\x1f"  # how bytecode of MicroPython 1.23 to 1.29 begins
FILES = {
    "terminal/app.mpy": MPY + bytes(range(256)) * 149 + bytes(252),
    "terminal/ui.mpy": MPY + b"ui" * 298,
    "assets/version.txt": b"0.2.0\n",
}
TARGET = Target("qemu-rv32", version=0x0200, floor=0x0100)
RELEASE_CERTIFICATE = certify(signer("root"), signer("release").spki)


def a_bundle(**changes: Any) -> Bundle:
    return build_bundle(FILES, replace(TARGET, **changes), signer("release"), RELEASE_CERTIFICATE)


def refusal_of(call: Any) -> str:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value.code


def fetch(releases: Releases, ref: bytes, what: int, first: int, count: int) -> list[OtaChunk]:
    served = releases.find(ref)
    assert served is not None
    request = OtaGet.decode(OtaGet(ref, what, first, count).encode())
    return [OtaChunk.decode(chunk.encode()) for chunk in served.answer(request)]


def test_a_bundle_can_be_fetched_whole_and_is_the_signed_one() -> None:
    bundle = a_bundle()
    releases = Releases([bundle])
    ref = bundle.hash[:8]
    manifest = Offer.decode(releases.offers()[0].offer_frame).open(verify_key("root"))
    hashes = b"".join(chunk.data for chunk in fetch(releases, ref, 0, 0, 16))
    data = b""
    for first in range(0, 64, 16):
        if first * manifest.chunk_size < manifest.size:
            data += b"".join(chunk.data for chunk in fetch(releases, ref, 1, first, 16))
    assert data == b"".join(FILES.values())
    assert sha256(hashes).digest() == manifest.chunks
    assert len(hashes) // 32 == -(-len(data) // manifest.chunk_size) == 39
    assert [len(chunk.data) for chunk in fetch(releases, ref, 0, 0, 2)] == [1024, 7 * 32]


def test_requests_are_bounded_and_refused_in_codes() -> None:
    bundle = a_bundle()
    releases = Releases([bundle])
    ref = bundle.hash[:8]
    assert releases.find(bytes(8)) is None
    assert refusal_of(lambda: fetch(releases, ref, 1, 39, 1)) == RefusalCode.OUT_OF_RANGE
    assert refusal_of(lambda: fetch(releases, ref, 1, 0xFFFF_FFFF, 16)) == RefusalCode.OUT_OF_RANGE
    assert refusal_of(lambda: fetch(releases, ref, 1, 0, 17)) == RefusalCode.BAD_SHAPE
    assert refusal_of(lambda: OtaGet.decode(bytes(65))) == RefusalCode.TOO_LARGE
    assert [chunk.index for chunk in fetch(releases, ref, 1, 37, 16)] == [37, 38]


def test_a_bundle_survives_the_disk(tmp_path: Path) -> None:
    bundle = a_bundle()
    files.save(bundle, tmp_path / "release")
    assert files.load(tmp_path / "release", verify_key("root")) == bundle


@pytest.mark.parametrize("at", [0, 20_000, 38_999])
def test_a_changed_byte_on_the_disk_is_refused(tmp_path: Path, at: int) -> None:
    files.save(a_bundle(), tmp_path)
    path = tmp_path / files.DATA_FILE
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert refusal_of(lambda: files.load(tmp_path, verify_key("root"))) == RefusalCode.BAD_RELEASE


def test_missing_and_endless_files_are_refused(tmp_path: Path) -> None:
    assert refusal_of(lambda: files.load(tmp_path, verify_key("root"))) == RefusalCode.BAD_RELEASE
    files.save(a_bundle(), tmp_path)
    with (tmp_path / files.DATA_FILE).open("ab") as file:
        file.truncate(1 << 24)
    assert refusal_of(lambda: files.load(tmp_path, verify_key("root"))) == RefusalCode.BAD_RELEASE
    assert refusal_of(lambda: files.collect(tmp_path / "nowhere")) == RefusalCode.BAD_RELEASE


def test_files_are_collected_in_a_stable_order_without_links(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.py").write_bytes(b"2")
    (tmp_path / "a.py").write_bytes(b"1")
    (tmp_path / "link.py").symlink_to("/etc/hostname")
    assert list(files.collect(tmp_path).items()) == [("a.py", b"1"), ("b/two.py", b"2")]


def test_arbitrary_software_is_refused() -> None:
    """Neither a foreign key, nor one a foreign root certified, nor the server's own key signs releases."""
    forged = build_bundle(FILES, TARGET, signer("evil-root"), RELEASE_CERTIFICATE)
    assert refusal_of(lambda: forged.offer.open(verify_key("root"))) == RefusalCode.WRONG_KEY
    foreign = certify(signer("evil-root"), signer("evil-root").spki)
    forged = build_bundle(FILES, TARGET, signer("evil-root"), foreign)
    assert refusal_of(lambda: forged.offer.open(verify_key("root"))) == RefusalCode.WRONG_KEY
    for site in (SITE, ""):
        server = Certificate(SERVER_SIGN, signer("server-sign").spki, 1).seal(signer("root"), site)
        forged = build_bundle(FILES, TARGET, signer("server-sign"), server)
        assert refusal_of(lambda bad=forged: bad.offer.open(verify_key("root"))) in {
            RefusalCode.BAD_SIGNATURE,
            RefusalCode.BAD_CERTIFICATE,
        }


def test_mixed_bundles_are_refused() -> None:
    first, second = (
        a_bundle(),
        build_bundle(
            FILES | {"assets/version.txt": b"0.3.0\n"}, TARGET, signer("release"), RELEASE_CERTIFICATE
        ),
    )
    mixed = first.data[:-6] + second.data[-6:]
    code = refusal_of(lambda: open_bundle(first.offer.encode(), mixed, verify_key("root")))
    assert code == RefusalCode.BAD_RELEASE


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../up.py",
        "terminal/../b.py",
        "terminal//b.py",
        "terminal/a\\b.py",
        "./terminal/a.py",
        "terminal/",
        "terminal/.hidden.py",
        "terminal/A.py",
        "terminal/ä.py",
        "terminal/a.exe",
        "terminal/a/b/c/d.py",
        "terminal/" + "a" * 60 + ".py",
        "board.py",
        "asyncio/core.py",
        "terminal/trust.py",
        "terminal/trust.mpy",
        "terminal/a.py\n",
    ],
)
def test_a_path_no_terminal_installs_cannot_be_signed(path: str) -> None:
    def build() -> Bundle:
        return build_bundle({path: b"x"}, TARGET, signer("release"), RELEASE_CERTIFICATE)

    assert refusal_of(build) == RefusalCode.BAD_RELEASE


def test_a_module_in_two_forms_cannot_be_signed() -> None:
    files_of_both = {"terminal/app.py": b"1", "terminal/app.mpy": b"2"}
    code = refusal_of(lambda: build_bundle(files_of_both, TARGET, signer("release"), RELEASE_CERTIFICATE))
    assert code == RefusalCode.BAD_RELEASE


@pytest.mark.parametrize(
    "paths",
    [
        ("assets/a.bin", "assets/a.bin/b.bin"),
        ("assets/a.bin/b/c.bin", "assets/a.bin"),
        ("terminal/x.py", "terminal/x/__init__.py"),
        ("terminal/x/__init__.mpy", "terminal/x.mpy"),
        ("terminal/wire.py", "terminal/wire/cbor.py"),
    ],
)
def test_a_name_is_not_a_files_and_a_folders(tmp_path: Path, paths: tuple[str, ...]) -> None:
    together = dict.fromkeys(paths, b"x")
    code = refusal_of(lambda: build_bundle(together, TARGET, signer("release"), RELEASE_CERTIFICATE))
    assert code == RefusalCode.BAD_RELEASE
    # Another tool has made and signed it: neither is it signed here, nor published.
    good = draft_bundle({"assets/1.bin": b"x", "assets/2.bin": b"x"}, TARGET)
    named = tuple(replace(file, path=path) for file, path in zip(good.manifest.files, paths, strict=True))
    draft = Draft(replace(good.manifest, files=named), good.data)
    files.save_draft(draft, tmp_path)
    assert refusal_of(lambda: files.load_draft(tmp_path)) == RefusalCode.BAD_RELEASE
    signed = draft.sign(signer("release"), RELEASE_CERTIFICATE)
    assert refusal_of(lambda: prepare(signed)) == RefusalCode.BAD_RELEASE


def test_names_that_only_look_alike_are_allowed() -> None:
    paths = ("assets/a.json", "assets/a/b.json", "terminal/x.py", "terminal/xy/z.py", "terminal/ui.py")
    a_bundle_of = dict.fromkeys(paths, b"x")
    assert build_bundle(a_bundle_of, TARGET, signer("release"), RELEASE_CERTIFICATE).files == a_bundle_of


def test_a_bundle_too_large_for_the_terminals_cannot_be_signed() -> None:
    for size, chunk_size in ((512 * 1024 + 1, 4096), (300 * 1024, 256), (0, 1024)):
        whole = {"assets/large.bin": bytes(size)}
        code = refusal_of(
            lambda f=whole, c=chunk_size: build_bundle(  # type: ignore[misc]
                f, TARGET, signer("release"), RELEASE_CERTIFICATE, c
            )
        )
        assert code == RefusalCode.BAD_RELEASE


def test_a_signed_path_that_leaves_its_slot_is_refused_when_it_is_read() -> None:
    """Even a release key that signs by another tool cannot make the server offer such a bundle."""
    good = a_bundle().manifest
    for path in ("../up.py", "/etc/passwd", "a//b"):
        moved = replace(good, files=(replace(good.files[0], path=path), *good.files[1:]))
        assert refusal_of(moved.payload) == RefusalCode.BAD_RELEASE


def test_contradicting_targets_cannot_be_signed() -> None:
    assert refusal_of(lambda: a_bundle(floor=0x0201)) == RefusalCode.BAD_RELEASE
    assert refusal_of(lambda: a_bundle(firmware_minimum=2, firmware_maximum=1)) == RefusalCode.BAD_RELEASE
    assert refusal_of(lambda: a_bundle(hardware="")) == RefusalCode.BAD_SHAPE
    too_many = {f"assets/{number}.txt": b"x" for number in range(65)}
    build = lambda: build_bundle(too_many, TARGET, signer("release"), RELEASE_CERTIFICATE)  # noqa: E731
    assert refusal_of(build) == RefusalCode.BAD_SHAPE


def test_the_offer_of_the_vectors_is_accepted() -> None:
    assert Offer.decode(vector_bytes("offer")).open(verify_key("root")).hardware
