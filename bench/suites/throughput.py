"""Suite throughput: what a signed order costs the terminal, the link and the server, with limits.

Instructions and busy time come from a QEMU board with exact virtual time (an instruction is 8 ns: 125 MIPS):
they are CPU-bound figures of an emulated core, repeatable, and never to be read as a chip's rate. Wall-clock
figures hold for this machine and its load at that moment. Latency counts from the moment an order was *due*,
so a stall is charged to every order it delayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.benchmarks import server_load
from bench.boards.base import INSTRET
from bench.console import Json
from bench.errors import check
from bench.faults.rules import Direction
from bench.measure import percentile
from bench.paths import DEMO_MENU
from bench.rig import Rig
from bench.suites.registry import Suite
from bench.suites.steps import OPS, REPLIES, good_order_works, order_count
from bench.terminal import OrderLine, Terminal
from bench.wait import until

SUITE = Suite("throughput", "What a signed order costs the terminal, the link and the server.", alone=True)
UP, DOWN = Direction.UP, Direction.DOWN

COUNTING_TERMINAL = 3
ICOUNT_SHIFT = 3  # 8 ns an instruction
MIPS = 125
WINDOW = 8
SAMPLES = 3
ORDERS = 200
SEED_RATE = "30-50 orders/s in the seed"
INSTRUCTIONS_LIMIT = "<= 250000"
IMPLIED_RATE_LIMIT = ">= 500"
HEAP_LIMIT = "<= 92160"
LARGEST_BLOCK_LIMIT = ">= 8192"
DEADLINE_S = 90.0

PUBLISH_SIZES: dict[int, tuple[str, Sequence[OrderLine]]] = {
    1: ("<= 120", [(1, 2, ())]),
    3: ("<= 140", [(1, 2, ()), (3, 1, (101,)), (20, 1, ())]),
    6: ("<= 170", [(1, 2, ()), (3, 1, (101,)), (20, 1, ()), (4, 1, (111,)), (30, 2, ()), (200, 1, ())]),
}


@SUITE.setup
def terminals_are_online(rig: Rig) -> None:
    """A terminal for wall time, and on QEMU one with exact virtual time."""
    rig.terminal.online()
    if INSTRET in rig.features:
        counting(rig)


def counting(rig: Rig) -> Terminal:
    """The terminal whose instructions are counted exactly."""
    terminal = rig.terminal_number(COUNTING_TERMINAL, ICOUNT_SHIFT)
    terminal.online(DEADLINE_S)
    return terminal


def campaign(terminal: Terminal, orders: int, **options: Any) -> Json:
    """Let the terminal's agent send orders.

    Raises: CaseFailed when one was not committed.
    """
    seen = terminal.rpc("throughput", n=orders, deadline_s=DEADLINE_S, **options)
    check(seen["committed"] == orders, f"{seen['committed']} of {orders} committed: {seen['statuses']}")
    return seen


def latencies_ms(seen: Json) -> list[float]:
    """The agent's histogram unfolded: one upper bound in milliseconds an order."""
    return [bound_us / 1000 for bound_us, count in seen["latency"] for _ in range(count)]


# ---------------------------------------------------------------- exact costs


@SUITE.case("instructions_per_signed_order", features=(INSTRET,), deadline_s=120)
def instructions_per_signed_order(rig: Rig) -> str:
    """A signed order, journaled, with verified reply: at most 250,000 instructions without the bill chain."""
    terminal = counting(rig)
    campaign(terminal, 20, window=WINDOW, chain=True)
    chained = campaign(terminal, ORDERS, window=WINDOW, chain=True)["instret"] / ORDERS
    with_journal = _cost(rig, terminal, "journaled_order", True)
    _cost(rig, terminal, "order_without_journal", False, limit=None)
    rig.measure("order_with_bill_chain_instructions", chained, "instructions", note="the limit excludes it")
    implied = MIPS * 1e6 / with_journal
    rig.measure("implied_orders_per_s_at_125_mips", implied, "1/s", IMPLIED_RATE_LIMIT, note=SEED_RATE)
    return f"{with_journal:,.0f} instructions an order, {implied:.0f} orders/s at {MIPS} MIPS ({SEED_RATE})"


def _cost(
    rig: Rig, terminal: Terminal, name: str, journal: bool, limit: str | None = INSTRUCTIONS_LIMIT
) -> float:
    runs = [campaign(terminal, ORDERS, window=WINDOW, journal=journal) for _ in range(SAMPLES)]
    instructions = [run["instret"] / ORDERS for run in runs]
    busy_us = [(run["elapsed_us"] - run["idle_us"]) / ORDERS for run in runs]
    cost = percentile(instructions, 50)
    note = "emulated, CPU-bound, window 8"
    rig.measure(f"{name}_instructions", cost, "instructions", limit, instructions, note)
    rig.measure(f"{name}_busy", percentile(busy_us, 50), "us", None, busy_us, note)
    return cost


@SUITE.case("instructions_at_window_1", features=(INSTRET,))
def instructions_at_window_1(rig: Rig) -> None:
    """One order at a time costs more, for nothing is shared between packets; the figure is kept in view."""
    seen = campaign(counting(rig), ORDERS // 2, window=1)
    rig.measure("window_1_instructions", seen["instret"] / (ORDERS // 2), "instructions")


@SUITE.case("instructions_of_the_handshake", features=(INSTRET,))
def instructions_of_the_handshake(rig: Rig) -> str:
    """What RSA costs: beacon, Hello, Accept and menu, once each a session or a menu."""
    terminal = counting(rig)
    since = terminal.console.mark()
    rig.server.admin("menu", "publish", str(DEMO_MENU), "--next")
    terminal.console.event("menu", since=since, deadline_s=DEADLINE_S)
    since = terminal.console.mark()
    terminal.rpc("rekey")  # with RSA, whatever the last session was made with
    terminal.await_session(since, DEADLINE_S)
    costs = terminal.rpc("stats")["control"]["costs"]
    for name in ("beacon", "hello", "accept", "menu"):
        check(costs[name] > 0, f"the cost of {name} was not counted: {costs}")
        rig.measure(f"{name}_instructions", costs[name], "instructions")
    handshake_s = (costs["hello"] + costs["accept"]) / (MIPS * 1e6)
    return f"a session is {handshake_s:.1f} s of a core at {MIPS} MIPS"


# ---------------------------------------------------------------- memory and bytes


@SUITE.case("heap_stays_within_its_bounds", deadline_s=90)
def heap_stays_within_its_bounds(rig: Rig) -> None:
    """Live heap after a collection stays under 90 KiB: online, after load, after another session."""
    terminal = rig.terminal
    limit = HEAP_LIMIT if rig.board.kind == "qemu" else None  # objects of a 64-bit process are twice as wide
    _heap_point(rig, "online", limit)
    campaign(terminal, 100, window=WINDOW)
    _heap_point(rig, "after_load", limit)
    since = terminal.console.mark()
    terminal.rpc("rekey")
    terminal.await_session(since)
    _heap_point(rig, "after_rekey", limit)


def _heap_point(rig: Rig, point: str, limit: str | None) -> None:
    heap = rig.terminal.rpc("heap")
    rig.measure(f"heap_live_{point}", heap["used"], "B", limit)
    rig.measure(f"heap_largest_block_{point}", heap["largest"], "B", LARGEST_BLOCK_LIMIT)


@SUITE.case("orders_fit_their_bytes")
def orders_fit_their_bytes(rig: Rig) -> str:
    """The whole PUBLISH of an order with 1, 3 and 6 lines keeps to 120, 140 and 170 bytes."""
    sizes = []
    for lines, (limit, order) in PUBLISH_SIZES.items():
        tap = rig.link.tap(UP, OPS)
        rig.terminal.order(order)
        size = len(tap.wait()[0].publish.encode())
        rig.measure(f"publish_bytes_{lines}_lines", size, "B", limit)
        sizes.append(size)
    return ", ".join(map(str, sizes)) + " bytes"


@SUITE.case("replies_fit_their_bytes")
def replies_fit_their_bytes(rig: Rig) -> None:
    """The whole PUBLISH of a reply keeps to 140 bytes."""
    tap = rig.link.tap(DOWN, REPLIES)
    good_order_works(rig)
    rig.measure("publish_bytes_reply", len(tap.wait()[0].publish.encode()), "B", "<= 140")


# ---------------------------------------------------------------- wall time


@SUITE.case("saturation_of_one_terminal", deadline_s=120)
def saturation_of_one_terminal(rig: Rig) -> str:
    """As fast as one terminal goes, window 8 and 1, journaled: every order committed, none twice."""
    before, rates = order_count(rig), {}
    for window, orders in ((WINDOW, 600), (1, 200)):
        seen = campaign(rig.terminal, orders, window=window)
        rates[window] = orders / (seen["elapsed_us"] / 1e6)
        rig.measure(f"orders_per_s_window_{window}", rates[window], "1/s", note="wall time on this machine")
    check(order_count(rig) - before == 800, f"{order_count(rig) - before} orders in the ledger for 800")
    return f"{rates[WINDOW]:.0f}/s at window {WINDOW}, {rates[1]:.0f}/s at window 1"


@SUITE.case("latency_from_the_scheduled_time", deadline_s=60)
def latency_from_the_scheduled_time(rig: Rig) -> None:
    """At a fixed 100 orders a second: percentiles of the time from due to verified answer, nothing lost."""
    seen = campaign(rig.terminal, 200, rate=100)
    values = latencies_ms(seen)
    for percent in (50, 90, 99):
        rig.measure(f"latency_p{percent}_at_100_per_s", percentile(values, percent), "ms", samples=values)
    rig.measure("resent_at_100_per_s", seen["resent"], "orders", "== 0")


@SUITE.case("highest_rate_without_queueing", deadline_s=120)
def highest_rate_without_queueing(rig: Rig) -> str:
    """The highest of a row of fixed rates with p99 under 100 ms and nothing lost."""
    best = 0
    for rate in (50, 100, 200, 400, 800):
        seen = campaign(rig.terminal, rate, rate=rate)
        if percentile(latencies_ms(seen), 99) > 100 or seen["resent"]:
            break
        best = rate
    rig.measure("highest_rate_p99_100_ms", best, "1/s", ">= 50", note=SEED_RATE)
    return f"{best}/s"


@SUITE.case("downlink_of_one_terminal", deadline_s=60)
def downlink_of_one_terminal(rig: Rig) -> str:
    """A thousand genuine replies poured onto the terminal: each verified, none mistaken for news."""
    terminal, link = rig.terminal, rig.link
    tap = link.tap(DOWN, REPLIES)
    good_order_works(rig)
    reply, messages = tap.wait()[0], 1000
    before = terminal.rpc("stats")["sender"]["repeated"]
    counted = messages // 2  # from the first it notices; a few may pass before it begins to count
    number = terminal.console.post("listen", n=counted, ms=30000)
    for _ in range(messages):
        link.replay(reply)
    seen = terminal.console.answer(number, "listen", deadline_s=40)
    check(seen["n"] >= counted, f"{seen['n']} of {counted} arrived")
    until(
        lambda: terminal.rpc("stats")["sender"]["repeated"] - before == messages,
        f"{messages} replies verified as repetitions",
    )
    rate = counted / (seen["elapsed_us"] / 1e6)
    rig.measure("downlink_replies_per_s", rate, "1/s", note="verified, wall time on this machine")
    return f"{rate:.0f}/s"


@SUITE.case("the_server_under_load", deadline_s=120)
def the_server_under_load(rig: Rig) -> str:
    """The server under a fleet of software terminals: orders a second, latency, CPU an order, none lost."""
    folder = rig.folder / "load"
    folder.mkdir()
    figures = server_load.run(devices=6, window=8, seconds=1.5, rate=200.0, folder=folder)
    rig.measurements.extend(figures)
    values = {figure.name: figure.value for figure in figures}
    return f"{values['server_orders_per_s']:.0f} orders/s"
