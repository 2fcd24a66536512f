"""What bench/boards/base.py promises, held against every kind of board."""

from __future__ import annotations

import json

import pytest

from bench.boards.base import BOOT_OPTIONS, CUT_AT, EXIT_POWER_CUT, FLASH_IMAGE, LINK_SWITCH, Board
from bench.errors import BenchError, ConsoleClosed, DeadlinePassed

PROMPT = rb">>> $"
PROGRAM_BYTES = 256


def run(board: Board, code: str, answer: str) -> tuple[bytes, ...]:
    """Type one line at the prompt; wait for what it prints."""
    board.console.expect(PROMPT, 10)
    board.console.line(code)
    return board.console.expect(answer.encode() + rb"\r?\n", 10).groups()


def flash_line(statement: str) -> str:
    """Python that sets up `f` over the journal region and does something with it."""
    return f"import _board; f=_board.Flash(0x8000,0x10000); {statement}"


@pytest.fixture
def flash_board(board: Board) -> Board:
    if FLASH_IMAGE not in board.features:
        pytest.skip("this kind declares no flash image")
    return board


def test_a_board_is_off_until_switched_on(board: Board) -> None:
    assert not board.power.is_on
    with pytest.raises(ConsoleClosed):
        board.console.write(b"x")


def test_off_is_harmless_when_already_off(board: Board) -> None:
    board.power.off()
    board.power.off()
    assert not board.power.is_on


def test_the_console_shows_the_first_byte_and_answers(board: Board) -> None:
    board.power.on()
    assert board.power.is_on
    run(board, "print(6*7)", "\n42")


def test_switching_on_twice_is_refused(board: Board) -> None:
    board.power.on()
    with pytest.raises(BenchError, match="already on"):
        board.power.on()


def test_ctrl_c_interrupts_a_running_program(board: Board) -> None:
    board.power.on()
    board.console.expect(PROMPT, 10)
    board.console.write(b"while True: print('run' + 'ning')\r\r\r")
    board.console.expect("running\r?\nrunning", 10)  # it runs: before that, Ctrl-C would clear the typed line
    board.console.write(b"\x03")
    board.console.expect("KeyboardInterrupt", 10)


def test_waiting_for_a_board_that_goes_away_ends_at_once(board: Board) -> None:
    board.power.on()
    board.console.expect(PROMPT, 10)
    board.power.off()
    with pytest.raises(ConsoleClosed, match="went away"):
        board.console.expect("never", 30)


def test_an_awaited_word_that_never_comes_quotes_what_was_seen(board: Board) -> None:
    board.power.on()
    board.console.expect(PROMPT, 10)
    with pytest.raises(DeadlinePassed, match=">>> "):
        board.console.expect("never", 0.05)


def test_boot_options_reach_the_firmware_at_each_power_on(board: Board) -> None:
    if BOOT_OPTIONS not in board.features:
        pytest.skip("this kind declares no boot options")
    for number in (1, 2):
        board.boot_options = {"repl": True, "number": number}
        board.power.cycle()
        (text,) = run(board, "import _board; print('<'+str(_board.boot_options(),'utf-8')+'>')", "<(.*)>")
        assert json.loads(text) == board.boot_options


def test_reset_restarts_with_the_cause_hard_and_power_cycles_with_power_on(board: Board) -> None:
    if BOOT_OPTIONS not in board.features:
        pytest.skip("this kind has no _board module")
    ask = "import _board; print('cause', _board.reset_cause(), _board.boots())"
    board.power.on()
    assert run(board, ask, r"cause (\d) (\d)") == (b"1", b"1")
    board.console.expect(PROMPT, 10)
    board.console.line("_board.reset()")
    board.console.expect(PROMPT, 10, over_resets=True)
    board.console.line(ask)
    assert board.console.expect(rb"cause (\d) (\d)\r?\n", 10).groups() == (b"2", b"2")
    board.power.cycle()
    assert run(board, ask, r"cause (\d) (\d)") == (b"1", b"1")


def test_poweroff_ends_the_board_with_the_code_given(board: Board) -> None:
    if BOOT_OPTIONS not in board.features:
        pytest.skip("this kind cannot switch itself off")
    board.power.on()
    board.console.expect(PROMPT, 10)
    board.console.line("import _board; _board.poweroff(7)")
    assert board.power.wait_off(10) == 7
    assert not board.power.is_on


def test_programmed_flash_survives_pulling_the_plug(flash_board: Board) -> None:
    flash_board.power.on()
    run(flash_board, flash_line("f.writeblocks(0, b'kept'*64, 0); print('done')"), "done")
    flash_board.power.off()
    assert flash_board.flash is not None
    assert flash_board.flash.read("journal")[:8] == b"keptkept"
    flash_board.power.on()
    run(
        flash_board,
        flash_line("b=bytearray(4); f.readblocks(0,b,0); print(b)"),
        r"bytearray\(b'kept'\)",
    )


def test_flash_only_clears_bits_and_counts_violations(flash_board: Board) -> None:
    flash_board.power.on()
    code = "f.writeblocks(0,b'\\x0f'*256,0); f.writeblocks(0,b'\\xf3'*256,0); "
    code += "b=bytearray(1); f.readblocks(0,b,0); "
    run(flash_board, flash_line(code + "print(b[0], _board.flash_stats()[3]>0)"), "3 True")


def test_what_the_bench_writes_the_board_reads(flash_board: Board) -> None:
    assert flash_board.flash is not None
    flash_board.flash.write("journal", b"from outside", 4096)
    flash_board.power.on()
    code = "b=bytearray(12); f.readblocks(1,b,0); print(str(b,'utf-8')+'!')"
    run(flash_board, flash_line(code), "from outside!")


def test_a_snapshot_brings_the_flash_back(flash_board: Board, tmp_path: object) -> None:
    flash = flash_board.flash
    assert flash is not None
    flash.write("counters", b"before")
    kept = flash.snapshot(flash_board.flash.path.with_suffix(".kept"))  # type: ignore[attr-defined]
    flash.erase()
    assert flash.read("counters")[:6] == b"\xff" * 6
    flash.restore(kept)
    assert flash.read("counters")[:6] == b"before"


def test_power_fails_inside_the_nth_flash_step_and_keeps_its_first_bytes(flash_board: Board) -> None:
    if CUT_AT not in flash_board.features:
        pytest.skip("this kind cannot cut inside a flash step")
    flash_board.power.on()
    flash_board.console.expect(PROMPT, 10)
    flash_board.console.line(flash_line("_board.cut_at(2, 100, 0); f.writeblocks(0, bytes(512), 0)"))
    assert flash_board.power.wait_off(10) == EXIT_POWER_CUT
    assert flash_board.flash is not None
    journal = flash_board.flash.read("journal")
    assert journal[: PROGRAM_BYTES + 100] == bytes(PROGRAM_BYTES + 100)
    assert set(journal[PROGRAM_BYTES + 100 : 2 * PROGRAM_BYTES]) == {0xFF}


def test_the_link_can_be_pulled_where_declared(board: Board) -> None:
    if LINK_SWITCH not in board.features:
        with pytest.raises(BenchError, match="cannot be pulled"):
            board.link.down()
        return
    board.power.on()
    board.console.expect(PROMPT, 10)
    board.console.line("import _board; _board.net_up()")
    board.console.expect(PROMPT, 10)
    board.link.down()
    board.console.line("print('link', _board.net_link())")
    board.console.expect("link False", 10)
    board.link.up()
    board.console.line("print('link', _board.net_link())")
    board.console.expect("link True", 10)


def test_two_boards_live_side_by_side(board: Board, board_request, firmware, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from bench.boards import catalogue

    if FLASH_IMAGE not in board.features:
        pytest.skip("one port is one board")
    other = catalogue.make(board_request, firmware, "other", tmp_path / "other")
    other.boot_options = {"repl": True}
    try:
        board.power.on()
        other.power.on()
        run(board, "print('this', 1)", "this 1")
        run(other, "print('that', 2)", "that 2")
    finally:
        other.close()


def test_a_board_leaves_no_process_behind(board: Board) -> None:
    import psutil

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    board.power.on()
    board.console.expect(PROMPT, 10)
    board.close()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
