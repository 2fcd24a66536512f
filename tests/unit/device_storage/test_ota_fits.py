"""A bundle goes over the image it was made over, with code this processor runs; and a report names it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from boards.host.hostboard import HostBoard
from hypothesis import given
from hypothesis import strategies as st
from terminal.ota import fits, states
from test_ota_agent import FILES, HARDWARE, IMAGE, Bundle, Terminal, boot

MINE, ANOTHER = bytes(range(32)), bytes(range(1, 33))
XTENSAWIN, RV32IMC = 6 | (3 | 10 << 2) << 8, 6 | (3 | 11 << 2) << 8  # sys.implementation._mpy of two chips


def over(digest: bytes | None, modules: bool = True, name: str = "assets/image.txt") -> dict[str, bytes]:
    """A bundle's files that overlay the image of a digest."""
    found = {"assets/modules.txt": b"slot terminal.version\n"} if modules else {}
    if digest is not None:
        found[name] = digest.hex().encode() + b"\n"
    return {**found, **FILES}


@pytest.fixture
def board(tmp_path: Path) -> HostBoard:
    host = HostBoard(tmp_path, hardware=HARDWARE)
    host.image_digest = MINE
    host.mount()
    return host


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (over(ANOTHER), "another image of the same number"),
        (over(ANOTHER, modules=False), "another image, whole package"),
        (over(None), "no image named"),
        (over(MINE, name="assets/images.txt"), "named elsewhere"),
        (over(None) | {"assets/image.txt": MINE.hex().encode()}, "another spelling"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bundle_over_another_image_is_refused_before_anything_is_fetched(
    board: HostBoard, files: dict[str, bytes], why: str
) -> None:
    terminal = Terminal(board, Bundle(files))
    terminal.runs_until_reason(states.WRONG_IMAGE, terminal.bundle.offer)
    assert not terminal.requests, why
    assert terminal.agent.record.state == states.factory()
    assert terminal.told[-1][-1] == terminal.bundle.digest[:8]


@pytest.mark.parametrize("files", [over(MINE), over(MINE, modules=False), FILES])
def test_a_bundle_over_this_image_or_of_the_whole_package_is_installed(
    board: HostBoard, files: dict[str, bytes]
) -> None:
    terminal = Terminal(board, Bundle(files))
    terminal.update()
    assert terminal.agent.record.state.state == states.ARMED


@pytest.mark.parametrize("files", [over(ANOTHER), over(None)])
def test_an_image_that_does_not_know_its_digest_goes_by_its_number(
    board: HostBoard, files: dict[str, bytes]
) -> None:
    board.image_digest = None
    terminal = Terminal(board, Bundle(files))
    terminal.update()
    assert terminal.agent.record.state.state == states.ARMED


def test_a_slot_made_over_another_image_does_not_start(board: HostBoard) -> None:
    Terminal(board, Bundle(over(MINE))).update()
    from terminal.ota import loader

    board.reset_cause = lambda: 1  # type: ignore[method-assign]
    slot, state = loader.choose(board, IMAGE, ANOTHER)
    assert (slot, state.reason) == (states.FACTORY, states.SLOT_BAD)


@given(st.binary(max_size=6), st.sampled_from([XTENSAWIN, RV32IMC, 0]))
def test_only_what_the_interpreter_loads_is_taken_for_loadable(head: bytes, own: int) -> None:
    """The rule of MicroPython 1.25, py/persistentcode.c, in its own words."""
    loads = len(head) >= 4 and head[0] == ord("M") and head[1] == own & 0xFF and head[3] <= 31
    if loads and head[2] >> 2:
        loads = head[2] == own >> 8
    assert fits.is_loadable(head, own) == loads


@pytest.mark.parametrize("own", [XTENSAWIN, RV32IMC])
def test_native_code_is_for_one_processor_and_bytecode_for_all(own: int) -> None:
    other = RV32IMC if own == XTENSAWIN else XTENSAWIN
    assert fits.is_loadable(bytes([ord("M"), 6, own >> 8, 31]), own)
    assert not fits.is_loadable(bytes([ord("M"), 6, other >> 8, 31]), own)
    assert not fits.is_loadable(bytes([ord("M"), 6, own >> 8 & ~1, 31]), own)
    assert fits.is_loadable(b"M\x06\x00\x1f", own)
    assert not fits.is_loadable(b"M\x05\x00\x1f", own)


def test_code_that_would_not_load_is_given_up_before_it_is_tried_and_not_fetched_again(
    board: HostBoard,
) -> None:
    bundle = Bundle({**over(MINE), "terminal/fast.mpy": b"M\x06\x2b\x1f" + bytes(40)})
    terminal = Terminal(board, bundle)
    terminal.runs_until_reason(states.WRONG_CODE, bundle.offer)
    assert terminal.agent.record.state.state == states.CONFIRMED
    assert terminal.told[-1] == [IMAGE, 2, states.CONFIRMED, 0, states.WRONG_CODE, bundle.digest[:8]]
    fetched = len(terminal.requests)
    terminal.runs_until_reason(states.QUARANTINED, bundle.offer)
    assert len(terminal.requests) == fetched


# ---------------------------------------------------------------- what a report is about


def names(terminal: Terminal) -> list[tuple[int, int, bytes]]:
    """(state, reason, bundle) of every report, without repetitions."""
    found: list[tuple[int, int, bytes]] = []
    for _, _, state, _, reason, ref in terminal.told:
        if not found or found[-1] != (state, reason, ref):
            found.append((state, reason, ref))
    return found


def test_every_report_names_the_bundle_it_is_about(board: HostBoard) -> None:
    first, second = Bundle(over(MINE)), Bundle(over(MINE), version=0x300)
    terminal = Terminal(board, first)
    terminal.update()
    ref = first.digest[:8]
    assert names(terminal) == [
        (states.CONFIRMED, states.NONE, b""),
        *((state, states.NONE, ref) for state in (states.STAGING, states.VERIFIED, states.ARMED)),
    ]
    board.reset_cause = lambda: 1  # type: ignore[method-assign]
    from terminal.ota import loader

    loader.choose(board, IMAGE, MINE)
    running = Terminal(board, second, "a", 0x200)
    assert running.agent.confirm()
    assert running.told[-1][2:] == [states.CONFIRMED, 0, states.NONE, ref]
    running.tamper = lambda frames: [frame[:-1] + bytes([frame[-1] ^ 1]) for frame in frames]
    running.runs_until_reason(states.BAD_BYTES, second.offer)
    assert running.told[-1][2:] == [states.CONFIRMED, 0, states.BAD_BYTES, second.digest[:8]]
    # As long as that reason stands, a report that is repeated goes on naming the bundle it is about.
    running.told.clear()
    running.runs_until_reason(states.BAD_BYTES)
    assert running.told[-1][2:] == [states.CONFIRMED, 0, states.BAD_BYTES, second.digest[:8]]
    # After a restart nobody knows what was given up: the report says so instead of naming the wrong one.
    after = Terminal(board, second, "a", 0x200)
    after.runs_until_reason(states.BAD_BYTES)
    assert after.told[-1][2:] == [states.CONFIRMED, 0, states.BAD_BYTES, b""]


def test_a_refused_offer_is_named_while_another_bundle_is_under_way(board: HostBoard) -> None:
    bundle, low = Bundle(over(MINE)), Bundle(over(ANOTHER), version=0x300)
    terminal = Terminal(board, bundle)

    def offer_another(frames: list[bytes]) -> list[bytes]:
        asyncio.get_running_loop().call_soon(terminal.agent.on_offer, low.offer)
        return []

    terminal.tamper = offer_another
    terminal.runs_until_reason(states.WRONG_IMAGE, bundle.offer)
    told = [states.STAGING, 0, states.WRONG_IMAGE, low.digest[:8]]
    assert told in [report[2:] for report in terminal.told]


def test_a_rollback_is_named_over_a_restart(board: HostBoard) -> None:
    board.image_digest = None
    bundle = Bundle()
    Terminal(board, bundle).update()
    for _ in range(4):
        boot(board)
    terminal = Terminal(board, bundle)
    terminal.runs_until_reason(states.TRIES_SPENT)
    while len(terminal.told) < 2:
        terminal.runs_until_reason(states.TRIES_SPENT)
    rolled_back = (states.ROLLED_BACK, states.TRIES_SPENT, bundle.digest[:6])
    assert names(terminal)[:2] == [rolled_back, (states.CONFIRMED, states.TRIES_SPENT, bundle.digest[:6])]


def test_the_image_a_manifest_names_is_found_whatever_else_it_lists() -> None:
    def manifest(*paths: tuple[str, bytes]) -> SimpleNamespace:
        return SimpleNamespace(files=[(path, 65, digest) for path, digest in paths])

    import hashlib

    mine = hashlib.sha256(MINE.hex().encode() + b"\n").digest()
    modules, image = ("assets/modules.txt", bytes(32)), ("assets/image.txt", mine)
    assert fits.over_image(manifest(modules, image), MINE)
    assert fits.over_image(manifest(image, modules), MINE)
    assert not fits.over_image(manifest(image, modules), ANOTHER)
    assert not fits.over_image(manifest(modules), MINE)
    assert fits.over_image(manifest(modules), None)
