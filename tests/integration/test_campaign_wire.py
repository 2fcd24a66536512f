"""Link cuts and server kills during an update, on real boards, real MQTT and a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.campaign import wire_cases
from bench.campaign.wire import Restaurant
from bench.campaign.wire_cases import KILL, LINK, WireCase, judge_books, judge_console, link_cases
from bench.console import Event
from bench.errors import BenchError
from bench.terminal import COMMITTED, Reply

LEAST_PACKETS = 40  # connection, session, offer, chunks, restart, connection, session, report
OP = "0" * 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restaurant]:
    with Restaurant(tmp_path_factory.mktemp("wire"), terminals=2) as made:
        yield made


def event(name: str, **data: object) -> Event:
    return Event(0, 0.0, name, dict(data))


GOOD = [
    event("ota", reason="none", floor=1),
    event("boot", reset_cause=2),
    event("ota", reason="none", floor=2),
]


def test_an_update_survives_its_link_before_and_after_a_packet(place: Restaurant) -> None:
    packets = place.undisturbed().packets
    assert packets >= LEAST_PACKETS
    middle = packets // 2
    for verdict in place.cut_links([WireCase(LINK, middle, False), WireCase(LINK, middle + 1, True)]):
        assert verdict.happened
        assert verdict.failures == ()


@pytest.mark.parametrize("after", [False, True])
def test_an_update_survives_its_server_before_and_after_a_commit(place: Restaurant, after: bool) -> None:
    verdict = place.kill_server(WireCase(KILL, 4, after))
    assert verdict.happened
    assert verdict.failures == ()


def test_a_kill_at_a_commit_that_never_comes_has_not_happened(place: Restaurant) -> None:
    verdict = place.kill_server(WireCase(KILL, 9999, False))
    assert not verdict.happened
    assert verdict.failures == ()


# ---------------------------------------------------------------- the judges


def reply(status: int) -> Reply:
    return Reply(OP, status, 0, 1, 260, 1, 1.0)


def test_an_order_in_the_books_once_is_what_the_guest_was_told() -> None:
    assert judge_books([OP], [reply(COMMITTED)], [OP]) == []


@pytest.mark.parametrize(
    ("stored", "status"), [([], COMMITTED), ([OP, OP], COMMITTED), ([OP], COMMITTED + 1)]
)
def test_a_lost_doubled_or_refused_order_is_a_failure(stored: list[str], status: int) -> None:
    assert [failure.oracle for failure in judge_books([OP], [reply(status)], stored)] == ["G8"]


def test_a_good_update_has_nothing_to_blame() -> None:
    assert judge_console(GOOD) == []


@pytest.mark.parametrize(
    ("more", "oracle"),
    [
        (event("boot", reset_cause=3), "G5"),
        (event("ota", reason="tries-spent", floor=2), "G6"),
        (event("ota", reason="none", floor=1), "G4"),
        (event("error", code="HANDLER_FAULT", text="ValueError: x"), "G1"),
    ],
)
def test_what_must_not_be_said_is_a_failure(more: Event, oracle: str) -> None:
    assert [failure.oracle for failure in judge_console([*GOOD, more])] == [oracle]


# ---------------------------------------------------------------- lines


def test_every_packet_has_a_cut_before_and_after_it() -> None:
    assert [str(case) for case in link_cases(2)] == [
        "wire link=1", "wire link=1:after", "wire link=2", "wire link=2:after",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["wire link=34", "wire kill=13:after"])
def test_a_line_of_the_wire_reads_back(text: str) -> None:
    assert str(wire_cases.parse(text)) == text


@pytest.mark.parametrize("text", ["wire", "wire link", "wire cut=3", "wire kill=3:before"])
def test_a_line_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="no line of the campaign"):
        wire_cases.parse(text)
