"""Starts one order server after the other by fork: real processes, real kills, without a second of imports.

A process of its own that has the server's modules loaded and does nothing but fork. Lines of JSON come in,
{"argv": [...], "point": "", "passes": 1}, and each starts one server, whose words go to the same standard
output; {"event": "born", "pid": ...} and {"event": "dead", "pid": ..., "status": ...} are the nursery's.
Options: planted bugs by name, which all of its servers then have.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.config import ServerConfig
    from server.platform import Platform

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> int:
    """Serve until standard input ends."""
    _plant(sys.argv[1:])
    for module in ("server.app", "server.cli", "server.web.compose", "bench.kill.points"):
        import_module(module)
    _trust_the_keys()
    say({"event": "nursery"})
    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if child == 0:
            _live(wish)
        say({"event": "born", "pid": child})
        _, status = os.waitpid(child, 0)
        say({"event": "dead", "pid": child, "status": os.waitstatus_to_exitcode(status)})
    return 0


def say(message: dict[str, Any]) -> None:
    """One line to whoever runs the nursery."""
    print(json.dumps(message), flush=True)


def _plant(names: list[str]) -> None:
    if not names:
        return
    from bench.mutants.catalogue import MUTANTS
    from bench.mutants.rewrite import plant

    known = {mutant.name: mutant for mutant in MUTANTS}
    plant([edit for name in names for edit in known[name].edits])


def _trust_the_keys() -> None:
    """A server reads two private keys at every start; checking them each time would cost it half a second."""
    from bench.sim.keys import parse_pem
    from server.devices import keyfiles

    vars(keyfiles)["parse_pem"] = parse_pem


def _live(wish: dict[str, Any]) -> None:
    """Be a server until death; never returns."""
    status = 70
    try:
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        status = _serve(wish)
    except BaseException:  # noqa: BLE001 - a fork must end here, whatever happened, and say why
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _serve(wish: dict[str, Any]) -> int:
    from bench.kill.points import Fuse, arm_postgres, arm_uplink, broker, connector
    from server import cli
    from server.logs import start_logging
    from server.platform import Platform

    parser = argparse.ArgumentParser()
    cli.add_commands(parser)
    arguments = parser.parse_args(wish["argv"])
    start_logging(arguments.log_level, as_json=False)
    fuse = Fuse(wish["point"], wish["passes"])
    config = cli.config_from(arguments)
    if config.database is not None:
        arm_postgres(fuse)
    if config.broker is not None:
        arm_uplink(fuse)
    asyncio.run(_run(config, Platform(connect=connector(fuse), broker=broker(fuse))))
    return 0


async def _run(config: ServerConfig, platform: Platform) -> None:
    from server.app import OrderServer

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = OrderServer(config, platform)
    await server.start()
    say({"event": "ready", "mqtt": server.address, "http": server.http_address})
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    sys.exit(main())
