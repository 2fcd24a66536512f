"""Releases as an operator and a terminal meet them: built, signed, published, fetched over HTTP, halted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from http_kit import Api, open_api, problem
from server_bench import KEYS, a_server, eventually, prepare_state

from bench.errors import BenchError
from bench.server import BenchServer
from server.devices.keyfiles import load_signer
from server.releases import check, files, keys, secureboot
from server.releases.bundle import Bundle, Target, build_bundle, certify, chunk_hashes
from server.releases.images import image_file
from server.wire.rsa import VerifyKey
from server.wire.updates import BundleFile, Offer

HARDWARE, IMAGE = "process", 0x0100
BODY = bytes(range(256)) * 9
ROOT = VerifyKey((KEYS / "root.pub.der").read_bytes(), 3072)


def bundle(version: int, image: bytes = bytes(32), hardware: str = HARDWARE) -> Bundle:
    """A release by the fixtures' release key, for an image of this digest."""
    signer = load_signer(KEYS / "release.pem")
    content = {"assets/image.txt": image_file(image), "assets/rates.bin": BODY}
    certificate = certify(load_signer(KEYS / "root.pem"), signer.spki)
    return build_bundle(content, Target(hardware, version, 0, IMAGE, IMAGE), signer, certificate)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchServer]:
    state = prepare_state(tmp_path_factory.mktemp("made"))
    with a_server(state, tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: BenchServer) -> Iterator[Api]:
    with closing(open_api(server)) as opened:
        yield opened


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Release numbers, each above what was published before, whichever test runs first."""
    return count(0x0201)


@pytest.fixture
def published(server: BenchServer, numbers: Iterator[int], tmp_path: Path) -> Iterator[Bundle]:
    """A release for everybody; withdrawn afterwards."""
    release = bundle(next(numbers))
    files.save(release, tmp_path / "release")
    server.admin("release", "publish", str(tmp_path / "release"), "--percent", "100")
    yield release
    server.admin("release", "withdraw", release.hash[:8].hex())


def dotted(release: Bundle) -> str:
    """Its number as operators write it."""
    return ".".join(map(str, release.manifest.version.to_bytes(3, "big")))


def tableside(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """`tableside release ...` as a program of its own."""
    command = [sys.executable, "-m", "bench.cli.main", "release", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# ---------------------------------------------------------------- fetched over HTTP


def fetched(api: Api, release: Bundle, role: str = "device", **headers: str) -> Any:
    return api.get(f"/v1/releases/{release.hash.hex()}", role=role, headers=headers)


def test_a_terminal_fetches_what_is_offered_to_it_whole_and_in_ranges(api: Api, published: Bundle) -> None:
    eventually(lambda: fetched(api, published).status_code == 200, "the release is served")
    whole, size = fetched(api, published), len(published.data)
    etag = whole.headers["etag"]
    assert (whole.content, etag) == (published.data, f'"{published.hash.hex()}"')
    parts = b""
    for asked in ("bytes=0-999", "bytes=1000-1999", "bytes=2000-"):
        part = fetched(api, published, Range=asked, **{"If-Range": etag})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {len(parts)}-{len(parts + part.content) - 1}/{size}"
        parts += part.content
    assert parts == published.data
    assert fetched(api, published, Range="bytes=-10").content == published.data[-10:]
    assert fetched(api, published, Range="bytes=0-99999999").content == published.data
    frame = api.get(f"/v1/releases/{published.hash[:8].hex()}/offer", role="device")
    assert frame.content == published.offer.encode()


def test_ranges_that_make_no_sense_and_copies_that_are_fresh_are_answered_as_http_says(
    api: Api, published: Bundle
) -> None:
    eventually(lambda: fetched(api, published).status_code == 200, "the release is served")
    beyond = fetched(api, published, Range=f"bytes={len(published.data)}-")
    problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(published.data)}"
    problem(fetched(api, published, Range="bytes=9-3"), 416, "range_not_satisfiable")
    for whole in ("bytes=0-1,5-6", "lines=0-1", "bytes=-"):
        assert fetched(api, published, Range=whole).status_code == 200
    changed = fetched(api, published, Range="bytes=0-9", **{"If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, published.data)
    known = fetched(api, published, **{"If-None-Match": f'"{published.hash.hex()}"'})
    assert (known.status_code, known.content) == (304, b"")


def test_what_status_calls_running_is_served_however_much_else_was_published(
    server: BenchServer, api: Api, tmp_path: Path
) -> None:
    made = [bundle(1, hardware="pi"), *(bundle(number, hardware="esp32-rv32imc") for number in (1, 2))]
    for number, one in enumerate(made):
        files.save(one, tmp_path / str(number))
        server.admin("release", "publish", str(tmp_path / str(number)), "--percent", "100")
    shown = {one["reference"]: one for one in json.loads(server.admin("release", "list", "--json"))}
    offered = [one for one in made if shown[one.hash[:8].hex()]["superseded_by"] is None]
    assert offered == [made[0], made[-1]]
    for one in offered:
        path = f"/v1/releases/{one.hash.hex()}/offer"
        eventually(lambda at=path: api.get(at).status_code == 200, "a running release is served")  # type: ignore[misc]
    problem(api.get(f"/v1/releases/{made[1].hash.hex()}/offer"), 404, "unknown_release")
    assert "superseded by 0.0.2" in server.admin("release", "status")
    for one in made:
        server.admin("release", "withdraw", one.hash[:8].hex())


def test_a_terminal_gets_only_what_its_rollout_gives_it(
    server: BenchServer, api: Api, published: Bundle
) -> None:
    ref = published.hash[:8].hex()
    eventually(lambda: fetched(api, published).status_code == 200, "the release is served")
    server.admin("release", "rollout", dotted(published), "--group", "terrace")
    eventually(lambda: fetched(api, published).status_code == 404, "another group's release is not served")
    assert fetched(api, published, role="manager").status_code == 200
    problem(fetched(api, published, role="waiter"), 403, "forbidden")
    server.admin("release", "group", "t-0001", "terrace")
    eventually(lambda: fetched(api, published).status_code == 200, "the group's terminal gets it")
    server.admin("release", "halt", ref, "--reason", "the soup is wrong")
    eventually(lambda: fetched(api, published).status_code == 404, "a halted release is not served")
    status = api.get("/v1/releases/status").json()
    shown = next(one for one in status["releases"] if one["reference"] == ref)
    assert (shown["state"], shown["reason"], shown["group"]) == ("halted", "the soup is wrong", "terrace")
    assert [one["device"] for one in status["terminals"]][:2] == ["t-0001", "t-0002"]


# ---------------------------------------------------------------- operators


def test_a_manager_publishes_and_rolls_out_over_http(api: Api, numbers: Iterator[int]) -> None:
    import base64

    release = bundle(next(numbers))
    ref = release.hash[:8].hex()
    body = {
        "offer": base64.b64encode(release.offer.encode()).decode(),
        "bundle": base64.b64encode(release.data).decode(),
    }
    made = api.post("/v1/releases", body)
    assert (made.status_code, made.json()["reference"], made.json()["new"]) == (201, ref, True)
    assert api.post("/v1/releases", body).json()["new"] is False
    spoilt = base64.b64encode(release.data[:-1] + b"?").decode()
    problem(api.post("/v1/releases", body | {"bundle": spoilt}), 422, "bad_release")
    problem(api.post("/v1/releases", body | {"bundle": "Ü"}), 422, "invalid")
    for percent in ("101", "", "1e999999"):
        problem(api.post(f"/v1/releases/{ref}/rollout", {"percent": percent}), 422, "config")
    problem(api.post("/v1/releases", body | {"percent": "1e999999"}), 422, "config")
    assert api.post(f"/v1/releases/{ref}/rollout", {"percent": "12.5"}).json()["share_percent"] == 12.5
    assert api.post(f"/v1/releases/{ref}/state", {"state": "halted", "reason": "x"}).status_code == 200
    problem(api.post(f"/v1/releases/{ref}/state", {"state": "running"}), 409, "halted")
    problem(api.post("/v1/releases/0000000000000000/rollout", {"percent": "1"}), 409, "unknown_release")
    shown = {one["reference"]: one for one in api.get("/v1/releases").json()}[ref]
    assert (shown["version"], shown["state"], shown["share_percent"]) == (dotted(release), "halted", 12.5)
    assert api.get("/v1/releases/history/t-0001").json() == []
    problem(api.get("/v1/releases/history/t-9999"), 404, "unknown_device")


def test_a_history_of_a_terminal_nobody_registered_is_refused(server: BenchServer) -> None:
    told = tableside("history", "t-9999", "--state", server.state)
    assert (told.returncode, told.stdout) == (1, "")
    assert "no device 't-9999'" in told.stderr
    assert server.admin("release", "history", "t-0001").startswith("time")


@pytest.fixture
def key_folder(tmp_path: Path) -> Path:
    """The fixtures' keys, as an operator keeps keys: mode 0600."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("root.pem", "release.pem", "root.pub.der"):
        shutil.copy(KEYS / name, folder / name)
        (folder / name).chmod(0o600)
    return folder


def test_two_builds_are_the_same_bytes_and_a_signed_one_verifies(tmp_path: Path, key_folder: Path) -> None:
    made = []
    for name in ("one", "two"):
        words = ("build", "--version", "0.1.7", "--hardware", "qemu-rv32", "--out", tmp_path / name, "--json")
        done = tableside(*words)
        assert done.returncode == 0, done.stderr
        made.append(json.loads(done.stdout)["sha256"])
    assert made[0] == made[1]
    certificate = tmp_path / "certificate.cbor"
    release = load_signer(KEYS / "release.pem")
    certificate.write_bytes(certify(load_signer(KEYS / "root.pem"), release.spki))
    signed = tableside(
        "sign", tmp_path / "one", "--key", key_folder / "release.pem", "--certificate", certificate
    )
    assert signed.returncode == 0, signed.stderr
    verified = tableside("verify", tmp_path / "one", "--root", KEYS / "root.pub.der", "--json")
    facts = json.loads(verified.stdout)
    assert (verified.returncode, facts["ok"], facts["version"], facts["hardware"]) == (
        0, True, "0.1.7", "qemu-rv32",
    )  # fmt: skip
    assert facts["image"] == ["0.1.0", "0.1.0"]
    assert len(facts["image_digest"]) == 64
    assert {path for path, _, _ in facts["files"]} >= {"assets/modules.txt", "terminal/version.mpy"}


@pytest.mark.parametrize(
    ("file", "failed"),
    [("bundle.bin", "files and chunks"), ("offer.cbor", "manifest signed"), (None, "certified by the root")],
)
def test_verify_names_the_check_that_failed(tmp_path: Path, file: str | None, failed: str) -> None:
    files.save(bundle(0x0401), tmp_path)
    root = ROOT
    if file is None:
        root = VerifyKey((KEYS / "evil-root.spki.der").read_bytes(), 3072)
    else:
        content = bytearray((tmp_path / file).read_bytes())
        content[len(content) // 3] ^= 1  # of the offer: inside the manifest
        (tmp_path / file).write_bytes(content)
    found = check.examine(tmp_path, root)
    assert failed in found.failed, found
    assert found.why
    assert found.bundle is None


def signed_elsewhere(content: dict[str, bytes], hardware: str = HARDWARE) -> Bundle:
    """A release that another tool signed, which judges nothing of what is in it."""
    honest, data = bundle(0x0501), b"".join(content.values())
    listed = tuple(BundleFile(path, len(body), sha256(body).digest()) for path, body in content.items())
    chunks = sha256(b"".join(chunk_hashes(data, honest.manifest.chunk_size))).digest()
    manifest = replace(honest.manifest, hardware=hardware, files=listed, size=len(data), chunks=chunks)
    offer = Offer(manifest.seal(load_signer(KEYS / "release.pem")), honest.offer.certificate)
    return Bundle(offer, manifest, data)


@pytest.mark.parametrize(
    ("content", "code", "check_name"),
    [
        ({"terminal/app.mpy": b"M\x06\x2f\x1f" + bytes(40)}, "wrong_code", "compiled for this hardware"),
        ({"assets/modules.txt": b"slot terminal.version\n"}, "no_image_named", "image named"),
    ],
)
def test_what_no_terminal_would_run_is_not_published_whoever_signed_it(
    server: BenchServer, api: Api, tmp_path: Path, content: dict[str, bytes], code: str, check_name: str
) -> None:
    import base64

    release = signed_elsewhere(content)
    files.save(release, tmp_path)
    found = check.examine(tmp_path, ROOT)
    assert check_name in found.failed
    assert code in found.why
    with pytest.raises(BenchError, match=code):
        server.admin("release", "publish", str(tmp_path))
    body = {
        "offer": base64.b64encode(release.offer.encode()).decode(),
        "bundle": base64.b64encode(release.data).decode(),
    }
    problem(api.post("/v1/releases", body), 422, code)
    assert release.hash[:8].hex() not in server.admin("release", "list", "--json")


def test_keys_are_private_protected_and_follow_each_other(tmp_path: Path) -> None:
    phrase = b"correct horse"
    made = keys.make(tmp_path / "keys", phrase)
    private = [path for path in made.files if path.suffix == ".pem"]
    assert [path.name for path in private] == ["root.pem", "release-1.pem"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private)
    assert all(b"ENCRYPTED" in path.read_bytes() for path in private)
    for wrong, said in ((None, "--passphrase-file"), (b"wrong", "passphrase is wrong")):
        with pytest.raises(keys.KeyFileError, match=said):
            keys.load_release(private[1], wrong)
    rotated = keys.rotate(tmp_path / "keys", phrase)
    assert [path.name for path in rotated.files] == ["release-2.pem", "rotation-2.cbor"]
    assert keys.load_release(rotated.files[0], phrase).epoch == 2
    with pytest.raises(keys.KeyFileError, match="--rotate"):
        keys.make(tmp_path / "keys", phrase)


def test_a_full_image_is_signed_for_secure_boot_as_espsecure_verifies_it(tmp_path: Path) -> None:
    key, other = tmp_path / "boot.pem", tmp_path / "other.pem"
    for path, name in ((key, "release"), (other, "evil-root")):
        text = (KEYS / f"{name}.pem").read_text()
        path.write_text(text[text.index("-----BEGIN") :])
    junk = tmp_path / "junk.pem"
    junk.write_text("not a key")
    image, signed = tmp_path / "image.bin", tmp_path / "image.signed.bin"
    image.write_bytes(sha256(b"image").digest() * 300)
    done = tableside("sign", image, "--secure-boot-key", key)
    assert done.returncode == 0, done.stderr
    assert signed.stat().st_size % 4096 == 0
    secureboot.verify(signed, key)
    with pytest.raises(secureboot.SecureBootError, match=r"refuses: [^e]"):
        secureboot.verify(signed, other)
    with pytest.raises(secureboot.SecureBootError, match="refuses: Error loading private key"):
        secureboot.sign(image, junk, tmp_path / "never.bin")
    with pytest.raises(FileNotFoundError):
        secureboot.sign(image, tmp_path / "nowhere.pem", tmp_path / "never.bin")
    spoilt = bytearray(signed.read_bytes())
    spoilt[100] ^= 1
    signed.write_bytes(spoilt)
    with pytest.raises(secureboot.SecureBootError, match=r"refuses: .*does not match"):
        secureboot.verify(signed, key)


def test_a_manager_tells_one_terminal_to_give_up_or_to_try_again(server: BenchServer, api: Api) -> None:
    path = "/v1/releases/terminals/t-0001/command"
    numbers = [
        api.post(path, {"command": "cancel"}).json()["number"],
        api.post(path, {"command": "release-quarantine", "layer": "image"}).json()["number"],
        json.loads(server.admin("release", "cancel", "t-0001", "--layer", "image", "--json"))["number"],
    ]
    assert numbers == sorted(set(numbers)), "each is newer than the one before"
    problem(api.post("/v1/releases/terminals/t-0404/command", {"command": "cancel"}), 409, "admin")
    problem(api.post(path, {"command": "explode"}), 422, "invalid")
