"""An ADBC client's steps."""

import threading
import time

import adbc_driver_manager
import pyarrow as pa
import pytest

import tidegate


@pytest.fixture
def connection(serve):
    server = serve()
    with server.connect() as connection:
        connection.server = server
        yield connection


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def declare(server, broker, name="walk"):
    server.query(f"""CREATE SOURCE {name} (a BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'walk',
      'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")


def record(a):
    return 0, b'{"a": %d, "ts": "2024-01-01T00:00:00Z"}' % a


def test_select(connection):
    assert rows(connection, "SELECT 1 AS x, 'y' AS y, NULL AS z") == [(1, "y", None)]
    assert rows(connection, "SELECT 1 WHERE false") == []


def test_parameters(connection):
    assert rows(connection, "SELECT CAST(? AS BIGINT) + ? AS s, ? AS t", (1, 2, "x")) == [(3, "x")]
    assert rows(connection, "SELECT ? AS a, ? AS b", (7, "y")) == [(7, "y")]
    assert rows(connection, "SELECT " + ", ".join(["?"] * 11), tuple(range(11))) == [tuple(range(11))]
    assert rows(connection, "SELECT $2 AS b, $1 AS a", ("x", 5)) == [(5, "x")]
    assert rows(connection, "SELECT CAST(? AS TEXT) IS NULL", (None,)) == [(True,)]
    # Text is data, whatever it says.
    assert rows(connection, "SELECT ? AS t", ("'; DROP VIEW v; --",)) == [("'; DROP VIEW v; --",)]


def test_a_prepared_statement_runs_again(connection):
    with connection.cursor() as cursor:
        for n in (1, 5, 2):
            cursor.execute("SELECT count(*) FROM generate_series(1, 10) AS s(n) WHERE n <= ?", (n,))
            assert cursor.fetchall() == [(n,)]


def test_parameters_in_a_query_over_a_view(serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    server.query("CREATE CONTINUOUS VIEW doubled AS SELECT a, a * 2 AS b FROM walk")
    broker.send("walk", [record(a) for a in range(10)])
    assert server.settle("SELECT count(*) FROM doubled", 10) == 10
    assert server.query("SELECT a, b FROM doubled WHERE a = ? OR b > ? ORDER BY a", (3, 15)) == [{"a": 3, "b": 6}, {"a": 8, "b": 16}, {"a": 9, "b": 18}]


def test_ddl_runs_exactly_once_and_without_a_fetch(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW once AS SELECT 1 AS a")
    assert rows(connection, "SELECT a FROM once") == [(1,)]
    with pytest.raises(Exception, match="(?i)exist"):
        rows(connection, "CREATE VIEW once AS SELECT 2 AS a")
    assert rows(connection, "SELECT a FROM once") == [(1,)]
    # A fetch after it neither fails nor runs it again.
    assert rows(connection, "CREATE VIEW twice AS SELECT 2 AS a") == []
    assert rows(connection, "DROP VIEW twice") == []


def test_metadata(serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    server.query("CREATE CONTINUOUS VIEW doubled AS SELECT a, a * 2 AS b, ts FROM walk")
    with server.connect() as connection:
        assert "tidegate" in str(connection.adbc_get_info()).lower()
        assert {"BASE TABLE", "VIEW"} <= set(connection.adbc_get_table_types())
        assert connection.adbc_get_table_schema("doubled").names == ["a", "b", "ts"]
        # What the catalog says of a column is what a query delivers.
        for name in ("walk", "doubled"):
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {name}")
                assert cursor.fetch_arrow_table().schema.types == connection.adbc_get_table_schema(name).types
        tree = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        tables = {t["table_name"]: t for c in tree for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []}
        assert [column["column_name"] for column in tables["walk"]["table_columns"]] == ["a", "ts"]
        assert "VIEW" in tables["doubled"]["table_type"]


def test_the_schema_is_known_without_running(connection):
    with connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT 1 AS n, 'x' AS t")
        assert schema.names == ["n", "t"] and schema.field("n").type == pa.int64() and pa.types.is_string(schema.field("t").type)


@pytest.mark.parametrize("sql, said", [("SELEC 1", "selec"), ("SELECT nonsense", "nonsense"), ("SELECT * FROM nothing_here", "nothing_here"), ("", "")])
def test_errors_name_the_thing_and_leave_the_connection_alive(sql, said, connection):
    with pytest.raises(adbc_driver_manager.Error) as raised:
        rows(connection, sql)
    assert said in str(raised.value).lower()
    assert "panicked" not in str(raised.value)
    assert rows(connection, "SELECT 2") == [(2,)]


def test_an_error_in_the_middle_of_an_answer(connection):
    with pytest.raises(adbc_driver_manager.Error, match="(?i)divi"):
        rows(connection, "SELECT 1 / (100000 - value) FROM generate_series(1, 200000)")
    assert rows(connection, "SELECT 2") == [(2,)]


def test_large_answers_come_whole_and_in_order(connection):
    [(count, least, most)] = rows(connection, "SELECT count(*), min(value), max(value) FROM generate_series(1, 3000000)")
    assert (count, least, most) == (3_000_000, 1, 3_000_000)
    with connection.cursor() as cursor:
        cursor.execute("SELECT value, repeat('x', 100) AS padding FROM generate_series(1, 300000) ORDER BY value")
        assert cursor.fetch_arrow_table().column("value").to_pylist() == list(range(1, 300_001))
    # One row alone may be larger than a batch usually is.
    [(text,)] = rows(connection, "SELECT repeat('y', 3000000)")
    assert len(text) == 3_000_000


def test_a_result_comes_in_several_streams_when_asked(connection):
    with connection.cursor() as cursor:
        cursor.execute("SET tidegate.endpoints = 4")
        cursor.execute("SELECT value FROM generate_series(1, 1000000)")
        values = cursor.fetch_arrow_table()["value"].to_pylist()
        assert sorted(values) == list(range(1, 1_000_001))
        cursor.execute("SELECT value FROM generate_series(1, 100000) ORDER BY value DESC")
        assert cursor.fetch_arrow_table()["value"].to_pylist() == list(range(100_000, 0, -1)), "what has an order comes in it"
        partitions, schema = cursor.adbc_execute_partitions("SELECT value FROM generate_series(1, 100000)")
        assert len(partitions) == 4
        read = []
        for partition in reversed(partitions):
            cursor.adbc_read_partition(partition)
            read += cursor.fetch_arrow_table()["value"].to_pylist()
        assert sorted(read) == list(range(1, 100_001)), "one part after the other, in any order"
        with pytest.raises(Exception, match="fetched already"):
            cursor.adbc_read_partition(partitions[0])
            cursor.fetch_arrow_table()
        cursor.execute("SET tidegate.endpoints = 1")
        partitions, schema = cursor.adbc_execute_partitions("SELECT value FROM generate_series(1, 10)")
        assert len(partitions) == 1
        with pytest.raises(Exception, match="from 1 to 64"):
            cursor.execute("SET tidegate.endpoints = 1000")


@pytest.mark.parametrize("how", ["lz4", "zstd", "none"])
def test_a_result_is_compressed_when_asked(how, connection):
    with connection.cursor() as cursor:
        cursor.execute(f"SET tidegate.compression = '{how}'")
        cursor.execute("SELECT value, repeat('goal', 20) AS text FROM generate_series(1, 100000)")
        table = cursor.fetch_arrow_table()
        assert table["value"].to_pylist() == list(range(1, 100_001)) and set(table["text"].to_pylist()) == {"goal" * 20}


@pytest.mark.parametrize("name", ["TABLE", "BASE TABLE"])
def test_tables_are_called_what_the_client_says(name, serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    with server.connect(**{"adbc.flight.sql.rpc.call_header.x-tidegate-base-table-type": name}) as connection:
        objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        tables = [table for catalog in objects for schema in catalog["catalog_db_schemas"] for table in schema["db_schema_tables"]]
        assert {table["table_type"] for table in tables if table["table_name"] == "walk"} == {name}
        assert name in connection.adbc_get_table_types()


def test_a_subscription_delivers_and_a_plain_select_ends(serve, embedded):
    broker, server = embedded(walk=2), serve()
    declare(server, broker)
    subscription = tidegate.Subscription(server, "SELECT a FROM walk EMIT CHANGES")
    time.sleep(0.5)
    broker.send("walk", [record(7)])
    assert tidegate.settle(lambda: [r["a"] for r in subscription.rows()], [7], 10) == [7]
    assert server.value("SELECT count(*) FROM walk") == 1
    assert subscription.cancel()
    assert server.value("SELECT count(*) FROM walk") == 1


def test_a_silent_subscription_sends_heartbeats_and_can_be_cancelled(serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    subscription = tidegate.Subscription(server, "SELECT a FROM walk WHERE a < 0 EMIT CHANGES")
    assert tidegate.settle(lambda: len(subscription.batches) >= 2, True, 40)
    assert subscription.rows() == []
    begin = time.monotonic()
    assert subscription.cancel()
    assert time.monotonic() - begin < 10


def test_what_a_cancelled_statement_did_is_over(serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    subscription = tidegate.Subscription(server, "SELECT a FROM walk EMIT CHANGES")
    running = lambda: sum("EMIT CHANGES" in str(value) for row in server.query("SHOW QUERIES") for value in row.values())
    assert tidegate.settle(running, 1, 10) == 1
    assert subscription.cancel()
    assert tidegate.settle(running, 0, 10) == 0


def test_two_subscriptions_get_the_same(serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    server.query("CREATE CONTINUOUS VIEW sums WITH (unbounded_state = true) AS SELECT a % 3 AS k, sum(a) AS total FROM walk GROUP BY a % 3 EMIT CHANGES")
    both = [tidegate.Subscription(server, "SELECT * FROM sums EMIT CHANGES") for _ in range(2)]
    broker.send("walk", [record(a) for a in range(1000)])
    want = {(k,): {"k": k, "total": sum(range(k, 1000, 3))} for k in range(3)}
    for subscription in both:
        assert tidegate.settle(lambda: tidegate.fold(subscription.rows(), ["k"]), want, 20) == want
    assert both[0].cancel()
    broker.send("walk", [record(1000)])
    want[1,] = {"k": 1, "total": want[1,]["total"] + 1000}
    assert tidegate.settle(lambda: tidegate.fold(both[1].rows(), ["k"]), want, 20) == want
    assert both[1].cancel()


def test_a_dropped_view_ends_its_subscriptions(serve, embedded):
    broker, server = embedded(walk=1), serve()
    declare(server, broker)
    server.query("CREATE CONTINUOUS VIEW doubled AS SELECT a * 2 AS b FROM walk")
    subscription = tidegate.Subscription(server, "SELECT b FROM doubled EMIT CHANGES")
    time.sleep(0.3)
    server.query("DROP VIEW doubled")
    assert subscription.ended.wait(10)
    assert "doubled" in str(subscription.error)


def test_sixteen_clients_at_once(serve):
    server, answers = serve(), []

    def work(i):
        with server.connect() as connection:
            answers.append(rows(connection, f"SELECT {i}, count(*) FROM generate_series(1, 100000)")[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [(i, 100_000) for i in range(16)]
