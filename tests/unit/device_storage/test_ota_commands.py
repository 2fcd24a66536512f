"""What an operator says reaches both agents, once, whatever they are doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from boards.host.hostboard import HostBoard
from terminal.ota import states
from terminal.ota.authority import Authority
from terminal.ota.hook import Updates
from terminal.ota.record import ControlRecord
from terminal.ota.states import State
from terminal.wire.errors import WireError
from test_ota_agent import IMAGE, Bundle, Terminal
from test_ota_agent import board as board  # the fixture
from test_ota_authority import DEVICE, KEY, SID, SITE, TH8, Counters

from server.wire.commands import Layer, OtaCommand, What

NEW = 0x200
DEADLINE_S = 20


def under_way(board: HostBoard, bundle: Bundle, *moves: Callable[[State], State]) -> State:
    """Put an update of this bundle on record, and these moves."""
    record = ControlRecord(board.region("control"))
    state = states.staging(record.state, bundle.digest, NEW, NEW)
    for move in moves:
        state = move(state)
    record.store(state)
    return state


def tried(state: State) -> State:
    return states.boot(state, False, lambda slot, digest: True)[0]


STAGES: list[list[Callable[[State], State]]] = [
    [], [states.verified], [states.verified, states.armed], [states.verified, states.armed, tried],
]  # fmt: skip


@pytest.mark.parametrize("moves", STAGES, ids=["staging", "verified", "armed", "trial"])
def test_what_is_cancelled_ends_and_is_not_taken_again_until_it_is_released(
    board: HostBoard, moves: list[Callable[[State], State]]
) -> None:
    bundle = Bundle()
    on_trial = under_way(board, bundle, *moves).state == states.TRIAL
    terminal = Terminal(
        board, bundle, slot="a" if on_trial else "factory", version=NEW if on_trial else IMAGE
    )
    terminal.agent.cancel()
    state = ControlRecord(board.region("control")).state
    assert state.slot == states.FACTORY
    assert state.is_quarantined(bundle.digest)
    assert terminal.rebooted.is_set() == on_trial, "a trial is left by a restart, and only that"

    again = Terminal(board, bundle)
    again.runs_until_reason(states.QUARANTINED, bundle.offer)
    assert again.requests == []
    again.agent.release()
    again.update()
    assert ControlRecord(board.region("control")).state.state == states.ARMED


def test_nothing_is_written_into_the_slot_that_runs(board: HostBoard) -> None:
    bundle, other = Bundle(), Bundle(version=0x201)
    under_way(board, bundle, states.verified, states.armed, tried)
    terminal = Terminal(board, other, slot="a", version=NEW)
    terminal.agent.cancel()  # and nobody has restarted the board yet
    terminal.runs_until_reason(states.NOT_NOW, other.offer)
    assert terminal.requests == []


def test_a_cancel_while_the_bundle_is_read_back_ends_the_update_and_nothing_else(board: HostBoard) -> None:
    bundle = Bundle()
    terminal = Terminal(board, bundle)
    agent = terminal.agent
    honest = agent._is_whole
    cancelled = asyncio.Event()

    async def cancelling() -> bool:
        found = bool(await honest())
        agent.cancel()
        cancelled.set()
        return found

    agent._is_whole = cancelling

    async def scenario() -> None:
        task = asyncio.create_task(agent.run())
        agent.on_offer(bundle.offer)
        await asyncio.wait_for(cancelled.wait(), DEADLINE_S)
        terminal.awaited = (states.QUARANTINED, asyncio.Event())
        agent.on_offer(bundle.offer)
        await asyncio.wait_for(terminal.awaited[1].wait(), DEADLINE_S)
        assert not task.done(), "its task goes on"
        task.cancel()

    asyncio.run(scenario())
    assert ControlRecord(board.region("control")).state.state == states.CONFIRMED
    assert not terminal.rebooted.is_set()


# ---------------------------------------------------------------- the command as a frame


class Told:
    """Stands where an agent is."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def cancel(self) -> None:
        self.heard.append("cancel")

    def release(self) -> None:
        self.heard.append("release")

    def question(self) -> tuple[str, int]:
        return "esp32c3-image", 1


def hearing(board: HostBoard, counters: Counters, images: bool = True) -> tuple[Updates, Told, Told]:
    board.update_pending = False
    session = SimpleNamespace(sid=SID, keys=(b"d" * 32, KEY, TH8))
    identity = SimpleNamespace(site=SITE, device=DEVICE)
    authority = Authority(identity, session, counters, bytes, lambda kind, payload: True)
    updates = Updates(authority, lambda: (0, 0), board, None, SITE, "factory", IMAGE, None, None, None)
    if images:
        board.images = lambda: object()
    updates.agent, updates.image_agent = Told(), Told()
    return updates, updates.agent, updates.image_agent


def sealed(number: int, layer: Layer, what: What, key: bytes = KEY, sid: bytes = SID) -> bytes:
    return OtaCommand(number, layer, what).seal(key, SITE, DEVICE, sid, TH8)


def test_a_command_reaches_its_layer_once_and_never_again(board: HostBoard) -> None:
    counters = Counters()
    updates, application, image = hearing(board, counters)
    updates.on_command(sealed(1, Layer.APPLICATION, What.CANCEL))
    updates.on_command(sealed(2, Layer.IMAGE, What.RELEASE))
    for frame in (sealed(1, Layer.APPLICATION, What.CANCEL), sealed(2, Layer.IMAGE, What.RELEASE)):
        with pytest.raises(WireError, match="UNSOLICITED"):
            updates.on_command(frame)
    restarted, application_again, image_again = hearing(board, counters)
    with pytest.raises(WireError, match="UNSOLICITED"):
        restarted.on_command(sealed(2, Layer.IMAGE, What.CANCEL))
    assert (application.heard, image.heard) == (["cancel"], ["release"])
    assert (application_again.heard, image_again.heard) == ([], [])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (sealed(1, Layer.IMAGE, What.CANCEL, key=b"x" * 32), "BAD_TAG"),
        (sealed(1, Layer.IMAGE, What.CANCEL, sid=b"sid2"), "WRONG_KEY"),
        (b"", "TRUNCATED"),
    ],
)
def test_who_has_not_the_sessions_key_commands_nothing(board: HostBoard, frame: bytes, code: str) -> None:
    counters = Counters()
    updates, application, image = hearing(board, counters)
    with pytest.raises(WireError, match=code):
        updates.on_command(frame)
    assert application.heard == image.heard == []
    assert counters == {}


def test_a_command_for_images_means_nothing_to_a_board_without_two(board: HostBoard) -> None:
    updates, application, image = hearing(board, Counters(), images=False)
    updates.on_command(sealed(1, Layer.IMAGE, What.CANCEL))
    assert application.heard == image.heard == []
