"""docs/asyncapi.yaml says what the wire contract says: the same topics, known rules, the same directions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.transport import acl

ROOT = Path(__file__).resolve().parents[3]
CDDL = (ROOT / "fixtures" / "protocol" / "seal.cddl").read_text()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
    return loaded


def resolve(document: dict[str, Any], reference: str) -> Any:
    """What a local reference points at; KeyError when it points nowhere."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> list[str]:
    """Every $ref inside a value."""
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in references(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in references(inner)]
    return []


def topics_of_the_contract() -> set[str]:
    """Every topic the CDDL names, with AsyncAPI's braces."""
    found = set(re.findall(r"\b[sod]/<site>/[a-z<>/]+", CDDL))
    return {topic.replace("<", "{").replace(">", "}").rstrip("/") for topic in found}


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    found = references(document)
    assert len(found) > 30
    for reference in found:
        resolve(document, reference)


def test_the_topics_are_those_of_the_wire_contract(document: dict[str, Any]) -> None:
    assert {channel["address"] for channel in document["channels"].values()} == topics_of_the_contract()


def test_every_message_is_a_rule_of_the_wire_contract(document: dict[str, Any]) -> None:
    rules = set(re.findall(r"^([a-z0-9-]+)(?:<[^>]*>)? *=", CDDL, re.MULTILINE))
    named = {message["x-cddl"] for message in document["components"]["messages"].values()}
    assert named <= rules
    frames = {rule for rule in rules if rule.endswith("-frame")}
    # Not topics of their own: inside a beacon or an offer, joined from chunks.
    assert frames - named == {"cert-frame", "menu-frame", "manifest-frame", "rotation-frame"}


def test_sizes_are_those_of_the_wire_contract(document: dict[str, Any]) -> None:
    stated = dict(re.findall(r"^([a-z-]+) = .*; (?:.*; )?<= (\d+) bytes", CDDL, re.MULTILINE))
    for message in document["components"]["messages"].values():
        if message["x-cddl"] in stated:
            assert message["x-max-bytes"] == int(stated[message["x-cddl"]]), message


def test_terminals_publish_what_the_server_receives_and_nothing_else(document: dict[str, Any]) -> None:
    used = set()
    for operation in document["operations"].values():
        channels = [operation["channel"]["$ref"]]
        if "reply" in operation:
            channels.append(operation["reply"]["channel"]["$ref"])
        address = resolve(document, channels[0])["address"].format(site="demo", device="t-1", index="0")
        allowed = acl.own_topic("demo", "t-1", address) is not None
        assert allowed == (operation["action"] == "receive"), address
        for reference in channels[1:] if operation["action"] == "receive" else channels:
            answer = resolve(document, reference)["address"].format(site="demo", device="t-1", index="0")
            assert acl.may_receive("demo", "t-1", answer), answer
        used.update(channels)
    assert {resolve(document, reference)["address"] for reference in used} == topics_of_the_contract()
