"""Orders per second, CPU per order and latency of our server and of a plain one, in turn in one run.

Every contender gets the same sealed orders from the same terminals on the same machine. Three patterns: an
open loop at a low rate, a closed loop that saturates, an open loop at a high rate (last, because a server
that cannot keep up leaves a queue behind). With several rounds the contenders take turns, so that a slow
minute of the machine is shared, and medians count.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import uvloop

from bench.benchmarks.contenders import Contender, ours, plain
from bench.benchmarks.server_load import LoadResult, open_loop, order_total, saturate
from bench.measure import Measurement, measurement
from bench.paths import BUILD
from bench.postgres import PrivatePostgres

BASELINE = {"sqlite": "plain+sqlite", "postgresql": "plain+postgresql"}
MIN_RATIO = {"sqlite": 5.0, "postgresql": 3.0}
MAX_P99_SHARE = 0.2
WARM_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OrdersPlan:
    """How to measure: seconds for each pattern, rates of the open loops (orders/s), rounds."""

    seconds: float = 5.0
    rounds: int = 1
    devices: int = 16
    window: int = 8
    rates: tuple[float, float] = (200.0, 1000.0)
    postgres: bool = True
    mosquitto: bool = True


@dataclass(frozen=True, slots=True)
class Pattern:
    """What one contender did under one pattern in one round; latencies in milliseconds."""

    contender: str
    database: str
    pattern: str
    round: int
    sent: int
    answered: int
    orders_per_s: float
    cpu_per_order_us: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def measure(plan: OrdersPlan, say: Say) -> tuple[list[Pattern], list[Measurement]]:
    """Run the comparison; returns every observation and the gates. Raises: BenchError, OSError."""
    found: list[Pattern] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_folder()))
        cluster: PrivatePostgres | None = None
        if plan.postgres:
            cluster = PrivatePostgres()
            stack.enter_context(cluster)
        for number in range(1, plan.rounds + 1):
            for contender in _contenders(plan, cluster, number):
                place = folder / f"{contender.name}-{number}"
                place.mkdir()
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    found += runner.run(_play(contender, plan, number, place, say))
    return found, gates(found, plan)


def _folder() -> tempfile.TemporaryDirectory[str]:
    BUILD.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="orders-", dir=BUILD)


def _contenders(plan: OrdersPlan, cluster: PrivatePostgres | None, number: int) -> list[Contender]:
    found = [plain(BASELINE["sqlite"]), ours("amqtt+sqlite")]
    if plan.mosquitto:
        found.append(ours("mosquitto+sqlite", mosquitto=True))
    if cluster is not None:
        for name in (f"plain{number}", f"ours{number}"):
            cluster.make_database(name)
        found.append(plain(BASELINE["postgresql"], url=cluster.url_of(f"plain{number}")))
        broker = "mosquitto" if plan.mosquitto else "amqtt"
        url = cluster.url_of(f"ours{number}")
        found.append(ours(f"{broker}+postgresql", mosquitto=plan.mosquitto, url=url))
    return found


async def _play(contender: Contender, plan: OrdersPlan, number: int, folder: Path, say: Say) -> list[Pattern]:
    found = []
    async with contender.start(folder, plan.devices, plan.window) as running:
        terminals = running.terminals
        await order_total(terminals[0])
        await saturate(terminals, plan.window, min(WARM_S, plan.seconds))
        low, high = plan.rates
        for pattern in (f"{low:g}/s", "saturated", f"{high:g}/s"):
            before = running.cpu()
            if pattern == "saturated":
                result = await saturate(terminals, plan.window, plan.seconds)
            else:
                result = await open_loop(terminals, low if pattern == f"{low:g}/s" else high, plan.seconds)
            seen = _pattern(contender, pattern, number, result, running.cpu() - before)
            missing = f"  {seen.sent - seen.answered} unanswered" if seen.sent > seen.answered else ""
            say(f"{seen.contender:22} {seen.pattern:10} {seen.orders_per_s:8,.0f} orders/s  "
                f"p50 {seen.p50_ms:8.1f}  p99 {seen.p99_ms:8.1f}  p99.9 {seen.p999_ms:8.1f} ms  "
                f"{seen.cpu_per_order_us:6.0f} us CPU/order{missing}")  # fmt: skip
            found.append(seen)
    return found


def _pattern(contender: Contender, pattern: str, number: int, result: LoadResult, cpu_s: float) -> Pattern:
    return Pattern(
        contender.name, contender.database, pattern, number, result.sent, result.committed,
        result.per_second, cpu_s / max(1, result.committed) * 1e6,
        result.percentile(0.5), result.percentile(0.99), result.percentile(0.999),
    )  # fmt: skip


def gates(found: Sequence[Pattern], plan: OrdersPlan) -> list[Measurement]:
    """Our figures in ratio to the plain server's on the same database, medians over the rounds."""

    def middle(contender: str, pattern: str, name: str) -> float:
        seen = [one for one in found if (one.contender, one.pattern) == (contender, pattern)]
        return float(median(getattr(one, name) for one in seen))

    verdicts = []
    for contender, database in dict.fromkeys((one.contender, one.database) for one in found):
        other = BASELINE[database]
        if contender == other:
            continue
        ratio = middle(contender, "saturated", "orders_per_s") / middle(other, "saturated", "orders_per_s")
        verdicts.append(
            measurement(f"{contender}: orders/s over {other}", ratio, "x", f">= {MIN_RATIO[database]:g}")
        )
        for rate in plan.rates:
            share = middle(contender, f"{rate:g}/s", "p99_ms") / middle(other, f"{rate:g}/s", "p99_ms")
            verdicts.append(
                measurement(
                    f"{contender}: p99 at {rate:g}/s over {other}", share, "x", f"<= {MAX_P99_SHARE:g}"
                )
            )
        unanswered = sum(one.sent - one.answered for one in found if one.contender == contender)
        verdicts.append(measurement(f"{contender}: orders without an answer", unanswered, "orders", "== 0"))
    return verdicts


def as_json(found: Sequence[Pattern]) -> list[dict[str, object]]:
    """The observations for a JSON document."""
    return [asdict(one) for one in found]
