"""Sinks: what a view gives is written to topics of a real Kafka and to folders, over kills, brokers that are away, and topics that are missing.

Who reads what is committed must find each record of an exactly-once sink once, in the order of its numbers, and the compacted topic of an
upsert sink must come to the view. TIDEGATE_LONG=1 kills the server 200 times.
"""

import collections
import json
import os
import random
import threading
import time

import duckdb
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

import kafka as kafka_module
import tidegate

LONG = os.environ.get("TIDEGATE_LONG", "") not in ("", "0")
KILLS = 200 if LONG else 8
PARTITIONS = 3

Record = collections.namedtuple("Record", "partition key value view epoch sequence")


def records(bootstrap, topic, isolation="read_committed"):
    """All records that a topic holds, partition by partition, in order."""
    client = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "tests", "enable.auto.commit": False, "isolation.level": isolation, "enable.partition.eof": True,
        "auto.offset.reset": "earliest", "log_level": 3,
    })
    try:
        partitions = sorted(client.list_topics(topic, timeout=10).topics[topic].partitions)
        client.assign([TopicPartition(topic, p, 0) for p in partitions])
        found, left = [], set(partitions)
        deadline = time.monotonic() + 60
        while left:
            assert time.monotonic() < deadline, f"partitions {left} of {topic} do not end"
            message = client.poll(1)
            if message is None:
                continue
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                left.discard(message.partition())
                continue
            headers = {name: value.decode() for name, value in message.headers() or []}
            load = lambda text: None if text is None else json.loads(text)
            found.append(Record(
                message.partition(), load(message.key()), load(message.value()), headers["tidegate-view"], int(headers["tidegate-epoch"]),
                int(headers["tidegate-sequence"]),
            ))
        return sorted(found, key=lambda record: record.partition)
    finally:
        client.close()


def compacted(found, *key):
    """What a compacted topic comes to: {key: value}."""
    state = {}
    for record in found:
        assert set(record.key) == set(key)
        name = tuple(record.key[column] for column in key)
        if record.value is None:
            state.pop(name, None)
        else:
            state[name] = record.value
    return state


def source(server, kafka, topic, name="readings"):
    server.query(f"""CREATE SOURCE {name} (id BIGINT, place TEXT, v BIGINT)
        WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json')""")


def sink(server, name="out"):
    """The row of SHOW SINKS."""
    [row] = [row for row in server.query("SHOW SINKS") if row["name"] == name]
    return row


def send(kafka, topic, ids):
    ids = list(ids)
    kafka_module.send(kafka.bootstrap, topic, [(i % PARTITIONS, json.dumps({"id": i, "place": f"p{i % 7}", "v": i * i % 101}).encode()) for i in ids])


class Sender:
    """Sends readings at a steady rate in a thread of its own."""

    def __init__(self, kafka, topic, rate=600):
        self.sent, self.stopping = 0, threading.Event()
        self.thread = threading.Thread(target=self._send, args=(kafka, topic, rate), daemon=True)
        self.thread.start()

    def _send(self, kafka, topic, rate):
        step = max(rate // 20, 1)
        while not self.stopping.wait(0.05):
            send(kafka, topic, range(self.sent, self.sent + step))
            self.sent += step

    def finish(self):
        self.stopping.set()
        self.thread.join()
        return self.sent


def caught_up(server, rows, name="out", view="flat", limit=60):
    """Waits until the view has read all that was sent and the sink has written all that the view gave."""
    assert server.settle(f"SELECT count(*) FROM {view}", rows, limit) == rows
    idle = lambda: (lambda row: (row["state"], row["lag_rows"]))(sink(server, name))
    assert tidegate.settle(idle, ("running", 0), limit) == ("running", 0), sink(server, name)


FLAT = "CREATE CONTINUOUS VIEW flat AS SELECT id, place, v FROM readings"
TOTALS = "CREATE CONTINUOUS VIEW totals WITH (unbounded_state = true) AS SELECT place, count(*) AS n, sum(v) AS total FROM readings GROUP BY place"


@pytest.fixture
def start(serve, kafka):
    """A server with a source of readings over a topic of its own, and the topic."""

    def start(*views, partitions=PARTITIONS, **settings):
        topic = kafka.fresh_topic("readings", partitions)
        server = serve(**settings)
        source(server, kafka, topic)
        for view in views:
            server.query(view)
        return server, topic

    return start


def into(kafka, topic, **options):
    options = {"topic": topic, "bootstrap.servers": kafka.bootstrap, "commit.interval": "100 ms", **{k.replace("_", "."): v for k, v in options.items()}}
    return "INTO KAFKA (" + ", ".join(f"'{name}' = '{value}'" for name, value in options.items()) + ")"


def test_rows_that_only_come_are_appended(start, kafka):
    server, topic = start(FLAT)
    send(kafka, topic, range(300))
    out = kafka.fresh_topic("out", 2)
    server.query(f"CREATE SINK out {into(kafka, out, key='place')} AS SELECT id, place, v + 1 AS w FROM flat WHERE id % 2 = 0")
    send(kafka, topic, range(300, 600))
    caught_up(server, 600)
    found = records(kafka.bootstrap, out)
    want = [{"id": i, "place": f"p{i % 7}", "w": i * i % 101 + 1} for i in range(0, 600, 2)]
    assert sorted((r.value for r in found), key=lambda value: value["id"]) == want
    assert all(r.key == {"place": r.value["place"]} and r.view == "flat" for r in found)
    # Numbers and epochs rise within a partition.
    for partition in (0, 1):
        own = [(r.epoch, r.sequence) for r in found if r.partition == partition]
        assert own == sorted(own) and len(set(own)) == len(own)
    row = sink(server)
    assert (row["into"], row["target"], row["delivery"], row["records"], row["cursor"]) == ("kafka", out, "at least once", 300, 600)
    assert server.query("SELECT name, lag_rows FROM system.sinks") == [{"name": "out", "lag_rows": 0}]
    # After a stop in peace nothing is written again.
    server.stop()
    server.start()
    send(kafka, topic, range(600, 620))
    caught_up(server, 620)
    assert len(records(kafka.bootstrap, out)) == 310


def test_a_changing_view_is_written_with_tombstones(start, kafka):
    server, topic = start(TOTALS, "CREATE CONTINUOUS VIEW few WITH (unbounded_state = true) AS SELECT place, count(*) AS n FROM readings GROUP BY place HAVING count(*) < 30")
    out, some = kafka.fresh_topic("out", 2, cleanup_policy="compact"), kafka.fresh_topic("some", 1)
    server.query(f"CREATE SINK out FROM totals {into(kafka, out)}")
    server.query(f"CREATE SINK some {into(kafka, some, key='place', key_format='json')} AS SELECT place, n FROM few WHERE place <> 'p0'")
    for begin in range(0, 300, 50):
        send(kafka, topic, range(begin, begin + 50))
        time.sleep(0.15)
    assert server.settle("SELECT sum(n) FROM totals", 300) == 300
    for name in ("out", "some"):
        assert tidegate.settle(lambda: sink(server, name)["lag_rows"], 0) == 0
    want = {(row["place"],): row for row in server.query("SELECT place, n, total FROM totals")}
    assert compacted(records(kafka.bootstrap, out), "place") == want
    found = records(kafka.bootstrap, some)
    assert compacted(found, "place") == {} and {r.value and r.value["place"] for r in found} == {None, *(f"p{i}" for i in range(1, 7))}
    # Changes as they are add up to the view.
    changes = kafka.fresh_topic("changes", 1)
    server.query(f"CREATE SINK changes {into(kafka, changes, envelope='changes')} AS SELECT place, n FROM totals")
    send(kafka, topic, range(300, 400))
    assert server.settle("SELECT sum(n) FROM totals", 400) == 400
    assert tidegate.settle(lambda: sink(server, "changes")["lag_rows"], 0) == 0
    held = collections.Counter()
    for record in records(kafka.bootstrap, changes):
        held[record.value["place"], record.value["n"]] += {"insert": 1, "delete": -1}[record.value["_op"]]
        assert record.value["_epoch"] == record.epoch
    assert {row for row, count in held.items() if count} == {(row["place"], row["n"]) for row in server.query("SELECT place, n FROM totals")}
    assert set(held.values()) <= {0, 1}


def test_statements_about_sinks(start, kafka):
    server, topic = start(FLAT, TOTALS)
    out = kafka.fresh_topic("out")
    server.query(f"CREATE SINK out {into(kafka, out, properties_security_protocol='PLAINTEXT')} AS SELECT id FROM flat")
    server.query(f"CREATE SINK IF NOT EXISTS out {into(kafka, out)} AS SELECT id FROM flat")
    assert "exists already" in server.refusal(f"CREATE SINK out {into(kafka, out)} AS SELECT id FROM flat")
    [created] = server.query("SHOW CREATE SINK out")
    assert created["statement"].startswith("CREATE SINK out INTO KAFKA")
    assert "out depends on it" in server.refusal("DROP VIEW flat")
    assert "sink out writes what it gives" in server.refusal("CREATE OR REPLACE CONTINUOUS VIEW flat AS SELECT id, place, v FROM readings WHERE id > 3")
    assert "is a sink" in server.refusal("SELECT * FROM out")
    # Whatever comes from its creation on waits for it, though it may not have begun yet.
    server.query("PAUSE SINK out")
    send(kafka, topic, range(30))
    server.settle("SELECT count(*) FROM flat", 30)
    assert tidegate.settle(lambda: sink(server)["lag_rows"], 30) == 30 and sink(server)["state"] == "paused"
    server.restart()
    assert sink(server)["state"] == "paused" and records(kafka.bootstrap, out) == []
    server.query("RESUME SINK out")
    caught_up(server, 30)
    assert sorted(r.value["id"] for r in records(kafka.bootstrap, out)) == list(range(30))
    server.query("DROP SINK out")
    assert server.query("SHOW SINKS") == []
    server.query(f"CREATE SINK out {into(kafka, out)} AS SELECT id FROM flat")
    server.query("DROP VIEW flat CASCADE")
    assert server.query("SHOW SINKS") == []
    for statement, said in [
        (f"CREATE SINK s {into(kafka, out, key='nobody')} AS SELECT place FROM totals", "'key' names nobody, and its query gives place"),
        (f"CREATE SINK s {into(kafka, out)} AS SELECT n FROM totals", "say envelope = 'changes'"),
        (f"CREATE SINK s {into(kafka, out, key='n')} AS SELECT place, n FROM totals", "say key = 'place'"),
        (f"CREATE SINK s {into(kafka, out)} AS SELECT place, sum(n) FROM totals GROUP BY place", "CREATE CONTINUOUS VIEW"),
        (f"CREATE SINK s {into(kafka, out)} AS SELECT id FROM readings", "reads one continuous view"),
        (f"CREATE SINK s {into(kafka, out)} AS SELECT 1", "reads a continuous view"),
        (f"CREATE SINK s {into(kafka, out, delivery='twice')} AS SELECT place FROM totals", "'at_least_once' or 'exactly_once'"),
        (f"CREATE SINK s {into(kafka, out, delivrey='exactly_once')} AS SELECT place FROM totals", "did you mean 'delivery'?"),
        (f"CREATE SINK s {into(kafka, out, properties_acks='0')} AS SELECT place FROM totals", "is the sink's own"),
        (f"CREATE SINK s {into(kafka, out, scan_startup_mode='latest')} AS SELECT place FROM totals", "is about reading"),
        (f"CREATE SINK s {into(kafka, 'no-such-topic')} FROM totals", "expected AS"),
        (f"CREATE SINK s FROM totals {into(kafka, 'no-such-topic')}", "does not exist"),
        ("CREATE SINK s FROM totals INTO FOLDER ('/tmp/x', envelope = 'changes')", "--allow-path"),
        ("CREATE OR REPLACE SINK s FROM totals INTO FOLDER ('/tmp/x')", "can't be replaced"),
        ("PAUSE SINK totals", "no sink"),
        ("DROP SINK totals", "say DROP VIEW"),
    ]:
        assert said in server.refusal(statement), (statement, server.refusal(statement))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_kills(start, kafka, delivery):
    chance = random.Random(os.environ.get("TIDEGATE_SEED", delivery))
    server, topic = start(FLAT, TOTALS, max_epoch_rows=200, checkpoint_interval="300ms")
    rows_out, totals_out = kafka.fresh_topic("rows", 2), kafka.fresh_topic("totals", 2, cleanup_policy="compact")
    server.query(f"CREATE SINK out FROM flat {into(kafka, rows_out, key='place', delivery=delivery)}")
    server.query(f"CREATE SINK sums FROM totals {into(kafka, totals_out, delivery=delivery)}")
    sender = Sender(kafka, topic)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 2.0))
        server.restart()
    sent = sender.finish()
    caught_up(server, sent)
    assert tidegate.settle(lambda: sink(server, "sums")["lag_rows"], 0) == 0
    found = records(kafka.bootstrap, rows_out)
    # None is missing, and each is what it was.
    seen = collections.defaultdict(set)
    for record in found:
        seen[record.sequence].add((record.epoch, record.value["id"]))
    assert all(len(same) == 1 for same in seen.values()), "a number stands for several rows"
    assert sorted(seen) == list(range(sent))
    assert sorted(i for same in seen.values() for _, i in same) == list(range(sent))
    if delivery == "exactly_once":
        assert len(found) == sent, "records are there twice"
        for partition in (0, 1):
            own = [r.sequence for r in found if r.partition == partition]
            assert own == sorted(own)
    want = {(row["place"],): row for row in server.query("SELECT place, n, total FROM totals")}
    sums = records(kafka.bootstrap, totals_out)
    assert compacted(sums, "place") == want
    if delivery == "exactly_once":
        # What a key had stands before what it has.
        for place in want:
            own = [r.value["n"] for r in sums if r.key == {"place": place[0]} and r.value]
            assert own == sorted(own)


def test_a_broker_that_is_away_and_topics_that_are_missing(serve, kafka, tmp_path):
    """The sink's broker is another one than the source's: what stands still is the sink alone."""
    topic = kafka.fresh_topic("readings", PARTITIONS)
    other = kafka_module.Kafka(tmp_path / "other").start()
    try:
        out = other.create_topic("out")
        server = serve()
        source(server, kafka, topic)
        server.query(FLAT)
        server.query(f"CREATE SINK out FROM flat {into(other, out, delivery='exactly_once')}")
        send(kafka, topic, range(100))
        caught_up(server, 100)
        other.stop()
        send(kafka, topic, range(100, 200))
        assert server.settle("SELECT count(*) FROM flat", 200) == 200
        assert tidegate.settle(lambda: sink(server)["state"], "retrying", 60) == "retrying"
        assert sink(server)["lag_rows"] == 100
        server.restart()
        assert server.settle("SELECT count(*) FROM flat", 200) == 200
        other.start()
        caught_up(server, 200)
        assert sorted(r.value["id"] for r in records(other.bootstrap, out)) == list(range(200))
        # A topic that goes and comes again.
        other.delete_topic(out)
        send(kafka, topic, range(200, 300))
        assert tidegate.settle(lambda: sink(server)["state"], "retrying", 60) == "retrying"
        other.create_topic("out")
        # With the topic Kafka has forgotten the cursor: somebody must say that the sink is to go on.
        assert tidegate.settle(lambda: sink(server)["state"], "failed", 60) == "failed"
        assert "has forgotten the cursor" in sink(server)["message"]
        server.query("RESUME SINK out")
        caught_up(server, 300)
        assert sorted(r.value["id"] for r in records(other.bootstrap, out)) == list(range(200, 300))
    finally:
        other.close()


def test_a_sink_that_falls_too_far_behind(start, kafka):
    server, topic = start(FLAT, TOTALS)
    out, again = kafka.fresh_topic("out"), kafka.fresh_topic("again")
    server.query(f"CREATE SINK out FROM flat {into(kafka, out, max_lag_bytes='20 KiB')}")
    server.query(f"CREATE SINK again FROM totals {into(kafka, again, max_lag_bytes='20 KiB', when_behind='restart')}")
    send(kafka, topic, range(10))
    caught_up(server, 10)
    for name in ("out", "again"):
        server.query(f"PAUSE SINK {name}")
    for begin in range(10, 2010, 200):
        send(kafka, topic, range(begin, begin + 200))
        assert server.settle("SELECT count(*) FROM flat", begin + 200) == begin + 200
    # The one says so and begins anew when somebody wants it, the other begins anew by itself.
    assert tidegate.settle(lambda: "max.lag.bytes" in sink(server)["message"], True) is True
    server.restart()
    assert server.settle("SELECT count(*) FROM flat", 2010) == 2010
    server.query("RESUME SINK again")
    assert tidegate.settle(lambda: sink(server, "again")["lag_rows"], 0) == 0
    want = {(row["place"],): row for row in server.query("SELECT place, n, total FROM totals")}
    assert compacted(records(kafka.bootstrap, again), "place") == want
    server.query("RESUME SINK out")
    caught_up(server, 2010)
    written = [r.value["id"] for r in records(kafka.bootstrap, out)]
    assert set(written) == set(range(2010)) and len(written) > 2010


def test_a_paused_view_goes_on_with_its_sink(start, kafka):
    server, topic = start(FLAT, TOTALS)
    out = kafka.fresh_topic("out")
    server.query(f"CREATE SINK out FROM flat {into(kafka, out, delivery='exactly_once')}")
    send(kafka, topic, range(100))
    caught_up(server, 100)
    server.query("PAUSE VIEW flat")
    send(kafka, topic, range(100, 200))
    server.restart()
    server.query("RESUME VIEW flat")
    caught_up(server, 200)
    assert sorted(r.value["id"] for r in records(kafka.bootstrap, out)) == list(range(200))


def test_bad_records_go_to_a_topic_of_their_own(start, kafka):
    server, topic = start(FLAT)
    out = kafka.fresh_topic("dead", 1)
    server.query(f"CREATE SINK dead FROM readings$errors {into(kafka, out)}")
    assert "leave out 'key'" in server.refusal(f"CREATE SINK d FROM readings$errors {into(kafka, out, key='id')}")
    assert tidegate.settle(lambda: sink(server, "dead")["state"], "running") == "running"
    bad = b'{"id": "' + b"x" * 9000
    for n in range(3):
        kafka_module.send(kafka.bootstrap, topic, [(1, bad, {"key": b"k%d" % n}), (0, b"\xff"), (2, json.dumps({"id": n}).encode())])
        assert server.settle("SELECT count(*) FROM flat", n + 1) == n + 1
        server.restart() if n == 1 else time.sleep(0.2)
    assert server.settle("SELECT count(*) FROM readings$errors", 6) == 6
    assert tidegate.settle(lambda: sink(server, "dead")["lag_rows"], 0) == 0
    client = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "tests", "enable.auto.commit": False})
    client.assign([TopicPartition(out, 0, 0)])
    letters = {}
    while len(letters) < 6:
        message = client.poll(20)
        assert message is not None and not message.error()
        headers = {name: value.decode() for name, value in message.headers()}
        assert headers["tidegate-topic"] == topic and headers["tidegate-source"] == "readings" and headers["tidegate-reason"]
        # Those of the time before a kill may be there twice, as they were.
        place = (int(headers["tidegate-partition"]), int(headers["tidegate-offset"]))
        assert letters.setdefault(place, (message.key(), message.value())) == (message.key(), message.value())
    client.close()
    assert letters == {**{(1, n): (b"k%d" % n, bad) for n in range(3)}, **{(0, n): (None, b"\xff") for n in range(3)}}
    assert "depends on it" in server.refusal("DROP SOURCE readings") or "depend on it" in server.refusal("DROP SOURCE readings")


def test_a_source_with_a_topic_for_its_bad_records(serve, kafka):
    server, topic, out = serve(), kafka.fresh_topic("readings", 1), kafka.fresh_topic("dead", 1)
    create = f"""CREATE SOURCE IF NOT EXISTS s (id BIGINT) WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json')
        ERRORS TO KAFKA (topic = '{{}}')"""
    # Both or neither.
    assert "does not exist" in server.refusal(create.format("none-such"))
    assert server.query("SHOW SOURCES") == [] == server.query("SHOW SINKS")
    assert [row["name"] for row in server.query("EXPLAIN " + create.format(out))] == ["s", "s_errors"]
    server.query(create.format(out))
    server.query(create.format(out))
    assert "ERRORS" not in server.query("SHOW CREATE SOURCE s")[0]["statement"]
    server.query("CREATE CONTINUOUS VIEW v AS SELECT count(*) AS n FROM s")
    assert tidegate.settle(lambda: sink(server, "s_errors")["state"], "running") == "running"
    kafka_module.send(kafka.bootstrap, topic, [(0, b'{"id": 1}'), (0, b"bad")])
    assert server.settle("SELECT records FROM system.sinks", 1) == 1
    server.restart()
    [letter] = kafka_letters(kafka, out, 1)
    assert letter.value() == b"bad" and dict(letter.headers())["tidegate-source"] == b"s"
    assert "depend" in server.refusal("DROP SOURCE s")
    server.query("DROP SOURCE s CASCADE")
    assert server.query("SHOW SINKS") == []


def kafka_letters(kafka, topic, count):
    client = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "tests", "enable.auto.commit": False})
    client.assign([TopicPartition(topic, 0, 0)])
    try:
        return [client.poll(20) for _ in range(count)]
    finally:
        client.close()


# --- folders --------------------------------------------------------------------------------------------------------


def listed(folder):
    """The files that the manifest lists."""
    manifest = json.loads((folder / "_tidegate/manifest.json").read_text())
    files = [file for name in manifest["lists"] for file in json.loads((folder / "_tidegate" / name).read_text())]
    return [folder / file["path"] for file in files + manifest["files"]]


def test_a_folder_is_read_by_duckdb(serve, kafka, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    topic = kafka.fresh_topic("readings", PARTITIONS)
    server = serve("--allow-path", folder, max_epoch_rows=200)
    source(server, kafka, topic)
    server.query(FLAT)
    server.query(TOTALS)
    target = folder / "flat"
    options = "partition_by = 'place', 'roll.interval' = '300 ms', 'commit.interval' = '100 ms'"
    server.query(f"CREATE SINK out INTO FOLDER ('{target}', {options}) AS SELECT id, place, v FROM flat")
    server.query(f"CREATE SINK sums INTO FOLDER ('{folder}/sums', envelope = 'changes', 'commit.interval' = '100 ms') AS SELECT place, n FROM totals")
    assert "files can't" in server.refusal(f"CREATE SINK s INTO FOLDER ('{folder}/s') AS SELECT place, n FROM totals")
    assert "may not write" in server.refusal(f"CREATE SINK s FROM flat INTO FOLDER ('{tmp_path}/elsewhere')")
    assert "is that of sink out" in server.refusal(f"CREATE SINK twice FROM flat INTO FOLDER ('{target}')")
    chance, sender = random.Random(os.environ.get("TIDEGATE_SEED", "folder")), Sender(kafka, topic)

    def seen():
        files = [str(file) for file in listed(target)]
        # A manifest may have none yet, which DuckDB reads no rows of.
        return duckdb.sql(f"SELECT id FROM read_parquet({files!r}, hive_partitioning = true)").fetchall() if files else []

    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 2.0))
        server.kill()
        if (target / "_tidegate/manifest.json").exists():
            # Whatever a kill leaves, the manifest shows each row once.
            ids = [row[0] for row in seen()]
            assert len(ids) == len(set(ids))
        server.start()
    sent = sender.finish()
    caught_up(server, sent)
    assert tidegate.settle(lambda: sink(server, "sums")["lag_rows"], 0) == 0
    want = [(i, f"p{i % 7}", i * i % 101) for i in range(sent)]
    glob = duckdb.sql(f"SELECT id, place, v FROM read_parquet('{target}/**/*.parquet', hive_partitioning = true) ORDER BY id").fetchall()
    assert glob == want and sorted(seen()) == [(i,) for i in range(sent)]
    added = duckdb.sql(f"""SELECT place, n FROM read_parquet('{folder}/sums/*.parquet') GROUP BY place, n
        HAVING sum(CASE _op WHEN 'insert' THEN 1 ELSE -1 END) = 1 ORDER BY place""").fetchall()
    assert added == [(row["place"], row["n"]) for row in server.query("SELECT place, n FROM totals ORDER BY place")]


# --- the benchmark --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", [False, True], ids=["embedded", "kafka"])
def test_a_sink_is_compared_with_a_bare_producer(real, kafka, tmp_path):
    brokers = ["--bootstrap-servers", kafka.bootstrap] if real else []
    process = tidegate.Process(tmp_path, "bench", "sink", "--json", "--records", "5000", "--partitions", "3", "--runs", "2", *brokers)
    try:
        assert process.wait(120) == 0, process.err.read_text()
    finally:
        process.kill()
    machine, *found = [json.loads(line) for line in process.out.read_text().splitlines()]
    assert machine["bench"] == "sink" and [row["case"] for row in found] == ["at_least_once", "exactly_once"]
    for row in found:
        assert row["broker"] == (kafka.bootstrap if real else "embedded")
        assert row["records"] == 5000 and row["ratio"] > 0 and row["baseline_value"] > 0 and row["bytes_per_record"] > 100, row
    # It leaves nothing behind.
    assert not [topic for topic in kafka.admin.list_topics(timeout=10).topics if topic.startswith("tidegate-bench")]
