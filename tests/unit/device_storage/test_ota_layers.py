"""What the loader makes of images on trial, of records from a later application, and of its own failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from boards.host.hostboard import HostBoard
from terminal.ota import loader, states
from terminal.ota.record import ControlRecord
from test_ota_agent import HARDWARE, IMAGE, Bundle, Terminal

OTHER_IMAGE = IMAGE + 1
POWER_ON = 1


@pytest.fixture
def board(tmp_path: Path) -> HostBoard:
    host = HostBoard(tmp_path, hardware=HARDWARE)
    host.mount()
    host.reset_cause = lambda: POWER_ON  # type: ignore[method-assign]
    host.image_on_trial = False  # type: ignore[attr-defined]
    return host


def over(first: int, last: int) -> Bundle:
    return Bundle(firmware=(first, last))


def state(board: HostBoard) -> Any:
    return ControlRecord(board.region("control")).state


def run(board: HostBoard, bundle: Bundle) -> None:
    """Install a bundle and confirm it."""
    Terminal(board, bundle).update()
    loader.choose(board, IMAGE, None)
    Terminal(board, bundle, "a", 0x200).agent.confirm()


def test_an_image_that_falls_back_finds_its_application_as_it_left_it(board: HostBoard) -> None:
    run(board, over(IMAGE, IMAGE))
    before = bytes(board.nor.data)
    board.image_on_trial = True  # type: ignore[attr-defined]
    assert loader.choose(board, OTHER_IMAGE, None)[0] == states.FACTORY
    assert bytes(board.nor.data) == before
    board.image_on_trial = False  # type: ignore[attr-defined]
    assert loader.choose(board, IMAGE, None)[0] == states.SLOT_A
    assert state(board).reason == states.NONE


def test_a_bundle_made_over_both_images_runs_during_the_trial(board: HostBoard) -> None:
    run(board, over(IMAGE, OTHER_IMAGE))
    board.image_on_trial = True  # type: ignore[attr-defined]
    assert loader.choose(board, OTHER_IMAGE, None)[0] == states.SLOT_A


def test_a_rotten_bundle_does_not_run_during_the_trial(board: HostBoard) -> None:
    run(board, over(IMAGE, OTHER_IMAGE))
    (Path(board.root) / "slot" / "a" / "app" / "terminal" / "app.py").write_bytes(b"#")
    board.image_on_trial = True  # type: ignore[attr-defined]
    assert loader.choose(board, OTHER_IMAGE, None)[0] == states.FACTORY


def test_a_confirmed_image_gives_up_what_was_made_over_the_old_one_and_says_so(board: HostBoard) -> None:
    run(board, over(IMAGE, IMAGE))
    slot, after = loader.choose(board, OTHER_IMAGE, None)
    assert (slot, after.reason, after.floor) == (states.FACTORY, states.OTHER_IMAGE, 0x200)


def test_a_rotten_bundle_is_not_called_another_images(board: HostBoard) -> None:
    run(board, over(IMAGE, IMAGE))
    (Path(board.root) / "slot" / "a" / "app" / "terminal" / "app.py").write_bytes(b"#")
    assert loader.choose(board, IMAGE, None)[1].reason == states.BOTH_BAD


@pytest.mark.parametrize("verified", [False, True], ids=["half fetched", "verified"])
def test_the_application_waits_while_an_image_is_on_trial(
    board: HostBoard, verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = over(IMAGE, OTHER_IMAGE)
    under_way(board, bundle, verified, monkeypatch)
    board.image_on_trial = True  # type: ignore[attr-defined]
    terminal = Terminal(board, bundle)
    before = bytes(board.nor.data)

    async def a_while() -> None:
        task = asyncio.create_task(terminal.agent.run())
        for _ in range(50):
            terminal.agent.link_up()
            await asyncio.sleep(0)
        assert bytes(board.nor.data) == before
        assert not terminal.requests
        board.image_on_trial = False  # type: ignore[attr-defined]
        terminal.agent.link_up()
        await asyncio.wait_for(terminal.rebooted.wait(), 20)
        task.cancel()

    asyncio.run(a_while())


def test_a_download_for_the_image_before_is_given_up_with_its_reason(
    board: HostBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = over(IMAGE, IMAGE)
    under_way(board, bundle, False, monkeypatch)
    terminal = Terminal(board, bundle)
    board.image_version = OTHER_IMAGE
    terminal.runs_until_reason(states.WRONG_IMAGE)
    assert not terminal.requests


def under_way(board: HostBoard, bundle: Bundle, verified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an update behind: downloading, or verified and not armed yet."""
    terminal = Terminal(board, bundle)
    stop = asyncio.Event()
    if verified:
        monkeypatch.setattr(terminal.agent, "_arm", stop.set)
    else:
        first = True

        def only_the_first(frames: list[bytes]) -> list[bytes]:
            nonlocal first
            if first:
                first = False
                return frames
            stop.set()
            return []

        terminal.tamper = only_the_first
    terminal.agent.on_offer(bundle.offer)
    asyncio.run(terminal.until(stop))
    assert state(board).state == (states.VERIFIED if verified else states.STAGING)


@pytest.mark.parametrize("reason", [len(states.REASONS), 255])
def test_a_reason_that_a_later_application_gave_has_a_name(reason: int) -> None:
    assert states.in_words(reason) == f"reason {reason}"


def test_whatever_choosing_dies_of_the_factory_application_runs(
    board: HostBoard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(loader, "choose", broken)
    assert loader._chosen(board, IMAGE) == states.FACTORY
    assert board.update_pending
    assert not board.on_trial
    assert "the factory application runs" in capsys.readouterr().out
