"""The broker's parts by themselves: sessions, topics, limits, passwords."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.devices.records import DeviceState
from server.ordering.catalogue import Catalogue, KnownDevice, Snapshot
from server.transport.acl import may_receive, may_subscribe, own_topic
from server.transport.auth import Authenticator, hash_password, verify_password
from server.transport.limits import Limits, Rate, RateLimiter
from server.transport.mqtt import PacketSplitter, Publish, read_publish, topic_matches, valid_filter
from server.transport.session import BACKLOG, WINDOW, ClientSession, Message


def published(data: bytes) -> list[tuple[Publish, bool]]:
    """PUBLISH packets in some bytes, each with its DUP bit."""
    return [(read_publish(first, body), bool(first & 8)) for first, body in PacketSplitter(4096).feed(data)]


def numbered(number: int) -> Message:
    return Message(b"d/house/t-1/reply", b"%d" % number, 1, False)


def test_a_full_window_holds_messages_back_and_a_puback_lets_the_next_out() -> None:
    session = ClientSession("t-1")
    sent = b"".join(session.send(numbered(n), connected=True) for n in range(WINDOW + 2))
    first = published(sent)
    assert len(first) == WINDOW
    (after,) = published(session.acknowledged(first[0][0].packet_id))
    assert (after[0].payload, after[1]) == (b"%d" % WINDOW, False)


def test_a_reconnect_resends_what_was_not_acknowledged_with_dup_then_the_rest() -> None:
    session = ClientSession("t-1")
    sent = published(b"".join(session.send(numbered(n), connected=True) for n in range(4)))
    session.acknowledged(sent[1][0].packet_id)
    assert session.send(numbered(9), connected=False) == b""
    again = published(session.resume())
    assert [(message.payload, dup) for message, dup in again] == [
        (b"0", True),
        (b"2", True),
        (b"3", True),
        (b"9", False),
    ]


def test_the_backlog_is_bounded_and_drops_the_oldest() -> None:
    session = ClientSession("t-1")
    for number in range(BACKLOG + 5):
        session.send(numbered(number), connected=False)
    assert (len(session.backlog), session.dropped) == (BACKLOG, 5)
    assert published(session.resume())[0][0].payload == b"5"


def test_an_unknown_puback_changes_nothing() -> None:
    session = ClientSession("t-1")
    session.send(numbered(1), connected=True)
    assert session.acknowledged(999) == b""
    assert len(session.in_flight) == 1


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("s/house/#", "s/house/menu/3", True),
        ("s/house/#", "s/house", True),
        ("s/+/beacon", "s/house/beacon", True),
        ("s/+/beacon", "s/house/x/beacon", False),
        ("#", "$SYS/x", False),
        ("s/house", "s/house/beacon", False),
    ],
)
def test_topic_filters_match_as_mqtt_says(topic_filter: str, topic: str, matches: bool) -> None:
    assert topic_matches(topic_filter, topic) is matches


@pytest.mark.parametrize("topic_filter", ["", "a#", "a/#/b", "a+/b", "a\0b", "x" * 300])
def test_malformed_filters_are_refused(topic_filter: str) -> None:
    assert not valid_filter(topic_filter)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "o/#",
        "d/#",
        "d/house/#",
        "d/house/t-2/#",
        "d/house/+/reply",
        "s/#",
        "s/villa/#",
        "$share/g/s/house/#",
        "s/house2/#",
    ],
)
def test_a_device_cannot_listen_to_others(topic_filter: str) -> None:
    assert not may_subscribe("house", "t-1", topic_filter)


@pytest.mark.parametrize(
    "topic_filter", ["s/house/#", "s/house/beacon", "d/house/t-1/#", "d/house/t-1/reply"]
)
def test_a_device_hears_its_site_and_itself(topic_filter: str) -> None:
    assert may_subscribe("house", "t-1", topic_filter)


@pytest.mark.parametrize(
    "topic",
    [
        "o/house/t-2/op",
        "o/house/t-1",
        "o/house/t-1/",
        "o/villa/t-1/op",
        "s/house/beacon",
        "d/house/t-1/reply",
    ],
)
def test_a_device_cannot_publish_as_others(topic: str) -> None:
    assert own_topic("house", "t-1", topic) is None


def test_a_device_publishes_under_its_own_name() -> None:
    assert own_topic("house", "t-1", "o/house/t-1/op") == "op"
    assert not may_receive("house", "t-1", "d/house/t-10/reply")


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    now = 0.0
    limiter = RateLimiter(Limits(op_device=Rate(10.0, 3.0), op_table=Rate(1000.0, 1000.0)), lambda: now)
    assert [limiter.op("t-1", "4") for _ in range(4)] == [0, 0, 0, 101]
    now = 0.1
    assert [limiter.op("t-1", "4") for _ in range(2)] == [0, 101]
    assert limiter.op("t-2", "5") == 0, "another device has its own"


def test_one_table_is_limited_across_its_devices() -> None:
    limiter = RateLimiter(Limits(op_table=Rate(10.0, 2.0)), lambda: 0.0)
    assert [limiter.op(f"t-{n}", "4") > 0 for n in range(3)] == [False, False, True]


def authenticator(
    state: DeviceState, pool: ThreadPoolExecutor, limits: Limits | None = None
) -> Authenticator:
    catalogue = Catalogue("house", lambda frame: None)  # type: ignore[arg-type, return-value]
    catalogue.snapshot = Snapshot(
        {"t-1": KnownDevice("4", state, hash_password("right"))}, None, frozenset(), frozenset()
    )
    return Authenticator(catalogue, RateLimiter(limits or Limits(), lambda: 0.0), pool)


def test_only_the_right_password_of_an_active_device_logs_in() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            check = authenticator(DeviceState.ACTIVE, pool)
            assert await check("t-1", "right")
            assert not await check("t-1", "wrong")
            assert not await check("t-2", "right")
            assert not await authenticator(DeviceState.SUSPENDED, pool)("t-1", "right")

    asyncio.run(scenario())


def test_a_guesser_is_slowed_down_but_a_known_terminal_still_gets_in() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            check = authenticator(DeviceState.ACTIVE, pool, Limits(login=Rate(0.01, 2.0)))
            assert await check("t-1", "right")
            assert [await check("t-1", "wrong") for _ in range(4)] == [False] * 4
            assert await check("t-1", "right"), "its verified password is remembered"

    asyncio.run(scenario())


def test_a_stored_password_does_not_reveal_it() -> None:
    stored = hash_password("right")
    assert "right" not in stored
    assert stored != hash_password("right"), "salted"
    assert verify_password(stored, "right")
    assert not verify_password(stored, "Right")
