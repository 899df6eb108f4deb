"""What one statement may take from the others: places, time, memory, length; over a limit a clear error, and everybody else goes on."""

import threading
import time

import adbc_driver_manager
import pytest
import tidegate

ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 3"


@pytest.fixture
def limited(serve, tmp_path):
    """`limited(settings)` starts a server with these settings in its configuration file."""

    def start(settings):
        file = tmp_path / "limits.toml"
        file.write_text(settings)
        return serve("--config", file)

    return start


class Query:
    """A query in a thread of its own."""

    def __init__(self, server, sql):
        self.connection, self.error, self.rows = server.connect(), None, None
        self.cursor = self.connection.cursor()
        self.thread = threading.Thread(target=self._run, args=(sql,), daemon=True)
        self.thread.start()

    def _run(self, sql):
        try:
            self.cursor.execute(sql)
            self.rows = self.cursor.fetchall()
        except Exception as error:
            self.error = error

    def end(self):
        self.thread.join(60)
        assert not self.thread.is_alive(), "the query does not end"
        self.cursor.close()
        self.connection.close()
        return tidegate.message(self.error) if self.error else self.rows


def running(server):
    return [row["id"] for row in server.query("SHOW QUERIES") if row["sql"] == ENDLESS]


def test_places_are_limited(limited):
    server = limited("max_statements = 2\nmax_queued = 1\nqueue_timeout = '20s'")
    first, second = Query(server, ENDLESS), Query(server, ENDLESS)
    assert tidegate.settle(lambda: len(running(server)), 2) == 2
    third = Query(server, ENDLESS)
    assert tidegate.settle(lambda: len(running(server)), 3) == 3
    with pytest.raises(adbc_driver_manager.Error) as refused:
        server.query("SELECT 1")
    assert "2 queries run and 1 wait already" in str(refused.value), refused.value
    # What tells and ends them is not kept waiting.
    server.query("SHOW VIEWS")
    for query in running(server):
        server.query(f"KILL QUERY {query}")
    for query in (first, second, third):
        assert "was killed" in query.end()
    assert server.value("SELECT 1") == 1


def test_a_place_is_waited_for(limited):
    server = limited("max_statements = 1\nqueue_timeout = '300ms'")
    holds = Query(server, ENDLESS)
    assert tidegate.settle(lambda: len(running(server)), 1) == 1
    assert "has waited 300ms for one of the 1 that run" in server.refusal("SELECT 1")
    holds.cursor.adbc_cancel()
    holds.end()
    assert server.settle("SELECT 1", 1) == 1, "the place is free when its client goes"


def test_time_is_limited(limited):
    server = limited("statement_timeout = '400ms'")
    began = time.time()
    assert "longer than 400ms, its statement_timeout" in server.refusal(ENDLESS)
    assert time.time() - began < 20
    server.query("SET tidegate.statement_timeout = '50 ms'")
    assert "longer than 50ms" in server.refusal(ENDLESS)
    server.query("SET tidegate.statement_timeout = 'none'")
    endless = Query(server, ENDLESS)
    assert "longer than 400ms" in endless.end(), "another session's setting is another one's"


def test_memory_is_limited_and_disk_is_used_before(limited):
    server = limited("query_memory_limit = '64 MiB'\nmemory_limit = '1 GiB'")
    # 112 MB that are sorted, with the help of the disk.
    rows = server.table("SELECT value, value % 1000 AS k FROM generate_series(1, 7000000) ORDER BY k, value DESC")
    assert rows.num_rows == 7_000_000 and rows.column("k")[0].as_py() == 0 and rows.column("value")[0].as_py() == 7_000_000
    assert [path for path in (server.data / "spill").rglob("*") if path.is_file()] == []
    said = server.refusal("SELECT array_agg(value || ' is a number') FROM generate_series(1, 7000000)")
    assert "query_memory_limit" in said or "memory" in said.lower(), said
    assert server.value("SELECT count(*) FROM generate_series(1, 3000000)") == 3_000_000


def test_length_is_limited(serve):
    server = serve()
    said = server.refusal(f"SELECT '{'x' * (1 << 20)}'")
    assert "more than the 1048576 that are taken" in said, said
    assert server.value(f"SELECT length('{'x' * 500_000}')") == 500_000
    # Deep nesting is an error of the statement, not of the server.
    assert server.refusal("SELECT " + "(" * 20_000 + "1" + ")" * 20_000)
    assert server.value("SELECT 1") == 1


def test_heavy_queries_keep_nobody_from_being_answered(serve):
    server = serve()
    heavy = [Query(server, ENDLESS) for _ in range(8)]
    assert tidegate.settle(lambda: len(running(server)), 8) == 8
    for _ in range(20):
        assert server.value("SELECT 1") == 1
    for query in running(server):
        server.query(f"KILL QUERY {query}")
    assert all("was killed" in query.end() for query in heavy)
