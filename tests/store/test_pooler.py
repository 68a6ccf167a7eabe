"""Postgres behind a pooler of transactions, as hosted databases are."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli.command import complaint, run
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually
from tests.store.pooler import PgBouncer


@pytest.fixture
def pooler(shared_postgres):
    with PgBouncer(shared_postgres) as pooler:
        yield pooler


def test_server_behind_a_pooler(tmp_path, pooler, database):
    """Everything works: migrations, import, lookups and searches side by side, prices that are kept."""
    variables = {"DATABASE_URL": pooler.url(database), "DATABASE_POOLER": "transaction"}
    assert run(tmp_path, "import", **variables).returncode == 0
    with ServerProcess(
        tmp_path, PRICE_UPDATE_INTERVAL="50ms", PRICE_WRITE_INTERVAL="100ms", **variables
    ) as server:
        with Client(server, "AAPL,MSFT") as client:
            client.receive()
            eventually(
                lambda: server.metric('market_data_db_query_seconds_count{query="save"}') > 3
            )
        symbols = ["MMM", "AOS", "ABT", "ABBV", "ACN", "ATVI", "ADBE", "AMD", "AES", "AFL"] * 5
        with ThreadPoolExecutor(8) as pool:
            asked = [f"/instruments/{symbol}" for symbol in symbols]
            asked += [f"/instruments?query={symbol}" for symbol in symbols]
            answers = list(pool.map(server.ask, asked))
        assert {status for status, _ in answers} <= {200, 404}
        assert sum(status == 200 for status, _ in answers) > 80
        assert server.metric("market_data_db_errors_total") == 0
    assert run(tmp_path, "delist", "MMM", **variables).returncode == 0


def test_without_the_setting_the_message_names_it(tmp_path, pooler, database):
    """Two commands in turn meet prepared statements of the other."""
    lines = []
    for _ in range(5):
        done = run(tmp_path, "import", DATABASE_URL=pooler.url(database))
        lines += done.stderr.splitlines()
    assert any("DATABASE_POOLER=transaction" in line for line in lines)
    assert "DATABASE_POOLER" in complaint(tmp_path, "migrate", DATABASE_POOLER="session")
