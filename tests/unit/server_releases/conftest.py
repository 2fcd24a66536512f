"""Makes the kit of tests/unit/server_order importable here; a database of every kind with one site."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.storage import admin
from server.storage.database import Database, open_database

sys.path.insert(0, str(Path(__file__).parents[1] / "server_order"))

from database_kit import KINDS, url_for


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path, create=True, url=url_for(request.param))) as opened:
        admin.ensure_site(opened, "demo")
        yield opened
