"""A look inside: schema `system`, KILL QUERY, EXPLAIN ANALYZE VIEW, metrics and health over HTTP."""

import json
import re
import threading
import time
import urllib.error
import urllib.request
import zlib

import pytest

import tidegate

PAGE = tidegate.REPOSITORY / "docs/system-tables.md"


def get(url, path):
    """(status, text) of an HTTP request."""
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(url):
    """{series: value} of /metrics."""
    status, text = get(url, "/metrics")
    assert status == 200 and text.endswith("# EOF\n")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}


def declare(server, broker, view="per_minute"):
    server.query(f"""CREATE SOURCE walk (a BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'walk',
      'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    server.query(f"""CREATE CONTINUOUS VIEW {view} AS SELECT window_start, a % 2 AS odd, count(*) AS n
      FROM TUMBLE(walk, ts, INTERVAL '1 minute') WHERE a >= 0 GROUP BY window_start, a % 2 EMIT CHANGES""")


def record(a, minute, partition=0):
    return partition, b'{"a": %d, "ts": "2024-01-01T00:%02d:00Z"}' % (a, minute)


@pytest.fixture
def walked(serve, embedded):
    """A server with one source and one view that have seen 100 rows, three bad records and one late row."""
    broker, server = embedded(walk=1), serve("--http", "127.0.0.1:0", checkpoint_interval="200ms")
    server.http = server.process.wait_for("http on ")
    declare(server, broker)
    broker.send("walk", [record(a, a // 10) for a in range(99)] + [(0, b"{broken"), (0, b'{"a": "x"}'), (0, b"[")])
    assert server.settle("SELECT count(*) FROM walk$errors", 3) == 3
    broker.send("walk", [record(7, 1)])
    assert server.settle("SELECT count(*) FROM per_minute$late", 1) == 1
    server.broker = broker
    return server


def test_every_example_of_the_page_runs(walked):
    [block] = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), flags=re.S)
    examples = [sql for sql in block.split(";") if sql.strip()]
    assert len(examples) >= 4
    for sql in examples:
        walked.query(sql)


def test_tables_tell_what_happened(walked):
    rows = walked.query
    [source] = rows("SELECT * FROM system.sources")
    assert (source["name"], source["state"], source["rows"], source["errors"], source["lag"]) == ("walk", "running", 100, 3, 0)
    assert source == rows("SHOW SOURCES")[0]
    [partition] = rows('SELECT source, topic, "partition", "offset", end_offset, lag, watermark, idle, lost FROM system.partitions')
    assert str(partition.pop("watermark")) == "2024-01-01 00:09:00"
    idle = partition.pop("idle")
    assert idle in (False, True)
    assert partition == {"source": "walk", "topic": "walk", "partition": 0, "offset": 103, "end_offset": 103, "lag": 0, "lost": 0}
    [pipeline] = rows("SELECT * FROM system.pipelines")
    told = {key: pipeline[key] for key in ("name", "state", "message", "views", "input_rows", "errors", "late_rows", "failed_checkpoints")}
    assert told == {"name": "walk", "state": "running", "message": "", "views": 1, "input_rows": 103, "errors": 3, "late_rows": 1, "failed_checkpoints": 0}
    [view] = rows("SELECT * FROM system.views")
    assert (view["name"], view["state"], view["late"]) == ("per_minute", "running", 1)
    assert view.keys() == rows("SHOW VIEWS")[0].keys()
    [operator] = rows("SELECT * FROM system.operators")
    assert (operator["view"], operator["operator"], operator["device"]) == ("per_minute", 0, "cpu")
    # Every row that the filter lets pass, late or not; two groups a minute, each epoch giving what was and what is.
    assert operator["rows_in"] == 100 and operator["rows_out"] >= 20 and operator["ms"] > 0
    assert operator["state_rows"] == view["state_rows"] and operator["state_bytes"] > 0
    assert "watermark of walk" in operator["bounded_by"] and "count" in operator["description"]
    errors = rows('SELECT source, topic, "partition", "offset", reason FROM system.errors ORDER BY "offset"')
    assert [(e["source"], e["topic"], e["partition"], e["offset"]) for e in errors] == [("walk", "walk", 0, n) for n in (99, 100, 101)]
    assert [e["reason"] for e in errors] == [e["reason"] for e in rows('SELECT reason FROM walk$errors ORDER BY "offset"')]


def test_epochs_add_up(walked):
    [totals] = walked.query("""SELECT sum(input_rows) AS records, sum(errors) AS errors, sum(late_rows) AS late, count(*) AS epochs, count(DISTINCT epoch) AS numbers
      FROM system.epochs WHERE pipeline = 'walk'""")
    assert (totals["records"], totals["errors"], totals["late"]) == (103, 3, 1) and totals["epochs"] == totals["numbers"]
    assert totals["epochs"] == walked.value("SELECT epochs FROM system.pipelines")
    phases = ["fetch", "decode", "execute", "state", "publish", "checkpoint"]
    epochs = walked.query("SELECT * FROM system.epochs ORDER BY epoch")
    assert epochs[0]["input_rate"] is None and all(e["input_rate"] is not None for e in epochs[1:])
    for epoch in epochs:
        spent = sum(epoch[f"{phase}_ms"] for phase in phases)
        assert 0 < spent <= epoch["batch_duration_ms"] * 1.001, epoch
        assert epoch["process_rate"] == pytest.approx(epoch["input_rows"] / epoch["batch_duration_ms"] * 1000)
        assert epoch["scheduling_delay_ms"] >= 0
    assert any(e["execute_ms"] > 0 and e["decode_ms"] > 0 and e["input_rows"] > 0 for e in epochs)
    assert all(abs(e["started_at"].timestamp() - time.time()) < 86400 for e in epochs)


def test_checkpoints_are_listed(walked):
    ask = "SELECT count(*) FROM system.checkpoints WHERE outcome = 'written' AND bytes > 0 AND parts >= 1 AND duration_ms > 0 AND message = ''"
    before = walked.value(ask)
    walked.broker.send("walk", [record(1, 9)])
    assert tidegate.settle(lambda: walked.value(ask) > before, True, 20)
    assert walked.value("SELECT count(*) FROM system.checkpoints c JOIN system.pipelines p ON c.pipeline = p.name AND c.epoch <= p.epoch") > before
    newest = "SELECT (SELECT max(epoch) FROM system.checkpoints) = (SELECT checkpoint_epoch FROM system.pipelines)"
    assert tidegate.settle(lambda: walked.value(newest), True, 10)


def test_settings_are_the_servers_and_the_sessions(walked):
    of = lambda name: walked.query("SELECT value, \"default\" FROM system.settings WHERE name = ?", (name,))[0]
    assert of("checkpoint_interval") == {"value": "200ms", "default": "10s"}
    assert of("http") == {"value": "127.0.0.1:0", "default": ""}
    assert of("data_dir")["value"] == str(walked.data)
    assert of("tidegate.device") == {"value": "auto", "default": "auto"}
    with walked.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET tidegate.device = 'cpu'")
        cursor.execute("SELECT value FROM system.settings WHERE name = 'tidegate.device'")
        assert cursor.fetchall() == [("cpu",)]
    assert walked.value("SELECT count(*) FROM system.settings WHERE length(description) < 5") == 0


def test_metadata_lists_the_schema(serve):
    server = serve()
    with server.connect() as connection:
        tree = connection.adbc_get_objects(depth="all", db_schema_filter="system").read_all().to_pylist()
    tables = {t["table_name"]: t for c in tree for s in c["catalog_db_schemas"] or [] if s["db_schema_name"] == "system" for t in s["db_schema_tables"]}
    assert sorted(tables) == sorted(re.findall(r"^## `system\.(\w+)`$", PAGE.read_text(), flags=re.M))
    for name, table in tables.items():
        assert [column["column_name"] for column in table["table_columns"]] == server.table(f"SELECT * FROM system.{name}").column_names
        assert table["table_type"] == "SYSTEM TABLE"


def test_names_of_system_tables_are_free(serve, embedded):
    """A plain view may be called like the system table that it reads."""
    server = serve()
    server.query("CREATE VIEW views AS SELECT name FROM system.views")
    assert server.query("SELECT * FROM views") == [{"name": "views"}]
    assert "reads sources" in server.refusal("CREATE CONTINUOUS VIEW v AS SELECT name FROM system.sources")
    assert "nothing_here" in server.refusal("SELECT * FROM system.nothing_here")


# --- KILL QUERY


def number_of(server, part):
    """The id of the running query whose text has this part."""
    found = lambda: [q["id"] for q in server.query("SELECT id, sql FROM system.queries") if part in q["sql"] and "system.queries" not in q["sql"]]
    assert tidegate.settle(lambda: len(found()), 1, 20) == 1
    return found()[0]


def test_a_killed_subscription_ends_with_an_error(walked):
    for sql in ("SELECT a FROM walk EMIT CHANGES", "SELECT n FROM per_minute EMIT CHANGES"):
        subscription = tidegate.Subscription(walked, sql)
        id = number_of(walked, sql)
        assert walked.value(f"SELECT unbounded FROM system.queries WHERE id = {id}")
        walked.query(f"KILL QUERY {id}")
        assert subscription.ended.wait(10)
        assert f"query {id} was killed" in str(subscription.error)
        assert tidegate.settle(lambda: walked.value(f"SELECT count(*) FROM system.queries WHERE id = {id}"), 0, 10) == 0
        subscription.cancel()
        said = walked.refusal(f"KILL QUERY {id}")
        assert f"there is no query {id}" in said and "SHOW QUERIES" in said


def test_a_killed_query_ends_with_an_error(serve):
    server, said = serve(), []

    def work():
        with server.connect() as connection, connection.cursor() as cursor:
            try:
                cursor.execute("SELECT count(*) FROM generate_series(1, 100000000) AS a(x) JOIN generate_series(1, 1000000) AS b(y) ON x % 7 = y % 7")
                said.append(str(cursor.fetchall()))
            except Exception as error:
                said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    id = number_of(server, "generate_series(1, 100000000)")
    server.query(f"KILL QUERY {id}")
    thread.join(30)
    assert len(said) == 1 and f"query {id} was killed" in said[0]
    assert server.query("SELECT 1 AS x") == [{"x": 1}]


# --- EXPLAIN ANALYZE VIEW


def test_live_figures_of_a_view(walked):
    stop = threading.Event()

    def feed():
        while not stop.is_set():
            walked.broker.send("walk", [record(a, 10 + a % 3) for a in range(-50, 50)])

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        begin = time.monotonic()
        lines = walked.query("EXPLAIN ANALYZE VIEW per_minute FOR INTERVAL '2 seconds'")
        assert 2 <= time.monotonic() - begin < 10
    finally:
        stop.set()
        thread.join()
    names = [line["operator"] for line in lines]
    assert re.fullmatch(r"pipeline: [1-9]\d* epochs in 2\.\d s", names[0])
    assert [name.strip() for name in names[1:7]] == ["fetch", "decode", "execute", "state", "publish", "checkpoint"]
    assert names[7].startswith("view per_minute: ")
    of = lambda part: next(line for line in lines[8:] if line["operator"].strip().startswith(part))
    aggregate, filtered, scan = of("StreamAggregateExec"), of("FilterExec"), of("SliceExec")
    assert names.index(aggregate["operator"]) < names.index(filtered["operator"]) < names.index(scan["operator"])
    # The filter keeps half of the rows, and the aggregate takes what the filter gives.
    assert filtered["rows_in_per_second"] == scan["rows_out_per_second"] > 0
    assert filtered["rows_out_per_second"] == pytest.approx(filtered["rows_in_per_second"] / 2, rel=0.05)
    assert aggregate["rows_in_per_second"] == filtered["rows_out_per_second"]
    assert of("ProjectionExec")["rows_in_per_second"] == aggregate["rows_out_per_second"] > 0
    assert aggregate["state_rows"] > 0 and aggregate["state_bytes"] > 0 and filtered["state_rows"] is None
    for line in (aggregate, filtered, lines[7]):
        assert 0 < line["share"] < 1 and line["ms_per_epoch"] > 0
    assert lines[0]["share"] == 1 and sum(line["share"] for line in lines[1:7]) <= 1.001
    assert lines[0]["rows_in_per_second"] > 0


def test_live_figures_of_a_quiet_view_and_of_none(walked):
    lines = walked.query("EXPLAIN ANALYZE VIEW per_minute FOR INTERVAL '100 milliseconds'")
    assert any("FilterExec" in line["operator"] and line["rows_in_per_second"] == 0 for line in lines)
    assert "there is no view nothing" in walked.refusal("EXPLAIN ANALYZE VIEW nothing")
    assert "walk is not a continuous view" in walked.refusal("EXPLAIN ANALYZE VIEW walk")


# --- HTTP


def test_metrics_agree_with_the_tables(walked):
    seen = metrics(walked.http)
    assert seen['tidegate_source_records_total{source="walk"}'] == 100
    assert seen['tidegate_source_errors_total{source="walk"}'] == 3
    assert [seen[f'tidegate_source_{kind}_fields_total{{source="walk"}}'] for kind in ("new", "missing", "retyped")] == [0, 1, 1]
    assert seen['tidegate_view_late_rows_total{view="per_minute"}'] == 1
    assert seen['tidegate_partition_lag{source="walk",partition="0"}'] == 0
    assert seen['tidegate_input_records_total{pipeline="walk"}'] == 103
    assert seen['tidegate_watermark_lag_seconds{source="walk"}'] > 0
    assert seen['tidegate_view_state_bytes{view="per_minute"}'] == walked.value("SELECT bytes FROM system.views")
    assert seen["tidegate_ready"] == 1 and seen["tidegate_queries_total"] > 0
    assert seen["process_resident_memory_bytes"] > 1 << 20 and seen["process_cpu_seconds_total"] >= 0
    # Counters only rise; the histogram counts every epoch in every phase.
    walked.broker.send("walk", [record(1, 9)])
    epochs = lambda: metrics(walked.http)['tidegate_epochs_total{pipeline="walk"}']
    assert tidegate.settle(lambda: epochs() > seen['tidegate_epochs_total{pipeline="walk"}'], True, 10)
    seen = metrics(walked.http)
    for phase in ("fetch", "decode", "execute", "state", "publish", "checkpoint", "all"):
        assert seen[f'tidegate_epoch_duration_seconds_count{{pipeline="walk",phase="{phase}"}}'] == seen['tidegate_epochs_total{pipeline="walk"}']
    # Every metric of the page is there, and every one that is there is on the page.
    page = PAGE.read_text()
    listed = set(re.findall(r"`((?:tidegate|process)_\w+)`", page.split("## Metrics")[1].split("## Health")[0]))
    exposed = {re.sub(r"_(bucket|count|sum)$", "", name.split("{")[0]) if "duration" in name else name.split("{")[0] for name in seen}
    assert tidegate.settle(lambda: listed - {re.sub(r"_(bucket|count|sum)$", "", n.split("{")[0]) for n in metrics(walked.http)}, set(), 20) == set()
    assert exposed <= listed


def test_health(walked):
    assert get(walked.http, "/healthz") == (200, "ok\n")
    assert tidegate.settle(lambda: get(walked.http, "/readyz"), (200, "ready\n"), 10) == (200, "ready\n")
    assert get(walked.http, "/nothing")[0] == 404
    # A broker that goes away.
    walked.broker.close()
    assert tidegate.settle(lambda: get(walked.http, "/readyz")[0], 503, 60) == 503
    assert "source walk is not connected" in get(walked.http, "/readyz")[1]
    assert get(walked.http, "/healthz")[0] == 200 and metrics(walked.http)["tidegate_ready"] == 0


def test_a_pipeline_that_can_not_be_started_is_told(walked):
    assert walked.stop() == 0
    manifests = list(walked.data.glob("pipelines/*/checkpoints/manifest-*.json"))
    assert manifests
    body = json.dumps({"version": 99, "engine": "1.0.0", "epoch": 1, "meta": None, "logs": {}})
    for manifest in manifests:
        manifest.write_text(f"{zlib.crc32(body.encode()):08x}\n{body}")
    walked.start()
    url = walked.process.wait_for("http on ")
    status, said = get(url, "/readyz")
    assert status == 503 and "the pipeline of source walk could not be started" in said
    [pipeline] = walked.query("SELECT name, state, message, epoch FROM system.pipelines")
    assert (pipeline["name"], pipeline["state"], pipeline["epoch"]) == ("walk", "broken", None) and "version" in pipeline["message"]


def test_http_is_off_unless_asked_for_and_local_only(serve, tmp_path):
    server = serve()
    assert "http" not in server.process.out.read_text()
    process = tidegate.Process(tmp_path, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", "--http", "0.0.0.0:0")
    assert process.wait(30) != 0
    assert "without users only loopback" in process.err.read_text()


def test_the_demo_serves_http(tmp_path):
    demo = tidegate.Process(tmp_path, "demo", "--listen", "127.0.0.1:0", "--for", "60s")
    try:
        url = demo.wait_for("http on ")
        records = lambda: any("tidegate_source_records_total" in name and value > 0 for name, value in metrics(url).items())
        assert tidegate.settle(records, True, 40)
    finally:
        demo.kill()
