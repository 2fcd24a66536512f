# Moves operations from the outbox to the server and their answers back.
#
# An op is journaled before it is sent, is sent at most `credit` at a time, and leaves the outbox only when
# a reply whose MAC verifies gives its final answer. Whatever else happens (a lost reply, a new session, a
# reboot, a hint) it is sealed and sent again under the same op id: the server answers the same for ever.
import asyncio
import gc

from terminal.compat import const, ticks_add, ticks_diff, ticks_ms
from terminal.mqtt import Full
from terminal.session import ESTABLISHED
from terminal.wire.errors import UNSOLICITED, WireError
from terminal.wire.frames import RATE_LIMITED

_REPLY_TIMEOUT_MS = const(5000)  # doubled with every resend of that op
_LONGEST_TIMEOUT_MS = const(60000)
_AFTER_RECONNECT_MS = const(1500)
_SHORTEST_REPLY_BYTES = const(64)  # a MAC alone has 32; hints are shorter than that
_KEPT_OPS = const(16)  # waiting ops whose bytes stay in RAM
_OPS_PER_SWEEP = const(4)
_OVERHEAD_BYTES = const(160)  # frame and packet around an op, at most
_KEPT_ANSWERS = const(12)  # final answers whose hashing waits
_SHORTEST_RETRY_MS = const(50)  # bounds of what RATE_LIMITED may ask for
_LONGEST_RETRY_MS = const(60000)


# A reply that the broker kept from before a restart: no key of this start can judge it.
def _no_session(frame):
    raise WireError(UNSOLICITED)


class Sender:
    # client: mqtt.Client; session: Session; outbox: Outbox; topic: bytes of o/<site>/<device>/op.
    # tally: Tally of the final answers.
    # on_final(op_id, status, arg, order_number, total_minor, lsn): a verified final answer, the op is done.
    # on_rekey(): the server does not know this session any more.
    def __init__(self, client, session, outbox, tally, topic, on_final, on_rekey):
        self.on_final = on_final
        self.on_rekey = on_rekey
        self.credit = 1
        self.replies = 0  # verified and final
        self.repeated = 0  # verified, for an op that was done already
        self.refused = {}  # code -> count of frames on the reply topic that were not accepted
        self.resent = 0
        self.postponed = 0  # resends that found no room
        self._client = client
        self._session = session
        self._outbox = outbox
        self._done = outbox.done  # bound once: it is called for every answer
        self.topic = topic
        self._queue = []  # (op id, op or None) to send, oldest first; None: read it back from the outbox
        # Ops on their way, oldest first, and when to send each again (ticks). Two lists, because answers
        # come in order nearly always, and MicroPython's dicts get slow when keys come and go.
        self._waiting = []
        self._due = []
        self._ops = []  # their bytes
        self._tally = tally
        self.keeps_chain = True  # off: answers are not chained, and no bill of this seating is sealed
        self._answers = tally.answers
        self._tries = {}  # op id -> resends so far, only for ops that were resent
        self._paused_until = None  # RATE_LIMITED
        self._open = _no_session
        self._timer = asyncio.Event()
        self._alarm = None  # when run() wakes (ticks), None while it sleeps until it is woken

    # An op that was just journaled. While many wait, the heap is swept now and then: what stays of each
    # order lies among what does not, and left alone the free memory would come to consist of small pieces
    # only.
    def add(self, op_id, op):
        queue = self._queue
        waiting = len(queue)
        if waiting < _KEPT_OPS:
            queue.append((op_id, op))
            return
        if waiting % _OPS_PER_SWEEP == 0:
            gc.collect()
        queue.append((op_id, None))

    # A new session: everything pending is sealed anew, oldest first.
    def restart(self, credit):
        self.credit = credit
        if self._session.opener is not None:
            self._open = self._session.opener.open
        self._waiting.clear()
        self._due.clear()
        self._ops.clear()
        self._tries.clear()
        self._queue = [(op_id, None) for op_id, _ in self._outbox.pending()]
        self.pump()
        self._client.flush()

    # The connection is back with the same session. Answers given meanwhile come from the broker's queue;
    # what is not answered soon is asked again.
    def reconnected(self):
        soon = ticks_add(ticks_ms(), _AFTER_RECONNECT_MS)
        self._due = [soon] * len(self._due)
        self._timer.set()
        self.pump()
        self._client.flush()

    # A bench measures with another outbox in place.
    def use(self, outbox):
        self._outbox = outbox
        self._done = outbox.done

    def unanswered(self):
        return len(self._waiting)

    # Seals and queues as many ops as the credit and the send window allow. The caller flushes.
    def pump(self):
        queue = self._queue
        if not queue or self._paused_until is not None:
            return
        waiting = self._waiting
        session = self._session
        client = self._client
        if not client.online or session.state != ESTABLISHED:
            return
        due = ticks_add(ticks_ms(), _REPLY_TIMEOUT_MS)
        seal = session.sealer.seal
        publish = client.publish
        room = client.protocol.room()
        topic = self.topic
        free = min(self.credit - len(waiting), room[0])
        free_bytes = room[1]
        while free > 0 and queue:
            op_id, op = queue[0]
            if op is None:
                op = self._outbox.get(op_id)
                if op is None:  # answered while it waited, or its record rotted
                    queue.pop(0)
                    continue
            free_bytes -= len(op) + _OVERHEAD_BYTES
            if free_bytes < 0:
                break
            try:
                publish(topic, seal(op))
            except WireError:  # SEQUENCE_SPENT: the new session will send it
                self.on_rekey()
                break
            queue.pop(0)
            waiting.append(op_id)
            self._due.append(due)
            self._ops.append(op)
            free -= 1
        alarm = self._alarm
        if waiting and (alarm is None or ticks_diff(due, alarm) < 0):
            self._timer.set()

    # A message on the reply topic.
    def on_reply(self, frame):
        if len(frame) < _SHORTEST_REPLY_BYTES:
            self._on_hint(frame)
            return
        try:
            op_id, status, arg, order_number, total_minor, lsn, chain = self._open(frame)
        except WireError as error:
            self._refuse(error.code)
            return
        if status == RATE_LIMITED:
            self._on_rate_limit(op_id, arg)
            return
        waiting = self._waiting
        if waiting and waiting[0] == op_id:
            waiting.pop(0)
            self._due.pop(0)
            op = self._ops.pop(0)
        else:
            op = self._forget(op_id) or self._outbox.get(op_id)
        if (
            op is not None and self.keeps_chain
        ):  # before the op is forgotten: that may write, and asks the tally to be complete
            answers = self._answers
            answers.append((op_id, op, status, arg, total_minor, lsn, chain))
            if len(answers) > _KEPT_ANSWERS:
                self._tally.fold()
        if self._tries:
            self._tries.pop(op_id, None)
        if self._done(op_id, status):
            self.replies += 1
            self.on_final(op_id, status, arg, order_number, total_minor, lsn)
        else:
            self.repeated += 1

    # -> the op if it was on its way, else None.
    def _forget(self, op_id):
        if op_id not in self._waiting:
            return None
        at = self._waiting.index(op_id)
        self._waiting.pop(at)
        self._due.pop(at)
        return self._ops.pop(at)

    def _refuse(self, code):
        self.refused[code] = self.refused.get(code, 0) + 1

    def _on_hint(self, frame):
        try:
            if self._session.on_hint(frame, ticks_ms()):
                self.on_rekey()
        except WireError as error:
            self._refuse(error.code)

    # Not final, nothing was stored: the whole queue waits, bounded whatever the server says.
    def _on_rate_limit(self, op_id, retry_ms):
        if not self._forget(op_id):
            return
        self._queue.insert(0, (op_id, None))
        retry_ms = min(max(retry_ms, _SHORTEST_RETRY_MS), _LONGEST_RETRY_MS)
        self._paused_until = ticks_add(ticks_ms(), retry_ms)
        self._timer.set()

    # Wakes for the next deadline: a resend or the end of a pause. Sleeps while nothing is awaited.
    async def run(self):
        while True:
            self._timer.clear()
            wait_ms = self._next_deadline_ms()
            if wait_ms is None:
                self._alarm = None
                await self._timer.wait()
                continue
            self._alarm = ticks_add(ticks_ms(), wait_ms)
            try:
                await asyncio.wait_for(self._timer.wait(), wait_ms / 1000)
            except asyncio.TimeoutError:  # noqa: UP041 - MicroPython has no built-in of that name
                self._expire()

    def _next_deadline_ms(self):
        now = ticks_ms()
        nearest = None
        if self._paused_until is not None:
            nearest = ticks_diff(self._paused_until, now)
        for due in self._due:
            left = ticks_diff(due, now)
            if nearest is None or left < nearest:
                nearest = left
        return None if nearest is None else max(nearest, 1)

    def _expire(self):
        now = ticks_ms()
        if self._paused_until is not None and ticks_diff(self._paused_until, now) <= 0:
            self._paused_until = None
        for op_id in sorted(
            [self._waiting[i] for i, due in enumerate(self._due) if ticks_diff(due, now) <= 0]
        ):
            self._resend(op_id, now)
        self.pump()
        self._client.flush()

    def _resend(self, op_id, now):
        at = self._waiting.index(op_id)
        if not self._client.online or self._session.state != ESTABLISHED:
            self._due[at] = ticks_add(now, _REPLY_TIMEOUT_MS)
            return
        tries = self._tries.get(op_id, 0) + 1
        self._tries[op_id] = tries
        self._due[at] = ticks_add(now, min(_REPLY_TIMEOUT_MS << min(tries, 4), _LONGEST_TIMEOUT_MS))
        op = self._outbox.get(op_id)
        if op is None:
            self._forget(op_id)
            return
        try:
            self._client.publish(self.topic, self._session.sealer.seal(op))
            self.resent += 1
        except Full:
            self.postponed += 1  # what is on its way comes first; the next deadline tries again
        except WireError:
            self.on_rekey()
