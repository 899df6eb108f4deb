"""Tables: what SQL and uploads make of them, over restarts and kills, compared with SQLite."""

import datetime
import decimal
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

import tidegate


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def cursor(server):
    with server.connect() as connection, connection.cursor() as cursor:
        yield cursor


def update(cursor, sql):
    """Executes a statement as an update; the number of rows that the server tells."""
    cursor.adbc_statement.set_sql_query(sql)
    return cursor.adbc_statement.execute_update()


def test_a_table(server, cursor):
    assert update(cursor, "CREATE TABLE t (a BIGINT NOT NULL, b TEXT DEFAULT 'none', c DOUBLE)") in (0, -1)
    assert update(cursor, "INSERT INTO t VALUES (1, 'x', 1.5), (2, NULL, NULL)") == 2
    assert update(cursor, "INSERT INTO t (a) VALUES (3)") == 1
    assert update(cursor, "INSERT INTO t (c, a) SELECT a * 0.5, a + 10 FROM t") == 3
    assert server.query("SELECT * FROM t ORDER BY a") == [
        {"a": 1, "b": "x", "c": 1.5}, {"a": 2, "b": None, "c": None}, {"a": 3, "b": "none", "c": None},
        {"a": 11, "b": "none", "c": 0.5}, {"a": 12, "b": "none", "c": 1.0}, {"a": 13, "b": "none", "c": 1.5}]
    assert update(cursor, "UPDATE t SET b = upper(coalesce(b, 'y')), c = c + 1 WHERE a < 12") == 4
    assert update(cursor, "DELETE FROM t WHERE a > 11") == 2
    assert update(cursor, "DELETE FROM t WHERE a > 11") == 0
    want = [{"a": 1, "b": "X", "c": 2.5}, {"a": 2, "b": "Y", "c": None}, {"a": 3, "b": "NONE", "c": None}, {"a": 11, "b": "NONE", "c": 1.5}]
    assert server.query("SELECT * FROM t ORDER BY a") == want
    server.restart()
    assert server.query("SELECT * FROM t ORDER BY a") == want
    server.query("TRUNCATE TABLE t")
    assert server.value("SELECT count(*) FROM t") == 0
    server.query("INSERT OVERWRITE t SELECT 7, 'z', 0")
    server.query("INSERT OVERWRITE t SELECT a + 1, b, c FROM t")
    assert server.query("SELECT * FROM t") == [{"a": 8, "b": "z", "c": 0.0}]
    server.query("DROP TABLE t")
    assert "t" in server.refusal("SELECT * FROM t")
    assert list((server.data / "tables").iterdir()) == []


def test_where_means_what_it_means_in_a_select(server, cursor):
    for what in ["DELETE FROM t", "UPDATE t SET a = a"]:
        for condition in ["a = 1", "a IN (SELECT b FROM u)", "a NOT IN (SELECT b FROM u)", "a NOT IN (SELECT b FROM u WHERE b IS NOT NULL)", "a > (SELECT min(a) FROM t)",
                          "EXISTS (SELECT 1 FROM u WHERE u.b = t.a)", "NOT EXISTS (SELECT 1 FROM u WHERE u.b = t.a)", "a IS NULL", "a = 1 OR a IN (SELECT b FROM u)",
                          "NOT (a = 1)", "NULL", "TRUE", "FALSE", "a = 2 AND a IN (SELECT b FROM u)"]:
            server.query("CREATE OR REPLACE TABLE t AS VALUES (1), (2), (3), (4), (NULL), (2)")
            server.query("CREATE OR REPLACE TABLE t AS SELECT column1 AS a FROM t")
            server.query("CREATE OR REPLACE TABLE u AS SELECT * FROM (VALUES (2), (4), (NULL)) AS x (b)")
            touched = server.value(f"SELECT count(*) FROM t WHERE {condition}")
            assert update(cursor, f"{what} WHERE {condition}") == touched, condition
            assert server.value("SELECT count(*) FROM t") == (6 if what.startswith("UPDATE") else 6 - touched), condition


def test_update_forms(server, cursor):
    server.query("CREATE TABLE t AS SELECT value AS a, CAST(value AS TEXT) AS b FROM generate_series(1, 10)")
    assert update(cursor, "UPDATE t AS x SET b = 'x' WHERE x.a = 3") == 1
    assert update(cursor, "UPDATE t SET B = (SELECT max(b) FROM t WHERE a < 3), a = -a WHERE a IN (SELECT a FROM t WHERE a > 9)") == 1
    assert server.query("SELECT a, b FROM t WHERE a < 0 OR a = 3 ORDER BY a") == [{"a": -10, "b": "2"}, {"a": 3, "b": "x"}]
    assert update(cursor, "UPDATE t SET a = 0") == 10
    assert server.value("SELECT sum(a) FROM t") == 0
    assert "nothing" in server.refusal("UPDATE t SET nothing = 1")
    assert "twice" in server.refusal("UPDATE t SET a = 1, a = 2")


def test_values_that_do_not_fit_are_told_with_their_column(server):
    server.query("CREATE TABLE t (a TINYINT NOT NULL, b TIMESTAMP, c TEXT)")
    for statement, words in [
        ("INSERT INTO t VALUES (1, NULL, 'x'), (300, NULL, NULL)", ["column a", "300", "row 2"]),
        ("INSERT INTO t VALUES (1, 'yesterday', 'x')", ["column b", "yesterday"]),
        ("INSERT INTO t (b) VALUES (NULL)", ["column a", "NOT NULL"]),
        ("INSERT INTO t VALUES (NULL, NULL, NULL)", ["column a", "NOT NULL"]),
        ("INSERT INTO t SELECT value, NULL, NULL FROM generate_series(1, 200)", ["column a", "128", "row 128"]),
        ("INSERT INTO t SELECT 1, 'x' || value, NULL FROM generate_series(1, 2)", ["column b", "x1"]),
        ("INSERT INTO t SELECT NULL, NULL, NULL", ["column a", "NOT NULL"]),
        ("INSERT INTO t VALUES (1, NULL)", ["2 values", "3"]),
        ("INSERT INTO t (a, z) VALUES (1, NULL)", ["z"]),
        ("INSERT INTO nothing VALUES (1)", ["nothing"]),
        ("CREATE TABLE t (a INT)", ["exist"]),
        ("CREATE TABLE u (a INT, a INT)", ["twice"]),
        ("CREATE TABLE u AS SELECT 1 AS a, 2 AS a", ["a"]),
        ("CREATE TABLE u (a INT PRIMARY KEY)", ["PRIMARY KEY"]),
        ("CREATE TABLE u (a INT DEFAULT 'x')", ["default"]),
        ("CREATE TABLE u (a INT DEFAULT random())", ["default"]),
        ("CREATE TABLE u AS SELECT INTERVAL '1 month' AS a", ["column a", "interval"]),
        ("CREATE TEMPORARY TABLE u (a INT)", ["temporary"]),
        ("CREATE TABLE u (a INT) WITH (x = 1)", ["options"]),
        ("CREATE TABLE u AS INSERT INTO t VALUES (1, NULL, NULL)", ["query"]),
        ("CREATE TABLE u AS SELECT * FROM t EMIT CHANGES", ["EMIT"]),
        ("DROP VIEW t", ["DROP TABLE"]),
        ("DROP TABLE nothing", ["nothing"]),
        ("REPLACE INTO t VALUES (1, NULL, NULL)", ["REPLACE"]),
        ("DELETE FROM information_schema.tables", ["tables"]),
        ("INSERT INTO system.views SELECT * FROM system.views", ["views"]),
        ("EXPLAIN DELETE FROM t", ["explain"]),
    ]:
        refusal = server.refusal(statement)
        assert all(word.lower() in refusal.lower() for word in words), f"{statement}: {refusal}"
    assert server.value("SELECT count(*) FROM t") == 0
    server.query("INSERT INTO t VALUES (1, '2024-01-01', 'x')")
    for statement, words in [
        ("UPDATE t SET a = a + 200", ["column a", "201"]),
        ("UPDATE t SET a = NULL", ["column a", "NOT NULL"]),
        ("UPDATE t SET b = 'never'", ["never"]),
    ]:
        refusal = server.refusal(statement)
        assert all(word.lower() in refusal.lower() for word in words), f"{statement}: {refusal}"
    assert server.query("SELECT a, c FROM t") == [{"a": 1, "c": "x"}]


def test_where_tables_show(server):
    server.query('CREATE TABLE IF NOT EXISTS "Odd Name" (a INT NOT NULL DEFAULT -1, "B c" DECIMAL(10, 2) DEFAULT 1.50, d DATE DEFAULT DATE \'2024-02-29\', e ARRAY<STRUCT<x INT, y TEXT>>)')
    server.query('CREATE TABLE IF NOT EXISTS "Odd Name" (z INT)')
    server.query('INSERT INTO "Odd Name" (e) VALUES (NULL)')
    assert server.query("SHOW TABLES") == [{"name": "Odd Name", "kind": "table"}]
    statement = server.query('SHOW CREATE TABLE "Odd Name"')[0]["statement"]
    row = server.query('SELECT * FROM "Odd Name"')
    assert row == [{"a": -1, "B c": decimal.Decimal("1.50"), "d": datetime.date(2024, 2, 29), "e": None}]
    server.query('DROP TABLE "Odd Name"')
    server.query(statement)
    server.query('INSERT INTO "Odd Name" (e) VALUES (NULL)')
    assert server.query('SELECT * FROM "Odd Name"') == row
    with server.connect() as connection:
        [catalog] = [c for c in connection.adbc_get_objects(depth="tables").read_all().to_pylist() if c["catalog_name"] == "tidegate"]
        tables = {t["table_name"]: t["table_type"] for s in catalog["catalog_db_schemas"] for t in s["db_schema_tables"]}
        assert tables["Odd Name"] == "BASE TABLE"
        assert connection.adbc_get_table_schema("Odd Name").field("a").type == pa.int32()
    rows = server.query("SELECT column_name, is_nullable, column_default FROM information_schema.columns WHERE table_name = 'Odd Name' ORDER BY ordinal_position")
    assert [(r["column_name"], r["is_nullable"]) for r in rows] == [("a", "NO"), ("B c", "YES"), ("d", "YES"), ("e", "YES")]
    server.query("CREATE VIEW v AS SELECT a FROM \"Odd Name\"")
    assert "v" in server.refusal('DROP TABLE "Odd Name"')
    assert "v" in server.refusal('CREATE OR REPLACE TABLE "Odd Name" (a INT)')
    assert server.value("SELECT a FROM v") == -1
    server.query('DROP TABLE "Odd Name" CASCADE')
    assert server.query("SHOW TABLES") == []
    server.query("DROP TABLE IF EXISTS nothing")


def test_rows_count_without_reading_and_conditions_prune(server):
    server.query("CREATE TABLE t AS SELECT value AS a FROM generate_series(1, 100000)")
    plan = "\n".join(row["plan"] for row in server.query("EXPLAIN SELECT count(*) FROM t"))
    assert "DataSourceExec" not in plan and "PlaceholderRowExec" in plan, plan
    plan = "\n".join(row["plan"] for row in server.query("EXPLAIN SELECT * FROM t WHERE a > 5"))
    assert "pruning_predicate" in plan, plan


def types():
    """A column of every type that a client can upload, with NULL in it."""
    instant = datetime.datetime(2024, 2, 29, 12, 34, 56, 789012)
    columns = {
        "bool": pa.array([True, None, False]),
        **{f"{name}": pa.array([0, None, 100], getattr(pa, name)()) for name in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]},
        "float32": pa.array([1.5, None, float("nan")], pa.float32()),
        "float64": pa.array([1.5, None, float("inf")], pa.float64()),
        "text": pa.array(["", None, "ä"]),
        "large_text": pa.array(["", None, "ä"], pa.large_string()),
        "bytes": pa.array([b"", None, b"\0\xff"]),
        "large_bytes": pa.array([b"", None, b"\0\xff"], pa.large_binary()),
        "fixed": pa.array([b"abc", None, b"def"], pa.binary(3)),
        "decimal": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-99999999.99")], pa.decimal128(10, 2)),
        "decimal256": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-9.99")], pa.decimal256(60, 2)),
        "date": pa.array([instant.date(), None, datetime.date(1, 1, 1)]),
        "date64": pa.array([instant.date(), None, datetime.date(1999, 1, 1)], pa.date64()),
        "time32": pa.array([1, None, 86399999], pa.time32("ms")),
        "time64": pa.array([1, None, 86399999999999], pa.time64("ns")),
        **{f"timestamp_{unit}": pa.array([0, None, -1], pa.timestamp(unit)) for unit in ["s", "ms", "us", "ns"]},
        "utc": pa.array([0, None, -1], pa.timestamp("us", "UTC")),
        "zoned": pa.array([0, None, -1], pa.timestamp("ms", "Europe/Madrid")),
        **{f"duration_{unit}": pa.array([0, None, -1], pa.duration(unit)) for unit in ["s", "ms", "us", "ns"]},
        "list": pa.array([[1, None], None, []], pa.list_(pa.int32())),
        "large_list": pa.array([[1, None], None, []], pa.large_list(pa.int32())),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}], pa.struct([("a", pa.int8()), ("b", pa.string())])),
        "nested": pa.array([[{"a": [1.5], "b": instant}], None, []], pa.list_(pa.struct([("a", pa.list_(pa.float64())), ("b", pa.timestamp("us"))]))),
        "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "dictionary": pa.array(["x", None, "y"]).dictionary_encode(),
        "fixed_list": pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2)),
        "half": pa.array([1.5, None, -2.0], pa.float16()),
        "null": pa.nulls(3),
    }
    return pa.table(columns)


def same(got, want):
    """The same values, whatever their Arrow types (NaN is NaN)."""
    assert got.column_names == want.column_names
    for name in want.column_names:
        assert repr(got[name].to_pylist()) == repr(want[name].to_pylist()), name


def test_types_round_trip(server):
    table = types()
    with server.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("everything", table, mode="create") == 3
        assert cursor.adbc_ingest("everything", table, mode="append") == 3
    once = server.table("SELECT * FROM everything")
    same(once.slice(0, 3), table)
    same(once.slice(3, 3), table)
    kept = {name: str(once[name].type) for name in once.column_names}
    assert kept["zoned"] == "timestamp[ms, tz=Europe/Madrid]" and kept["duration_ns"] == "duration[ns]" and kept["decimal256"] == "decimal256(60, 2)"
    statement = server.query("SHOW CREATE TABLE everything")[0]["statement"]
    server.restart()
    again = server.table("SELECT * FROM everything")
    assert again.schema == once.schema
    same(again, once)
    # A table of a query's rows, and one of the statement that is shown, keep the same.
    server.query("CREATE TABLE copy AS SELECT * FROM everything")
    same(server.table("SELECT * FROM copy"), once)
    server.query("DROP TABLE everything")
    server.query(statement)
    server.query("INSERT INTO everything SELECT * FROM copy")
    assert server.table("SELECT * FROM everything").schema == once.schema
    same(server.table("SELECT * FROM everything"), once)


def test_upload_modes(server):
    rows = lambda *a: pa.table({"a": pa.array(a, pa.int64()), "b": [f"row {x}" for x in a]})
    with server.connect() as connection, connection.cursor() as cursor:
        # A driver's cursor keeps the options of an upload.
        refused = lambda *arguments, **options: tidegate.message(pytest.raises(Exception, connection.cursor().adbc_ingest, *arguments, **options).value)
        assert "t" in refused("t", rows(1), mode="append")
        assert cursor.adbc_ingest("t", rows(1, 2), mode="create") == 2
        assert "exist" in refused("t", rows(3), mode="create")
        assert cursor.adbc_ingest("t", rows(3), mode="append") == 1
        assert cursor.adbc_ingest("t", rows(4), mode="create_append", catalog_name="tidegate", db_schema_name="public") == 1
        assert cursor.adbc_ingest("u", rows(4), mode="create_append") == 1
        assert server.query("SELECT a FROM t ORDER BY a") == [{"a": a} for a in [1, 2, 3, 4]]
        assert cursor.adbc_ingest("t", rows(9), mode="replace") == 1
        assert cursor.adbc_ingest("new", rows(9), mode="replace") == 1
        assert server.query("SELECT a, b FROM t") == [{"a": 9, "b": "row 9"}]
        # By name: missing columns are NULL, unknown ones refused.
        assert cursor.adbc_ingest("t", pa.table({"b": ["only"]}), mode="append") == 1
        assert server.query("SELECT a, b FROM t ORDER BY a") == [{"a": 9, "b": "row 9"}, {"a": None, "b": "only"}]
        assert cursor.adbc_ingest("t", pa.table({"b": ["x"], "a": pa.array([5], pa.int8())}), mode="append") == 1
        assert "zz" in refused("t", pa.table({"zz": [1]}), mode="append")
        assert "column a" in refused("t", pa.table({"a": ["text"]}), mode="append")
        assert "temporary" in refused("x", rows(1), mode="create", temporary=True)
        assert "nowhere" in refused("x", rows(1), mode="create", db_schema_name="nowhere")
        assert "system" in refused("views", rows(1), mode="append", db_schema_name="system")
        assert "__x" in refused("__x", rows(1), mode="create")
        server.query("CREATE VIEW v AS SELECT a FROM t")
        assert "v" in refused("v", rows(1), mode="append")
        assert "v" in refused("t", rows(1), mode="replace")
        assert cursor.adbc_ingest("empty", pa.RecordBatchReader.from_batches(rows(1).schema, [rows(1).to_batches()[0].slice(0, 0)]), mode="create") == 0
        assert server.query("SELECT * FROM empty") == []
        assert server.value("SELECT count(*) FROM t") == 3
        server.query("CREATE TABLE strict (a BIGINT NOT NULL, b TEXT NOT NULL DEFAULT 'b')")
        assert cursor.adbc_ingest("strict", pa.table({"a": [1]}), mode="append") == 1
        assert "NOT NULL" in refused("strict", pa.table({"a": [1, None]}), mode="append")
        assert server.query("SELECT * FROM strict") == [{"a": 1, "b": "b"}]


def test_an_upload_that_breaks_off_leaves_nothing(server):
    def broken():
        for n in range(20):
            yield pa.record_batch({"a": pa.array(range(n * 10000, n * 10000 + 10000), pa.int64())})
        raise RuntimeError("the client's own fault")

    server.query("CREATE TABLE t (a BIGINT)")
    schema = pa.schema([("a", pa.int64())])
    for name, mode in [("t", "append"), ("u", "create")]:
        with server.connect() as connection, connection.cursor() as cursor:
            with pytest.raises(Exception):
                cursor.adbc_ingest(name, pa.RecordBatchReader.from_batches(schema, broken()), mode=mode)
    assert server.value("SELECT count(*) FROM t") == 0
    assert "u" in server.refusal("SELECT * FROM u")
    files = lambda: [p for p in (server.data / "tables").rglob("*.parquet")]
    assert tidegate.settle(lambda: len(files()), 0) == 0, files()


def test_a_large_upload_is_streamed(server):
    batch = pa.record_batch({"a": pa.array(range(65536), pa.int64()), "b": ["x" * 100] * 65536})
    reader = pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(30)))
    with server.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("big", reader, mode="create") == 30 * 65536
    assert server.query("SELECT count(*) AS n, count(DISTINCT a) AS d, min(length(b)) AS l FROM big") == [{"n": 30 * 65536, "d": 65536, "l": 100}]


UPLOAD = """
import sys, time, pyarrow as pa, adbc_driver_flightsql.dbapi as flight
url, name, mode = sys.argv[1:]
batch = pa.record_batch({"a": pa.array(range(10000), pa.int64())})
def batches():
    for _ in range(1000):
        yield batch
        time.sleep(0.02)
flight.connect(url, autocommit=True).cursor().adbc_ingest(name, pa.RecordBatchReader.from_batches(batch.schema, batches()), mode=mode)
"""


def test_uploads_that_are_killed_leave_nothing(server):
    server.query("CREATE TABLE t (a BIGINT)")
    uploads = [subprocess.Popen([sys.executable, "-c", UPLOAD, server.url, *arguments], stderr=subprocess.PIPE) for arguments in [("t", "append"), ("u", "create"), ("t", "create_append")]]
    running = lambda: [row["id"] for row in server.query("SHOW QUERIES") if row["sql"].startswith("upload into ")]
    try:
        assert tidegate.settle(lambda: len(running()), 3) == 3
        # They don't keep others waiting.
        server.query("INSERT INTO t VALUES (1)")
        uploads[0].kill()
        uploads[1].kill()
        assert tidegate.settle(lambda: len(running()), 1) == 1
        [last] = running()
        server.query(f"KILL QUERY {last}")
        assert b"was killed" in uploads[2].communicate(timeout=30)[1]
    finally:
        for upload in uploads:
            upload.kill()
    assert server.query("SELECT name, rows FROM system.tables") == [{"name": "t", "rows": 1}]
    files = lambda: len([p for p in (server.data / "tables").rglob("*.parquet")])
    assert tidegate.settle(files, 1) == 1


def test_statements_race_for_a_table_that_comes_and_goes(server):
    wrong, stop = [], threading.Event()

    def run(sql):
        with server.connect() as connection, connection.cursor() as cursor:
            while not stop.is_set():
                try:
                    cursor.execute(sql)
                    cursor.fetchall()
                except Exception as error:
                    said = tidegate.message(error)
                    if not any(words in said for words in ["dropped meanwhile", "exists already", "not found", "there is no table"]):
                        wrong.append(f"{sql}: {said}")

    statements = ["CREATE OR REPLACE TABLE r AS SELECT value AS a FROM generate_series(1, 1000)", "INSERT INTO r SELECT 1 FROM r", "DELETE FROM r WHERE a % 2 = 0",
                  "SELECT count(*), sum(a) FROM r", "DROP TABLE r", "UPDATE r SET a = a + 1"]
    threads = [threading.Thread(target=run, args=(sql,)) for sql in statements]
    [thread.start() for thread in threads]
    time.sleep(4)
    stop.set()
    [thread.join() for thread in threads]
    assert not wrong, wrong[:3]
    folders = lambda: len(list((server.data / "tables").iterdir()))
    assert tidegate.settle(folders, len(server.query("SHOW TABLES"))) == len(server.query("SHOW TABLES"))
    server.restart()
    server.query("CREATE OR REPLACE TABLE r AS SELECT 1 AS a")
    assert server.query("SELECT * FROM r") == [{"a": 1}] and folders() == 1


def test_polars_and_pandas(server):
    polars, pandas = pytest.importorskip("polars"), pytest.importorskip("pandas")
    with server.connect() as connection:
        frame = polars.DataFrame({"a": [1, 2], "b": ["x", None], "c": [datetime.datetime(2024, 1, 1), None]})
        assert frame.write_database("p", connection, engine="adbc") == 2
        assert frame.write_database("p", connection, engine="adbc", if_table_exists="append") == 2
        assert polars.read_database("SELECT * FROM p ORDER BY a", connection)["a"].to_list() == [1, 1, 2, 2]
        assert frame.write_database("p", connection, engine="adbc", if_table_exists="replace") == 2
        assert polars.read_database("SELECT * FROM p ORDER BY a", connection).equals(frame)
        frame = pandas.DataFrame({"A": [1, 2], "b": ["x", "y"]})
        assert frame.to_sql("q", connection, index=False) == 2
        assert frame.to_sql("q", connection, index=False, if_exists="append") == 2
        with pytest.raises(Exception):
            frame.to_sql("q", connection, index=False)
        frame.to_sql("q", connection, index=False, if_exists="replace")
        assert pandas.read_sql('SELECT "A", b FROM q ORDER BY 1', connection).to_dict("list") == {"A": [1, 2], "b": ["x", "y"]}


def changes(server, table):
    """The number of the table's last change."""
    [folder] = (server.data / "tables").iterdir()
    return max(int(p.name[9:21]) for p in folder.glob("manifest-*.json"))


def test_many_rows_of_parameters_are_one_change(server):
    server.query("CREATE TABLE t (a BIGINT, b TEXT DEFAULT 'd', c TIMESTAMP)")
    before = changes(server, "t")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (?, ?, NULL)", [(n, f"row {n}") for n in range(5000)])
        assert cursor.rowcount == 5000
        assert changes(server, "t") == before + 1
        cursor.executemany("INSERT INTO t (a, c) VALUES (? + 1, ?)", [(n, None) for n in range(100)])
        assert server.query("SELECT count(*) AS n, sum(a) AS s, max(b) AS b FROM t") == [{"n": 5100, "s": 4999 * 2500 + 5050, "b": "row 999"}]
        with pytest.raises(Exception):
            cursor.executemany("INSERT INTO t (a) VALUES (CAST(? AS BIGINT))", [("1",), ("x",)])
        assert server.value("SELECT count(*) FROM t") == 5100
        cursor.executemany("DELETE FROM t WHERE a = ?", [(n,) for n in range(3)])
        cursor.execute("INSERT INTO t (a) VALUES (?)", (-1,))
        cursor.execute("UPDATE t SET b = ? WHERE a = ?", ("changed", -1))
        assert server.query("SELECT a, b FROM t WHERE a < 3") == [{"a": -1, "b": "changed"}]


def test_statements_take_effect_once_through_every_door(server):
    server.query("CREATE TABLE t (a BIGINT)")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")
        assert cursor.rowcount == 1
        assert cursor.fetchall() == []
        cursor.executescript("INSERT INTO t VALUES (2)")
        update(cursor, "INSERT INTO t VALUES (3)")
        cursor.execute("INSERT INTO t VALUES (?)", (4,))
        cursor.execute("EXPLAIN SELECT * FROM t")
    assert server.query("SELECT a FROM t ORDER BY a") == [{"a": a} for a in [1, 2, 3, 4]]


def test_many_small_inserts_become_few_files(server):
    server.query("CREATE TABLE t (a BIGINT)")
    for n in range(100):
        server.query(f"INSERT INTO t VALUES ({n})")
    files = [p for p in (server.data / "tables").rglob("*.parquet")]
    assert len(files) < 20, files
    assert server.query("SELECT count(*) AS n, sum(a) AS s FROM t") == [{"n": 100, "s": 4950}]
    server.restart()
    assert server.query("SELECT count(*) AS n, sum(a) AS s FROM t") == [{"n": 100, "s": 4950}]


SEED = int(os.environ.get("TIDEGATE_SEED", random.randrange(1 << 30)))


def test_random_statements_against_sqlite(server):
    print(f"TIDEGATE_SEED={SEED}")
    chance, oracle = random.Random(SEED), sqlite3.connect(":memory:")
    for sql in ["CREATE TABLE t (a BIGINT, b BIGINT, c TEXT)", "CREATE TABLE u (x BIGINT)"]:
        server.query(sql)
        oracle.execute(sql)

    def value():
        return "NULL" if chance.random() < 0.1 else str(chance.randint(0, 20))

    def condition():
        return chance.choice([
            f"a = {value()}", f"a < {value()}", f"b BETWEEN {value()} AND {value()}", "b IS NULL", f"c = 'c{chance.randint(0, 5)}'", "a IN (SELECT x FROM u)",
            "a NOT IN (SELECT x FROM u WHERE x IS NOT NULL)", f"a = b OR c IN ('c1', 'c{chance.randint(0, 5)}')", "a > (SELECT max(x) FROM u)", "EXISTS (SELECT 1 FROM u WHERE x = t.b)", "1 = 1"])

    for step in range(250):
        kind = chance.random()
        if kind < 0.5:
            rows = ", ".join(f"({value()}, {value()}, 'c{chance.randint(0, 5)}')" for _ in range(chance.choice([1, 3, 40])))
            sql = f"INSERT INTO t VALUES {rows}"
        elif kind < 0.6:
            sql = f"INSERT INTO t (b, a) SELECT a, b FROM t WHERE {condition()} AND a < 5"
        elif kind < 0.65:
            sql = f"INSERT INTO u VALUES ({value()})"
        elif kind < 0.8:
            sql = f"DELETE FROM t WHERE {condition()} AND b > {chance.randint(0, 15)}"
        elif kind < 0.95:
            sql = f"UPDATE t SET a = {chance.choice(['b', 'a + 1', value()])}, c = coalesce(c, 'c0') WHERE {condition()} AND a < {chance.randint(0, 15)}"
        elif kind < 0.98:
            sql = f"DELETE FROM u WHERE x > {value()}"
        else:
            server.restart() if chance.random() < 0.5 else (server.stop(), server.start())
            continue
        with server.connect() as connection, connection.cursor() as cursor:
            touched = update(cursor, sql)
        assert touched == oracle.execute(sql).rowcount, f"step {step}: {sql}"
        if step % 10 == 0 or kind >= 0.5:
            order = "ORDER BY a NULLS FIRST, b NULLS FIRST, c NULLS FIRST"
            got = [tuple(row.values()) for row in server.query(f"SELECT a, b, c FROM t {order}")]
            assert got == oracle.execute(f"SELECT a, b, c FROM t {order}").fetchall(), f"step {step}: {sql}"


def test_readers_keep_what_they_began_with(server):
    server.query("CREATE TABLE t AS SELECT value AS a FROM generate_series(1, 300000)")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t")
        reader = cursor.fetch_record_batch()
        first = reader.read_next_batch()
        server.query("DELETE FROM t WHERE a % 2 = 0")
        server.query("UPDATE t SET a = 0")
        server.query("DROP TABLE t")
        rest = reader.read_all()
        values = first["a"].to_pylist() + rest["a"].to_pylist()
        assert sorted(values) == list(range(1, 300001))


def test_readers_and_writers_at_once(server):
    server.query("CREATE TABLE t AS SELECT value AS a, 0 AS b FROM generate_series(1, 100)")
    wrong, stop = [], threading.Event()

    def write(n):
        try:
            with server.connect() as connection, connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("UPDATE t SET b = b + 1" if n % 2 else "INSERT INTO t SELECT max(a) + 1, min(b) FROM t")
        except Exception as error:
            wrong.append(error)

    def read():
        try:
            with server.connect() as connection, connection.cursor() as cursor:
                while not stop.is_set():
                    # One statement sees one state, however often it names the table.
                    cursor.execute("SELECT (SELECT count(*) FROM t) AS x, (SELECT count(b) FROM t) AS y, count(*) AS z FROM t")
                    [row] = cursor.fetchall()
                    assert row[0] == row[1] == row[2], row
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)] + [threading.Thread(target=read) for _ in range(2)]
    [thread.start() for thread in threads]
    time.sleep(4)
    stop.set()
    [thread.join() for thread in threads]
    assert not wrong, wrong[0]
    files = {p.name for p in (server.data / "tables").rglob("*.parquet")}
    rows = server.value("SELECT count(*) FROM t")
    server.restart()
    assert server.value("SELECT count(*) FROM t") == rows
    assert {p.name for p in (server.data / "tables").rglob("*.parquet")} == files


POINTS = ["table-rows", "table-files", "table-manifest", "table-renamed", "table-committed", "table-undeclared"]


@pytest.mark.parametrize("point", POINTS)
def test_a_death_leaves_before_or_after(serve, point):
    server = serve()
    server.query("CREATE TABLE t AS SELECT value AS a, 'x' AS b FROM generate_series(1, 1000)")
    statements = [
        ("INSERT INTO t SELECT a + 1000, b FROM t", 2000), ("DELETE FROM t WHERE a > 500", 500), ("UPDATE t SET a = a + 7 WHERE a > 10", 1000),
        ("INSERT OVERWRITE t SELECT 1, 'y'", 1), ("CREATE TABLE u AS SELECT * FROM t", None), ("CREATE OR REPLACE TABLE t AS SELECT 1 AS a, 'z' AS b", 1)]
    for sql, after in statements:
        if point == "table-undeclared" and "CREATE" not in sql:
            continue
        server.query("DROP TABLE IF EXISTS u")
        server.query("CREATE OR REPLACE TABLE t AS SELECT value AS a, 'x' AS b FROM generate_series(1, 1000)")
        server.stop()
        server.settings["failpoint"] = point
        server.start()
        with pytest.raises(Exception):
            server.query(sql)
        server.disconnect()
        server.process.wait(20)
        del server.settings["failpoint"]
        server.start()
        state = server.query("SELECT count(*) AS n, sum(a) AS s FROM t")[0]
        before = {"n": 1000, "s": 500500}
        moved = {"n": 1000, "s": 500500 + 7 * 990}
        allowed = [before] if after is None else [before, moved if "UPDATE" in sql else {"n": after, "s": server.value("SELECT sum(a) FROM t")}]
        assert state in allowed, (sql, state)
        if point in ("table-rows", "table-files", "table-manifest", "table-undeclared"):
            assert state == before, (sql, state)
        if point == "table-committed" and "CREATE" not in sql:
            assert state != before, sql
        tables = [row["name"] for row in server.query("SHOW TABLES")]
        assert len(list((server.data / "tables").iterdir())) == len(tables), sql
        # Nothing but the table's own files is left.
        files = [p for p in (server.data / "tables").rglob("*") if p.is_file()]
        assert sum(p.suffix == ".json" for p in files) == len(tables) and all(p.suffix in (".json", ".parquet") for p in files), files
        server.query("INSERT INTO t VALUES (0, 'after')")
        assert server.value("SELECT count(*) FROM t") == state["n"] + 1


def test_kills_at_random_moments(serve):
    server, chance = serve(), random.Random(SEED)
    print(f"TIDEGATE_SEED={SEED}")
    server.query("CREATE TABLE t (a BIGINT, b BIGINT)")
    acknowledged = 0
    for _ in range(8):
        done = []

        def work():
            try:
                with server.connect() as connection, connection.cursor() as cursor:
                    while True:
                        # Ten rows a change, all with the number of the change.
                        cursor.execute(f"INSERT INTO t SELECT {acknowledged + len(done)}, value FROM generate_series(1, 10)")
                        done.append(True)
                        cursor.execute("UPDATE t SET b = b + 1")
            except Exception:
                pass

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(chance.uniform(0.1, 1.0))
        server.kill()
        worker.join()
        server.start()
        groups = server.query("SELECT a, count(*) AS n, max(b) - min(b) AS d FROM t GROUP BY a")
        assert all(row["n"] == 10 and row["d"] == 9 for row in groups), groups
        assert acknowledged + len(done) <= len(groups) <= acknowledged + len(done) + 1
        acknowledged = len(groups)


def test_a_table_beside_streams(serve, embedded):
    broker, server = embedded(walk=1), serve()
    server.query(f"""CREATE SOURCE walk (a BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'walk',
      'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    server.query("CREATE TABLE names AS SELECT * FROM (VALUES (1, 'one'), (2, 'two')) AS x (a, name)")
    server.query("CREATE CONTINUOUS VIEW named WITH (unbounded_state = true) AS SELECT w.a, n.name FROM walk AS w JOIN names AS n ON w.a = n.a")
    broker.send("walk", [(0, b'{"a": %d, "ts": "2024-01-01T00:00:00Z"}' % a) for a in range(4)])
    assert server.settle("SELECT count(*) FROM named", 2) == 2
    # Later changes of the table are not the view's.
    server.query("INSERT INTO names VALUES (3, 'three')")
    assert server.query("SELECT n.name FROM walk AS w JOIN names AS n ON w.a = n.a ORDER BY w.a") == [{"name": n} for n in ["one", "two", "three"]]
    server.query("CREATE TABLE saved AS SELECT * FROM named")
    assert server.query("SELECT s.name FROM saved AS s JOIN named AS v ON s.a = v.a ORDER BY s.a") == [{"name": "one"}, {"name": "two"}]
    assert "named" in server.refusal("DROP TABLE names")
    assert "named" in server.refusal("DELETE FROM named")
    time.sleep(0.5)
    server.stop()
    server.start()
    assert server.settle("SELECT count(*) FROM named", 2) == 2
    broker.send("walk", [(0, b'{"a": %d, "ts": "2024-01-01T00:00:00Z"}' % a) for a in [1, 3]])
    assert server.settle("SELECT count(*) FROM named", 3) == 3
    assert server.refusal("CREATE CONTINUOUS VIEW v AS SELECT a FROM names")
    server.query("DROP TABLE names CASCADE")
    assert "named" in server.refusal("SELECT * FROM named")


def test_a_table_that_can_not_be_read_says_so(server):
    server.query("CREATE TABLE t AS SELECT 1 AS a")
    server.query("CREATE TABLE u AS SELECT 2 AS a")
    server.stop()
    [manifest] = [p for p in (server.data / "tables").rglob("manifest-*.json") if "1" == p.parent.name]
    manifest.write_bytes(manifest.read_bytes().replace(b"rows", b"rovs"))
    server.start()
    assert server.value("SELECT a FROM u") == 2
    assert "checksum" in server.refusal("SELECT * FROM t")
    assert server.refusal("INSERT INTO t VALUES (1)")
    assert len(server.query("SHOW TABLES")) == 2
    server.query("DROP TABLE t")
    assert len(list((server.data / "tables").iterdir())) == 1


def test_inserts_into_a_topic(serve, embedded):
    broker, server = embedded(events=2), serve()
    server.query(f"""CREATE SOURCE events (id BIGINT, team TEXT PATH '$.team.name', city TEXT PATH '$.team.city', price DECIMAL(10, 2), d DATE, at TIMESTAMP, ms TIMESTAMP(6) FORMAT 'epoch_ms',
      local TIMESTAMP TIMEZONE 'Europe/Madrid', tags TEXT[], part STRUCT<a INT, b DOUBLE>, ok BOOLEAN, place BIGINT METADATA FROM 'offset', WATERMARK FOR at AS at)
      WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    server.query("CREATE CONTINUOUS VIEW teams WITH (unbounded_state = true) AS SELECT team, count(*) AS n FROM events GROUP BY team")
    with server.connect() as connection, connection.cursor() as cursor:
        assert update(cursor, """INSERT INTO events VALUES (1, 'red "one"', 'x', 1.25, '2024-02-29', '2024-01-01T12:00:00.123456789', '2024-01-01T00:00:00.000001', '2024-07-01', ['a', NULL],
          named_struct('a', 1, 'b', 0.5), true), (2, 'blue', NULL, NULL, NULL, '2024-01-01', NULL, NULL, NULL, NULL, NULL)""") == 2
        assert update(cursor, "INSERT INTO events (id, team, at) SELECT value, 'blue', now() FROM generate_series(3, 10002)") == 10000
        cursor.executemany("INSERT INTO events (id, team, at) VALUES (?, ?, now())", [(n, "green") for n in range(50)])
    first = server.query("SELECT * EXCLUDE (place) FROM events WHERE team LIKE 'red%'")
    assert first == [{
        "id": 1, "team": 'red "one"', "city": "x", "price": decimal.Decimal("1.25"), "d": datetime.date(2024, 2, 29), "at": first[0]["at"], "ms": datetime.datetime(2024, 1, 1, 0, 0, 0, 1),
        "local": first[0]["local"], "tags": ["a", None], "part": {"a": 1, "b": 0.5}, "ok": True}]
    assert server.value("SELECT at = '2024-01-01T12:00:00.123456789' AND local = '2024-07-01' FROM events WHERE id = 1 AND city = 'x'") is True
    assert server.query("SELECT reason FROM events$errors LIMIT 1") == []
    assert server.settle("SELECT sum(n) FROM teams", 10052) == 10052
    assert server.query("SELECT team, n FROM teams ORDER BY n DESC LIMIT 2") == [{"team": "blue", "n": 10001}, {"team": "green", "n": 50}]
    for sql, words in [
        ("INSERT INTO events (id) VALUES (1)", ["column at", "watermark"]),
        ("INSERT INTO events (id, at) VALUES (1, NULL)", ["column at", "watermark"]),
        ("INSERT INTO events (id, place) VALUES (1, 2)", ["place", "METADATA"]),
        ("INSERT INTO events (id) VALUES ('x')", ["column id", "x"]),
        ("INSERT INTO events (id, at) SELECT CASE WHEN value = 9000 THEN 'x' ELSE '1' END, now() FROM generate_series(1, 9001)", ["column id", "row 9000", "8192 rows"]),
        ("INSERT INTO events (part, at) VALUES (named_struct('a', 1, 'b', CAST('NaN' AS DOUBLE)), now())", ["column part", "JSON"]),
        ("DELETE FROM events WHERE id = 1", ["PRIMARY KEY"]),
        ("UPDATE events SET id = 1", ["events"]),
        ("TRUNCATE TABLE events", ["events"]),
    ]:
        refusal = server.refusal(sql)
        assert all(word in refusal for word in words), f"{sql}: {refusal}"
    # An upload is a live producer.
    sent = threading.Event()

    def batches():
        yield pa.record_batch({"team": ["live"] * 10, "id": list(range(10)), "at": [datetime.datetime(2024, 1, 1)] * 10})
        assert tidegate.settle(lambda: server.query("SELECT n FROM teams WHERE team = 'live'"), [{"n": 10}]) == [{"n": 10}]
        sent.set()
        yield pa.record_batch({"team": ["live"] * 5, "id": list(range(5)), "at": [datetime.datetime(2024, 1, 1)] * 5})

    schema = pa.schema([("team", pa.string()), ("id", pa.int64()), ("at", pa.timestamp("us"))])
    with server.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("events", pa.RecordBatchReader.from_batches(schema, batches()), mode="append") == 15
    assert sent.is_set()
    assert server.settle("SELECT max(n) FROM teams WHERE team = 'live'", 15) == 15
    refused = lambda table, **options: tidegate.message(pytest.raises(Exception, server.connect().cursor().adbc_ingest, "events", table, **options).value)
    assert "zz" in refused(pa.table({"zz": [1]}), mode="append")
    assert "place" in refused(pa.table({"place": [1]}), mode="append")
    assert "source" in refused(pa.table({"id": [1]}), mode="replace")


def test_a_keyed_topic_as_a_table(serve, embedded):
    broker, server = embedded(players=2, words=1), serve()
    server.query(f"""CREATE SOURCE players (id BIGINT PATH '$.key.id', n BIGINT, name TEXT, PRIMARY KEY (id, n))
      WITH (connector = 'kafka', topic = 'players', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    server.query(f"""CREATE SOURCE words (word TEXT, n INT, PRIMARY KEY (word))
      WITH (connector = 'kafka', topic = 'words', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json', 'key.format' = 'text')""")
    server.query("CREATE CONTINUOUS VIEW held AS SELECT id, n, name FROM players")
    with server.connect() as connection, connection.cursor() as cursor:
        assert update(cursor, "INSERT INTO players VALUES (1, 1, 'Ada'), (1, 2, 'Bob'), (2, 1, 'Cyd'), (3, 1, NULL)") == 4
        assert update(cursor, "INSERT INTO players VALUES (1, 1, 'Eve')") == 1
        assert server.query("SELECT * FROM players ORDER BY id, n") == [
            {"id": 1, "n": 1, "name": "Eve"}, {"id": 1, "n": 2, "name": "Bob"}, {"id": 2, "n": 1, "name": "Cyd"}, {"id": 3, "n": 1, "name": None}]
        assert update(cursor, "DELETE FROM players WHERE id = 1 AND n IN (1, 2)") == 2
        assert update(cursor, "DELETE FROM players WHERE 1 = n AND id = NULL") == 0
        assert server.query("SELECT id FROM players ORDER BY id") == [{"id": 2}, {"id": 3}]
        assert server.settle("SELECT count(*) FROM held", 2) == 2
        assert update(cursor, "INSERT INTO words VALUES ('a \"word\"', 1), ('b', 2)") == 2
        assert update(cursor, "DELETE FROM words WHERE word = 'b'") == 1
        assert server.query("SELECT * FROM words") == [{"word": 'a "word"', "n": 1}]
    for sql, words in [
        ("DELETE FROM players", ["WHERE"]), ("DELETE FROM players WHERE id = 1", ["n is missing"]), ("DELETE FROM players WHERE id = 1 AND n = 1 AND name = 'x'", ["name"]),
        ("DELETE FROM players WHERE id > 1 AND n = 1", ["id"]), ("DELETE FROM players WHERE id = 'x' AND n = 1", ["id"]), ("INSERT INTO players (id, name) VALUES (1, 'x')", ["column n", "key"]),
        ("INSERT INTO players VALUES (1, NULL, 'x')", ["column n", "NULL"]), ("UPDATE players SET name = 'x'", ["INSERT"]),
    ]:
        refusal = server.refusal(sql)
        assert all(word in refusal for word in words), f"{sql}: {refusal}"
    assert server.value("SELECT count(*) FROM players$errors") == 0


def test_a_broker_that_is_gone_is_told(serve, embedded):
    broker, server = embedded(events=1), serve()
    server.query(f"CREATE SOURCE events (id BIGINT) WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')")
    server.query("INSERT INTO events VALUES (1)")
    broker.close()
    refusal = server.refusal("INSERT INTO events VALUES (2)")
    assert broker.bootstrap in refusal, refusal
