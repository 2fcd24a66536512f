"""Suite faults: link, power, broker and server fail at the worst moment; no order is lost, none doubled.

Every case is judged by two books at once: what the terminal said it had queued, and what the server's ledger
says it committed. The last case compares both over everything this run ever ordered.
"""

from __future__ import annotations

from bench.boards.base import CUT_AT, EXIT_POWER_CUT, LINK_SWITCH, POWER_CUT
from bench.console import Event
from bench.errors import CaseFailed, ConsoleClosed, DeadlinePassed, RpcRefused, check
from bench.faults.rules import Delay, Direction, Drop, Hold
from bench.rig import Rig
from bench.suites.registry import Suite
from bench.suites.steps import (
    COLA_ID,
    ESPRESSO_ID,
    ESPRESSO_MINOR,
    OPS,
    REPLIES,
    committed_once,
    each_committed_once,
    good_order_works,
    order_count,
    orders_of,
)
from bench.terminal import COMMITTED, SOLD_OUT, Terminal
from bench.wait import until
from server.wire.frames import HintStatus
from server.wire.ops import Line

UP, DOWN = Direction.UP, Direction.DOWN
SUITE = Suite("faults", "Link, power, broker and server fail; no order is lost, none doubled.")
KEEPALIVE_S = 2
CUT_SAMPLES = 4
RATE_LIMITED = int(HintStatus.RATE_LIMITED)


@SUITE.setup
def a_terminal_is_online(rig: Rig) -> None:
    """Every case finds a terminal with a session."""
    rig.terminal.online()


def answered(terminal: Terminal, ops: list[str], deadline_s: float = 45.0) -> None:
    """Every op got COMMITTED."""
    for op in ops:
        reply = terminal.reply(op, deadline_s)
        check(reply.status == COMMITTED, f"op {op} was answered {reply}")


def went_offline(terminal: Terminal, since: int, deadline_s: float = 20.0) -> Event:
    """Wait until the terminal has noticed."""
    return terminal.console.event("offline", since=since, deadline_s=deadline_s)


# ---------------------------------------------------------------- link


@SUITE.case("link_cut_with_orders_in_flight")
def link_cut_with_orders_in_flight(rig: Rig) -> None:
    """The link is cut while five orders wait for their answers: five orders."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    hold = Hold()
    rule = link.rule(DOWN, REPLIES, hold)
    ops = [terminal.queue() for _ in range(5)]
    link.fired(rule)
    link.clear()
    link.cut()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("link_cut_ten_times_while_ordering")
def link_cut_ten_times_while_ordering(rig: Rig) -> None:
    """Ten orders, the connection reset after each: ten orders."""
    terminal = rig.terminal
    terminal.online()
    ops = []
    for _ in range(10):
        ops.append(terminal.queue())
        rig.link.cut()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("orders_wait_out_an_outage")
def orders_wait_out_an_outage(rig: Rig) -> None:
    """With no broker to reach the terminal takes orders, says they wait, and delivers them afterwards."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    since = terminal.console.mark()
    before = order_count(rig)
    link.refuse()
    went_offline(terminal, since)
    ops = [terminal.queue() for _ in range(8)]
    pending = terminal.rpc("orders")["pending"]
    check(set(ops) <= set(pending), f"{len(pending)} ops pending, {len(ops)} were queued")
    check(order_count(rig) == before, "an order was committed during the outage")
    link.clear()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("half_open_link_is_noticed", deadline_s=90)
def half_open_link_is_noticed(rig: Rig) -> str:
    """A link that stands but carries nothing is noticed by keepalive, and the order goes out on a new one."""
    terminal, link, options = rig.terminal, rig.link, rig.board.boot_options
    options["keepalive_s"] = KEEPALIVE_S
    try:
        since = terminal.console.mark()
        terminal.boot()
        terminal.await_session(since)
        since = terminal.console.mark()
        link.freeze()
        op = terminal.queue()
        event = went_offline(terminal, since, 10 * KEEPALIVE_S)
        link.cut()
        link.clear()
        committed_once(rig, terminal.reply(op))
    finally:
        del options["keepalive_s"]
    return str(event.data["reason"])


@SUITE.case("delayed_ops_overtake_each_other")
def delayed_ops_overtake_each_other(rig: Rig) -> None:
    """Ops that arrive a second late, behind later ones, still become one order each."""
    terminal, link = rig.terminal, rig.link
    link.rule(UP, OPS, Delay(1.0), times=2)
    ops = [terminal.queue() for _ in range(5)]
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("a_reply_later_than_the_patience_is_harmless")
def a_reply_later_than_the_patience_is_harmless(rig: Rig) -> None:
    """A reply that comes after the terminal has asked again changes nothing: one order, one answer."""
    terminal, link = rig.terminal, rig.link
    hold = Hold()
    rule = link.rule(DOWN, REPLIES, hold, times=1)
    op = terminal.queue()
    link.fired(rule)
    reply = terminal.reply(op)
    repeated = terminal.rpc("stats")["sender"]["repeated"]
    link.release(hold, DOWN, "t-0001")
    until(
        lambda: terminal.rpc("stats")["sender"]["repeated"] > repeated,
        "the late reply noticed as a repetition",
    )
    committed_once(rig, reply)
    finals = [e for e in terminal.console.events("reply") if e.data["op"] == op]
    check(len(finals) == 1, f"the guest was told {len(finals)} times")


@SUITE.case("pulled_cable_and_back", features=(LINK_SWITCH,))
def pulled_cable_and_back(rig: Rig) -> None:
    """The cable is pulled with an order on its way, and plugged in again: one order."""
    terminal = rig.terminal
    terminal.online()
    terminal.board.link.down()
    try:
        op = terminal.queue()
        check(not orders_of(rig, [op]), "an order went over a pulled cable")
    finally:
        terminal.board.link.up()
    committed_once(rig, terminal.reply(op, 45))


# ---------------------------------------------------------------- broker and server


@SUITE.case("server_killed_with_orders_in_flight", deadline_s=90)
def server_killed_with_orders_in_flight(rig: Rig) -> None:
    """kill -9 of the server while ten orders are on their way: ten orders after its restart."""
    terminal = rig.terminal
    terminal.online()
    tap = rig.link.tap(UP, OPS)
    ops = [terminal.queue() for _ in range(10)]
    tap.wait(3)
    rig.server.restart()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("server_killed_between_commit_and_reply", deadline_s=90)
def server_killed_between_commit_and_reply(rig: Rig) -> None:
    """The server dies after the commit, the reply is lost: asked again it gives the same answer."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    link.rule(DOWN, REPLIES, Drop(puback=False))
    op = terminal.queue()
    committed = until(lambda: orders_of(rig, [op]), "the commit")
    rig.server.kill()
    link.clear()
    rig.server.start()
    reply = terminal.reply(op, 45)
    check(committed_once(rig, reply) == committed[0], "another answer than the one committed")


@SUITE.case("broker_stopped_and_started", deadline_s=90)
def broker_stopped_and_started(rig: Rig) -> None:
    """A broker that goes for maintenance finds its terminal again, session and all."""
    terminal = rig.terminal
    terminal.online()
    since = terminal.console.mark()
    rig.server.stop()
    went_offline(terminal, since)
    op = terminal.queue()
    rig.server.start()
    committed_once(rig, terminal.reply(op, 45))
    sessions = terminal.console.events("session", since)
    check(not sessions, "a restart of the server cost a handshake, though sessions are stored")


@SUITE.case("terminal_starts_without_a_server", deadline_s=90)
def terminal_starts_without_a_server(rig: Rig) -> None:
    """A terminal that starts without any server takes orders from its cached menu and delivers them later."""
    terminal = rig.terminal
    terminal.online()
    rig.server.stop()
    terminal.boot()
    ops = [terminal.queue() for _ in range(3)]
    rig.server.start()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("rate_limited_orders_arrive_in_the_end", deadline_s=90)
def rate_limited_orders_arrive_in_the_end(rig: Rig) -> str:
    """Twelve orders against a limit of five a second: all committed, each once, none refused for good."""
    terminal = rig.terminal
    with rig.server.restarted_with("--limit-op", "5:5"):
        until(lambda: terminal.is_online, "the terminal is back")
        ops = [terminal.queue() for _ in range(12)]
        answered(terminal, ops)
        each_committed_once(rig, ops)
        refused = rig.server.ledger.refusals(rig.options.site).get(
            (rig.options.site, "t-0001", "op_rate_limited"), 0
        )
    check(refused > 0, "the limit never bit")
    return f"{refused} times asked to wait"


# ---------------------------------------------------------------- power


@SUITE.case("power_cut_with_orders_in_flight", features=(POWER_CUT,))
def power_cut_with_orders_in_flight(rig: Rig) -> None:
    """Power goes with six orders queued and unanswered: after the next start six orders."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    rule = link.rule(DOWN, REPLIES, Drop(puback=False))
    ops = [terminal.queue() for _ in range(6)]
    link.fired(rule)
    terminal.board.power.off()
    link.clear()
    terminal.boot()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("power_cut_while_offline_keeps_the_queue", features=(POWER_CUT,))
def power_cut_while_offline_keeps_the_queue(rig: Rig) -> None:
    """Orders taken offline survive a power cut before they were ever sent."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    link.refuse()
    ops = [terminal.queue() for _ in range(4)]
    terminal.boot()
    pending = terminal.rpc("orders")["pending"]
    # Ops answered just before may be back too: "done" notes reach flash lazily, which costs a resend only.
    check(pending[-len(ops) :] == ops, f"queued {ops}, after the cut {pending}")
    link.clear()
    answered(terminal, ops)
    each_committed_once(rig, ops)


@SUITE.case("power_cut_inside_the_journal", features=(CUT_AT,), deadline_s=120)
def power_cut_inside_the_journal(rig: Rig) -> str:
    """Power fails inside a sampled flash step while ordering: what was queued is ordered once."""
    terminal = rig.terminal
    fates = []
    for sample in range(CUT_SAMPLES):
        terminal.online()
        until(lambda: not terminal.rpc("orders")["pending"], "an empty journal before the cut")
        step, keep = rig.random.randrange(1, 4 + 2 * sample), rig.random.randrange(0, 200)
        fates.append(_order_until_the_cut(rig, step, keep))
    return ", ".join(fates)


def _order_until_the_cut(rig: Rig, step: int, keep: int) -> str:
    terminal = rig.terminal
    since = terminal.console.mark()
    before = {order.op_id.hex() for order in rig.server.ledger.orders(rig.options.site)}
    terminal.rpc("cut", n=step, keep=keep, seed=rig.random.randrange(1, 1000))
    queued = []
    for _ in range(3 * step + 3):
        try:
            queued.append(terminal.queue())
        except (ConsoleClosed, DeadlinePassed):
            break
    status = terminal.board.power.wait_off(15)
    check(status == EXIT_POWER_CUT, f"the board ended with {status} instead of the armed cut")
    promised = {str(e.data["op"]) for e in terminal.console.events("queued", since)} | set(queued)
    terminal.boot()
    terminal.online()
    until(lambda: not terminal.rpc("orders")["pending"], "the journal to empty after the cut", 45)
    found = [order.op_id.hex() for order in rig.server.ledger.orders(rig.options.site)]
    fresh = [op for op in found if op not in before]
    check(len(fresh) == len(set(fresh)), "an order was doubled")
    lost = promised - set(fresh)
    check(
        not lost, f"{len(lost)} orders the guest saw queued are lost (cut at step {step}, {keep} bytes kept)"
    )
    return f"step {step}: {len(promised)} queued, {len(fresh)} ordered"


@SUITE.case("power_cycles_never_reuse_an_op_id", features=(POWER_CUT,))
def power_cycles_never_reuse_an_op_id(rig: Rig) -> None:
    """Over three power cycles no op id is used twice, whatever the clock of a terminal says."""
    terminal = rig.terminal
    ops = []
    for _ in range(3):
        terminal.boot()
        ops += [terminal.queue() for _ in range(2)]
    check(len(set(ops)) == len(ops), f"an op id came twice: {ops}")
    check(ops == sorted(ops), "op ids do not grow from start to start")
    answered(terminal, ops)
    each_committed_once(rig, ops)


# ---------------------------------------------------------------- bounds


@SUITE.case("a_full_journal_says_so", deadline_s=120)
def a_full_journal_says_so(rig: Rig) -> str:
    """When the journal is full the guest is told, nothing is lost, and afterwards ordering works again."""
    terminal, link = rig.terminal, rig.link
    terminal.online()
    link.refuse()
    ops: list[str] = []
    refused = ""
    while not refused:
        check(len(ops) < 5000, "the journal never fills")
        try:
            ops.append(terminal.queue())
        except RpcRefused as error:
            refused = error.code
    check("FULL" in refused, f"refused with {refused}")
    link.clear()
    answered(terminal, ops, 90)
    each_committed_once(rig, ops)
    good_order_works(rig)
    return f"{refused} after {len(ops)} orders"


@SUITE.case("a_hint_storm_costs_no_order")
def a_hint_storm_costs_no_order(rig: Rig) -> None:
    """A server that lost its sessions, as after a restore, is met with a new handshake; the order arrives."""
    terminal = rig.terminal
    terminal.online()
    rig.server.admin("devices", "suspend", "t-0001")
    rig.server.admin("devices", "activate", "t-0001")
    op = terminal.queue()
    committed_once(rig, terminal.reply(op, 45))


@SUITE.case("two_terminals_share_the_last_portions", deadline_s=90)
def two_terminals_share_the_last_portions(rig: Rig) -> str:
    """Two terminals order the last five portions at once: five are sold, the rest is SOLD_OUT."""
    first, second = rig.terminal, rig.terminal_number(2)
    first.online()
    second.online()
    rig.server.admin("stock", "set", str(COLA_ID), "5")
    try:
        ops = []
        for _ in range(4):
            ops += [(terminal, terminal.queue([(COLA_ID, 1, ())])) for terminal in (first, second)]
        replies = [terminal.reply(op) for terminal, op in ops]
        sold = [reply for reply in replies if reply.status == COMMITTED]
        refused = [reply for reply in replies if reply.status == SOLD_OUT]
        check((len(sold), len(refused)) == (5, 3), f"{len(sold)} sold, {len(refused)} sold out of 8")
        check(rig.server.ledger.stock(rig.options.site)[COLA_ID] == 0, "the stock is not 0")
    finally:
        rig.server.admin("stock", "set", str(COLA_ID), "none")
        second.board.power.off()
    return "5 sold, 3 sold out"


@SUITE.case("an_impostor_cannot_starve_a_terminal")
def an_impostor_cannot_starve_a_terminal(rig: Rig) -> str:
    """While a stolen terminal floods the server with valid orders, an honest one is served."""
    with rig.impostor() as impostor:
        impostor.shake_hands()
        for _ in range(1500):
            op = impostor.op((Line(ESPRESSO_ID, 1),), ESPRESSO_MINOR)
            impostor.say("op", impostor.seal(op.encode()))
        reply = good_order_works(rig)
    return f"served in {reply.ms:.0f} ms"


# ---------------------------------------------------------------- the books


@SUITE.case("both_books_agree_in_the_end", deadline_s=60)
def both_books_agree_in_the_end(rig: Rig) -> str:
    """Over the whole run: every order a guest saw queued has exactly one answer, and the LSNs have no gap."""
    rig.terminal.online()
    until(lambda: not rig.terminal.rpc("orders")["pending"], "an empty journal", 30)
    queued = {str(e.data["op"]) for t in rig.terminals for e in t.console.events("queued")}
    answers = rig.server.ledger.answers(rig.options.site)
    ids = [answer.op_id.hex() for answer in answers]
    check(len(ids) == len(set(ids)), "an op has two answers")
    lost = queued - set(ids)
    check(not lost, f"{len(lost)} of {len(queued)} queued orders have no answer: {sorted(lost)[:3]}")
    lsns = rig.server.ledger.lsns(rig.options.site)
    check(lsns == list(range(1, len(lsns) + 1)), "the LSNs have a gap")
    _replies_match(rig)
    return f"{len(queued)} orders seen queued, {len(answers)} answers"


def _replies_match(rig: Rig) -> None:
    """What each terminal told its guest is what the ledger holds."""
    answers = {answer.op_id.hex(): answer for answer in rig.server.ledger.answers(rig.options.site)}
    for terminal in rig.terminals:
        for event in terminal.console.events("reply"):
            told, stored = event.data, answers.get(str(event.data["op"]))
            if stored is None:
                raise CaseFailed(f"the terminal reported an answer nobody stored: {told}")
            check(
                (told["status"], told["order"], told["total"], told["lsn"])
                == (stored.status, stored.order_number, stored.total_minor, stored.lsn),
                f"the guest was told {told}, the ledger says {stored}",
            )
