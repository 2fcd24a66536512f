"""Tokens, rate limits and storms: small parts that hold the API's promises."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from limits import RateLimitItemPerMinute

from server.devices.records import DeviceState
from server.logs import JsonLines
from server.ordering.catalogue import Catalogue, KnownDevice, Snapshot
from server.transport.auth import MAX_WAITING, Authenticator, LoginsBusy
from server.transport.limits import Limits, RateLimiter
from server.web.access import Caller, Role, TokenBook, hash_of, new_token
from server.web.guard import address_of
from server.web.limits import Verdict, WebLimiter, WebLimits

TERMINALS = 10_000
SECRET = bytes(range(32))


def test_a_token_is_known_by_its_hash_only() -> None:
    token = new_token(SECRET)
    assert hash_of(token) == hashlib.sha256(SECRET).digest()
    book = TokenBook()
    book.replace([(hashlib.sha256(SECRET).digest(), Caller("1", Role.WAITER, "anna", None, 100))])
    found = book.find(token, 99)
    assert found is not None
    assert found.name == "anna"
    assert book.find(token, 100) is None, "expired"
    book.replace([])
    assert book.find(token, 99) is None, "revoked"


@pytest.mark.parametrize(
    "text",
    ["", "ts_", "ts_" + "A" * 42, "ts_" + "A" * 44, "ts_" + "+" * 43, "ts_" + "é" * 43, "xx" + "A" * 44],
)
def test_what_is_no_token_has_no_hash(text: str) -> None:
    assert hash_of(text) is None


def test_one_secret_has_one_spelling() -> None:
    token = new_token(SECRET)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = [token[:-1] + last for last in alphabet if hash_of(token[:-1] + last) is not None]
    assert token in spelled
    assert len(spelled) == len({hash_of(text) for text in spelled})


def scope(host: str) -> dict[str, Any]:
    """An ASGI scope from an address."""
    return {"type": "http", "client": (host, 1)}


def test_a_network_of_ipv6_addresses_is_one_caller() -> None:
    assert address_of(scope("2001:db8:0:1::1")) == address_of(scope("2001:db8:0:1:ffff::2"))
    assert address_of(scope("2001:db8:0:2::1")) != address_of(scope("2001:db8:0:1::1"))
    assert address_of(scope("192.0.2.1")) == "192.0.2.1"


def limits(calls: int) -> WebLimits:
    """So many calls a minute for each address."""
    return WebLimits(address=RateLimitItemPerMinute(calls))


def test_a_caller_is_told_when_to_come_back() -> None:
    async def scenario() -> list[Verdict]:
        limiter = WebLimiter(limits(3))
        return [await limiter.take("address", "192.0.2.1") for _ in range(4)]

    verdicts = asyncio.run(scenario())
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False]
    assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0]
    headers = verdicts[-1].headers()
    assert headers["RateLimit-Policy"] == '"address";q=3;w=60'
    assert 1 <= int(headers["Retry-After"]) <= 60


def test_a_million_addresses_cannot_fill_the_memory() -> None:
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        limiter = WebLimiter(limits(5), max_keys=100, clock=lambda: now)
        for number in range(2000):
            await limiter.take("address", f"192.0.{number // 256}.{number % 256}")
        assert limiter.keys == 100
        assert not (await limiter.take("address", "198.51.100.7")).allowed, "strangers share one counter"
        assert (await limiter.take("address", "192.0.0.1")).allowed, "who was there before has its own"
        now = 1000.0
        await limiter.take("address", "198.51.100.7")
        assert limiter.keys == 100, "an idle one made room"

    asyncio.run(scenario())


def test_ten_thousand_terminals_come_back_at_once_and_all_get_in() -> None:
    """Password hashes made cheap; what is judged is the queue: bounded, fair, the loop never blocked."""
    digest = hashlib.scrypt(b"pw", salt=b"salt", n=2, r=1, p=1, dklen=32).hex()
    stored = f"scrypt$2$1$1${b'salt'.hex()}${digest}"
    catalogue = Catalogue("house", lambda frame: None)  # type: ignore[arg-type, return-value]
    devices = {f"t-{n}": KnownDevice("1", DeviceState.ACTIVE, stored) for n in range(TERMINALS)}
    catalogue.snapshot = Snapshot(devices, None, frozenset(), frozenset())
    turned_away = most = 0
    chance = random.Random(1)

    async def scenario() -> None:
        nonlocal turned_away, most
        with ThreadPoolExecutor(2) as pool:
            check = Authenticator(catalogue, RateLimiter(Limits(), lambda: 0.0), pool)

            async def come_back(name: str) -> None:
                nonlocal turned_away, most
                pause_s = 0.1
                while True:
                    try:
                        assert await check(name, "pw")
                    except LoginsBusy:
                        turned_away += 1
                        await asyncio.sleep(pause_s * chance.uniform(0.5, 1.5))  # as a terminal backs off
                        pause_s = min(1.0, pause_s * 2)
                    else:
                        return
                    finally:
                        most = max(most, check.waiting)

            await asyncio.gather(*(come_back(name) for name in devices))
            assert await check("t-1", "pw"), "from now on without a hash"

    asyncio.run(asyncio.wait_for(scenario(), 120))
    assert turned_away > 0
    assert most <= MAX_WAITING


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("tableside.http", logging.INFO, "f", 1, "GET %s", ("/v1/menu\n",), None)
    record.status = 200
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["text"], found["status"], found["level"]) == ("GET /v1/menu\n", 200, "info")
