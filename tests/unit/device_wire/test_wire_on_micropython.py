"""The same wire code gives the same answers on MicroPython, in the heap a terminal has.

Every script of scripts/ runs here under CPython, under the MicroPython of the test environment, and under the
emulated process board's MicroPython 1.25 if its image has been built.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_device_vectors import SERVER_KINDS
from wire_fixtures import FIRMWARE, ROOT, SCRIPTS, load_key, load_spki

HEAP = "160k"
CPYTHON = [sys.executable]


def micropythons() -> list[Any]:
    wheel = Path(sys.executable).parent / "micropython"
    found = [pytest.param([str(wheel), "-X", f"heapsize={HEAP}"], id="wheel")]
    images = (ROOT / "build" / "images").glob("process-*/image.json")
    newest = max(images, key=lambda path: path.stat().st_mtime, default=None)
    if newest is not None:
        program = newest.parent / json.loads(newest.read_text())["path"]
        found.append(pytest.param([str(program), "-X", f"heapsize={HEAP}"], id="process-board"))
    return found


def run(interpreter: list[str], script: str, *arguments: object) -> list[str]:
    command = [*interpreter, str(SCRIPTS / script), str(FIRMWARE), *map(str, arguments)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=SCRIPTS, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.splitlines()


def write_cases(path: Path, vectors: dict[str, Any], cases: list[tuple[str, str]]) -> Path:
    inputs, schedule = vectors["inputs"], vectors["key_schedule"]
    head = ["key", load_spki("root").hex(), load_spki("server-sign").hex(), inputs["site"], inputs["device"]]
    lines = [" ".join([*head, inputs["sid"], schedule["th8"], schedule["s2d"]])]
    lines += [f"{kind} {text}" for kind, text in cases]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("interpreter", micropythons())
def test_every_vector_gets_the_same_verdict(
    interpreter: list[str], vectors: dict[str, Any], tmp_path: Path
) -> None:
    judged = [v for v in vectors["frames"] + vectors["negative"] if v["kind"] in SERVER_KINDS]
    cases = [(v["kind"], v["hex"]) for v in judged]
    path = write_cases(tmp_path / "cases", vectors, cases)
    expected = run(CPYTHON, "frame_judge.py", path)
    assert len(expected) == len(cases)
    assert sum(verdict.startswith("accepted") for verdict in expected) >= 20
    assert run(interpreter, "frame_judge.py", path) == expected


@pytest.mark.parametrize("interpreter", micropythons())
def test_a_handshake_is_replayed_byte_for_byte(
    interpreter: list[str], vectors: dict[str, Any], frames: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "case"
    path.write_text("".join(f"{name} {data.hex()}\n" for name, data in handshake(vectors, frames).items()))
    assert run(CPYTHON, "handshake_replay.py", path) == ["ok"]
    assert run(interpreter, "handshake_replay.py", path) == ["ok"]


def handshake(vectors: dict[str, Any], frames: dict[str, Any]) -> dict[str, bytes]:
    import cbor2

    inputs = vectors["inputs"]
    hello = cbor2.loads(bytes.fromhex(frames["hello"]["payload"]))
    numbers = load_key(inputs["device"]).private_numbers()
    integers = {
        "n": numbers.public_numbers.n,
        "e": numbers.public_numbers.e,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
        "handshake": hello[1],
        "firmware": hello[6],
        "menu": hello[7],
        "pending": hello[8],
    }
    case = {name: value.to_bytes(256, "big") for name, value in integers.items()}
    case |= {name: inputs[name].encode() for name in ("site", "device")}
    case |= {name: bytes.fromhex(inputs[name]) for name in ("nonce_d", "secret", "oaep_seed")}
    case |= {"salt": bytes.fromhex(frames["hello"]["salt"]), "blind": b"\x5b" * 32, "root": load_spki("root")}
    for name in ("beacon", "hello", "accept", "order-1-line", "order-3-lines", "order-6-lines"):
        case[name] = bytes.fromhex(frames[name]["hex"])
    for name in ("order-1-line", "order-3-lines", "order-6-lines"):
        case[f"{name}-op"] = bytes.fromhex(frames[name]["op"])
    case["reply"] = bytes.fromhex(frames["reply-committed"]["hex"])
    case["resume"] = bytes.fromhex(frames["resume"]["hex"])
    for name in ("nonce_d", "accept", "sid"):
        case[f"resume-{name}"] = bytes.fromhex(vectors["resumed"][name])
    case["resume-d2s"] = bytes.fromhex(vectors["resumed"]["key_schedule"]["d2s"])
    case["reply-op-id"] = bytes.fromhex(frames["order-1-line"]["op_id"])
    return case


@pytest.mark.parametrize("interpreter", micropythons())
def test_edited_frames_never_get_past_a_refusal_code(
    interpreter: list[str], vectors: dict[str, Any], tmp_path: Path
) -> None:
    # The long frames are left out of the seeds: the script holds them all in a terminal's heap.
    seeds = [
        (v["kind"], v["hex"])
        for v in vectors["frames"]
        if v["kind"] in SERVER_KINDS and v["size"] < 1000 and v["kind"] != "cert-frame"
    ]
    path = write_cases(tmp_path / "cases", vectors, seeds)
    expected = run(CPYTHON, "frame_fuzz.py", path, 3000, 20261123)
    rounds, refused, _ = expected[0].split()
    assert int(rounds) == 3000
    assert int(refused) > 1000
    assert run(interpreter, "frame_fuzz.py", path, 3000, 20261123) == expected
