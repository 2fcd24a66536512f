"""A sealed bill convinces a third party who has nothing but the terminal's public key."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house_kit import DEVICE, OTHER_DEVICE, SITE, Line, StaffedHouse, device_key
from order_kit import ESPRESSO, WATER

from server import evidence
from server.cli import main
from server.evidence import EvidenceError
from server.wire.rsa import RsaSigner

Change = Callable[[dict[str, Any]], None]


def key_of(device: str) -> bytes:
    return RsaSigner(device_key(device)).spki


def sealed(house: StaffedHouse) -> dict[str, Any]:
    """The evidence of a sealed bill of 820 with a refused order and a waiter call in between."""
    guest = house.guest()
    guest.order(Line(ESPRESSO, 2), total=520)
    guest.order(Line(ESPRESSO, 2), total=1)
    guest.call()
    guest.order(Line(WATER, 1), total=300)
    asked = guest.ask_bill()
    guest.seal(asked)
    document: dict[str, Any] = json.loads(
        json.dumps(evidence.collect(house.house.connection, SITE, asked.arg))
    )
    return document


def test_the_public_key_alone_proves_device_answers_and_amount(house: StaffedHouse) -> None:
    document = sealed(house)
    proven = evidence.check(document, key_of(DEVICE))
    assert (proven.device, proven.total_minor, proven.answers, proven.committed) == (DEVICE, 820, 5, 4)
    assert document["orders_not_covered"] == []


def _total(document: dict[str, Any]) -> None:
    document["total_minor"] -= 1


def _status(document: dict[str, Any]) -> None:
    document["answers"][1]["status"] = 0


def _missing(document: dict[str, Any]) -> None:
    del document["answers"][2]


def _swapped(document: dict[str, Any]) -> None:
    document["answers"][0], document["answers"][1] = document["answers"][1], document["answers"][0]


def _other_op(document: dict[str, Any]) -> None:
    document["answers"][0]["op"] = document["answers"][3]["op"]


def _seal(document: dict[str, Any]) -> None:
    document["seal"] = document["seal"][:-2] + ("00" if document["seal"][-2:] != "00" else "01")


def _bill(document: dict[str, Any]) -> None:
    document["bill"] += 1


def _site(document: dict[str, Any]) -> None:
    document["site"] = "villa"


@pytest.mark.parametrize("change", [_total, _status, _missing, _swapped, _other_op, _seal, _bill, _site])
def test_whatever_is_changed_is_noticed(house: StaffedHouse, change: Change) -> None:
    document = copy.deepcopy(sealed(house))
    change(document)
    with pytest.raises(EvidenceError):
        evidence.check(document, key_of(DEVICE))


def test_another_terminals_key_does_not_fit(house: StaffedHouse) -> None:
    with pytest.raises(EvidenceError, match="does not hold"):
        evidence.check(sealed(house), key_of(OTHER_DEVICE))


def test_a_bill_that_was_never_sealed_says_so(house: StaffedHouse) -> None:
    guest = house.guest()
    guest.order(Line(WATER, 1), total=300)
    bill = house.run(house.service.bill("anna", 1))["bill"]
    document = evidence.collect(house.house.connection, SITE, bill)
    assert document["orders_not_covered"] == [1]
    with pytest.raises(EvidenceError, match="unsealed"):
        evidence.check(document, key_of(DEVICE))


def test_orders_merged_in_by_staff_are_named_as_not_covered(house: StaffedHouse) -> None:
    house.guest(OTHER_DEVICE).order(Line(WATER, 1), total=300)
    guest = house.guest()
    guest.order(Line(ESPRESSO, 2), total=520)
    house.run(house.service.merge("anna", 1, 2))
    asked = guest.ask_bill()
    guest.seal(asked)
    document = evidence.collect(house.house.connection, SITE, asked.arg)
    assert document["orders_not_covered"] == [1]
    assert evidence.check(document, key_of(DEVICE)).total_minor == 820


def test_the_commands_print_and_check_a_bill(
    house: StaffedHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed(house)
    assert main(["evidence", "1", "--state", str(tmp_path)]) == 0
    (tmp_path / "bill.json").write_text(capsys.readouterr().out)
    (tmp_path / "key.der").write_bytes(key_of(DEVICE))
    (tmp_path / "other.der").write_bytes(key_of(OTHER_DEVICE))
    command = ["check-evidence", str(tmp_path / "bill.json"), "--key"]
    assert main([*command, str(tmp_path / "key.der")]) == 0
    assert "820 minor units, sealed by t-0001" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "other.der")]) == 1
    assert "the seal does not hold" in capsys.readouterr().err
    assert main(["evidence", "9", "--state", str(tmp_path)]) == 1
    assert "there is no bill 9" in capsys.readouterr().err
