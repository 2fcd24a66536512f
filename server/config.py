"""What a server is started with, checked before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from server.errors import ServerError
from server.storage.retention import DEFAULT_DAYS
from server.transport.limits import Limits, Rate
from server.wire.shapes import is_identifier

DEMO_ROOT_KEY = Path(__file__).resolve().parent.parent / "fixtures" / "keys" / "root.pem"
DEMO_MENU = Path(__file__).resolve().parent.parent / "fixtures" / "menu" / "demo.json"
DEFAULT_STATE = Path("tableside-state")
BEACON_INTERVAL_S = 30.0
KEYS_NAME = "keys"


class ConfigError(ServerError):
    """The server cannot be started like this; the message says what to change."""

    code = "CONFIG"


class ListenError(ConfigError):
    """The server cannot listen where it was told to."""

    code = "LISTEN"


@dataclass(frozen=True, slots=True)
class BrokerLogin:
    """An MQTT broker beside the server, and how the server logs in there."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    @property
    def where(self) -> str:
        """HOST:PORT, for people."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that can be chosen about a server. Port 0 takes a free port."""

    state: Path = DEFAULT_STATE
    site: str = "demo"
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 0
    broker: BrokerLogin | None = None
    database: str | None = field(default=None, repr=False)  # a URL, perhaps with a password
    http: tuple[str, int] | None = None
    http_rate: tuple[int, int] = (2000, 10)
    root_key: Path = DEMO_ROOT_KEY
    demo_menu: Path = DEMO_MENU
    beacon_interval_s: float = BEACON_INTERVAL_S
    queue_capacity: int = 4096
    max_batch: int = 128
    window: int = 32
    session_ttl_s: int = 12 * 3600
    keep_answers_days: int = DEFAULT_DAYS
    limits: Limits = field(default_factory=Limits)


def parse_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT. Raises: ConfigError."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(
            f"{text!r} is not HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:1883"
        )
    return host, int(port)


def parse_broker(text: str) -> BrokerLogin | None:
    """Read ``embedded``, mqtt[s]://USER:PASSWORD@HOST:PORT, or @FILE with such a URL. Raises: ConfigError."""
    if text == "embedded":
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the broker's URL from {text[1:]} ({error})") from error
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or url.path.strip("/") or url.query:
        raise ConfigError(
            "--broker takes `embedded`, mqtt://USER:PASSWORD@HOST:PORT (mqtts:// for TLS), or @FILE that "
            "holds such a URL"
        )
    tls = url.scheme == "mqtts"
    return BrokerLogin(
        url.hostname,
        port or (8883 if tls else 1883),
        unquote(url.username or ""),
        unquote(url.password or ""),
        tls,
    )


def parse_database(text: str | None) -> str | None:
    """A PostgreSQL URL, also from @FILE; None where none is given. Raises: ConfigError, OSError."""
    if text is None:
        return None
    url = Path(text[1:]).read_text("utf-8").strip() if text.startswith("@") else text
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(
            "--database is not a URL like postgresql://USER:PASSWORD@HOST:PORT/NAME, or @FILE that holds one"
        )
    return url


def parse_rate(text: str) -> Rate:
    """Read a limit PER_SECOND:BURST. Raises: ConfigError."""
    try:
        per_second, burst = (float(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(f"{text!r} is not PER_SECOND:BURST, for example 50:100") from None
    if not (0.001 <= per_second <= 1e9 and 1 <= burst <= 1e9):
        raise ConfigError(f"{text!r} is out of range: at least 0.001 per second and a burst of at least 1")
    return Rate(per_second, burst)


def parse_calls(text: str) -> tuple[int, int]:
    """Read a limit CALLS:SECONDS. Raises: ConfigError."""
    calls, separator, seconds = text.partition(":")
    if not separator or not calls.isdecimal() or not seconds.isdecimal():
        raise ConfigError(f"{text!r} is not CALLS:SECONDS, for example 600:60")
    found = int(calls), int(seconds)
    if not (1 <= found[0] <= 10**9 and 1 <= found[1] <= 3600):
        raise ConfigError(f"{text!r} is out of range: at least 1 call in 1 to 3600 seconds")
    return found


def check_site(site: str) -> str:
    """Return the site name. Raises: ConfigError."""
    return check_name("site", site)


def check_name(what: str, name: str) -> str:
    """Return a site, device or table name. Raises: ConfigError."""
    if not is_identifier(name):
        raise ConfigError(f"{what} {name!r} is not 1 to 32 characters of a-z, 0-9 and -")
    return name
