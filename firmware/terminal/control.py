# Keeps the terminal in a session and its menu current: one task, one thing at a time.
#
# The task sleeps until something happened (the link came up, a beacon or an answer arrived, the session was
# lost), then does what is most urgent: verify a beacon, shake hands, fetch the menu. Every wait has a
# deadline and every retry a growing, jittered delay.
import asyncio
import gc

from terminal.compat import const, ticks_diff, ticks_ms
from terminal.flashlog import StorageError
from terminal.link import Backoff
from terminal.mqtt import Full
from terminal.session import ESTABLISHED, IDLE
from terminal.wire.errors import WireError
from terminal.wire.frames import parse_menu_chunk
from terminal.wire.rsa import run as run_steps

_ANSWER_TIMEOUT_MS = const(8000)
_SENDS_OF_ONE_HELLO = const(3)
_MENU_TIMEOUT_MS = const(6000)
_MAX_ANSWERS = const(4)


class Control:
    # client, session, sender: see there; menu: MenuStore; hello_topic: bytes of o/<site>/<device>/hello;
    # menu_filter: bytes of s/<site>/menu/+.
    # report(name, dict): events for the console. on_session(duration_ms), on_menu(): done.
    # instret(): instructions executed so far, for `costs` (0 on a board that does not count them).
    def __init__(
        self,
        client,
        session,
        sender,
        outbox,
        menu,
        hello_topic,
        menu_filter,
        random,
        report,
        on_session,
        on_menu,
        instret,
    ):
        self.refused = {}  # code -> count of beacons, hello answers and menu chunks that were not accepted
        self.handshakes = 0
        self.resumes = 0  # of the handshakes
        self.costs = {"beacon": 0, "hello": 0, "resume": 0, "accept": 0, "menu": 0}  # instructions, the last
        self.kind = "hello"  # or "resume": how the session was made
        self._client = client
        self._session = session
        self._sender = sender
        self._outbox = outbox
        self._menu = menu
        self._hello_topic = hello_topic
        self._menu_filter = menu_filter
        self._report = report
        self._on_session = on_session
        self._on_menu = on_menu
        self._instret = instret
        self._backoff = Backoff(random, base_ms=500, cap_ms=60000)
        self._menu_backoff = Backoff(random, base_ms=1000, cap_ms=60000)
        self._wake = asyncio.Event()
        self._link = asyncio.Event()
        self._answered = asyncio.Event()
        self._answers = []
        self._news = False
        self._rekey = False
        self._menu_tried = False
        self._collecting = None  # (version, count) of the menu being fetched, count 0 before the first chunk
        self._complete = asyncio.Event()
        self._failure = None  # the first thing that went wrong with the menu being fetched

    # ------------------------------------------------------------------ what arrives

    def on_beacon(self, frame):
        try:
            if self._session.on_beacon(bytes(frame)):
                self._news = True
                self._wake.set()
        except WireError as error:
            self.refuse(error)

    def on_hello_answer(self, frame):
        if len(self._answers) < _MAX_ANSWERS:
            self._answers.append(bytes(frame))
            self._answered.set()

    def on_menu_chunk(self, frame):
        if self._collecting is None:
            return
        try:
            chunk = parse_menu_chunk(frame)
            version, count = self._collecting
            if chunk.version != version:
                return
            if not count:
                self._menu.begin(version, self._session.site.menu_hash, chunk.count)
                self._collecting = (version, chunk.count)
            if self._menu.chunk(chunk.index, chunk.data):
                self._complete.set()
        except WireError as error:
            self.refuse(error)
        except StorageError as error:  # the download is over
            if self._failure is None:
                self._failure = error
            self._complete.set()

    # The link to the broker is up: whatever was waiting for a better moment may try at once.
    def link_up(self):
        self._backoff.reset()
        self._menu_backoff.reset()
        if self._collecting is not None:  # the broker sends the chunks again, those there are ignored
            self._client.subscribe((self._menu_filter,))
        self._link.set()
        self._wake.set()

    def rekey(self):
        self._rekey = True
        self._wake.set()

    def refuse(self, error):
        self.refused[error.code] = self.refused.get(error.code, 0) + 1

    # ------------------------------------------------------------------ the task

    async def run(self):
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._client.online and self._session.state != IDLE:
                if self._news and not await self._look_at_beacon():
                    continue
                # Without any menu nothing can be ordered, so the first one comes before the session.
                if self._menu_is_stale() and (self._has_session() or not self._menu_tried):
                    await self._fetch_menu()
                elif not self._has_session():
                    await self._shake_hands()
                else:
                    break

    def _has_session(self):
        session = self._session
        return session.state == ESTABLISHED and not self._rekey and not session.needs_rekey()

    async def _look_at_beacon(self):
        self._news = False
        try:
            await self._compute("beacon", self._session.verify_beacon_steps())
            return True
        except WireError as error:
            self.refuse(error)
            return False

    # ------------------------------------------------------------------ session

    async def _shake_hands(self):
        self._rekey = False
        started = ticks_ms()
        wait_ms = None
        try:
            info = self._menu.current()
            version = info.version if info else 0
            session = self._session
            self.kind = "resume" if session.can_resume() else "hello"
            make = session.resume_steps if session.can_resume() else session.hello_steps
            frame = await self._compute(self.kind, make(version, len(self._outbox)))
            wait_ms = await self._await_accept(frame)
        except WireError as error:
            self.refuse(error)
        if self._session.state == ESTABLISHED and wait_ms == 0:
            self._backoff.reset()
            self.handshakes += 1
            self.resumes += self.kind == "resume"
            self._on_session(ticks_diff(ticks_ms(), started))
            return
        self._rekey = True
        if self.kind == "resume" and wait_ms is not None and not self._session.can_resume():
            return  # the server does not know that session any more: a Hello, at once
        delay_ms = max(wait_ms or 0, self._backoff.next_ms())
        self._report("error", {"code": "NO_SESSION", "text": "the server gave no session, next try soon"})
        await self._pause(delay_ms)

    # -> 0 when established, a wait in ms when refused, None when nothing came.
    async def _await_accept(self, frame):
        for _ in range(_SENDS_OF_ONE_HELLO):
            self._answers.clear()
            self._answered.clear()
            await self._send(self._hello_topic, frame)
            while True:
                try:
                    await asyncio.wait_for(self._answered.wait(), _ANSWER_TIMEOUT_MS / 1000)
                except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no built-in of that name
                    break
                outcome = await self._read_answers()
                if outcome is None:
                    continue
                if outcome.kind == "established":
                    return 0
                if outcome.kind == "refused":
                    return max(outcome.wait_ms, 1)
                await self._pause(max(outcome.wait_ms, 100))
                break
        return None

    async def _read_answers(self):
        self._answered.clear()
        while self._answers:
            try:
                return await self._compute("accept", self._session.answer_steps(self._answers.pop(0)))
            except WireError as error:
                self.refuse(error)
        return None

    # Runs a long computation step by step; what other tasks did between the steps is counted with it.
    async def _compute(self, name, steps):
        gc.collect()  # what the computation leaves behind for good then lies low, not among its numbers
        before = self._instret()
        value = await run_steps(steps)
        self.costs[name] = self._instret() - before
        return value

    async def _send(self, topic, payload):
        while True:
            await self._client.ready()
            try:
                self._client.publish(topic, payload)
                self._client.flush()
                return
            except Full:
                continue

    # A delay that ends early when the link comes back.
    async def _pause(self, delay_ms):
        self._link.clear()
        try:
            await asyncio.wait_for(self._link.wait(), delay_ms / 1000)
        except asyncio.TimeoutError:  # noqa: UP041
            return

    # ------------------------------------------------------------------ menu

    def _menu_is_stale(self):
        site = self._session.site
        if site is None or not site.menu_version:
            return False
        info = self._menu.current()
        return info is None or info.version != site.menu_version or info.hash != site.menu_hash

    async def _fetch_menu(self):
        self._complete.clear()
        self._failure = None
        self._menu_tried = True
        self._collecting = (self._session.site.menu_version, 0)
        try:
            self._client.subscribe((self._menu_filter,))
            self._client.flush()
            await asyncio.wait_for(self._complete.wait(), _MENU_TIMEOUT_MS / 1000)
            if self._failure is not None:
                raise self._failure
            await self._compute("menu", self._menu.finish_steps())
            self._menu_backoff.reset()
            self._on_menu()
            return
        except asyncio.TimeoutError:  # noqa: UP041
            code, text = "MENU_TIMEOUT", "not all parts of the menu arrived"
        except StorageError as error:
            self.refuse(error)
            code, text = error.code, error.text
        finally:
            self._collecting = None
            if self._client.online:
                self._client.unsubscribe((self._menu_filter,))
                self._client.flush()
        self._report("error", {"code": code, "text": text})
        await self._pause(self._menu_backoff.next_ms())
