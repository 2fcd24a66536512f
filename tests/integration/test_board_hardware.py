"""What the C code of the emulated boards promises the terminal, checked on the running boards."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_launcher import PROMPT, Bay, Launched, Qmp

from bench import images

POWER_ON, HARD, WATCHDOG, CRASH, SOFT = 1, 2, 3, 4, 5
EXIT_CUT, EXIT_RESET, EXIT_WATCHDOG, EXIT_CRASH = 120, 121, 122, 123
JOURNAL = 0x8000  # a region no start-up code writes to
OPEN_JOURNAL = f"import _board\nf = _board.Flash({JOURNAL}, 0x10000)\n"


@pytest.fixture(params=images.BOARDS)
def bay(request: pytest.FixtureRequest, tmp_path: Path) -> Bay:
    return Bay(request.param, images.build(request.param).path, tmp_path)


@pytest.fixture
def qemu(tmp_path: Path) -> Bay:
    return Bay("qemu", images.build("qemu").path, tmp_path)


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A TCP echo server on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve_echo, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _serve_echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _address = listener.accept()
        except OSError:  # the fixture shut the listener down
            return
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


def restarted(bay: Bay, board: Launched, exit_code: int) -> Launched:
    """The board after it reset itself: QEMU resets inside, the process is started again by its supervisor."""
    if bay.kind == "process":
        assert board.exit_code() == exit_code
        return bay.boot(keep_reset_memory=True)
    board.until(PROMPT)
    board.enter_raw_repl()
    return board


# ---- starting ----


def test_a_board_boots_to_its_prompt_within_half_a_second(bay: Bay) -> None:
    durations = []
    for _attempt in range(3):  # the host is shared: the best of three tells the board's own share
        with bay.power_on() as board:
            board.until(PROMPT)
            durations.append(time.monotonic() - board.started)
    assert min(durations) < 0.5


def test_a_first_start_reports_power_on_and_has_littlefs_at_the_root(bay: Bay) -> None:
    with bay.boot() as board:
        assert board.eval("[__import__('_board').reset_cause(), __import__('_board').boots()]") == [
            POWER_ON,
            1,
        ]
        board.run("with open('/kept.txt', 'w') as out: out.write('still here')")
        board.kill()
    with bay.boot() as board:
        assert board.run("print(open('/kept.txt').read())") == "still here"


def test_the_bench_hands_over_boot_options(bay: Bay) -> None:
    with bay.boot() as board:
        assert board.run("import _board; print(_board.boot_options())") == "b'{\"repl\": true}'"


def test_the_qemu_board_gives_python_the_heap_of_an_esp32(qemu: Bay) -> None:
    with qemu.boot() as board:
        total = board.eval("(lambda gc: gc.mem_free() + gc.mem_alloc())(__import__('gc'))")
        bookkeeping = 0.04 * 163840  # allocation and finaliser tables
        assert 163840 - bookkeeping < total <= 163840


def test_frozen_native_code_runs(bay: Bay) -> None:
    code = (
        "import micropython\n@micropython.viper\ndef f(a: int, b: int) -> int:\n return a * b\nprint(f(6, 7))"
    )
    with bay.boot() as board:
        assert board.run(code) == "42"


# ---- resets ----


def test_a_reset_says_so_and_counts_boots(bay: Bay) -> None:
    with bay.boot() as board:
        board.start("import _board; _board.reset()")
        with restarted(bay, board, EXIT_RESET) as after:
            assert after.eval("[__import__('_board').reset_cause(), __import__('_board').boots()]") == [
                HARD,
                2,
            ]
            assert after.eval("__import__('_board').boot_options() is not None")


def test_the_watchdog_bites_a_program_that_hangs_and_names_itself(bay: Bay) -> None:
    with bay.boot() as board:
        board.start("import _board\n_board.wdt(100)\nwhile True: pass")
        board.until(b"Watchdog: not fed in time")
        with restarted(bay, board, EXIT_WATCHDOG) as after:
            assert after.eval("__import__('_board').reset_cause()") == WATCHDOG


def test_a_fed_watchdog_keeps_quiet(bay: Bay) -> None:
    code = (
        "import _board, time\n_board.wdt(200)\n"
        "for i in range(10):\n time.sleep_ms(50); _board.wdt(0)\n_board.wdt(-1)"
    )
    with bay.boot() as board:
        board.run(code)
        assert board.eval("__import__('_board').boots()") == 1


def test_a_cpu_fault_prints_a_guru_meditation_and_reboots(bay: Bay) -> None:
    with bay.boot() as board:
        board.start("import uctypes; uctypes.bytearray_at(16, 4)[0]")
        board.until(b"Guru Meditation")
        with restarted(bay, board, EXIT_CRASH) as after:
            assert after.eval("__import__('_board').reset_cause()") == CRASH


def test_a_soft_reset_keeps_the_boot_count(bay: Bay) -> None:
    with bay.boot() as board:
        board.send(b"\x04")
        board.until(b"soft reboot")
        board.enter_raw_repl()
        assert board.eval("[__import__('_board').reset_cause(), __import__('_board').boots()]") == [SOFT, 1]


def test_ctrl_c_interrupts_a_running_program(bay: Bay) -> None:
    with bay.boot() as board:
        board.start("print('running')\nwhile True: pass")
        board.until(b"running")
        board.send(b"\x03")
        board.until(b"KeyboardInterrupt")


def test_power_off_ends_the_board_with_the_given_code(bay: Bay) -> None:
    with bay.boot() as board:
        board.start("import _board; _board.poweroff(42)")
        assert board.exit_code() == 42


# ---- flash ----


def test_programming_can_only_clear_bits_and_violations_are_counted(bay: Bay) -> None:
    with bay.boot() as board:
        board.run(OPEN_JOURNAL + "f.ioctl(6, 0); f.writeblocks(0, b'\\x0f' * 8, 5)")
        before = board.eval("_board.flash_stats()")
        board.run("f.writeblocks(0, b'\\xf3' * 8, 5)")
        after = board.eval("_board.flash_stats()")
        assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1, 8, 1]
    assert bay.read_flash(JOURNAL, 16) == b"\xff" * 5 + b"\x03" * 8 + b"\xff" * 3


def test_a_block_write_without_offset_erases_first(bay: Bay) -> None:
    with bay.boot() as board:
        board.run(OPEN_JOURNAL + "f.writeblocks(1, bytes(4096)); f.writeblocks(1, b'\\xa5' * 4096)")
        assert board.eval("_board.flash_stats()[3]") == 0
    assert bay.read_flash(JOURNAL + 4096, 4096) == b"\xa5" * 4096


def test_a_flash_device_refuses_what_lies_outside_its_range(bay: Bay) -> None:
    attempts = (
        "for call in (lambda: f.readblocks(16, bytearray(1)), lambda: f.readblocks(15, bytearray(4097)),"
        " lambda: f.writeblocks(0, bytes(9), 0x10000 - 8), lambda: f.ioctl(6, 16),"
        " lambda: f.readblocks(-1, bytearray(1))):\n"
        " try:\n  call(); print('accepted')\n except OSError: print('refused')\n"
    )
    with bay.boot() as board:
        assert board.run(OPEN_JOURNAL + attempts).split() == ["refused"] * 5


def test_kill_dash_nine_keeps_every_acknowledged_record(bay: Bay) -> None:
    code = (
        "f.ioctl(6, 0)\nfor n in range(256):\n"
        " f.writeblocks(0, n.to_bytes(2, 'big') * 8, n * 16)\n print('n', n)"
    )
    with bay.boot() as board:
        board.start(OPEN_JOURNAL + code)
        board.until(b"n 100\r\n")
        board.kill()
    records = bay.read_flash(JOURNAL, 101 * 16)
    assert records == b"".join(n.to_bytes(2, "big") * 8 for n in range(101))


def test_a_cut_tears_a_program_after_the_given_prefix(bay: Bay) -> None:
    with bay.boot() as board:
        board.run(OPEN_JOURNAL + "f.ioctl(6, 0); _board.cut_at(2, 3, 0); f.writeblocks(0, b'abcd', 0)")
        board.start("f.writeblocks(0, b'efghij', 6)")
        board.until(b"[power cut]")
        assert board.exit_code() == EXIT_CUT
    assert bay.read_flash(JOURNAL, 12) == b"abcd\xff\xffefg\xff\xff\xff"
    with bay.boot() as board:
        assert board.eval("__import__('_board').reset_cause()") == POWER_ON


def test_a_cut_before_a_step_leaves_the_flash_as_it_was(bay: Bay) -> None:
    with bay.boot() as board:
        board.run(OPEN_JOURNAL + "f.ioctl(6, 0)")
        board.start("_board.cut_at(1, -1, 0); f.writeblocks(0, bytes(64), 0)")
        assert board.exit_code() == EXIT_CUT
    assert bay.read_flash(JOURNAL, 64) == b"\xff" * 64


def test_a_seeded_cut_leaves_a_random_subset_of_the_bits_the_same_one_every_time(bay: Bay) -> None:
    outcomes = []
    for _repeat in range(2):
        with bay.boot() as board:
            board.run(OPEN_JOURNAL + "f.ioctl(6, 0); _board.cut_at(1, -1, 77)")
            board.start("f.writeblocks(0, bytes(64), 0)")
            assert board.exit_code() == EXIT_CUT
        outcomes.append(bay.read_flash(JOURNAL, 64))
    assert outcomes[0] == outcomes[1]
    cleared = sum((~byte & 0xFF).bit_count() for byte in outcomes[0])
    assert 128 < cleared < 384  # about half of 512


def test_a_cut_inside_an_erase_leaves_the_rest_of_the_sector(bay: Bay) -> None:
    with bay.boot() as board:
        board.run(OPEN_JOURNAL + "f.writeblocks(0, bytes(4096))")
        board.start("_board.cut_at(3, 16, 0); f.ioctl(6, 0)")
        assert board.exit_code() == EXIT_CUT
    assert bay.read_flash(JOURNAL, 4096) == b"\xff" * (512 + 16) + bytes(4096 - 512 - 16)


def test_an_armed_cut_survives_a_reset(bay: Bay) -> None:
    with bay.boot() as board:
        board.start("import _board; _board.cut_at(1000, -1, 0); _board.reset()")
        with restarted(bay, board, EXIT_RESET) as after:
            after.start(OPEN_JOURNAL + "while True: f.ioctl(6, 0)")
            assert after.exit_code() == EXIT_CUT


# ---- entropy, network, counting ----


def test_random_bytes_come_from_outside(bay: Bay) -> None:
    seen = set()
    for _boot in range(2):
        with bay.boot() as board:
            seen.add(board.run("import _board, os; print(_board.urandom(16).hex(), os.urandom(16).hex())"))
    assert len(seen) == 2
    assert len({word for line in seen for word in line.split()}) == 4


def test_without_an_entropy_device_there_are_no_random_numbers(qemu: Bay) -> None:
    with qemu.power_on(entropy=False) as board:
        board.until(PROMPT)
        board.enter_raw_repl()
        for call in ("_board.urandom(4)", "os.urandom(4)", "_board.net_up()", "__import__('random')"):
            code = f"import _board, os\ntry:\n {call}; print('served')\nexcept OSError as e: print(e.errno)"
            assert board.run(code) == "19", call  # ENODEV


def test_sockets_reach_the_hosts_loopback(bay: Bay, echo_port: int) -> None:
    host = "10.0.2.2" if bay.kind == "qemu" else "127.0.0.1"
    code = (
        "import _board, socket\n_board.net_up()\ns = socket.socket()\n"
        f"s.connect(socket.getaddrinfo({host!r}, {echo_port})[0][-1])\n"
        "s.send(b'hello'); print(s.recv(5))"
    )
    with bay.boot() as board:
        assert board.run(code) == "b'hello'"


def test_the_network_is_served_while_python_computes(qemu: Bay, echo_port: int) -> None:
    """The echo is there without a socket call in between: lwIP ran while the loop did."""
    connect = (
        "import _board, socket, time\n_board.net_up()\ns = socket.socket()\n"
        f"s.connect(('10.0.2.2', {echo_port}))\ns.setsockopt(6, 0x40, 1)\ns.setblocking(False)\n"
    )
    compute = (
        "s.send(b'x' * 1000)\nt = time.ticks_ms()\n"
        "while time.ticks_diff(time.ticks_ms(), t) < 400: pass\nprint(len(s.recv(4096)))"
    )
    with qemu.boot() as board:
        assert board.run(connect + compute) == "1000"


def test_a_soft_reset_with_an_open_connection_leaves_a_working_network(qemu: Bay, echo_port: int) -> None:
    code = (
        "import _board, socket\n_board.net_up()\ns = socket.socket()\n"
        f"s.connect(('10.0.2.2', {echo_port}))\ns.send(b'again'); print(s.recv(5))"
    )
    with qemu.boot() as board:
        for _life in range(8):  # more lives than lwIP has connections to lose
            assert board.run(code) == "b'again'"
            board.send(b"\x04")
            board.until(b"soft reboot")
            board.enter_raw_repl()


def test_an_unplugged_link_shows_and_comes_back(qemu: Bay, echo_port: int) -> None:
    connect = (
        "import _board, socket\n_board.net_up()\ns = socket.socket()\ns.settimeout(5)\n"
        f"s.connect(('10.0.2.2', {echo_port}))\nprint(_board.net_link())"
    )
    with qemu.boot("-qmp", f"unix:{qemu.folder}/qmp,server=on,wait=off") as board:
        assert board.run(connect) == "True"
        with Qmp(qemu.folder / "qmp") as qmp:
            qmp.ask("set_link", name="n0", up=False)
            assert board.run("s.send(b'lost?'); print(_board.net_link())") == "False"
            qmp.ask("set_link", name="n0", up=True)
        assert board.run("print(_board.net_link(), s.recv(5))") == "True b'lost?'"


def test_with_icount_the_board_counts_its_instructions_repeatably(qemu: Bay) -> None:
    code = (
        "import _board\ndef work():\n x = 0\n for i in range(2000): x = (x * 31 + i) & 0xffff\n"
        "def cost():\n i = _board.instret(); work(); return _board.instret() - i\n"
        "cost(); print(min(cost() for _ in range(5)))"
    )
    counts = []
    for _boot in range(2):
        with qemu.boot("-icount", "shift=3") as board:
            counts.append(int(board.run(code)))
    assert min(counts) > 1_000_000
    assert max(counts) - min(counts) < min(counts) / 10_000


def test_sleeping_does_not_count_as_instructions(qemu: Bay) -> None:
    code = "import _board, time\ni = _board.instret(); z = _board.idle_us()\ntime.sleep_ms(300)\n"
    with qemu.boot("-icount", "shift=3") as board:
        instructions, idle_us = map(
            int, board.run(code + "print(_board.instret() - i, _board.idle_us() - z)").split()
        )
    assert instructions < 100_000  # 300 ms at this speed would be 37 million
    assert 280_000 < idle_us < 320_000


def test_without_icount_the_board_claims_no_instruction_count(qemu: Bay) -> None:
    with qemu.boot() as board:
        assert board.eval("__import__('_board').instret()") == 0


def test_the_plugin_counts_instructions_for_the_host(qemu: Bay) -> None:
    counter = qemu.folder / "icount"
    work = "x = 0\nfor i in range(20000): x = (x * 31 + i) & 0xffff"
    with qemu.boot("-plugin", f"{images.icount_plugin()},out={counter}") as board:
        fd = os.open(counter, os.O_RDONLY)
        with mmap.mmap(fd, 8, prot=mmap.PROT_READ) as live:
            os.close(fd)
            before = struct.unpack("=Q", live[:8])[0]
            board.run(work)
            spent = struct.unpack("=Q", live[:8])[0] - before
    assert 1_000_000 < spent < 100_000_000
