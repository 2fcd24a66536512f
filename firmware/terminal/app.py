# The terminal: everything is built here, from the board up, and nothing is built anywhere else.
#
# Order of things: what is in flash first (identity, counters, outbox, menu), so that a guest can order
# without any network; then the link. Messages are handled where they arrive; the tasks below only wait.
import asyncio
import gc

from terminal import heap, regions
from terminal import identity as provisioning
from terminal.compat import const, sleep_ms, ticks_diff, ticks_ms
from terminal.console import Console, Stop, emit, python_name
from terminal.control import Control
from terminal.counters import Counters
from terminal.flashlog import StorageError
from terminal.link import Backoff
from terminal.menu import MenuStore
from terminal.mqtt import Client, Full
from terminal.ota.authority import Authority
from terminal.ota.hook import LASTED_S, Updates
from terminal.outbox import Outbox
from terminal.sender import Sender
from terminal.session import ESTABLISHED, HELLO_SENT, Session
from terminal.tally import Tally
from terminal.ui import Ui
from terminal.version import VERSION
from terminal.version import text as version_text
from terminal.wire.errors import WireError
from terminal.wire.frames import encode_order, encode_presence
from terminal.wire.keys import root_key
from terminal.wire.rsa import verify_pss_steps

try:
    from terminal.trust import ROOT_SPKI
except ImportError:  # an image without a frozen root: the provisioning record's is used
    ROOT_SPKI = None

_WATCHDOG_MS = const(8000)
_FEED_MS = const(1000)
_KEEPALIVE_S = const(15)
_TELEMETRY_S = const(300)
_MOST_EARLY = const(4)


# What the loader tells the application through the board object; a terminal that was started without it is
# neither on trial nor in the middle of an update.
_WITHOUT_LOADER = (
    ("image_version", VERSION),
    ("image_digest", None),
    ("on_trial", False),
    ("update_pending", False),
)


class AppError(Exception):
    # Why the terminal cannot start or do what was asked; code for machines, text for people.
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code
        self.text = text


class Terminal:
    # board: see firmware/boards; slot: name of the slot this application runs from.
    # emit(name, dict): tells the outside world that something happened (the console's events).
    # Raises AppError, StorageError.
    def __init__(self, board, slot="factory", emit=None):
        self.board = board
        self.slot = slot
        self.emit = emit if emit is not None else _silent
        self.options = board.options()
        try:
            self.identity = provisioning.load(board.region(regions.IDENTITY), self.options, ROOT_SPKI)
        except WireError:
            raise AppError(
                "NOT_PROVISIONED", "no provisioning record in flash: run tableside firmware provision"
            ) from None
        root = root_key(self.identity, ROOT_SPKI)
        for name, value in _WITHOUT_LOADER:
            if not hasattr(board, name):
                setattr(board, name, value)
        self.counters = Counters(board.region(regions.COUNTERS))
        self.boots = self.counters.boot()
        self.outbox = Outbox(board.region(regions.JOURNAL), self.boots)
        self.tally = Tally(self.counters)
        self.outbox.before_flush = self.tally.save
        self.menu = MenuStore(board.root, self.identity.site, self._verify_menu)
        self.session = Session(self.identity, root, self.counters, board.random, VERSION)
        self.ui = Ui(self.menu, self.identity.table)
        self.changed = asyncio.Event()  # link, menu or an order changed: for those who wait for a state
        self._notice_seq = 0
        self._early = []  # notices that came before the session they are of
        self._requests = None
        self._queued_at = {}  # op id -> ticks, of ops the guest watches
        self.faults = {}  # exception name -> messages that were dropped because their handler failed
        self._connect_parts(root)

    def _connect_parts(self, root):
        site = self.identity.site.encode()
        device = self.identity.device.encode()
        up = b"o/" + site + b"/" + device
        down = b"d/" + site + b"/" + device
        random = self.board.random
        self._state_topic = up + b"/state"
        self._menu_prefix = b"s/" + site + b"/menu/"
        beacon = b"s/" + site + b"/beacon"
        self.client = Client(
            self.identity.host,
            self.identity.port,
            device,
            device,
            self.identity.password.encode(),
            Backoff(random, cap_ms=self.options.get("backoff_ms", 15000)),
            self._on_message,
            (down + b"/reply", down + b"/hello", down + b"/notice", down + b"/ota/+", beacon),
            (self._state_topic, encode_presence(0, VERSION, 0, 0)),
            self.options.get("keepalive_s", _KEEPALIVE_S),
            on_fault=self._on_fault,
        )
        self.sender = Sender(
            self.client, self.session, self.outbox, self.tally, up + b"/op", self._on_final, self._on_rekey
        )
        self.control = Control(
            self.client,
            self.session,
            self.sender,
            self.outbox,
            self.menu,
            up + b"/hello",
            self._menu_prefix + b"+",
            random,
            self.emit,
            self._on_session,
            self._on_menu,
            self.board.instret,
        )
        self._update_prefix = up + b"/ota/"
        self.updates = Updates(
            Authority(self.identity, self.session, self.counters, random, self._send_update),
            lambda: (self.sender.unanswered(), self.sender.replies),
            self.board,
            root,
            self.identity.site,
            self.slot,
            VERSION,
            self._send_update,
            lambda event: self.emit("ota", event),
            self._restart,
        )
        self.updates.is_sound = self._is_sound
        self.updates.lasted_s = self.options.get("lasted_s", LASTED_S)
        self.client.on_up = self._on_up
        self.client.on_down = self._on_down
        self.client.on_batch = self.sender.pump
        self.client.protocol.handlers = {
            down + b"/reply": self.sender.on_reply,
            down + b"/hello": self.control.on_hello_answer,
            down + b"/notice": self._on_notice,
            beacon: self.control.on_beacon,
            down + b"/ota/offer": self.updates.on_offer,
            down + b"/ota/chunk": self.updates.on_chunk,
            down + b"/ota/fresh": self._on_fresh,
            down + b"/ota/rotation": self.updates.on_rotation,
            down + b"/ota/command": self._on_command,
        }

    # ------------------------------------------------------------------ life

    # Runs until it is cancelled.
    async def run(self):
        self._start_watchdog()
        await self.board.network_up()
        self.sender.restart(1)
        tasks = [asyncio.create_task(self._guard(part)) for part in self._parts()]
        self.emit("ready", {})
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self.outbox.flush()

    def _parts(self):
        parts = (self.client, self.control, self.sender, self.updates)
        return [part.run() for part in parts] + [self._housekeeping()]

    # A part that ends with an error ends the terminal: the watchdog or the loader starts it again, and the
    # console has said why.
    async def _guard(self, part):
        try:
            await part
        except Exception as error:
            self.emit("error", {"code": type(error).__name__, "text": str(error)})
            raise

    def _start_watchdog(self):
        timeout_ms = self.options.get("watchdog_ms", _WATCHDOG_MS)
        if timeout_ms:
            self.board.wdt_start(timeout_ms)

    # Feeds the watchdog and uses idle moments: notes about finished ops reach flash, and the next flash
    # sectors are erased before anybody waits for them.
    async def _housekeeping(self):
        watched = self.options.get("watchdog_ms", _WATCHDOG_MS)
        quiet = 0
        telemetry_s = self.options.get("telemetry_s", _TELEMETRY_S)
        uptime_s = 0
        while True:
            uptime_s += 1
            if telemetry_s and uptime_s % telemetry_s == 0 and self.ui.online:
                self.requests().telemetry(uptime_s)
            if watched:
                self.board.wdt_feed()
            replies = self.sender.replies
            await sleep_ms(_FEED_MS)
            if self.sender.replies == replies and not self.sender.unanswered():
                quiet += 1
                if quiet == 2:
                    self.outbox.flush()
                    self.outbox.tidy()
                    self.counters.tidy()
                    gc.collect()
            else:
                quiet = 0

    # ------------------------------------------------------------------ messages

    def _on_message(self, topic, payload):
        if topic.startswith(self._menu_prefix):
            self.control.on_menu_chunk(payload)

    def _on_fault(self, error):
        name = type(error).__name__
        self.faults[name] = self.faults.get(name, 0) + 1
        self.emit("error", {"code": "HANDLER_FAULT", "text": f"{name}: {error}"})

    def _on_up(self, session_present):
        if self.session.state == ESTABLISHED:
            self._is_online()
            self.sender.reconnected()
        self.control.link_up()
        self.updates.link_up()

    def _on_down(self, code, text):
        if self.ui.online:
            self.ui.on_link(False)
            self.changed.set()
            self.emit("offline", {"reason": code, "text": text})
        elif self.client.connections == 0:
            self.emit("error", {"code": code, "text": text})

    def _is_online(self):
        self.ui.on_link(True)
        self.changed.set()
        self.emit("online", {"sid": _hex(self.session.sid)})
        self._publish_presence()

    def _on_session(self, duration_ms):
        accept = self.session.accept
        self.ui.on_session(accept.table)
        self._notice_seq = 0
        kind = self.control.kind
        instret = self.control.costs[kind] + self.control.costs["accept"]
        sid = _hex(accept.sid)
        self.emit("session", {"sid": sid, "ms": duration_ms, "instret": instret, "kind": kind})
        self._is_online()
        self.sender.restart(accept.window)
        self.updates.prove()
        self.updates.ask()
        while self._early:
            self._on_notice(self._early.pop(0))

    def _on_rekey(self):
        self.control.rekey()

    def _on_menu(self):
        self.ui.on_menu()
        self.changed.set()
        self.emit("menu", {"version": self.menu.current().version})
        if self.ui.online:
            self._publish_presence()

    # -> True when the message is on its way.
    def _send_update(self, kind, payload):
        if not self.client.online:
            return False
        try:
            self.client.publish(self._update_prefix + kind.encode(), payload)
        except Full:
            return False
        self.client.flush()
        return True

    def _on_fresh(self, frame):
        try:
            self.updates.on_fresh(frame)
        except WireError as error:
            self.control.refuse(error)

    def _on_command(self, frame):
        try:
            self.updates.on_command(frame)
        except WireError as error:
            self.control.refuse(error)

    # Whether what is on trial passes its self-test; if not, this try has failed.
    def _is_sound(self):
        from terminal.selftest import fault

        found = fault(self)
        if found is None:
            return True
        self.emit("error", {"code": found, "text": "the release on trial failed its self-test: it restarts"})
        self._restart()
        return False

    def _restart(self):
        self.outbox.flush()
        self.board.reset()

    def _publish_presence(self):
        info = self.menu.current()
        presence = encode_presence(1, VERSION, info.version if info else 0, len(self.outbox))
        try:
            self.client.publish(self._state_topic, presence, True)
            self.client.flush()
        except Full:
            self.emit("error", {"code": "PRESENCE_LATE", "text": "the window was full, presence not told"})

    def _verify_menu(self, kid, digest, signature):
        site = self.session.site
        if site is None or kid != site.server_key.kid:
            return False
        return (yield from verify_pss_steps(site.server_key, digest, signature))

    # ------------------------------------------------------------------ ordering

    # Journals an order and sends it as soon as possible. lines: [[item id, quantity, [modifier id, ...]],
    # ...]. Returns (op id, total in minor units); on return the order survives a power cut.
    # table, menu_version, total_minor: only a bench gives them, to see them refused.
    # Raises StorageError (unknown item, no menu, outbox full, ...), WireError.
    def submit(self, lines, table=None, menu_version=None, total_minor=None):
        if total_minor is None:
            total_minor = self.menu.total(lines)
        if menu_version is None:
            menu_version = self.menu.current().version
        if table is None:
            table = self.ui.table
        op_id = self.outbox.next_op_id(self.board.random)
        op = encode_order(op_id, table, lines, menu_version, total_minor)
        self.outbox.append(op_id, op)
        self.ui.on_queued(_hex(op_id), lines, total_minor, table)
        self.send(op_id, op)
        return op_id, total_minor

    # Sends an op that is in the outbox.
    def send(self, op_id, op):
        self._queued_at[op_id] = ticks_ms()
        self.emit("queued", {"op": _hex(op_id)})
        self.sender.add(op_id, op)
        self.sender.pump()
        self.client.flush()

    # What a guest may ask for beside orders; loaded when first used.
    def requests(self):
        if self._requests is None:
            from terminal.requests import Requests

            self._requests = Requests(self)
        return self._requests

    # Something about this table; nothing depends on it, and what is old or not the server's is counted.
    def _on_notice(self, frame):
        if self.session.state == HELLO_SENT and len(self._early) < _MOST_EARLY:
            self._early.append(bytes(frame))  # it may be of the session that is just being made
            return
        try:
            notice = self.requests().open_notice(frame, self._notice_seq)
        except WireError as error:
            self.control.refuse(error)
            return
        self._notice_seq = notice.seq
        self.ui.on_notice(notice.kind, notice.table, notice.seating, notice.total_minor, notice.arg)
        self.changed.set()
        self.emit(
            "notice",
            {
                "kind": notice.kind,
                "table": notice.table,
                "seating": notice.seating,
                "total": notice.total_minor,
                "arg": notice.arg,
            },
        )

    def _on_final(self, op_id, status, arg, order_number, total_minor, lsn):
        name = _hex(op_id)
        queued = self._queued_at.pop(op_id, None)
        text = self.ui.on_final(name, status, arg, order_number, total_minor)
        self.changed.set()
        self.emit(
            "reply",
            {
                "op": name,
                "status": status,
                "arg": arg,
                "order": order_number,
                "total": total_minor,
                "lsn": lsn,
                "ms": ticks_diff(ticks_ms(), queued) if queued is not None else 0,
                "text": text,
            },
        )


# The device's entry point; the frozen loader calls it. slot: which copy of the application this is.
# Returns when the operator asks for the prompt.
def main(board, slot="factory"):
    boot = {
        "firmware": version_text(VERSION),
        "micropython": python_name(),
        "board": board.name,
        "device": "",
        "reset_cause": board.reset_cause(),
        "slot": slot,
        "boots": 0,
        "heap_free": 0,
    }
    app = None
    error = None
    try:
        app = Terminal(board, slot, emit)
        boot["device"] = app.identity.device
        boot["boots"] = app.boots
    except (AppError, StorageError) as refusal:
        if getattr(board, "on_trial", False):
            raise  # the loader counts the try and goes back to what worked
        error = refusal
    boot["heap_free"] = heap.free()
    emit("boot", boot)
    if error is not None:
        emit("error", {"code": error.code, "text": error.text})
    try:
        asyncio.run(_run(app, board, error))
    except KeyboardInterrupt:
        print("stopped; the terminal starts again at the next reset")
    except Stop:
        print("the prompt is yours; the terminal starts again at the next reset")
    finally:
        asyncio.new_event_loop()
    if hasattr(board, "wdt_stop"):
        board.wdt_stop()
    else:
        print("its watchdog keeps running and restarts it soon")


async def _run(app, board, error):
    console = Console(app, board)
    if board.options().get("campaign"):
        import campaign  # present in bench images only

        await campaign.run(app, error)
    if app is None:
        await console.run()
        return
    if app.options.get("agent"):
        from terminal import agent  # present in bench images only

        agent.Agent(app, console)
    tasks = [asyncio.create_task(console.run()), asyncio.create_task(app.run())]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _silent(name, data):
    pass


def _hex(data):
    return "".join([f"{byte:02x}" for byte in data])
