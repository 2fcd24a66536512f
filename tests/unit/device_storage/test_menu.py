"""The menu store: the whole old menu or the whole new one, and prices that add up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from signing import kid, sign1, spki
from terminal.menu import CHUNK_BYTES, MenuStore
from terminal.menu_index import MenuError
from terminal.wire.errors import WireError
from terminal.wire.rsa import PublicKey, run_now, verify_pss_steps

DEMO = json.loads((Path(__file__).parents[3] / "fixtures" / "menu" / "demo.json").read_text())
SITE = "demo"

MILK = [1, "milk", 0, 1, [[101, "oat", 50], [102, "none", 0]]]
SIZE = [2, "size", 1, 1, [[201, "small", -30], [202, "large", 80]]]
ESPRESSO = [10, 1, "Espresso", 260, 1, []]
LATTE = [11, 1, "Caffè latte", 420, 1, [2, 1]]
FLAT_WHITE = [12, 1, "Flat white", 390, 1, [1]]


def menu(version: int = 1, **changed: Any) -> list[Any]:
    """A small menu as the CDDL writes it; `changed` replaces parts by name."""
    parts = {
        "currency": "EUR",
        "exponent": 2,
        "rounding": 0,
        "taxes": [[1, "food", 700]],
        "categories": [[1, "Coffee"]],
        "groups": [MILK, SIZE],
        "items": [ESPRESSO, LATTE, FLAT_WHITE],
    } | changed
    return [version, *parts.values()]


def frame(value: list[Any], key: str = "server-sign", site: str = SITE) -> bytes:
    return sign1(key, ["seal/1", "menu", site, ""], cbor2.dumps(value))


def verify(key_id: bytes, digest: bytes, signature: memoryview) -> Iterator[None]:
    if key_id != kid("server-sign"):
        raise WireError("WRONG_KEY")
    return (yield from verify_pss_steps(PublicKey.from_spki(spki("server-sign")), digest, signature))


def store(root: Path) -> MenuStore:
    return MenuStore(str(root), SITE, verify)


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


def download(menus: MenuStore, data: bytes, version: int, digest: bytes | None = None) -> Any:
    parts = chunks(data)
    menus.begin(version, digest or hashlib.sha256(data).digest(), len(parts))
    for index, part in enumerate(parts):
        menus.chunk(index, part)
    return run_now(menus.finish_steps())


@pytest.fixture(scope="module")
def small() -> bytes:
    return frame(menu())


@pytest.fixture(scope="module")
def demo() -> bytes:
    """The demo menu of the fixtures as a signed frame."""
    groups = [
        [
            g["id"],
            g["name"],
            g["min"],
            g["max"],
            [[m["id"], m["name"], m["delta_minor"]] for m in g["modifiers"]],
        ]
        for g in DEMO["groups"]
    ]
    items = [
        [i["id"], i["category"], i["name"], i["price_minor"], i["tax"], i.get("groups", [])]
        for i in DEMO["items"]
    ]
    taxes = [[t["id"], t["name"], t["basis_points"]] for t in DEMO["taxes"]]
    categories = [[c["id"], c["name"]] for c in DEMO["categories"]]
    return frame(menu(7, taxes=taxes, categories=categories, groups=groups, items=items))


def test_a_downloaded_menu_is_usable_and_survives_a_restart(tmp_path: Path, demo: bytes) -> None:
    menus = store(tmp_path)
    assert menus.current() is None
    info = download(menus, demo, 7)
    assert info == (7, hashlib.sha256(demo).digest())

    for each in (menus, store(tmp_path)):
        assert each.current() == info
        assert each.fault is None
        assert [item.name for item in each.items()] == [i["name"] for i in DEMO["items"]]
        assert [name for _, name in each.categories()] == [c["name"] for c in DEMO["categories"]]
        for item in DEMO["items"]:
            assert each.price(item["id"]) == item["price_minor"]
            assert each.item(item["id"]).name == item["name"]
        for group in DEMO["groups"]:
            assert len(each.group(group["id"]).modifiers) == len(group["modifiers"])


def test_chunks_may_come_in_any_order_and_twice(tmp_path: Path, demo: bytes) -> None:
    menus = store(tmp_path)
    parts = chunks(demo)
    menus.begin(7, hashlib.sha256(demo).digest(), len(parts))
    order = list(range(len(parts)))[::-1]
    for index in order[:-1] + order[:2]:
        assert not menus.chunk(index, parts[index])
    assert menus.missing() == [0]
    assert menus.chunk(0, parts[0])
    assert run_now(menus.finish_steps()).version == 7


def test_the_same_menu_again_is_not_downloaded(tmp_path: Path, small: bytes) -> None:
    menus = store(tmp_path)
    download(menus, small, 1)
    assert menus.begin(1, hashlib.sha256(small).digest(), 1) is False


def other_site() -> bytes:
    return frame(menu(2), site="other")


def wrong_key() -> bytes:
    return frame(menu(2), key="evil-root")


def flipped_signature() -> bytes:
    data = bytearray(frame(menu(2)))
    data[-1] ^= 1
    return bytes(data)


def flipped_payload() -> bytes:
    data = bytearray(frame(menu(2)))
    data[data.index(b"Espresso")] ^= 1
    return bytes(data)


def other_version() -> bytes:
    return frame(menu(3))


def shape(**changed: Any) -> Any:
    return lambda: frame(menu(2, **changed))


BAD_MENUS = [
    ("another site's menu", other_site, "MENU_SIGNATURE"),
    ("signed by a key that is not the server's", wrong_key, "MENU_SIGNATURE"),
    ("a bit of the signature", flipped_signature, "MENU_SIGNATURE"),
    ("a bit of the payload", flipped_payload, "MENU_SIGNATURE"),
    ("another version inside", other_version, "MENU_VERSION"),
    ("no items", shape(items=[]), "MENU_SHAPE"),
    ("an item twice", shape(items=[ESPRESSO, ESPRESSO]), "MENU_SHAPE"),
    ("a modifier twice", shape(groups=[MILK, [2, "size", 1, 1, MILK[4]]]), "MENU_SHAPE"),
    ("a group nobody can satisfy", shape(groups=[MILK, [2, "size", 3, 3, SIZE[4]]]), "MENU_SHAPE"),
    ("an item of no category", shape(items=[[10, 9, "Espresso", 260, 1, []]]), "MENU_SHAPE"),
    ("an item of no tax class", shape(items=[[10, 1, "Espresso", 260, 9, []]]), "MENU_SHAPE"),
    ("an item with an unknown group", shape(items=[[10, 1, "Espresso", 260, 1, [9]]]), "MENU_SHAPE"),
    ("a negative price", shape(items=[[10, 1, "Espresso", -1, 1, []]]), "MENU_SHAPE"),
    ("a name too long", shape(items=[[10, 1, "E" * 49, 260, 1, []]]), "MENU_SHAPE"),
    ("a float for a price", shape(items=[[10, 1, "Espresso", 2.6, 1, []]]), "MENU_SHAPE"),
    ("a part too many", lambda: frame([*menu(2), 0]), "MENU_SHAPE"),
    ("an array instead of an envelope", lambda: cbor2.dumps(menu(2)) + bytes(500), "MENU_SHAPE"),
]


@pytest.mark.parametrize(
    ("make", "code"), [case[1:] for case in BAD_MENUS], ids=[case[0] for case in BAD_MENUS]
)
def test_a_bad_menu_is_refused_and_the_old_one_stays(
    tmp_path: Path, small: bytes, make: Any, code: str
) -> None:
    menus = store(tmp_path)
    before = download(menus, small, 1)
    with pytest.raises(MenuError) as refusal:
        download(menus, make(), 2)

    assert refusal.value.code == code
    for each in (menus, store(tmp_path)):
        assert each.current() == before
        assert each.price(10) == 260
    assert [path.name for path in tmp_path.iterdir()] == ["menu.bin"]


def test_a_menu_with_another_hash_than_the_beacon_named_is_refused(tmp_path: Path, small: bytes) -> None:
    menus = store(tmp_path)
    with pytest.raises(MenuError, match="MENU_HASH"):
        download(menus, small, 1, digest=bytes(32))
    assert menus.current() is None


def test_an_older_menu_is_refused(tmp_path: Path) -> None:
    menus = store(tmp_path)
    download(menus, frame(menu(5)), 5)
    for version in (4, 5):
        with pytest.raises(MenuError, match="MENU_STALE"):
            menus.begin(version, bytes(32), 1)


@pytest.mark.parametrize(("index", "size"), [(0, 1023), (0, 1025), (2, 1024), (1, 0), (-1, 10)])
def test_a_chunk_of_the_wrong_index_or_length_ends_the_download(
    tmp_path: Path, index: int, size: int
) -> None:
    menus = store(tmp_path)
    menus.begin(1, bytes(32), 2)
    with pytest.raises(MenuError, match="MENU_SHAPE"):
        menus.chunk(index, bytes(size))
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_download_cannot_be_swapped_in(tmp_path: Path) -> None:
    menus = store(tmp_path)
    menus.begin(1, bytes(32), 2)
    menus.chunk(0, bytes(1024))
    with pytest.raises(MenuError, match="MENU_STATE"):
        run_now(menus.finish_steps())


def test_a_full_file_system_keeps_the_old_menu(tmp_path: Path, small: bytes) -> None:
    menus = store(tmp_path)
    before = download(menus, small, 1)

    class NoSpace:
        """A file on a full disk."""

        def tell(self) -> int:
            return 0

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    menus.begin(2, bytes(32), 1)
    menus._file.close()
    menus._file = NoSpace()
    with pytest.raises(MenuError, match="MENU_NO_SPACE"):
        menus.chunk(0, b"x")
    assert menus.current() == before
    assert store(tmp_path).current() == before


@pytest.mark.parametrize("size", [0, 1, 33, 100])
def test_a_torn_menu_file_is_noticed_at_start(tmp_path: Path, small: bytes, size: int) -> None:
    download(store(tmp_path), small, 1)
    path = tmp_path / "menu.bin"
    path.write_bytes(path.read_bytes()[:size])
    menus = store(tmp_path)
    assert menus.current() is None
    assert menus.fault == "MENU_TORN"
    with pytest.raises(MenuError, match="NO_MENU"):
        menus.price(10)
    download(menus, small, 1)
    assert menus.fault is None


def test_a_rotten_bit_in_the_menu_file_is_noticed_at_start(tmp_path: Path, small: bytes) -> None:
    download(store(tmp_path), small, 1)
    path = tmp_path / "menu.bin"
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        rotten = bytearray(whole)
        rotten[at] ^= 4
        path.write_bytes(rotten)
        assert store(tmp_path).fault == "MENU_TORN"


@pytest.mark.parametrize(
    ("lines", "total"),
    [
        ([[10, 1, []]], 260),
        ([[10, 2, []], [12, 1, [101]]], 960),
        ([[11, 3, [201]]], 1170),
        ([[11, 1, [202, 101]]], 550),
        ([[10, 99, []]], 25740),
    ],
)
def test_a_total_is_the_sum_of_quantity_times_price_and_choices(
    tmp_path: Path, small: bytes, lines: list[Any], total: int
) -> None:
    menus = store(tmp_path)
    download(menus, small, 1)
    assert menus.total(lines) == total


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([[99, 1, []]], "UNKNOWN_ITEM"),
        ([[10, 0, []]], "BAD_QUANTITY"),
        ([[10, -1, []]], "BAD_QUANTITY"),
        ([[10, 100, []]], "BAD_QUANTITY"),
        ([[10, 1, [101]]], "MODIFIER_RULE"),
        ([[10, 1, [999]]], "UNKNOWN_MODIFIER"),
        ([[11, 1, []]], "MODIFIER_RULE"),
        ([[11, 1, [201, 202]]], "MODIFIER_RULE"),
        ([[12, 1, [101, 102]]], "MODIFIER_RULE"),
        ([], "TOO_LARGE"),
        ([[10, 1, []]] * 33, "TOO_LARGE"),
        ([[12, 1, [101] * 9]], "MODIFIER_RULE"),
    ],
)
def test_an_order_that_does_not_fit_the_menu_is_refused(
    tmp_path: Path, small: bytes, lines: list[Any], code: str
) -> None:
    menus = store(tmp_path)
    download(menus, small, 1)
    with pytest.raises(MenuError) as refusal:
        menus.total(lines)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("espresso", ["Espresso"]),
        ("FLAT white", ["Flat white"]),
        ("wh", ["Flat white"]),
        ("e", ["Espresso"]),
        ("latte", ["Caffè latte"]),
        ("tea", []),
    ],
)
def test_an_item_is_found_by_the_beginnings_of_its_words(
    tmp_path: Path, small: bytes, words: str, names: list[str]
) -> None:
    menus = store(tmp_path)
    download(menus, small, 1)
    assert [item.name for item in menus.find(words)] == names
