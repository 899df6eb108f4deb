"""Ad-hoc queries over topics: seeks by partition, offset and time, early ends, many at once, and reads of earlier epochs."""

import re
import threading
import time

import pytest

import kafka as kafka_module
import tidegate


def declare(server, bootstrap, topic, name="numbers", options=""):
    server.query(f"""CREATE SOURCE {name} (n INT, o BIGINT METADATA FROM 'offset', t TIMESTAMP METADATA FROM 'timestamp')
      WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', format = 'json'{options})""")


def number(n):
    return b'{"n": %d}' % n


def ranges(server, sql):
    """{partition: (begin, end)} that a query would read."""
    plan = "\n".join(row["plan"] for row in server.query(f"EXPLAIN {sql}"))
    [found] = re.findall(r"TopicExec: .*?offsets \[(.*?)\]", plan)
    return {int(p): (int(begin), int(end)) for p, begin, end in re.findall(r"(\d+):(\d+)\.\.(\d+)", found)}


@pytest.fixture
def three(embedded, serve):
    """A server with the source `numbers`: 100 records in each of three partitions, n = 1000 * partition + offset."""
    broker, server = embedded(numbers=3), serve()
    broker.send("numbers", [(p, number(1000 * p + n), {"timestamp": 1_700_000_000_000 + 1000 * n}) for n in range(100) for p in range(3)])
    declare(server, broker.bootstrap, "numbers")
    return broker, server


def test_metadata_columns_are_there_when_they_are_named(three):
    _, server = three
    assert server.table("SELECT * FROM numbers LIMIT 1").column_names == ["n", "o", "t"]
    rows = server.query("SELECT n, _partition, _offset, _timestamp, t FROM numbers")
    assert len(rows) == 300
    for row in rows:
        assert row["n"] == 1000 * row["_partition"] + row["_offset"]
        assert row["_timestamp"] == row["t"].replace(tzinfo=None)
    # In a plain view, under an alias, aggregated, and beside a view.
    server.query("CREATE VIEW placed AS SELECT n, _partition AS p FROM numbers WHERE _offset < 10")
    assert server.value("SELECT count(*) FROM placed WHERE p = 2") == 10
    assert server.value("SELECT max(x._offset) FROM numbers AS x") == 99
    server.query("CREATE CONTINUOUS VIEW seen AS SELECT n FROM numbers")
    assert server.settle("SELECT count(*) FROM seen", 300) == 300
    assert server.value("SELECT count(*) FROM seen JOIN numbers USING (n) WHERE _partition = 1 AND _offset >= 90") == 10
    assert "_partition" in server.refusal("SELECT _partition FROM seen")


PREDICATES = {
    "_partition = 1": {1: (0, 100)},
    "_partition IN (0, 2)": {0: (0, 100), 2: (0, 100)},
    "_partition > 2": {},
    "_offset >= 95": {p: (95, 100) for p in range(3)},
    "_offset BETWEEN 10 AND 12 AND _partition <> 1": {0: (10, 13), 2: (10, 13)},
    "o < 5": {p: (0, 5) for p in range(3)},
    "_offset = 1000": {},
    "_partition = 0 AND _offset > 97 OR _partition = 2 AND _offset < 2": {0: (98, 100), 2: (0, 2)},
    "_partition = 0 OR n = 1001": {p: (0, 100) for p in range(3)},
    "_partition = 0 AND n % 2 = 0": {0: (0, 100)},
    "NOT (_offset >= 3)": {p: (0, 3) for p in range(3)},
    "_offset = 7 AND _offset = 8": {},
    "o + 1 = 8": {p: (0, 100) for p in range(3)},
}


@pytest.mark.parametrize("predicate", PREDICATES)
def test_predicates_become_seeks_and_change_no_answer(three, predicate):
    _, server = three
    want = PREDICATES[predicate]
    sql = f"SELECT n FROM numbers WHERE {predicate}"
    if want:
        assert ranges(server, sql) == want
    # The same predicate over columns that nobody can seek by.
    plain = re.sub(r"\b(_offset|o)\b", "(n % 1000)", predicate).replace("_partition", "(n / 1000)")
    everything = f"SELECT n FROM (SELECT n FROM numbers) AS all_of_it WHERE {plain} ORDER BY n"
    assert server.query(f"{sql} ORDER BY n") == server.query(everything)


def test_time_is_filtered_where_the_broker_cannot_look_it_up(three):
    _, server = three
    sql = "SELECT n FROM numbers WHERE _timestamp >= TIMESTAMP '2023-11-14T22:14:50'"
    assert ranges(server, sql) == {p: (0, 100) for p in range(3)}
    assert sorted(row["n"] for row in server.query(sql)) == [1000 * p + n for p in range(3) for n in range(90, 100)]


def test_time_is_looked_up_where_the_broker_can(kafka, serve):
    topic, server, base = kafka.fresh_topic("times", 2), serve(), 1_700_000_000_000
    # Not in order: the records of partition 0 go forth and back in time.
    seconds = [n + (20 if n % 7 == 0 else 0) for n in range(100)]
    kafka_module.send(kafka.bootstrap, topic, [(0, number(n), {"timestamp": base + 1000 * s}) for n, s in enumerate(seconds)])
    kafka_module.send(kafka.bootstrap, topic, [(1, number(n), {"timestamp": base}) for n in range(10)])
    declare(server, kafka.bootstrap, topic)

    def at(second):
        return f"to_timestamp_millis({base + 1000 * second})"

    for since in (0, 1, 50, 98, 118, 119, 500):
        for column in ("_timestamp", "t"):
            sql = f"SELECT n FROM numbers WHERE {column} >= {at(since)}"
            want = [n for n, s in enumerate(seconds) if s >= since] + ([*range(10)] if since == 0 else [])
            assert sorted(row["n"] for row in server.query(sql)) == sorted(want), sql
            first = next((n for n, s in enumerate(seconds) if s >= since), None)
            wanted = {} if first is None else {0: (first, 100)}
            if wanted:
                assert ranges(server, sql) == wanted | ({1: (0, 10)} if since == 0 else {}), sql
    # An upper bound filters and does not stop: later records may be older.
    sql = f"SELECT count(*) FROM numbers WHERE _timestamp < {at(30)} AND _partition = 0"
    assert server.value(sql) == sum(s < 30 for s in seconds)
    # A number of milliseconds that no look-up takes.
    assert server.value("SELECT count(*) FROM numbers WHERE _timestamp > TIMESTAMP '1960-01-01'") == 110


def test_a_limit_ends_the_scan_early(embedded, serve):
    broker, server = embedded(many=2), serve()
    # About 8 MB: well above what a query of a few rows should read, in batches that the broker keeps.
    broker.send("many", [(n % 2, b'{"n": %d, "fill": "%s"}' % (n, b"x" * 200)) for n in range(40_000)], linger_ms=20)
    declare(server, broker.bootstrap, "many")
    plan = "\n".join(row["plan"] for row in server.query("EXPLAIN SELECT n FROM many_numbers LIMIT 5".replace("many_numbers", "numbers")))
    assert "limit 5" in plan, plan
    everything = min(timed(lambda: server.value("SELECT count(*) FROM numbers")) for _ in range(3))
    few = min(timed(lambda: server.query("SELECT n FROM numbers LIMIT 5")) for _ in range(3))
    assert len(server.query("SELECT n FROM numbers LIMIT 5")) == 5
    assert len(server.query("SELECT n FROM numbers LIMIT 5 OFFSET 20000")) == 5
    assert len(server.query("SELECT n FROM numbers WHERE n % 10000 = 9999 LIMIT 3")) == 3
    assert len(server.query("SELECT n FROM numbers ORDER BY n DESC LIMIT 2")) == 2
    assert few < everything, (few, everything)


def timed(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def test_many_queries_at_once_disturb_no_pipeline(embedded, serve):
    broker, server = embedded(busy=4), serve()
    declare(server, broker.bootstrap, "busy")
    server.query("CREATE CONTINUOUS VIEW counted WITH (unbounded_state = true) AS SELECT count(*) AS c, sum(n) AS s FROM numbers")
    count, failures, done = 4000, [], threading.Event()

    def ask():
        connection = server.connect()
        try:
            last = 0
            while not done.is_set():
                with connection.cursor() as cursor:
                    cursor.execute("SELECT count(*) AS c, count(DISTINCT n) AS d FROM numbers")
                    [[c, d]] = zip(*cursor.fetch_arrow_table().to_pydict().values())
                    assert c == d and c >= last, (c, d, last)
                    last = c
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for begin in range(0, count, 400):
        broker.send("busy", [(n % 4, number(n)) for n in range(begin, begin + 400)])
    settled = server.settle("SELECT max(c) FROM counted", count)
    done.set()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    assert settled == count
    assert server.query("SELECT * FROM counted") == [{"c": count, "s": sum(range(count))}]


def test_an_abandoned_query_ends(embedded, serve):
    broker, server = embedded(numbers=1), serve()
    broker.send("numbers", [(0, number(n)) for n in range(1000)])
    declare(server, broker.bootstrap, "numbers")
    connection = server.connect()
    cursor = connection.cursor()
    cursor.execute("SELECT a.n FROM numbers AS a, numbers AS b, numbers AS c")
    next(iter(cursor.fetch_record_batch()))
    cursor.close()
    connection.close()
    running = lambda: [row["sql"] for row in server.query("SHOW QUERIES") if "AS c" in row["sql"]]
    assert tidegate.settle(running, [], 30) == []


def epoch_of(server, view):
    [row] = [row for row in server.query("SHOW VIEWS") if row["name"] == view]
    return row["epoch"]


def test_earlier_epochs_can_be_read(embedded, serve):
    broker, server = embedded(numbers=2, other=1), serve()
    declare(server, broker.bootstrap, "numbers")
    server.query("CREATE CONTINUOUS VIEW counted WITH (unbounded_state = true) AS SELECT count(*) AS c, max(n) AS m FROM numbers")
    server.query("CREATE CONTINUOUS VIEW listed AS SELECT n FROM numbers")
    assert server.settle("SELECT count(*) FROM listed", 0) == 0
    known = {}
    for round in range(5):
        broker.send("numbers", [(n % 2, number(10 * round + n)) for n in range(10)])
        want = 10 * (round + 1)
        assert server.settle("SELECT max(c) FROM counted", want) == want
        assert server.settle("SELECT count(*) FROM listed", want) == want
        known[epoch_of(server, "counted")] = want
    assert len(known) == 5
    for epoch, want in known.items():
        # All names mean that epoch: views, the topic, a subquery, a plain view over them.
        assert server.value(f"SELECT c FROM counted AS OF EPOCH {epoch}") == want
        assert server.value(f"SELECT count(*) FROM listed as of epoch {epoch}") == want
        assert server.value(f"SELECT count(*) FROM numbers AS OF EPOCH {epoch}") == want
        sql = f"SELECT (SELECT m FROM counted) - max(l.n) + (SELECT c FROM counted) - count(*) FROM listed AS l AS OF EPOCH {epoch}"
        assert server.value(sql) == 0
    assert server.query(f"EXPLAIN SELECT * FROM counted AS OF EPOCH {epoch}")
    refused = server.refusal(f"SELECT * FROM counted AS OF EPOCH {epoch + 1000}")
    assert re.search(rf"epoch {epoch + 1000} is not kept: \d+ to \d+ can be read", refused), refused
    assert "number of an epoch" in server.refusal("SELECT * FROM counted AS OF EPOCH ten")
    assert "end of the whole query" in server.refusal(f"SELECT * FROM (SELECT * FROM counted AS OF EPOCH {epoch}) AS x")
    assert "stands behind EMIT" in server.refusal(f"SELECT * FROM counted AS OF EPOCH {epoch} EMIT CHANGES")
    declare(server, broker.bootstrap, "other", "other")
    assert "other has no epochs" in server.refusal(f"SELECT * FROM other AS OF EPOCH {epoch}")
    server.query("CREATE CONTINUOUS VIEW others WITH (unbounded_state = true) AS SELECT count(*) AS c FROM other")
    broker.send("other", [(0, number(1))])
    assert server.settle("SELECT max(c) FROM others", 1) == 1
    # Epoch 1 is there in both pipelines, but is not the same: each begins with one in which nothing was read.
    assert server.query("SELECT * FROM others AS OF EPOCH 1") == [{"c": 0}]
    assert server.query("SELECT * FROM counted AS OF EPOCH 1") is not None
    assert "AS OF EPOCH holds for one source's views" in server.refusal("SELECT * FROM counted, others AS OF EPOCH 1")
