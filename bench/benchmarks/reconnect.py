"""A crowd of terminals comes back at once: logs in, resumes its session, sends its journal again.

A real server process with its embedded broker and SQLite, started on a database that knows the terminals and
their sessions, as after a power cut of the whole house. Every terminal is an MQTT connection that behaves as
the firmware does: it backs off from a full login queue, comes back when a hint tells it to, resumes with its
resume key, sends each journaled op twice (the first answer was lost) and is done when all are answered. Then
the ledger is counted: every op an order, no order twice. Password hashes are made cheap in the database;
what a dear one does to a crowd is `test_ten_thousand_terminals_come_back_at_once_and_all_get_in`.

Run: python -m bench.benchmarks.reconnect --terminals 10000 --json -
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from bench.benchmarks.load_client import LinkError, SoftTerminal
from bench.errors import BenchError, CaseFailed
from bench.paths import BUILD
from bench.server import BenchServer
from server.config import KEYS_NAME
from server.devices.keys import KeyStore
from server.storage.database import Database, open_database
from server.storage.ledger import Ledger
from server.wire.errors import Refusal
from server.wire.frames import Accept, Beacon, Hint, HintStatus
from server.wire.keyschedule import NONCE_BYTES, derive, transcript_hash
from server.wire.ops import Line, Op, Status
from server.wire.resume import Resume
from server.wire.rsa import VerifyKey

SITE, PASSWORD = "demo", "pw"
ORDER, ORDER_MINOR = (Line(1, 2),), 520
OPS_EACH = 2
CHEAP_HASH = hashlib.scrypt(PASSWORD.encode(), salt=b"salt", n=2, r=1, p=1, dklen=32).hex()
STORED_PASSWORD = f"scrypt$2$1$1${b'salt'.hex()}${CHEAP_HASH}"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0  # as the firmware's
ANSWER_S = 30.0
OPEN_FILES_SPARE = 200
KnownBeacon = tuple[bytes, Beacon, VerifyKey]


@dataclass(frozen=True, slots=True)
class Crowd:
    """What became of a crowd; times in seconds from the moment all came at once."""

    terminals: int
    back: int
    committed: int
    doubled: int
    missing: int
    first_s: float
    median_s: float
    last_s: float
    hints: int
    logins_refused: int
    server_rss_before_mb: float
    server_rss_most_mb: float


class Returning(SoftTerminal):
    """A terminal that still has its resume key, and ops in its journal; ``verified``: beacons, by frame."""

    def __init__(
        self, number: int, key: RSAPrivateKey, root_spki: bytes, verified: dict[bytes, KnownBeacon]
    ) -> None:
        super().__init__(SITE, f"back-{number:05d}", f"b-{number:05d}", PASSWORD, key, root_spki)
        self.k_resume = sha256(b"resume" + self.device.encode()).digest()
        self.old_sid = (number + 1).to_bytes(4, "big")
        self.journal: list[Op] = []
        self.turned_away = 0
        self._verified = verified
        self._asking: tuple[bytes, bytes, bytes, VerifyKey] | None = None

    def _message(self, topic: str, payload: bytes, retain: bool) -> None:
        """The crowd shares a processor: a beacon that one of it has verified need not be verified again."""
        known = self._verified.get(payload)
        if known is None or topic != f"s/{self.site}/beacon":
            super()._message(topic, payload, retain)
            if topic == f"s/{self.site}/beacon" and self._beacon is not None:
                self._verified.clear()
                self._verified[payload] = self._beacon
            return
        self._beacon = known
        self._beacon_seen.set()

    async def resume(self) -> None:
        """A new session by the resume key, however often the server says to come later; the same bytes until
        they are answered. Raises: LinkError, TimeoutError, Refusal.
        """
        await asyncio.wait_for(self._beacon_seen.wait(), ANSWER_S)
        if self._asking is None:
            self._asking = self._resume_frame()
        frame, nonce, beacon_frame, server = self._asking
        while True:
            answer = await self.ask_hello(frame, ANSWER_S)
            hint = _hint(answer)
            if hint is None:
                break
            if hint.status != HintStatus.RATE_LIMITED:
                raise LinkError(f"{self.device}: {hint}")
            self.turned_away += 1
            await asyncio.sleep(max(hint.arg, 100) / 1000)
        transcript = transcript_hash(beacon_frame, frame)
        keys = derive(self.k_resume, nonce, Accept.nonce_of(answer), self.site, self.device, transcript)
        accept = Accept.open(answer, server, keys.server_to_device, self.site, self.device, keys.th8)
        self.take_session(accept.sid, keys, accept.menu_version)
        self.k_resume, self.old_sid, self._asking = keys.resume, accept.sid, None

    def _resume_frame(self) -> tuple[bytes, bytes, bytes, VerifyKey]:
        assert self._beacon is not None
        beacon_frame, beacon, server = self._beacon
        self.handshake += 1
        nonce = os.urandom(NONCE_BYTES)
        resume = Resume(
            self.device, self.handshake, nonce, beacon.counter, sha256(beacon_frame).digest(), 0x10000,
            beacon.menu_version, OPS_EACH,
        )  # fmt: skip
        return resume.seal(self.k_resume, self.old_sid, self.site), nonce, beacon_frame, server

    async def send_again(self) -> None:
        """Send every journaled op twice, as after a lost answer, and wait for the answers."""
        if not self.journal:
            self.journal = [self.make_op(ORDER, ORDER_MINOR) for _ in range(OPS_EACH)]
        for op in self.journal:
            self.send(op)
            reply = await self.order(op, ANSWER_S)
            if reply.status != Status.COMMITTED:
                raise CaseFailed(f"{self.device}: an order was answered {reply}")


def _hint(answer: bytes) -> Hint | None:
    try:
        return Hint.decode(answer)
    except Refusal:
        return None  # an Accept


def enrol(state: Path, count: int) -> list[Returning]:
    """Terminals with an old session in the database of a server that is not running."""
    root_spki = KeyStore(state / KEYS_NAME, SITE).root_spki
    key = generate_private_key(public_exponent=65537, key_size=2048)  # never used: nobody says Hello
    verified: dict[bytes, KnownBeacon] = {}
    crowd = [Returning(number, key, root_spki, verified) for number in range(count)]
    with closing(open_database(state)) as database:
        _store(database, crowd, int(time.time()))
    return crowd


def _store(database: Database, crowd: Sequence[Returning], now_s: int) -> None:
    with closing(database.driver_connection()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO device (site, device, kid, spki, table_id, state, password_hash, created_at) "
            "VALUES (?,?,?,?,?,'active',?,?)",
            [
                (SITE, one.device, sha256(one.device.encode()).digest()[:8], one.device.encode(), one.table,
                 STORED_PASSWORD, now_s)
                for one in crowd
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO dining_table (site, table_id) VALUES (?,?)", [(SITE, one.table) for one in crowd]
        )
        connection.executemany(
            "INSERT INTO session (site, device, sid, k_d2s, k_s2d, k_resume, th8, created_at, expires_at, "
            "hello_hash, accept, handshake, rsa_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            [
                (SITE, one.device, one.old_sid, bytes(32), bytes(32), one.k_resume, bytes(8), now_s,
                 now_s + 3600, b"", b"", 0, now_s)
                for one in crowd
            ],
        )  # fmt: skip
        connection.execute("COMMIT")


async def come_back(one: Returning, host: str, port: int, refused: list[int]) -> None:
    """From power-up to an empty journal, as often as it takes."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await one.connect(host, port, keep_alive_s=600)
            await one.resume()
            await one.send_again()
            return
        except (LinkError, OSError, TimeoutError):
            refused[0] += 1
            one.vanish()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _watch(pid: int, most: list[float]) -> None:
    while True:
        most[0] = max(most[0], _rss_mb(pid))
        await asyncio.sleep(0.5)


async def storm(server: BenchServer, pid: int, crowd: Sequence[Returning], deadline_s: float) -> Crowd:
    """All of them at once; judged by the ledger afterwards."""
    begun = time.monotonic()
    done: list[float] = []
    refused, most = [0], [before := _rss_mb(pid)]
    every = max(1, len(crowd) // 10)

    async def one_of_them(one: Returning) -> None:
        await come_back(one, server.host, server.port, refused)
        done.append(time.monotonic() - begun)
        if len(crowd) >= 1000 and len(done) % every == 0:
            print(f"{len(done)} of {len(crowd)} are back after {done[-1]:.0f} s", file=sys.stderr)

    watching = asyncio.create_task(_watch(pid, most))
    tasks = [asyncio.create_task(one_of_them(one)) for one in crowd]
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*tasks), deadline_s)
    finally:
        watching.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(watching, *tasks, return_exceptions=True)
    for one in crowd:
        one.vanish()
    return _judge(server, crowd, done, refused[0], before, most[0])


def _judge(
    server: BenchServer,
    crowd: Sequence[Returning],
    done: list[float],
    refused: int,
    before: float,
    most: float,
) -> Crowd:
    orders = [(order.device, order.op_id) for order in Ledger(server.state).orders(SITE)]
    meant = {(one.device, op.op_id) for one in crowd for op in one.journal}
    return Crowd(
        terminals=len(crowd),
        back=len(done),
        committed=len(orders),
        doubled=len(orders) - len(set(orders)),
        missing=len(meant - set(orders)) + OPS_EACH * (len(crowd) - len(done)),
        first_s=min(done, default=float("nan")),
        median_s=sorted(done)[len(done) // 2] if done else float("nan"),
        last_s=max(done, default=float("nan")),
        hints=sum(one.turned_away for one in crowd),
        logins_refused=refused,
        server_rss_before_mb=before,
        server_rss_most_mb=most,
    )


def run(count: int, folder: Path, deadline_s: float) -> Crowd:
    """Bring a crowd of ``count`` back to a server in ``folder``. Raises: BenchError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + OPEN_FILES_SPARE <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + OPEN_FILES_SPARE, hard))
    elif soft < count + OPEN_FILES_SPARE:
        raise BenchError(
            "OPEN_FILES",
            f"{count} connections need {count + OPEN_FILES_SPARE} open files; `ulimit -n` allows {soft}",
        )
    server = BenchServer(folder / "state", folder / "server.log", SITE, ())
    server.start()
    server.stop()
    crowd = enrol(folder / "state", count)
    server.start()
    try:
        pid = server.pid
        return uvloop.run(storm(server, pid, crowd, deadline_s))
    finally:
        server.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when everybody came back with every order once."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.benchmarks.reconnect", description="A crowd of terminals comes back at once."
    )
    parser.add_argument("--terminals", type=int, default=1000, metavar="N", help="how many (default: 1000)")
    parser.add_argument(
        "--deadline", type=float, default=600.0, metavar="S", help="give up then (default: 600)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - for standard output")
    args = parser.parse_args(argv)
    BUILD.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            found = run(args.terminals, Path(folder), args.deadline)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (BenchError, CaseFailed) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BenchError) else 1
    if args.json:
        text = json.dumps({"schema": "tableside.reconnect/1", **asdict(found)}) + "\n"
        sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)
    else:
        for name, value in asdict(found).items():
            print(f"{name:22} {value:.1f}" if isinstance(value, float) else f"{name:22} {value}")
    return 0 if found.back == found.terminals and not found.doubled and not found.missing else 1


if __name__ == "__main__":
    sys.exit(main())
