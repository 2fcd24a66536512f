"""Link cuts at every MQTT packet of an update, and server kills at every commit of it, on real parts.

    process boards (MicroPython) --MQTT--> hostile link --MQTT--> order server (SQLite), killed at its commits

A few terminals are in service and take one release after the other; each time something goes wrong for one
of them at another packet, or for the server at another commit. Guests order meanwhile. Whatever happens, the
release has to end up confirmed, reported and running, after one restart and without a bad word, and every
order in the books once.

Real sockets and real time: which packet is the n-th, or which commit, may differ from run to run by those
that time decides (beacons, acknowledgements). The lines are "wire link=7", "wire link=7:after" and
"wire kill=3", "wire kill=3:after": before or after the packet arrived, before or after the COMMIT.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from io import StringIO
from pathlib import Path

from bench import provision, releases
from bench.boards import catalogue
from bench.campaign import signer
from bench.campaign.oracles import Failure
from bench.campaign.wire_cases import (
    KILL,
    LINK,
    Traffic,
    WireCase,
    WireVerdict,
    judge_books,
    judge_console,
    link_cases,
)
from bench.errors import BenchError, ConsoleClosed, DeadlinePassed, RpcRefused
from bench.faults.link import FatalPacket, Link
from bench.kill.victim import Victim
from bench.sim.keys import cheap_password_hash
from bench.terminal import Terminal
from bench.wait import until
from server import cli
from server.devices.records import DeviceState
from server.releases import files as release_files
from server.releases.bundle import Target, build_bundle, certify
from server.storage import admin
from server.storage.database import open_database
from server.storage.ledger import Ledger

SITE = "demo"
TERMINALS = 6
_BACKOFF_MS = 250
_UPDATE_S = 60.0
_ASSET_BYTES = 6000
_POINTS = {False: "commit", True: "committed"}
_MOST_KILLS = 80
_SERVER_OPTIONS = ("--beacon-interval", "30", "--limit-hello", "50:200")
_SLOTS = ("a", "b", "factory")


class _Guest:
    """One terminal with a link of its own, and what was ordered there."""

    def __init__(self, terminal: Terminal, link: Link) -> None:
        self.terminal = terminal
        self.link = link
        self.ops: list[str] = []
        self.since = 0

    @property
    def device(self) -> str:
        """Its device id."""
        assert self.terminal.board.identity is not None
        return self.terminal.board.identity.device

    def order(self) -> None:
        """A guest orders, whatever the link is doing."""
        self.ops.append(self.terminal.queue())


class Restaurant:
    """Server, links and terminals in a folder. A context manager."""

    def __init__(self, folder: Path, terminals: int = TERMINALS, seed: int = 1) -> None:
        self._folder = folder
        self._state = folder / "server"
        self._seed = seed
        self._stack = ExitStack()
        self._version = releases.image_release()
        self._guests: list[_Guest] = []
        try:
            self._open(terminals)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Restaurant:
        return self

    def __exit__(self, *trouble: object) -> None:
        self._stack.close()

    def _open(self, terminals: int) -> None:
        self._server = Victim(self._state, self._folder / "server.log", _SERVER_OPTIONS)
        self._stack.callback(self._server.close)
        self._start_server()
        firmware = catalogue.firmware_for("process", lambda text: None)
        for number in range(1, terminals + 1):
            self._guests.append(self._guest(number, firmware))
        with closing(open_database(self._state)) as database:
            for guest in self._guests:
                who = guest.terminal.board.identity
                assert who is not None
                admin.add_device(
                    database, SITE, who.device, table=who.table, spki=provision.public_spki(who),
                    password_hash=cheap_password_hash(who.password, who.device.encode()),
                    state=DeviceState.ACTIVE, now_s=int(time.time()),
                )  # fmt: skip
        for guest in self._guests:
            guest.terminal.boot()
        for guest in self._guests:
            guest.terminal.online()

    def _guest(self, number: int, firmware: catalogue.Firmware | None) -> _Guest:
        who = provision.identity(number, SITE)
        request = catalogue.BoardRequest("process")
        board = catalogue.make(request, firmware, who.device, self._folder / "boards")
        self._stack.callback(board.close)
        link = Link("127.0.0.1", self._server.mqtt_port).start()
        self._stack.callback(link.close)
        provision.provision(board, who, provision.Endpoint("127.0.0.1", link.port))
        board.boot_options = {
            "host": "127.0.0.1", "port": link.port, "agent": True, "backoff_ms": _BACKOFF_MS,
            "telemetry_s": 0, "keepalive_s": 60,
        }  # fmt: skip
        return _Guest(Terminal(board), link)

    def _start_server(self, point: str = "", passes: int = 1) -> bool:
        alive = self._server.start(point, passes)
        if not alive and not point:
            raise BenchError("SERVER_START", "The order server died at its start; see its log.")
        return alive

    # ------------------------------------------------------------------ one update

    def undisturbed(self) -> Traffic:
        """One update of every terminal without a fault -> what it took. Raises: BenchError(NO_GOLDEN_RUN)."""
        verdicts = self.cut_links([None] * len(self._guests))
        bad = [failure for verdict in verdicts for failure in verdict.failures]
        if bad:
            raise BenchError("NO_GOLDEN_RUN", f"The undisturbed update over MQTT fails: {bad[0].text}")
        links = [guest.link for guest in self._guests]
        return Traffic(max(link.packets for link in links), max(link.packet_bytes for link in links))

    def cut_links(self, cases: Sequence[WireCase | None]) -> list[WireVerdict]:
        """One update of every terminal, each link cut at its own packet -> a verdict for each case."""
        guests = self._guests[: len(cases)]
        self._begin(guests)
        for guest, case in zip(guests, cases, strict=True):
            guest.link.cut_at(None if case is None else FatalPacket(case.number, case.after))
        self._publish()
        verdicts = []
        for guest in guests:
            guest.order()
        for guest, case in zip(guests, cases, strict=True):
            failures = self._end(guest)
            fault = case or WireCase(LINK, 0, False)
            verdicts.append(WireVerdict(fault, not guest.link.is_cut_due, tuple(failures)))
        return verdicts

    def kill_server(self, case: WireCase) -> WireVerdict:
        """One update of one terminal, the server killed at a commit and started again."""
        guest = self._guests[0]
        self._begin([guest])
        self._server.kill()
        self._publish()
        guest.order()
        killed = not self._start_server(_POINTS[case.after], case.number)
        deadline = time.monotonic() + _UPDATE_S
        while not killed and time.monotonic() < deadline:
            killed = self._server.wait(0.05)
            if not killed and self._is_confirmed(guest):
                break
        if not killed:
            self._server.kill()  # over before that commit came, which must not come later
        self._start_server()
        failures = self._end(guest)
        for other in self._guests[1:]:  # the release is for all: none may be under way when the next begins
            failures += self._comes_to_rest(other)
        return WireVerdict(case, killed, tuple(failures))

    def _begin(self, guests: Sequence[_Guest]) -> None:
        for guest in guests:
            guest.link.cut_at(None)
            guest.terminal.online()
            guest.since = guest.terminal.console.mark()
            guest.ops.clear()
        self._version += 1

    def _publish(self) -> None:
        """Offer the next release; a running server notices by itself."""
        noise = random.Random(f"{self._seed} {self._version}")
        key = signer.fixture("release")
        image = releases.image_release()
        content = releases.files(
            releases.versioned(self._version), "process", {"picture.bin": noise.randbytes(_ASSET_BYTES)}
        )
        certificate = certify(signer.fixture("root"), key.spki)
        bundle = build_bundle(content, Target("process", self._version, 0, image, image), key, certificate)
        folder = self._folder / "releases" / str(self._version)
        release_files.save(bundle, folder)
        said = StringIO()
        with redirect_stdout(said):
            status = cli.main(
                ["release", "publish", str(folder), "--percent", "100", "--state", str(self._state)]
            )
        if status:
            raise BenchError("ADMIN", f"release publish failed with status {status}: {said.getvalue()}")

    def _is_confirmed(self, guest: _Guest) -> bool:
        """Whether the terminal confirmed this release, and all its orders were answered."""
        events = guest.terminal.console.events(since=guest.since)
        confirmed = any(
            event.name == "ota"
            and (event.data["state"], event.data["version"]) == ("confirmed", self._version)
            for event in events
        )
        answered = {event.data["op"] for event in events if event.name == "reply"}
        return confirmed and set(guest.ops) <= answered

    # ------------------------------------------------------------------ the verdict

    def _comes_to_rest(self, guest: _Guest, last_order: bool = False) -> list[Failure]:
        """Wait until this update is over for a terminal and all its orders are answered."""
        try:
            guest.terminal.console.event(
                "ota",
                since=guest.since,
                where=lambda data: (data["state"], data["version"]) == ("confirmed", self._version),
                deadline_s=_UPDATE_S,
                over_resets=True,
            )
            guest.terminal.online()
            if last_order:
                guest.order()
            for op in guest.ops:
                guest.terminal.reply(op)
        except (DeadlinePassed, ConsoleClosed, RpcRefused) as trouble:
            return [Failure("G6", f"{guest.device} does not come to rest with the new release: {trouble}")]
        return []

    def _end(self, guest: _Guest) -> list[Failure]:
        """Wait until this update is over for a terminal, order once more, then judge it."""
        failures = self._comes_to_rest(guest, last_order=True)
        if failures:
            return failures
        answers = [guest.terminal.reply(op) for op in guest.ops]
        ledger = Ledger(self._state)
        stored = [order.op_id.hex() for order in ledger.orders(SITE) if order.device == guest.device]
        said = guest.terminal.console.events(since=guest.since)
        return judge_books(guest.ops, answers, stored) + self._reported(guest) + judge_console(said)

    def _reported(self, guest: _Guest) -> list[Failure]:
        """Whether the server learns what runs on a terminal."""
        ledger = Ledger(self._state)
        slot = guest.terminal.console.events("boot")[-1].data["slot"]

        def knows() -> bool:
            states = {state.device: state for state in ledger.update_states(SITE)}
            told = states.get(guest.device)
            return told is not None and (told.running, _SLOTS[told.slot]) == (self._version, slot)

        try:
            until(
                knows, f"the server knows that {guest.device} runs {self._version:#x} from {slot}", _UPDATE_S
            )
        except DeadlinePassed as late:
            return [Failure("G10", str(late))]
        return []


def play(
    folder: Path, seed: int, deadline: float | None, say: Callable[[str], None]
) -> Iterator[WireVerdict]:
    """Cut the link at every packet and kill the server at every commit, in turn, until the deadline (of
    `time.monotonic`) or the end. Raises: BenchError.
    """
    with Restaurant(folder, seed=seed) as place:
        traffic = place.undisturbed()
        say(
            f"one update over MQTT is {traffic.packets} packets of {traffic.mqtt_bytes} bytes; "
            f"link cuts and server kills follow"
        )
        cuts = link_cases(traffic.packets)
        random.Random(seed).shuffle(cuts)
        kills = _kills(place)
        is_over = False
        while cuts or not is_over:
            if deadline is not None and time.monotonic() >= deadline:
                say("the budget ended before the list of link cuts and server kills did")
                return
            if cuts:
                yield from place.cut_links(cuts[:TERMINALS])
                del cuts[:TERMINALS]
            kill = next(kills, None)
            is_over = kill is None
            if kill is not None:
                yield kill


def measure(folder: Path) -> Traffic:
    """What one undisturbed update takes. Raises: BenchError."""
    with Restaurant(folder, terminals=1) as place:
        return place.undisturbed()


def replay(folder: Path, case: WireCase) -> WireVerdict:
    """Play one line in a restaurant of its own. Raises: BenchError."""
    with Restaurant(folder, terminals=1) as place:
        return place.kill_server(case) if case.kind == KILL else place.cut_links([case])[0]


def _kills(place: Restaurant) -> Iterator[WireVerdict]:
    """Kill the server before and after the 1st, 2nd, ... commit, until the update is over before it comes."""
    left = {False, True}
    for number in range(1, _MOST_KILLS + 1):
        for after in sorted(left):
            verdict = place.kill_server(WireCase(KILL, number, after))
            yield verdict
            if not verdict.happened:
                left.discard(after)
