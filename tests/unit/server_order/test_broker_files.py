"""mosquitto's files hold what the embedded broker enforces, and the login that --broker is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import brokerfiles
from server.brokerfiles import BrokerPlan
from server.config import ConfigError, parse_broker
from server.transport.auth import fits_mosquitto, hash_password, verify_password

MADE_BY_MOSQUITTO_PASSWD = (
    "$7$101$a/dhpBEVrTG1JtY/$"
    "C5BwUV9bHVqxoSCpQdfLMgkXjyVkDTfokBAHwn3FE9bW/ll7fu4c7sh1kQy6aeoV6ENDtZvTHC8UzytcfP9/5g=="
)


@pytest.fixture
def plan(tmp_path: Path) -> BrokerPlan:
    return BrokerPlan(tmp_path, "demo", "0.0.0.0", 1883, "mosquitto")


def test_passwords_are_stored_as_mosquitto_stores_them() -> None:
    assert verify_password(MADE_BY_MOSQUITTO_PASSWD, "secret")
    assert not verify_password(MADE_BY_MOSQUITTO_PASSWD, "Secret")
    assert fits_mosquitto(hash_password("secret"))


def test_the_servers_url_leads_back_to_its_login(plan: BrokerPlan) -> None:
    login = brokerfiles.new_login(plan)
    assert parse_broker(brokerfiles.url_of(login).strip()) == login
    assert login.host == "127.0.0.1", "a wildcard is no address to connect to"
    assert login.password not in repr(login)


def test_a_password_mosquitto_cannot_check_is_left_out_and_named(plan: BrokerPlan) -> None:
    stored = {"t-1": hash_password("a"), "t-2": "scrypt$8192$8$1$00$00"}
    text, left_out = brokerfiles.password_file(brokerfiles.new_login(plan), stored)
    assert left_out == ["t-2"]
    assert [line.split(":")[0] for line in text.splitlines()] == ["server.demo", "t-1"]


def test_every_queue_is_bounded_and_nobody_is_anonymous(plan: BrokerPlan) -> None:
    lines = brokerfiles.configuration(plan).splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith(("#", "log_type")))
    assert settings["allow_anonymous"] == "false"
    assert settings["use_username_as_clientid"] == "true"
    for bound in ("max_queued_messages", "max_queued_bytes", "max_inflight_messages", "max_packet_size"):
        assert int(settings[bound]) > 0, "0 means without bound"


@pytest.mark.parametrize(
    "text",
    ["localhost:1883", "http://h:1", "mqtt://", "mqtt://h:port", "mqtt://h:1/topic", "@/no/such/file", ""],
)
def test_what_is_no_broker_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"mqtt://USER|broker's URL"):
        parse_broker(text)


def test_a_broker_may_be_named_in_many_ways(tmp_path: Path) -> None:
    assert parse_broker("embedded") is None
    found = parse_broker("mqtts://a%40b:p%3Aw@broker.local")
    assert found is not None
    assert (found.host, found.port, found.user, found.password, found.tls) == (
        "broker.local",
        8883,
        "a@b",
        "p:w",
        True,
    )
    (tmp_path / "url").write_text("mqtt://u:p@h\n")
    named = parse_broker(f"@{tmp_path / 'url'}")
    assert named is not None
    assert named.where == "h:1883"
