"""A mosquitto 2 configuration under which the server's promises hold, as text; nothing is written here.

What the embedded broker checks in code, mosquitto is told by file: no anonymous logins; a client's id is its
user name, so nobody takes over another's session; a terminal publishes below its own ``o/<site>/<id>/`` and
hears ``d/<site>/<id>/`` and ``s/<site>/``; queues are bounded; the server's session and the retained menu
are kept on disk. mosquitto writes them once a second: what it acknowledged in its last second may be lost
with it, which costs time only, because a terminal sends an order until it holds the server's sealed reply.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from server.config import BrokerLogin
from server.transport.auth import fits_mosquitto, hash_password
from server.transport.external import client_id_of

CONFIGURATION, PASSWORDS, ACCESS, SERVER_URL, PID = (
    "mosquitto.conf", "passwords", "acl", "server.url", "mosquitto.pid",
)  # fmt: skip
DATA = "data"
MAX_MESSAGE_BYTES = 8192
QUEUED_MESSAGES = 100_000
QUEUED_BYTES = 64_000_000
SESSIONS_KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """What to configure: ``folder`` holds all files, ``user`` is whom mosquitto becomes under root."""

    folder: Path
    site: str
    host: str
    port: int
    user: str


def new_login(plan: BrokerPlan) -> BrokerLogin:
    """A login for the server with a password of its own."""
    return BrokerLogin(near(plan), plan.port, client_id_of(plan.site), secrets.token_urlsafe(24))


def near(plan: BrokerPlan) -> str:
    """The host under which this machine reaches what listens on ``plan.host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.host, plan.host)


def url_of(login: BrokerLogin) -> str:
    """The login as ``server run --broker`` takes it."""
    host = f"[{login.host}]" if ":" in login.host else login.host
    return f"mqtt://{quote(login.user)}:{quote(login.password)}@{host}:{login.port}\n"


def configuration(plan: BrokerPlan) -> str:
    """The text of mosquitto.conf."""
    folder = plan.folder
    return f"""\
# Written by `tableside server broker-config` for site {plan.site}; changes here are lost.
# Start:  mosquitto -c {folder / CONFIGURATION}
per_listener_settings false
user {plan.user}
pid_file {folder / PID}
log_dest stderr
log_type error
log_type warning
log_type notice

listener {plan.port} {plan.host}
set_tcp_nodelay true
allow_anonymous false
use_username_as_clientid true
password_file {folder / PASSWORDS}
acl_file {folder / ACCESS}

# Nothing unbounded: messages for one client that waits, their bytes, one message, how long a session is kept.
max_queued_messages {QUEUED_MESSAGES}
max_queued_bytes {QUEUED_BYTES}
max_inflight_messages 1000
max_packet_size {MAX_MESSAGE_BYTES}
persistent_client_expiration {SESSIONS_KEPT_DAYS}d

persistence true
persistence_location {folder / DATA}/
autosave_interval 1
"""


def access_list(plan: BrokerPlan) -> str:
    """The text of the access list; ``%u`` is the user name of whoever asks."""
    site = plan.site
    return f"""\
# The server of site {site} hears every terminal and speaks to all of them.
user {client_id_of(site)}
topic read o/{site}/#
topic readwrite s/{site}/#
topic write d/{site}/#

# A terminal speaks for itself only.
pattern write o/{site}/%u/#
pattern read d/{site}/%u/#
pattern read s/{site}/#
"""


def password_file(login: BrokerLogin, devices: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text of the password file for the server and {device: stored password}.

    Also returned: devices whose password was stored by an older version in a form mosquitto does not know.
    """
    lines = [f"{login.user}:{hash_password(login.password)}"]
    left_out = []
    for device, stored in sorted(devices.items()):
        if fits_mosquitto(stored):
            lines.append(f"{device}:{stored}")
        else:
            left_out.append(device)
    return "\n".join(lines) + "\n", left_out
