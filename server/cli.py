"""``tableside server``: run the order server, and change what it serves.

Every command prints one sentence on an error and exits 2; a refused change exits 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server import cli_admin, cli_release
from server.cli_guard import EXIT_OK, complain, guarded
from server.config import (
    BEACON_INTERVAL_S,
    DEFAULT_STATE,
    DEMO_ROOT_KEY,
    ConfigError,
    ServerConfig,
    check_site,
    parse_address,
    parse_broker,
    parse_calls,
    parse_database,
    parse_rate,
)
from server.logs import start_logging
from server.storage.retention import DEFAULT_DAYS, MIN_DAYS
from server.transport.limits import Limits

if TYPE_CHECKING:
    from server.app import OrderServer


def add_parser(subparsers: Any) -> None:
    """Add ``server`` with all its commands to a parser's subparsers; each sets ``run(args) -> exit code``."""
    parser = subparsers.add_parser(
        "server",
        help="run the order server and manage its devices, menu, keys and stock",
        description="Run the order server and manage its devices, menu, keys and stock.",
        epilog="examples:\n  tableside server run\n  tableside server devices list\n"
        "  tableside server menu publish fixtures/menu/demo.json --next\n  tableside server stock set 101 12",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_commands(parser)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the server's commands to a parser."""
    commands = parser.add_subparsers(dest="server_command", metavar="COMMAND", required=True)
    _add_run(commands)
    cli_admin.add_commands(commands)
    cli_release.add_parser(commands)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="start the server and its embedded MQTT broker",
        description="Start the order server with its embedded MQTT broker, or beside another one (--broker). "
        "The first start makes keys, the "
        "database and "
        "the demo menu in the state folder, and says so. Ctrl-C or SIGTERM stops it cleanly.",
        epilog="examples:\n  tableside server run\n  tableside server run --state /var/lib/tableside --mqtt "
        "0.0.0.0:1883\n"
        "  tableside server run --database postgresql://tableside@db.local/tableside\n"
        "  tableside server run --broker @/etc/tableside/server.url\n"
        "  tableside server run --limit-op 50:100 --limit-hello 0.2:5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR",
                        help="folder for database and keys (default: %(default)s)")  # fmt: skip
    parser.add_argument("--database", metavar="URL", default=os.environ.get("TABLESIDE_DATABASE"),
                        help="a PostgreSQL database instead of a file in the state folder: "
                             "postgresql://USER:PASSWORD@HOST:PORT/NAME, or @FILE that holds such a URL; the "
                             "state folder remembers it (default: $TABLESIDE_DATABASE, else what the state "
                             "folder remembers, else a file in it)")  # fmt: skip
    parser.add_argument("--site", default="demo", help="name of the restaurant (default: %(default)s)")
    parser.add_argument("--mqtt", default="127.0.0.1:0", metavar="HOST:PORT",
                        help="where the broker listens; 0: a free port (default: %(default)s)")  # fmt: skip
    parser.add_argument("--broker", default="embedded", metavar="URL",
                        help="a broker beside the server instead: mqtt://USER:PASSWORD@HOST:PORT, or "
                             "@FILE that holds such a URL; `server broker-config` writes both sides for "
                             "mosquitto; --mqtt is not used then (default: %(default)s)")  # fmt: skip
    parser.add_argument("--http", default="127.0.0.1:0", metavar="HOST:PORT",
                        help="where the HTTP API listens; 0: a free port; none: not at all "
                             "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--root-key", type=Path, default=DEMO_ROOT_KEY, metavar="PEM",
                        help="root key for the first start (default: the throw-away demo root)")  # fmt: skip
    parser.add_argument("--beacon-interval", type=float, default=BEACON_INTERVAL_S, metavar="SECONDS",
                        help="seconds between beacons (default: %(default)g)")  # fmt: skip
    parser.add_argument("--session-ttl", type=int, default=12 * 3600, metavar="SECONDS",
                        help="life of a session (default: %(default)d)")  # fmt: skip
    parser.add_argument("--keep-answers", type=int, default=DEFAULT_DAYS, metavar="DAYS",
                        help="how long answers to terminals are kept, which are also the evidence of sealed "
                             "bills; at least 30 (default: %(default)d)")  # fmt: skip
    parser.add_argument("--window", type=int, default=32, metavar="N",
                        help="orders in flight per terminal, 1 to 255 (default: %(default)d)")  # fmt: skip
    parser.add_argument(
        "--limit-op", metavar="PER_SECOND:BURST", help="orders per device and per table (default: 1500:3000)"
    )
    parser.add_argument(
        "--limit-hello", metavar="PER_SECOND:BURST", help="handshakes per device (default: 2:20)"
    )
    parser.add_argument("--limit-http", metavar="CALLS:SECONDS",
                        help="HTTP calls per token and per address (default: 2000:10)")  # fmt: skip
    parser.add_argument("--ready-json", action="store_true",
                        help="print one JSON line when listening, for programs")  # fmt: skip
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"),
                        help="what is logged to stderr (default: %(default)s)")  # fmt: skip
    parser.add_argument("--log-json", action="store_true", help="log one JSON object per line")
    parser.set_defaults(run=guarded("server.cli:run_server"))


def config_from(args: argparse.Namespace) -> ServerConfig:
    """The configuration a command line asks for. Raises: ConfigError."""
    host, port = parse_address(args.mqtt)
    if not 0.05 <= args.beacon_interval <= 300:
        raise ConfigError(f"--beacon-interval {args.beacon_interval:g} is not between 0.05 and 300 seconds")
    if not 1 <= args.window <= 255:
        raise ConfigError(f"--window {args.window} is not between 1 and 255")
    if not 1 <= args.session_ttl <= 12 * 3600:
        raise ConfigError(f"--session-ttl {args.session_ttl} is not between 1 and {12 * 3600} seconds")
    if not MIN_DAYS <= args.keep_answers <= 36_500:
        raise ConfigError(f"--keep-answers {args.keep_answers} is not between {MIN_DAYS} and 36500 days")
    defaults = Limits()
    op = parse_rate(args.limit_op) if args.limit_op else defaults.op_device
    limits = Limits(
        op_device=op,
        op_table=op,
        hello_device=parse_rate(args.limit_hello) if args.limit_hello else defaults.hello_device,
    )
    return ServerConfig(
        state=args.state,
        site=check_site(args.site),
        mqtt_host=host,
        mqtt_port=port,
        broker=parse_broker(args.broker),
        database=parse_database(args.database),
        http=None if args.http == "none" else parse_address(args.http),
        http_rate=parse_calls(args.limit_http) if args.limit_http else (2000, 10),
        root_key=args.root_key,
        beacon_interval_s=args.beacon_interval,
        session_ttl_s=args.session_ttl,
        keep_answers_days=args.keep_answers,
        window=args.window,
        limits=limits,
    )


def run_server(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM."""
    import uvloop

    start_logging(args.log_level, as_json=args.log_json)
    config = config_from(args)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, ready_json=args.ready_json))


async def _serve(config: ServerConfig, *, ready_json: bool) -> int:
    from server.app import OrderServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = OrderServer(config)
    starting = asyncio.create_task(server.start())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, stop, starting)
    try:
        await starting
    except asyncio.CancelledError:
        return complain("stopped while starting; nothing is left running", EXIT_OK)
    try:
        _announce(server, ready_json=ready_json)
        await stop.wait()
    finally:
        await server.stop()
    if not ready_json:
        print("stopped", flush=True)
    return EXIT_OK


def _stop(stop: asyncio.Event, starting: asyncio.Task[None]) -> None:
    stop.set()
    starting.cancel()  # no effect once it is done


def _announce(server: OrderServer, *, ready_json: bool) -> None:
    host, port = server.address
    state = str(server.config.state)
    if ready_json:
        ready: dict[str, Any] = {
            "event": "ready", "mqtt": {"host": host, "port": port}, "state": state,
            "site": server.config.site,
            "first_start": server.said,
        }  # fmt: skip
        if server.http_address is not None:
            ready["http"] = dict(zip(("host", "port"), server.http_address, strict=True))
        print(json.dumps(ready), flush=True)
        return
    for sentence in server.said:
        print(f"first start: {sentence}")
    print(f"site {server.config.site}: terminals connect to MQTT {host}:{port} (state in {state})")
    if server.http_address is not None:
        print(
            "HTTP API on http://{}:{}/v1/openapi.json; make a token with `tableside server tokens "
            "add`".format(*server.http_address)
        )
    print(
        "register one with `tableside server devices add NAME --table T --key KEY.der --password P`; Ctrl-C "
        "stops"
    )
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m server``: the same commands without the rest of the bench."""
    parser = argparse.ArgumentParser(prog="python -m server", description="The Tableside order server.")
    add_commands(parser)
    args = parser.parse_args(argv)
    return int(args.run(args))
