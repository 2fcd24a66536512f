"""Starts that last: a trial without a network, the self-test, and a confirmed release that keeps crashing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boards.host.hostboard import HostBoard
from terminal import regions, selftest
from terminal.counters import Counters
from terminal.ota import loader, states
from terminal.ota.hook import Updates
from terminal.ota.record import ControlRecord
from terminal.outbox import Outbox
from test_ota_agent import HARDWARE, IMAGE, Bundle, Terminal

POWER_ON, CRASH = 1, 4
LASTED_S = 0.002
DEADLINE_S = 5.0
NEW = 0x200


@pytest.fixture
def board(tmp_path: Path) -> HostBoard:
    host = HostBoard(tmp_path, hardware=HARDWARE)
    host.mount()
    return host


def installed(board: HostBoard) -> Bundle:
    bundle = Bundle()
    Terminal(board, bundle).update()
    return bundle


def record(board: HostBoard) -> Any:
    return ControlRecord(board.region("control")).state


class Watched(Updates):
    """Says when the moment has come at which a start has lasted."""

    async def _watch_start(self) -> None:
        await super()._watch_start()
        self.watched.set()


class Life:
    """One start: what the loader chose, and the application's side of updates without any network."""

    def __init__(self, board: HostBoard, cause: int, is_sound: Callable[[], bool] = lambda: True) -> None:
        board.reset_cause = lambda: cause  # type: ignore[method-assign]
        self.board = board
        self.slot, state = loader.choose(board, IMAGE, None)
        board.on_trial = state.state == states.TRIAL
        board.update_pending = state.state != states.CONFIRMED or state.starts > 0
        version = IMAGE if self.slot == states.FACTORY else NEW
        name = states.SLOT_NAMES[self.slot]
        rest = (None, "demo", name, version, lambda *_: False, lambda _: None, lambda: None)
        self.updates = Watched(None, lambda: (0, 0), board, *rest)
        self.updates.lasted_s = LASTED_S  # type: ignore[assignment]
        self.updates.is_sound = is_sound

    def lasts(self, further_s: float = 0.0) -> None:
        """Run until the start has lasted, and on for a while."""

        async def run() -> None:
            self.updates.watched = asyncio.Event()
            task = asyncio.create_task(self.updates.run())
            await asyncio.wait_for(self.updates.watched.wait(), DEADLINE_S)
            await asyncio.sleep(further_s)
            task.cancel()

        asyncio.run(run())


@pytest.mark.parametrize("cause", [POWER_ON, CRASH])
def test_thirty_starts_without_a_network_spend_nothing_and_a_session_confirms(
    board: HostBoard, cause: int
) -> None:
    installed(board)
    for _ in range(30):
        life = Life(board, cause)
        assert life.slot == states.SLOT_A
        life.lasts()
        assert (record(board).state, record(board).starts) == (states.TRIAL, 0)
    assert Life(board, cause).updates.prove()
    assert (record(board).state, record(board).version) == (states.CONFIRMED, NEW)


def test_a_start_is_given_back_by_one_record_however_long_it_goes_on(board: HostBoard) -> None:
    installed(board)
    life = Life(board, POWER_ON)
    before = board.nor.programs
    life.lasts(10 * LASTED_S)
    assert board.nor.programs == before + 1


def test_a_start_that_ended_early_stays_spent(board: HostBoard) -> None:
    installed(board)
    for spent in range(1, 4):
        Life(board, POWER_ON)
        assert record(board).starts == spent


def test_nothing_is_given_back_before_the_self_test_has_passed(board: HostBoard) -> None:
    installed(board)
    asked: list[int] = []

    def is_sound() -> bool:
        asked.append(record(board).starts)
        return False

    Life(board, POWER_ON, is_sound).lasts()
    assert asked == [1]
    assert (record(board).starts, record(board).lasted) == (1, 0)


def test_a_session_confirms_nothing_that_fails_its_self_test(board: HostBoard) -> None:
    installed(board)
    for cause in (POWER_ON, CRASH, CRASH):
        assert not Life(board, cause, lambda: False).updates.prove()
    life = Life(board, CRASH)
    assert (life.slot, record(board).reason) == (states.FACTORY, states.TRIES_SPENT)


def test_what_a_session_could_not_confirm_is_not_given_back(board: HostBoard) -> None:
    installed(board)
    life = Life(board, POWER_ON)
    life.updates.load().confirm = lambda: False
    assert not life.updates.prove()
    life.lasts()
    assert record(board).starts == 1


def confirm(board: HostBoard) -> Bundle:
    bundle = installed(board)
    assert Life(board, POWER_ON).updates.prove()
    return bundle


def test_a_confirmed_release_that_crashes_at_every_start_ends_in_the_factory_application(
    board: HostBoard,
) -> None:
    confirm(board)
    slots = [Life(board, CRASH).slot for _ in range(states.MAX_CRASHES + 2)]
    assert slots == [states.SLOT_A] * states.MAX_CRASHES + [states.FACTORY] * 2
    assert record(board).reason == states.CRASH_LOOP


@pytest.mark.parametrize("end", [lambda life: life.lasts(), lambda life: life.updates.prove()])
def test_a_start_that_lasts_or_has_a_session_ends_the_count(
    board: HostBoard, end: Callable[[Life], object]
) -> None:
    confirm(board)
    for _ in range(3 * states.MAX_CRASHES):
        life = Life(board, CRASH)
        assert (life.slot, record(board).starts) == (states.SLOT_A, 1)
        end(life)
        assert record(board).starts == 0


def test_a_crashed_release_is_reported_by_its_name(board: HostBoard) -> None:
    bundle = confirm(board)
    for _ in range(states.MAX_CRASHES + 1):
        Life(board, CRASH)
    terminal = Terminal(board, bundle)
    terminal.runs_until_reason(states.CRASH_LOOP)
    assert terminal.told[0] == [IMAGE, 2, states.CONFIRMED, 0, states.CRASH_LOOP, bundle.digest[:6]]
    terminal.runs_until_reason(states.QUARANTINED, bundle.offer)


def test_a_release_that_rotted_is_reported_by_its_name_and_fetched_again(board: HostBoard) -> None:
    bundle = installed(board)
    path = Path(board.root) / "slot" / "a" / "app" / "terminal" / "app.py"
    for _ in range(states.MAX_ROTTEN - 1):
        path.write_bytes(path.read_bytes()[:-1] + b"#")
        assert Life(board, CRASH).slot == states.FACTORY
        terminal = Terminal(board, bundle)
        terminal.runs_until_reason(states.SLOT_BAD)
        assert terminal.told[0][2:] == [states.ROLLED_BACK, 0, states.SLOT_BAD, bundle.digest[:8]]
        terminal = Terminal(board, bundle)
        terminal.update()
    path.write_bytes(b"#")
    assert Life(board, CRASH).slot == states.FACTORY
    terminal = Terminal(board, bundle)
    terminal.runs_until_reason(states.FLASH_FAILS)
    terminal.runs_until_reason(states.FLASH_FAILS, bundle.offer)
    assert terminal.requests == []


# ---------------------------------------------------------------- the self-test


class NoMenu:
    fault: str | None = None

    def current(self) -> None:
        return None


class Menu(NoMenu):
    def current(self) -> Any:
        return SimpleNamespace(version=1)

    def items(self) -> Any:
        yield "espresso"


class Unreadable(Menu):
    def items(self) -> Any:
        raise OSError(5)


def application(board: HostBoard, menu: NoMenu) -> Any:
    counters = Counters(board.region(regions.COUNTERS))
    boots = counters.boot()
    outbox = Outbox(board.region(regions.JOURNAL), boots)
    outbox.append(outbox.next_op_id(bytes), b"an order")
    return SimpleNamespace(board=board, boots=boots, outbox=outbox, menu=menu)


@pytest.mark.parametrize("menu", [NoMenu(), Menu()])
def test_a_sound_application_passes_and_the_test_writes_nothing(board: HostBoard, menu: NoMenu) -> None:
    app = application(board, menu)
    before = bytes(board.nor.data)
    assert selftest.fault(app) is None
    assert bytes(board.nor.data) == before


def test_a_start_that_is_not_in_flash_fails_it(board: HostBoard) -> None:
    app = application(board, Menu())
    app.boots += 1
    assert selftest.fault(app) == "SELF_TEST_COUNTERS"


@pytest.mark.parametrize(
    ("fault", "found"), [("MENU_SHAPE", "SELF_TEST_MENU"), ("MENU_TORN", None), ("MENU_IO", None)]
)
def test_a_whole_menu_that_it_cannot_read_fails_it_and_a_torn_one_does_not(
    board: HostBoard, fault: str, found: str | None
) -> None:
    menu = NoMenu()
    menu.fault = fault
    assert selftest.fault(application(board, menu)) == found


def test_storage_that_raises_fails_it(board: HostBoard) -> None:
    assert selftest.fault(application(board, Unreadable())) == "SELF_TEST_STORAGE"


def test_a_clock_that_stands_still_or_a_full_heap_fails_it(
    board: HostBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(board, Menu())
    with monkeypatch.context() as patch:
        patch.setattr(selftest, "ticks_us", lambda: 7)
        assert selftest.fault(app) == "SELF_TEST_CLOCK"
    monkeypatch.setattr(selftest, "free", lambda: selftest.HEAP_FLOOR_BYTES - 1)
    assert selftest.fault(app) == "SELF_TEST_HEAP"
