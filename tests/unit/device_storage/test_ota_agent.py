"""An update from the offer to the confirmation, against the server's own bundle code, and against liars."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from boards.host.hostboard import HostBoard
from signing import sign1, spki
from terminal.ota import install, loader, states
from terminal.ota.agent import OtaAgent
from terminal.ota.record import ControlRecord
from terminal.wire.rsa import PublicKey

HARDWARE = "qemu-rv32"
IMAGE = 0x000100
CHUNK = 256
FILES = {
    "terminal/__init__.py": b"",
    "terminal/app.py": b"def main(board, slot):\n    return slot\n" * 40,
    "terminal/version.py": b"VERSION = 0x000200\n",
    "assets/logo.bin": bytes(range(256)) * 5,
    "terminal/wire/__init__.py": b"",
}


class Bundle:
    """A signed bundle; every argument exists to make one wrong."""

    def __init__(
        self,
        files: dict[str, bytes] = FILES,
        version: int = 0x200,
        floor: int = 0x200,
        hardware: str = HARDWARE,
        group: str = "",
        firmware: tuple[int, int] = (0, 0xFFFF),
        size: int | None = None,
        release_key: str = "release",
        root: str = "root",
        purpose: str = "release",
        certified: str | None = None,
    ) -> None:
        self.data = b"".join(files.values())
        pieces = [self.data[at : at + CHUNK] for at in range(0, len(self.data), CHUNK)]
        self.chunks = pieces
        self.hashes = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
        listed = [[path, len(body), hashlib.sha256(body).digest()] for path, body in files.items()]
        total = len(self.data) if size is None else size
        manifest = ["tableside", hardware, group, version, floor, *firmware, total, CHUNK, listed]
        manifest.append(hashlib.sha256(self.hashes).digest())
        self.frame = sign1(release_key, ["seal/1", "manifest", "", ""], cbor2.dumps(manifest))
        key = spki(certified or release_key)
        certificate = cbor2.dumps([purpose, hashlib.sha256(key).digest()[:8], key, 1])
        self.certificate = sign1(root, ["seal/1", "cert", "", ""], certificate)
        self.digest = hashlib.sha256(self.frame).digest()
        self.offer = cbor2.dumps([self.frame, self.certificate])

    def answers(self, request: bytes) -> list[bytes]:
        ref, what, first, count = cbor2.loads(request)
        assert ref == self.digest[:8]
        if what == 0:
            runs = [self.hashes[at : at + 1024] for at in range(0, len(self.hashes), 1024)]
            return [cbor2.dumps([ref, 0, n, runs[n]]) for n in range(first, min(first + count, len(runs)))]
        last = min(first + count, len(self.chunks))
        return [cbor2.dumps([ref, 1, n, self.chunks[n]]) for n in range(first, last)]


class Terminal:
    """A board with its update agent, and a server that answers it."""

    def __init__(self, board: HostBoard, bundle: Bundle, slot: str = "factory", version: int = IMAGE) -> None:
        self.board = board
        self.bundle = bundle
        self.requests: list[bytes] = []
        self.told: list[list[int]] = []
        self.reports: list[dict[str, Any]] = []
        self.rebooted = asyncio.Event()
        self.awaited = (-1, asyncio.Event())  # a reason, and that it was reported
        self.online = True
        self.tamper: Callable[[list[bytes]], list[bytes]] = lambda frames: frames
        board.image_version = IMAGE
        self.agent = OtaAgent(
            board,
            PublicKey.from_spki(spki("root")),
            "demo",
            slot,
            version,
            self.send,
            self.report,
            self.rebooted.set,
        )

    def send(self, kind: str, payload: bytes) -> bool:
        if not self.online:
            return False
        if kind == "state":
            self.told.append(cbor2.loads(payload))
        else:
            self.requests.append(payload)
            for frame in self.tamper(self.bundle.answers(payload)):
                asyncio.get_running_loop().call_soon(self.agent.on_chunk, frame)
        return True

    def report(self, event: dict[str, Any]) -> None:
        self.reports.append(event)
        reason, seen = self.awaited
        if reason >= 0 and event["reason"] == states.REASONS[reason]:
            seen.set()

    async def until(self, event: asyncio.Event) -> None:
        task = asyncio.create_task(self.agent.run())
        try:
            await asyncio.wait_for(event.wait(), 20)
        finally:
            task.cancel()

    def runs_until_reason(self, reason: int, offer: bytes | None = None) -> None:
        """Run the agent, with an offer if there is one, until it reports this reason."""
        self.awaited = (reason, asyncio.Event())
        if offer is not None:
            self.agent.on_offer(offer)
        asyncio.run(self.until(self.awaited[1]))

    def update(self) -> None:
        """Offer the bundle and wait for the reboot."""
        self.agent.on_offer(self.bundle.offer)
        asyncio.run(self.until(self.rebooted))


@pytest.fixture
def board(tmp_path: Path) -> HostBoard:
    host = HostBoard(tmp_path, hardware=HARDWARE)
    host.mount()
    return host


@pytest.fixture(scope="module")
def good() -> Bundle:
    return Bundle()


def boot(board: HostBoard, cause: int = 2) -> tuple[int, Any]:
    board.reset_cause = lambda: cause  # type: ignore[method-assign]
    return loader.choose(board, IMAGE, None)


def installed(board: HostBoard, slot: str) -> dict[str, bytes]:
    base = Path(board.root) / "slot" / slot / "app"
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}


def test_an_update_is_fetched_verified_tried_and_confirmed(board: HostBoard, good: Bundle) -> None:
    terminal = Terminal(board, good)
    terminal.update()
    assert installed(board, "a") == FILES
    assert ControlRecord(board.region("control")).state.state == states.ARMED

    slot, state = boot(board)
    assert (slot, state.state, state.starts) == (states.SLOT_A, states.TRIAL, 1)
    new = Terminal(board, good, "a", 0x200)
    new.rebooted = asyncio.Event()
    assert new.agent.confirm()
    assert not new.agent.confirm()

    slot, state = boot(board, cause=1)
    assert (slot, state.state, state.version, state.floor) == (states.SLOT_A, states.CONFIRMED, 0x200, 0x200)


def test_the_second_update_goes_into_the_other_slot_and_the_first_stays(
    board: HostBoard, good: Bundle
) -> None:
    Terminal(board, good).update()
    boot(board)
    Terminal(board, good, "a", 0x200).agent.confirm()
    files = FILES | {"terminal/version.py": b"VERSION = 0x000300\n"}
    Terminal(board, Bundle(files, version=0x300), "a", 0x200).update()
    assert boot(board)[0] == states.SLOT_B
    assert installed(board, "a") == FILES
    assert installed(board, "b") == files


def test_a_bundle_that_never_confirms_is_rolled_back_and_not_taken_again(
    board: HostBoard, good: Bundle
) -> None:
    Terminal(board, good).update()
    assert [boot(board)[0] for _ in range(4)] == [0, 0, 0, states.FACTORY]
    terminal = Terminal(board, good)
    terminal.runs_until_reason(states.TRIES_SPENT)
    terminal.runs_until_reason(states.QUARANTINED, good.offer)
    assert terminal.requests == []


def test_a_rollback_is_reported_before_it_is_settled(board: HostBoard, good: Bundle) -> None:
    Terminal(board, good).update()
    for _ in range(4):
        boot(board)
    terminal = Terminal(board, good)
    terminal.online = False
    terminal.runs_until_reason(states.TRIES_SPENT)
    assert terminal.agent.record.state.state == states.ROLLED_BACK
    terminal = Terminal(board, good)
    terminal.runs_until_reason(states.TRIES_SPENT)
    assert terminal.told[0] == [IMAGE, 2, states.ROLLED_BACK, 0, states.TRIES_SPENT, good.digest[:6]]
    assert terminal.agent.record.state.state == states.CONFIRMED


def test_a_bundle_that_calls_itself_by_another_version_is_rolled_back(board: HostBoard, good: Bundle) -> None:
    Terminal(board, good).update()
    boot(board)
    terminal = Terminal(board, good, "a", 0x999)
    assert not terminal.agent.confirm()
    assert terminal.rebooted.is_set()
    assert boot(board)[0] == states.FACTORY


def test_an_interrupted_download_goes_on_where_it_was(board: HostBoard, good: Bundle) -> None:
    terminal = Terminal(board, good)
    seen = 0
    stop = asyncio.Event()

    def cut_after_ten(frames: list[bytes]) -> list[bytes]:
        nonlocal seen
        seen += len(frames)
        if seen > 10:
            stop.set()
            return []
        return frames

    terminal.tamper = cut_after_ten
    terminal.agent.on_offer(good.offer)
    asyncio.run(terminal.until(stop))
    terminal.agent._staging.close()  # what was written is in the file system when the process ends

    again = Terminal(board, good)
    asyncio.run(again.until(again.rebooted))
    first = cbor2.loads(again.requests[0])
    assert first[1] == 1
    assert first[2] >= 4
    assert installed(board, "a") == FILES


def test_lost_doubled_and_reordered_chunks_are_asked_for_again(
    board: HostBoard, good: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terminal.ota.agent._STALL_S", 0.01)
    terminal = Terminal(board, good)
    turn = 0

    def shake(frames: list[bytes]) -> list[bytes]:
        nonlocal turn
        turn += 1
        return {0: frames[1:], 1: frames + frames, 2: frames[::-1]}.get(turn % 5, frames)

    terminal.tamper = shake
    terminal.update()
    assert installed(board, "a") == FILES


def test_forged_chunks_end_the_download_with_a_reason(
    board: HostBoard, good: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terminal.ota.agent._STALL_S", 0.01)
    terminal = Terminal(board, good)

    def forge(frames: list[bytes]) -> list[bytes]:
        ref, what, index, data = cbor2.loads(frames[0])
        bad = bytes([data[0] ^ 1]) + data[1:]
        return [cbor2.dumps([ref, what, index, bad])] * 20 if what else frames

    terminal.tamper = forge
    terminal.runs_until_reason(states.BAD_BYTES, good.offer)
    assert boot(board)[0] == states.FACTORY


MAIN = {"terminal/app.py": b"x"}
REFUSED = [
    ("another release key than the certificate's", {"certified": "server-sign"}, states.BAD_SIGNATURE),
    ("a certificate by another root", {"root": "evil-root"}, states.BAD_SIGNATURE),
    ("a server-sign certificate", {"purpose": "server-sign"}, states.BAD_SIGNATURE),
    ("another hardware", {"hardware": "esp32"}, states.WRONG_TARGET),
    ("another group", {"group": "elsewhere"}, states.WRONG_TARGET),
    ("another firmware", {"firmware": (0x200, 0x300)}, states.WRONG_TARGET),
    ("a path that leaves the slot", {"files": {"terminal/../../x.py": b"x"}}, states.BAD_MANIFEST),
    ("a path that shadows the board", {"files": {"board.py": b"x"}}, states.BAD_MANIFEST),
    ("its own root key", {"files": {"terminal/trust.py": b"x"}}, states.BAD_MANIFEST),
    ("an absolute path", {"files": {"/terminal/x.py": b"x"}}, states.BAD_MANIFEST),
    ("a hidden file", {"files": {"terminal/.x.py": b"x"}}, states.BAD_MANIFEST),
    ("a strange suffix", {"files": {"terminal/x.so": b"x"}}, states.BAD_MANIFEST),
    ("x.py beside x.mpy", {"files": {"terminal/x.py": b"x", "terminal/x.mpy": b"y"}}, states.BAD_MANIFEST),
    ("a total that does not add up", {"files": MAIN, "size": 2}, states.BAD_MANIFEST),
    ("an endless bundle", {"files": MAIN, "size": 0xFFFFFFFF}, states.BAD_MANIFEST),
    ("a floor above its version", {"files": MAIN, "floor": 0x201}, states.BAD_MANIFEST),
]


@pytest.mark.parametrize(("wrong", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_bad_offer_changes_nothing(board: HostBoard, wrong: dict[str, Any], reason: int) -> None:
    terminal = Terminal(board, Bundle(**wrong))
    image = bytes(board.nor.data)
    terminal.runs_until_reason(reason, terminal.bundle.offer)
    assert terminal.told[-1][4] == reason
    assert terminal.requests == []
    assert bytes(board.nor.data) == image
    assert list(Path(board.root).iterdir()) == []


def test_a_version_below_the_floor_is_refused(board: HostBoard, good: Bundle) -> None:
    ControlRecord(board.region("control")).store(states.factory().but(floor=0x201))
    terminal = Terminal(board, good)
    terminal.runs_until_reason(states.BELOW_FLOOR, good.offer)


def test_a_forged_offer_does_not_stop_a_download(board: HostBoard, good: Bundle) -> None:
    terminal = Terminal(board, good)
    forged = Bundle(root="evil-root").offer
    sent = False

    def interrupt(frames: list[bytes]) -> list[bytes]:
        nonlocal sent
        if not sent:
            sent = True
            terminal.agent.on_offer(forged)
        return frames

    terminal.tamper = interrupt
    terminal.update()
    assert installed(board, "a") == FILES


def test_garbage_for_an_offer_or_a_chunk_is_counted_and_ignored(board: HostBoard, good: Bundle) -> None:
    terminal = Terminal(board, good)
    for junk in (b"", b"\xff", good.offer[:-1], good.offer + b"\x00", bytes(5000)):
        terminal.agent.on_chunk(junk)
        terminal.runs_until_reason(states.BAD_SIGNATURE, junk)
    assert terminal.agent.record.state == states.factory()


@pytest.mark.parametrize(("errno", "reason"), [(5, states.FILE_FAILED), (28, states.NO_SPACE)])
def test_a_file_operation_that_fails_is_not_told_as_an_operators_word(
    board: HostBoard, good: Bundle, monkeypatch: pytest.MonkeyPatch, errno: int, reason: int
) -> None:
    terminal = Terminal(board, good)

    def fail(*_arguments: object) -> None:
        raise OSError(errno, "flash")

    monkeypatch.setattr(install.Staging, "put_chunk_steps", fail)
    terminal.runs_until_reason(reason, good.offer)
    assert terminal.agent.status()["cause"].startswith("OSError")
    assert terminal.agent.record.state.state == states.CONFIRMED
    monkeypatch.undo()
    terminal.agent.on_offer(good.offer)
    asyncio.run(terminal.until(terminal.rebooted))


def test_a_download_cut_before_its_manifest_was_stored_begins_anew_and_blames_nobody(
    board: HostBoard, good: Bundle
) -> None:
    class Watched(Terminal):
        over = asyncio.Event()

        def report(self, event: dict[str, Any]) -> None:
            super().report(event)
            if event["state"] == "confirmed":
                self.over.set()

    terminal = Watched(board, good)
    begun = states.staging(terminal.agent.record.state, good.digest, 0x200, 0x200)
    terminal.agent.record.store(begun)
    asyncio.run(terminal.until(terminal.over))
    assert {told[4] for told in terminal.told} == {states.NONE}
    terminal.agent.on_offer(good.offer)
    asyncio.run(terminal.until(terminal.rebooted))


def test_changed_missing_and_extra_files_make_a_slot_unbootable(board: HostBoard, good: Bundle) -> None:
    Terminal(board, good).update()
    base = Path(board.root) / "slot" / "a" / "app"

    def whole() -> bool:
        steps = install.check_slot_steps(board.root, 0, good.digest, IMAGE, None)
        return loader._run(steps)

    assert whole()
    app = base / "terminal" / "app.py"
    body = app.read_bytes()
    for bad in (body[:-1], body + b"\n", body.replace(b"slot", b"Slot", 1)):
        app.write_bytes(bad)
        assert not whole()
    app.write_bytes(body)
    extra = base / "terminal" / "extra.py"
    extra.write_bytes(b"")
    assert not whole()
    extra.unlink()
    assert whole()
    (base.parent / "manifest").write_bytes(good.frame + b"\x00")
    assert not whole()
