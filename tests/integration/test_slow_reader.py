"""A feed client that does not read, on a real socket: it keeps no place and costs no memory."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from server_bench import SITE, prepare_state, run, soon
from websockets.asyncio.client import connect

from server.app import OrderServer
from server.config import ServerConfig
from server.storage.database import database_path, open_database
from server.storage.tokens import TokenRow, add_token
from server.web import feed
from server.web.access import hash_of, new_token

EVENTS, TEXT_BYTES = 3000, 4000  # 12 MB: more than both ends' socket buffers
TOKEN = new_token(bytes(32))


def open_feeds(address: tuple[str, int]) -> float:
    """How many feeds the server has open, as its metrics say."""
    text = httpx.get(f"http://{address[0]}:{address[1]}/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("tableside_feeds"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A site with a long history and a token."""
    folder = prepare_state(tmp_path)
    with closing(sqlite3.connect(database_path(folder))) as connection:
        connection.execute("UPDATE site SET lsn = ?", (EVENTS,))
        connection.executemany(
            "INSERT INTO event (site, lsn, kind, author, reason, body, created_at) "
            "VALUES (?, ?, 'noted', 'anna', '', ?, 1)",
            [(SITE, lsn, '{"note": "' + "x" * TEXT_BYTES + '"}') for lsn in range(1, EVENTS + 1)],
        )
        connection.commit()
    digest = hash_of(TOKEN)
    assert digest is not None
    with closing(open_database(folder)) as database:
        add_token(database, SITE, TokenRow("01", "manager", "boss", None, 1, None, None), digest)
    return folder


def test_a_client_that_reads_nothing_is_let_go_and_goes_on_where_it_was(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SEND_TIMEOUT_S", 0.5)

    async def scenario() -> None:
        server = OrderServer(ServerConfig(state=state, http=("127.0.0.1", 0)))
        await server.start()
        try:
            address = server.http_address
            assert address is not None
            url = f"ws://{address[0]}:{address[1]}/v1/feed?after="
            headers = {"Authorization": f"Bearer {TOKEN}"}
            narrow = socket.create_connection(address)
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow = await connect(
                url + "0", sock=narrow, additional_headers=headers, max_queue=1, ping_interval=None
            )
            await soon(lambda: open_feeds(address) == 0, "the slow client is let go")
            assert '"lsn":1,' in str(await asyncio.wait_for(slow.recv(), 10))
            slow.transport.abort()
            async with connect(url + "1", additional_headers=headers) as again:
                assert '"lsn":2,' in str(await asyncio.wait_for(again.recv(), 10))
        finally:
            await server.stop()

    run(scenario())
