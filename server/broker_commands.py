"""What ``tableside server broker-config`` does: mosquitto's files from the registry."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import signal
from pathlib import Path

from sqlalchemy import select

from server import brokerfiles
from server.brokerfiles import BrokerPlan
from server.config import BrokerLogin, ConfigError, check_site, parse_address, parse_broker
from server.devices.records import DeviceState
from server.storage import admin
from server.storage.database import Database, open_database
from server.storage.location import database_path, remembered
from server.storage.schema import device


def broker_config(args: argparse.Namespace) -> int:
    """`broker-config`."""
    site, devices = _registry(args)
    host, port = parse_address(args.listen)
    if port == 0:
        raise ConfigError("--listen needs a port: mosquitto does not choose one; 1883 is MQTT's")
    plan = BrokerPlan(args.out.resolve(), site, host, port, args.run_as or getpass.getuser())
    _make_folders(plan)
    login = _login(plan)
    passwords, left_out = brokerfiles.password_file(login, devices)
    for name, text in (
        (brokerfiles.SERVER_URL, brokerfiles.url_of(login)),
        (brokerfiles.PASSWORDS, passwords),
        (brokerfiles.ACCESS, brokerfiles.access_list(plan)),
        (brokerfiles.CONFIGURATION, brokerfiles.configuration(plan)),
    ):
        _replace(plan, name, text)
    for name in left_out:
        print(f"{name} cannot log in: its password was stored by an older version; `devices password {name}`")
    if _reload(plan):
        print(f"site {site}: {len(devices) - len(left_out)} terminals; the running mosquitto has read it")
        return 0
    print(f"site {site}: {len(devices) - len(left_out)} terminals; now\n"
          f"  mosquitto -c {plan.folder / brokerfiles.CONFIGURATION}\n"
          f"  tableside server run --broker @{plan.folder / brokerfiles.SERVER_URL}")  # fmt: skip
    return 0


def _registry(args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """The site, and the stored passwords of devices that may log in."""
    if not database_path(args.state).exists() and remembered(args.state) is None:
        return check_site(args.site), {}
    database = open_database(args.state)
    try:
        site = admin.only_site(database)
        return site, _passwords(database, site)
    finally:
        database.close()


def _passwords(database: Database, site: str) -> dict[str, str]:
    wanted = (device.c.site == site) & (device.c.state == DeviceState.ACTIVE.value)
    with database.begin() as connection:
        rows = connection.execute(select(device.c.device, device.c.password_hash).where(wanted))
        return {str(name): str(stored) for name, stored in rows}


def _login(plan: BrokerPlan) -> BrokerLogin:
    """The server's login: the one it has already, at the address asked for, or a new one."""
    path = plan.folder / brokerfiles.SERVER_URL
    if path.exists():
        before = parse_broker(f"@{path}")
        if before is not None and before.user == brokerfiles.new_login(plan).user:
            return BrokerLogin(brokerfiles.near(plan), plan.port, before.user, before.password)
    return brokerfiles.new_login(plan)


def _make_folders(plan: BrokerPlan) -> None:
    for folder in (plan.folder, plan.folder / brokerfiles.DATA):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(plan, folder)


def _replace(plan: BrokerPlan, name: str, text: str) -> None:
    """Write a file that only its owner reads, so that a reader sees the old or the new one."""
    fresh = plan.folder / f"{name}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    _give(plan, fresh)
    fresh.replace(plan.folder / name)


def _give(plan: BrokerPlan, path: Path) -> None:
    """Under root, files belong to whom mosquitto becomes: it reads them again on SIGHUP."""
    if os.geteuid() == 0 and plan.user != "root":
        try:
            shutil.chown(path, plan.user, plan.user)
        except LookupError as error:
            raise ConfigError(
                f"there is no user {plan.user!r} on this machine; choose another --run-as"
            ) from error


def _reload(plan: BrokerPlan) -> bool:
    """Tell a mosquitto that runs on this folder to read it again; whether there was one."""
    try:
        pid = int((plan.folder / brokerfiles.PID).read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() != "mosquitto":
            return False
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    return True
