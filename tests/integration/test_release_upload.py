"""Whole firmware images published over HTTP: bounded, one at a time, judged like any other release."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from select import select

import cbor2
import httpx
import pytest
from esp32_images import C3, published
from http_kit import Api, http_base, new_key, open_api, problem
from server_bench import KEYS, a_server, eventually, prepare_state

from bench.server import BenchServer
from server.devices.keyfiles import load_signer
from server.releases.bundle import Bundle, Target, build_bundle, certify
from server.releases.rules import IMAGE_PATH
from server.web.guard import MAX_BODY_BYTES
from server.web.uploads import PATH, UPLOAD_MAX_BYTES

APP_AT = 0x10000  # of an application in a published image
HARDWARE = "esp32c3-image"
CBOR = {"Content-Type": "application/cbor"}
PART = bytes(65_536)
ANSWER_WITHIN_S = 10


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
def release() -> Bundle:
    """A real MicroPython image, signed by the fixtures' release key."""
    signer = load_signer(KEYS / "release.pem")
    certificate = certify(load_signer(KEYS / "root.pem"), signer.spki)
    image = published(C3)[APP_AT:]
    return build_bundle({IMAGE_PATH: image}, Target(HARDWARE, 0x0201), signer, certificate, 4096)


def uploaded(release: Bundle) -> bytes:
    return cbor2.dumps([release.offer.encode(), release.data])


def test_a_real_image_is_published_once_and_fetched_back(api: Api, release: Bundle) -> None:
    body = uploaded(release)
    assert len(body) > 1_600_000
    key = {**CBOR, **new_key()}
    answers = [api.call("POST", f"{PATH}?percent=100", content=body, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201], answers[0].text
    made = answers[0].json()
    assert made == answers[1].json()
    assert made == {
        "reference": release.hash[:8].hex(), "version": "0.2.1", "hardware": HARDWARE, "new": True,
    }  # fmt: skip
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    path = f"/v1/releases/{release.hash.hex()}"
    eventually(lambda: api.get(path, role="device").status_code == 200, "the image is served")
    assert api.get(path, role="device").content == release.data
    status = api.get("/v1/releases/status").json()
    assert [(one["version"], one["share_percent"], one["bytes"]) for one in status["releases"]] == [
        ("0.2.1", 100.0, len(release.data))
    ]


def test_an_image_with_a_wrong_byte_is_refused_and_its_key_may_be_used_again(
    api: Api, release: Bundle
) -> None:
    wrong = bytearray(release.data)
    wrong[100_000] ^= 1
    key = {**CBOR, **new_key()}
    body = cbor2.dumps([release.offer.encode(), bytes(wrong)])
    problem(api.call("POST", PATH, content=body, headers=key), 422, "bad_release")
    assert api.call("POST", PATH, content=uploaded(release), headers=key).status_code == 201


def test_a_body_beyond_the_limit_is_refused_whether_it_says_so_or_not(api: Api) -> None:
    problem(api.call("POST", PATH, content=bytes(UPLOAD_MAX_BYTES + 1), headers=CBOR), 413, "too_large")

    def without_end() -> Iterator[bytes]:
        for _ in range(UPLOAD_MAX_BYTES // len(PART) + 2):
            yield PART

    problem(api.call("POST", PATH, content=without_end(), headers=CBOR), 413, "too_large")
    other = api.call("POST", "/v1/releases", content=bytes(MAX_BODY_BYTES + 1))
    problem(other, 413, "too_large")


@pytest.mark.parametrize("body", [b"", b"\x80", cbor2.dumps([b"offer"]), cbor2.dumps(["offer", b"bundle"])])
def test_what_is_no_release_is_refused(api: Api, body: bytes) -> None:
    answer = api.call("POST", PATH, content=body, headers=CBOR)
    assert answer.status_code == 422, answer.text
    problem(
        api.call("POST", PATH, content=body, headers={"Content-Type": "text/plain"}),
        415,
        "unsupported_media_type",
    )


def begun(server: BenchServer, token: str | None) -> socket.socket:
    """An upload of which no byte has been sent yet, by a caller who waits."""
    host, _, port = http_base(server).removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN_S)
    head = [f"POST {PATH} HTTP/1.1", "Host: tableside", "Content-Type: application/cbor"]
    head += ["Content-Length: 2000000", "Idempotency-Key: slow"]
    head += [f"Authorization: Bearer {token}"] if token else []
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


@pytest.mark.parametrize(("role", "status"), [(None, b"401"), ("device", b"403"), ("waiter", b"403")])
def test_who_may_not_publish_is_told_so_before_the_first_byte(
    server: BenchServer, api: Api, role: str | None, status: bytes
) -> None:
    with begun(server, api.tokens[role] if role else None) as connection:
        assert connection.recv(12) == b"HTTP/1.1 " + status


def test_one_upload_is_taken_at_a_time(server: BenchServer, api: Api, release: Bundle) -> None:
    def answer() -> int:
        return api.call("POST", PATH, content=uploaded(release), headers=CBOR).status_code

    def nothing() -> httpx.Response:
        return api.call("POST", PATH, content=b"", headers=CBOR)

    with ExitStack() as stack:
        begins = [stack.enter_context(begun(server, api.tokens["manager"]))]

        def has_begun() -> bool:
            if select(begins[-1:], [], [], 0)[0]:  # it was refused, because it met one of our questions
                begins.append(stack.enter_context(begun(server, api.tokens["manager"])))
            return nothing().status_code == 503

        eventually(has_begun, "the first upload has begun")
        busy = nothing()
        problem(busy, 503, "upload_busy")
        assert int(busy.headers["Retry-After"]) > 0
        assert api.get("/v1/releases").status_code == 200, "everything else goes on"
    eventually(lambda: answer() == 201, "the first one is gone")
