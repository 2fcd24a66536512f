# What only a bench may do to a terminal; this file is left out of production images.
#
# Adds machine commands to the console:
#   throughput {n, window?, journal?, lines?, rate?, chain?}
#       n orders through the real path, closed loop with `window` outstanding, or open loop at `rate` a
#       second; lines: 1, 3 or 6; chain: with the bill's hash chain.
#       -> instret, idle_us, elapsed_us, statuses, publish_bytes, resent, repeated,
#       latency [[below_us, count], ...] from the scheduled time
#   listen {n, ms?}               counts down-link messages -> n; `timed` of them took elapsed_us, instret
#   mark                          instret, idle_us, us: counters now
#   turns {watch}                 true: begin to watch how long tasks wait for their turn; false: the longest
#   taps {n, every_ms, lines?}    n orders as from the screen, each due at its time
#       -> handed_us: from the moment each was due until its bytes were with the network; erases: of flash
#       sectors, the most from then to an answer that did not take longer than 500 ms
#   seal {lines, ...}             an op-frame that is neither journaled nor sent -> frame (hex), op
#   publish {topic, hex, retain?} any bytes on any topic
#   rekey {resume?}               a new handshake: a Hello, or a Resume if there is a key for one
#   cut {n, keep?, seed?}         power fails inside the n-th flash step from now
#   flash {region?}               flash counters, CRC-32 of a region
#   flash_times {erase_us, program_us}   what a sector's erase and a page's program take from now on
#   outbox_fill {n}               journals n orders without sending them
#   sleep {ms}
import asyncio
import binascii
import gc
import sys
from array import array

from terminal.compat import const, sleep_ms, ticks_add, ticks_diff, ticks_us
from terminal.console import Refused
from terminal.wire.frames import COMMITTED, encode_order

if sys.implementation.name == "micropython":
    import micropython
else:
    from terminal.compat import micropython

# Orders of ordinary size from the demo menu, by number of lines.
_ORDERS = {
    1: [[1, 2, []]],
    3: [[1, 2, []], [3, 1, [101]], [20, 1, []]],
    6: [[1, 2, []], [3, 1, [101]], [20, 1, []], [4, 1, []], [30, 2, []], [31, 1, []]],
}
_TIMEOUT_MS = const(120000)
_BUCKETS = const(256)
_NOTABLE_US = const(50)
_PROMPT_US = const(500000)


class Agent:
    def __init__(self, app, console):
        self._app = app
        self._rounds = None
        console.commands.update(
            {
                "throughput": self._throughput,
                "listen": self._listen,
                "mark": self._mark,
                "turns": self._turns,
                "taps": self._taps,
                "seal": self._seal,
                "publish": self._publish,
                "rekey": self._rekey,
                "cut": self._cut,
                "flash": self._flash,
                "flash_times": self._flash_times,
                "outbox_fill": self._outbox_fill,
                "sleep": self._sleep,
            }
        )

    async def _throughput(self, request):
        run = Run(self._app, request)
        return await run.execute()

    async def _listen(self, request):
        app = self._app
        client = app.client
        protocol = client.protocol
        done = asyncio.Event()
        begin = protocol.received
        start = []
        pump = client.on_batch

        def after_batch():
            pump()
            if not start:  # the first messages only start the clock
                start.append(protocol.received)
                start.append(_counters(app.board))
            elif protocol.received - begin >= request["n"]:
                done.set()

        client.on_batch = after_batch
        try:
            await asyncio.wait_for(done.wait(), request.get("ms", 30000) / 1000)
        except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no built-in of that name
            pass
        finally:
            client.on_batch = pump
        answer = _difference(start[1], app.board) if start else {}
        answer["n"] = protocol.received - begin
        answer["timed"] = protocol.received - start[0] if start else 0
        return answer

    def _mark(self, request):
        instret, idle_us, now_us = _counters(self._app.board)
        return {"instret": instret, "idle_us": idle_us, "us": now_us}

    # What is ready runs within one round of all tasks: the longest one is what a tap can wait for its turn.
    async def _turns(self, request):
        if self._rounds is not None:
            self._rounds.task.cancel()
        if request["watch"]:
            self._rounds = Rounds(self._app.board)
            return None
        rounds = self._rounds
        if rounds is None:
            raise Refused("NOT_WATCHED", "nobody watches the turns: begin with watch true")
        self._rounds = None
        return rounds.answer()

    async def _taps(self, request):
        app = self._app
        lines = _ORDERS[request.get("lines", 1)]
        every_us = request["every_ms"] * 1000
        answered = asyncio.Event()
        tell = app.sender.on_final

        def on_final(*reply):
            answered.set()
            tell(*reply)

        app.sender.on_final = on_final
        try:
            return await self._tap(request["n"], lines, every_us, answered)
        finally:
            app.sender.on_final = tell

    async def _tap(self, count, lines, every_us, answered):
        app = self._app
        handed_us = []
        most_erases = 0
        for _ in range(count):
            due_us = ticks_add(ticks_us(), every_us)
            await sleep_ms(max(ticks_diff(due_us, ticks_us()) // 1000, 0))
            app.submit(lines)
            if app.client.protocol.pending_bytes():
                raise Refused("NOT_SENT", "the network did not take the order at once")
            handed_us.append(ticks_diff(ticks_us(), due_us))
            before = app.board.stats()["erases"]
            await asyncio.wait_for(answered.wait(), _TIMEOUT_MS / 1000)
            answered.clear()
            if ticks_diff(ticks_us(), due_us) < _PROMPT_US:
                most_erases = max(most_erases, app.board.stats()["erases"] - before)
        return {"handed_us": handed_us, "erases": most_erases}

    def _seal(self, request):
        app = self._app
        op_id = app.outbox.next_op_id(app.board.random)
        lines = request["lines"]
        total = request.get("total")
        op = encode_order(
            op_id,
            request.get("table", app.ui.table),
            lines,
            request.get("menu", app.menu.current().version),
            app.menu.total(lines) if total is None else total,
        )
        return {"op": _hex(op_id), "frame": _hex(app.session.seal(op))}

    def _publish(self, request):
        client = self._app.client
        client.publish(
            request["topic"].encode(), binascii.unhexlify(request["hex"]), bool(request.get("retain"))
        )
        client.flush()

    def _rekey(self, request):
        if not request.get("resume"):
            self._app.session.forget_ticket()
        self._app.control.rekey()

    def _cut(self, request):
        arguments = request["n"], request.get("keep", -1), request.get("seed", 0)
        board = self._app.board
        if hasattr(board, "nor"):
            board.nor.cut_at(*arguments)
            return
        import _board

        _board.cut_at(*arguments)

    def _flash(self, request):
        board = self._app.board
        answer = {"stats": board.stats()}
        if "region" in request:
            device = board.region(request["region"])
            buffer = bytearray(512)
            crc = 0
            for block in range(device.ioctl(4, 0)):
                for offset in range(0, 4096, 512):
                    device.readblocks(block, buffer, offset)
                    crc = binascii.crc32(buffer, crc)
            answer["crc"] = crc
        return answer

    # Emulated flash is as fast as memory unless it is told otherwise.
    def _flash_times(self, request):
        import _board

        _board.flash_times(request["erase_us"], request["program_us"])

    def _outbox_fill(self, request):
        app = self._app
        lines = _ORDERS[1]
        version = app.menu.current().version
        total = app.menu.total(lines)
        for _ in range(request["n"]):
            op_id = app.outbox.next_op_id(app.board.random)
            app.outbox.append(op_id, encode_order(op_id, app.ui.table, lines, version, total))
        return {"pending": len(app.outbox)}

    async def _sleep(self, request):
        await sleep_ms(request["ms"])


# Measures rounds of the scheduler: between two turns of this task every other one had at most one. It is
# always ready, so the processor never sleeps and on a board with exact time a round is instructions alone.
class Rounds:
    # board: .stats()
    def __init__(self, board):
        self._board = board
        self._count = 0
        self._longest_us = 0
        self._erases = 0  # the most in one round
        self._program_bytes = 0
        self.task = asyncio.create_task(self._watch())

    async def _watch(self):
        stats = self._board.stats()
        left_us = ticks_us()
        while True:
            await asyncio.sleep(0)
            round_us = ticks_diff(ticks_us(), left_us)
            self._count += 1
            if round_us > _NOTABLE_US:  # whatever touches flash is
                before = stats
                stats = self._board.stats()
                self._longest_us = max(self._longest_us, round_us)
                self._erases = max(self._erases, stats["erases"] - before["erases"])
                self._program_bytes = max(self._program_bytes, stats["bytes"] - before["bytes"])
            left_us = ticks_us()

    def answer(self):
        return {
            "turns": self._count,
            "longest_us": self._longest_us,
            "erases": self._erases,
            "program_bytes": self._program_bytes,
        }


# Stands in for the outbox to show what the journal costs: nothing reaches flash.
class _NoJournal:
    def __init__(self, outbox):
        self._outbox = outbox
        self._ops = {}

    def __len__(self):
        return len(self._ops)

    def append(self, op_id, op):
        self._ops[op_id] = op

    def done(self, op_id, status):
        return self._ops.pop(op_id, None) is not None

    def get(self, op_id):
        return self._ops.get(op_id)

    def pending(self):
        return list(self._ops.items())

    def flush(self):
        pass


# One measured run of orders. It drives the application's own sender, outbox, session and client; what it
# leaves out is the screen model, the console's events and, unless asked for, the chain under the bill's seal.
class Run:
    def __init__(self, app, request):
        self._app = app
        self._wanted = request["n"]
        self._window = request.get("window", 8)
        self._rate = request.get("rate", 0)
        self._lines = _ORDERS[request.get("lines", 1)]
        self._journal = request.get("journal", True)
        self._chain = request.get("chain", False)
        self._total = app.menu.total(self._lines)
        self._made = 0
        # When it was due, by the op's number: since the run's start, because ticks do not fit where a board's
        # clock is the host's.
        self._begun_us = array("i", bytes(4 * 256))
        self._started_us = 0
        self._refusals = {}  # status -> count
        self._finals = 0
        self._publish_bytes = 0
        self._buckets = array("H", bytes(2 * _BUCKETS))
        self._table = app.ui.table
        self._menu = app.menu.current().version
        self._random = app.board.random
        self._add = app.sender.add
        self._done = asyncio.Event()

    # Raises Refused when orders from before are still unanswered: their answers would be counted.
    async def execute(self):
        app = self._app
        if len(app.outbox):
            raise Refused("BUSY", "orders are still unanswered: wait until the terminal is idle")
        sender = app.sender
        before = sender.on_final, sender.credit, app.outbox, sender.resent, sender.repeated
        outbox = app.outbox if self._journal else _NoJournal(app.outbox)
        self._outbox = outbox
        # Bound once: looking a method up costs MicroPython two walks through tables, every time.
        self._append = outbox.append
        self._next_op_id = app.outbox.next_op_id
        self._make_next = self._make
        sender.on_final = self._on_final
        sender.keeps_chain = self._chain
        sender.credit = self._window if not self._rate else before[1]
        sender.use(outbox)
        gc.collect()
        start = _counters(app.board)
        self._started_us = ticks_us()
        try:
            if self._rate:
                await self._open_loop()
            else:
                self._closed_loop()
            await asyncio.wait_for(self._done.wait(), _TIMEOUT_MS / 1000)
        except asyncio.TimeoutError:  # noqa: UP041
            self._refusals["timeout"] = self._made - self._finals
        finally:
            answer = _difference(start, app.board)
            sender.on_final, sender.credit = before[0], before[1]
            sender.keeps_chain = True
            sender.use(app.outbox)
        refused = sum([n for status, n in self._refusals.items() if status != "timeout"])
        committed = self._refusals[COMMITTED] = self._finals - refused
        answer.update(
            {
                "n": self._finals,
                "committed": committed,
                "statuses": self._refusals,
                "resent": sender.resent - before[3],
                "repeated": sender.repeated - before[4],
                "latency": self._latency(),
                "publish_bytes": self._publish_bytes,
            }
        )
        return answer

    # Sends what is due; notes the size of a whole MQTT packet while one is in flight.
    def _send(self):
        client = self._app.client
        self._app.sender.pump()
        client.flush()
        if not self._publish_bytes:
            self._publish_bytes = max([len(packet) for packet in client.protocol.inflight()] or [0])

    def _closed_loop(self):
        for _ in range(min(self._window, self._wanted)):
            self._make(0)
        self._send()

    # Orders are due at fixed times, whatever became of the earlier ones.
    async def _open_loop(self):
        app = self._app
        while self._made < self._wanted:
            elapsed_us = ticks_diff(ticks_us(), self._started_us)
            due = min(elapsed_us * self._rate // 1000000 + 1, self._wanted)
            while self._made < due and len(self._outbox) < app.outbox.capacity:
                self._make(self._made * 1000000 // self._rate)
            self._send()
            next_us = self._made * 1000000 // self._rate - ticks_diff(ticks_us(), self._started_us)
            await sleep_ms(max(next_us // 1000, 1))

    def _make(self, due_us):
        op_id = self._next_op_id(self._random)
        op = encode_order(op_id, self._table, self._lines, self._menu, self._total)
        self._append(op_id, op)
        self._begun_us[op_id[7]] = due_us
        self._add(op_id, op)
        self._made += 1

    def _on_final(self, op_id, status, arg, order_number, total_minor, lsn):
        now_us = ticks_diff(ticks_us(), self._started_us)
        self._buckets[bucket_of(now_us - self._begun_us[op_id[7]])] += 1
        finals = self._finals + 1
        self._finals = finals
        if status != COMMITTED:
            self._refusals[status] = self._refusals.get(status, 0) + 1
        if self._made < self._wanted:
            if not self._rate:
                self._make_next(now_us)
        elif finals == self._wanted:
            self._done.set()

    # [[upper bound in us, count], ...], ascending
    def _latency(self):
        return [[bucket_end(i), count] for i, count in enumerate(self._buckets) if count]


# Durations are counted in buckets that are at most 1/8 wide: enough for percentiles, and small.
@micropython.viper
def bucket_of(duration_us: int) -> int:
    shift = 0
    while duration_us > 15:
        duration_us >>= 1
        shift += 1
    return shift * 8 + duration_us


def bucket_end(bucket):
    if bucket < 16:
        return bucket + 1
    shift = bucket // 8 - 1
    return bucket - 8 * shift + 1 << shift


def _counters(board):
    return [board.instret(), board.idle_us(), ticks_us()]


def _difference(start, board):
    instret, idle_us, now_us = _counters(board)
    return {
        "instret": instret - start[0],
        "idle_us": idle_us - start[1],
        "elapsed_us": ticks_diff(now_us, start[2]),
    }


def _hex(data):
    return "".join([f"{byte:02x}" for byte in data])
