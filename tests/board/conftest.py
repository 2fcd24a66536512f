"""The pytest face of the bench: `pytest --board qemu tests/board`.

`dut` overrides the public fixture of pytest-embedded: a genuine Dut (expect, log file, junit), only its bytes
come from a board of ours. None of the plugin's services is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_embedded import Dut

from bench.boards import catalogue
from bench.boards.base import Board
from bench.boards.catalogue import BoardRequest, Firmware

DEFAULT_BOARDS = ("process", "qemu")
REPL = {"repl": True}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that needs a board on each kind asked for."""
    if "board_kind" in metafunc.fixturenames:
        metafunc.parametrize(
            "board_kind", metafunc.config.getoption("board") or DEFAULT_BOARDS, scope="session"
        )


@pytest.fixture(scope="session")
def board_request(board_kind: str) -> BoardRequest:
    """What `--board` asks for."""
    if board_kind in catalogue.KINDS:
        return BoardRequest(board_kind)
    return BoardRequest("esp32", port_url=board_kind)


@pytest.fixture(scope="session")
def firmware(board_request: BoardRequest) -> Firmware | None:
    """The image under test, built once."""
    return catalogue.firmware_for(board_request.kind, print)


@pytest.fixture
def board(board_request: BoardRequest, firmware: Firmware | None, tmp_path: Path) -> Iterator[Board]:
    """One board, off, that will stop at its prompt instead of running the application."""
    made = catalogue.make(board_request, firmware, "dut", tmp_path)
    made.boot_options = dict(REPL)
    try:
        yield made
    finally:
        made.close()


class BenchDut(Dut):
    """A pytest-embedded Dut on a bench board."""

    board: Board

    @classmethod
    def on(cls, base: Dut, board: Board) -> BenchDut:
        """Take over a service-less Dut and switch the board on, its console teed into the Dut's queue."""
        dut = cls(
            pexpect_proc=base.pexpect_proc,
            msg_queue=base._q,
            app=base.app,
            pexpect_logfile=base.logfile,
            test_case_name=base.test_case_name,
            meta=base._meta,
        )
        dut.board = board
        board.console.tee(base._q.put)
        board.power.on()
        return dut

    def write(self, data: str | bytes) -> None:
        """Send exactly these bytes: a serial line adds no newline of its own."""
        self.board.console.write(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def dut(dut: Dut, board: Board) -> Iterator[BenchDut]:
    """The board as a pytest-embedded Dut."""
    ours = BenchDut.on(dut, board)
    try:
        yield ours
    finally:
        board.power.off()
