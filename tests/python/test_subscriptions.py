"""Subscriptions in the real world: ends, disconnects, slow readers, very many readers."""

import json
import random
import re
import time
import urllib.request

import pyarrow.flight as flight
import pytest
import tidegate
from security import any_, field


def source(broker, topic="events"):
    return f"""CREATE SOURCE {topic} (k TEXT, x BIGINT) WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{broker.bootstrap}',
               format = 'json')"""


def events(*rows):
    return [(0, json.dumps({"k": k, "x": x}).encode()) for k, x in rows]


SUMS = "CREATE CONTINUOUS VIEW sums WITH (unbounded_state = true) AS SELECT k, count(*) AS n, sum(x) AS s FROM events GROUP BY k"


@pytest.fixture
def sums(serve, embedded):
    broker, server = embedded(events=1), serve()
    server.query(source(broker))
    server.query(SUMS)
    return broker, server


def by_key(server):
    return {(row["k"],): row for row in server.query("SELECT * FROM sums")}


def test_it_begins_at_once_also_with_nothing(sums):
    broker, server = sums
    for statement in ["SUBSCRIBE sums", "SELECT * FROM sums EMIT CHANGES WITH (snapshot = false)"]:
        began = time.time()
        follower = tidegate.Subscription(server, statement)
        assert tidegate.settle(lambda: len(follower.batches) > 0, True) and follower.batches[0][0] - began < 3
        assert follower.batches[0][1].num_rows == 0
        assert follower.cancel()
    broker.send("events", events(("a", 1), ("b", 2)))
    assert server.settle("SELECT count(*) FROM sums", 2) == 2
    news = tidegate.Subscription(server, "SUBSCRIBE sums WITH (snapshot = false)")
    assert tidegate.settle(lambda: len(news.batches) > 0, True)
    broker.send("events", events(("c", 1)))
    assert tidegate.settle(lambda: [row["k"] for row in news.rows()], ["c"]) == ["c"]


def test_it_ends_where_it_is_told_to(sums):
    broker, server = sums
    broker.send("events", events(*[(f"k{i}", i) for i in range(50)]))
    assert server.settle("SELECT count(*) FROM sums", 50) == 50
    # Read to the end, as tools do.
    assert len(server.query("SUBSCRIBE sums WITH (max_rows = 20)")) == 20
    began = time.time()
    assert len(server.query("SELECT k FROM sums WHERE s >= 40 EMIT CHANGES WITH (timeout = '500 ms')")) == 10
    assert time.time() - began < 20
    assert len(server.query("SUBSCRIBE events WITH (max_rows = 7)")) == 7
    server.query("SET tidegate.stream_max_rows = 3")
    assert len(server.query("SUBSCRIBE sums")) == 3
    assert len(server.query("SUBSCRIBE sums WITH (max_rows = 4)")) == 4
    server.query("SET tidegate.stream_max_rows = 'none'")
    server.query("SET tidegate.stream_timeout = '300 ms'")
    assert len(server.query("SUBSCRIBE sums")) == 50
    assert server.value("SHOW tidegate.stream_timeout") == "300ms"
    settings = {row["name"]: row["value"] for row in server.query("SELECT name, value FROM system.settings WHERE name LIKE 'tidegate.%'")}
    assert settings["tidegate.stream_max_rows"] == "none" and settings["tidegate.stream_timeout"] == "300ms", settings
    assert server.settle("SELECT count(*) FROM system.queries WHERE sql LIKE 'SUBSCRIBE%'", 0) == 0


def test_who_comes_back_has_missed_nothing(sums):
    """Random disconnects: what was read in pieces is what one would have read who never left."""
    broker, server = sums
    stays = tidegate.Subscription(server, "SUBSCRIBE sums")
    chance = random.Random(7)
    read, follower, sent = [], None, 0
    for round_ in range(25):
        if follower is None:
            after = f" AS OF EPOCH {read[-1]['_epoch']}" if read else ""
            follower = tidegate.Subscription(server, f"SELECT * FROM sums EMIT CHANGES{after}")
        for _ in range(chance.randrange(1, 4)):
            rows = [(f"k{chance.randrange(20)}", chance.randrange(100)) for _ in range(chance.randrange(1, 30))]
            broker.send("events", events(*rows))
            sent += len(rows)
        if chance.random() < 0.6:
            # What has come by now is whole epochs: a batch never ends within one.
            time.sleep(chance.random() * 0.1)
            follower.cancel()
            read, follower = read + follower.rows(), None
    if follower:
        follower.cancel()
        read += follower.rows()
    assert server.settle("SELECT sum(n) FROM sums", sent) == sent
    want = by_key(server)
    last = f" AS OF EPOCH {read[-1]['_epoch']}" if read else ""
    end = tidegate.Subscription(server, f"SUBSCRIBE sums{last}")
    assert tidegate.settle(lambda: tidegate.fold(read + end.rows(), ["k"]), want) == want
    assert tidegate.settle(lambda: tidegate.fold(stays.rows(), ["k"]), want) == want
    assert read + end.rows() == stays.rows(), "the same changes, each once"
    newest = stays.last_epoch()
    assert "is still to come" in server.refusal(f"SUBSCRIBE sums AS OF EPOCH {newest + 10**6}")
    assert "begins where the source does" in server.refusal("SUBSCRIBE events AS OF EPOCH 1")
    server.restart()
    # The changes of another life are not held.
    assert "are no longer held" in server.refusal(f"SUBSCRIBE sums AS OF EPOCH {read[0]['_epoch']}")


def test_a_slow_reader_is_told_and_holds_nobody_up(sums):
    broker, server = sums
    server.query("CREATE CONTINUOUS VIEW wide WITH (unbounded_state = true) AS SELECT k, sum(x) AS s, repeat(k, 2000) AS filling FROM events GROUP BY k")
    slow = {}
    for policy in ("fail", "skip"):
        connection = server.connect()
        cursor = connection.cursor()
        cursor.execute(f"SUBSCRIBE wide WITH (when_behind = '{policy}')")
        slow[policy] = (connection, cursor, cursor.fetch_record_batch())
    fast = tidegate.Subscription(server, "SUBSCRIBE sums")
    sent = 0
    # 30 rounds of 300 rows of about 12 kB, before and after: more than changes, messages and sockets can hold.
    for round_ in range(60):
        broker.send("events", events(*[(f"name{i:03}", round_) for i in range(300)]))
        sent += 300
        assert server.settle("SELECT sum(n) FROM sums", sent) == sent, "the pipeline goes on"
    assert tidegate.settle(lambda: tidegate.fold(fast.rows(), ["k"]), by_key(server)) == by_key(server)
    rows, error = [], None
    try:
        for batch in slow["fail"][2]:
            rows += batch.to_pylist()
    except Exception as problem:
        error = tidegate.message(problem)
    assert error and "fell too far behind" in error and "when_behind = 'skip'" in error, error
    rows = []
    for batch in slow["skip"][2]:
        rows += batch.to_pylist()
        if len(rows) > 300 and rows[-1]["s"] == sum(range(60)) and any(row["_op"] == "gap" for row in rows):
            state = tidegate.fold(rows, ["k"])
            if len(state) == 300 and all(row["s"] == sum(range(60)) for row in state.values()):
                break
    gap = next(row for row in rows if row["_op"] == "gap")
    assert gap["k"] is None and gap["s"] is None and gap["_epoch"] > 0
    for connection, cursor, _ in slow.values():
        cursor.close()
        connection.close()


def metric(server, name):
    text = urllib.request.urlopen(f"{server.http}/metrics").read().decode()
    return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))


def test_a_thousand_subscribers_cost_one_plan(serve, embedded):
    broker, server = embedded(events=1), serve("--http", "127.0.0.1:0")
    server.http = server.process.wait_for("http on ")
    server.query(source(broker))
    server.query(SUMS)
    broker.send("events", events(("a", 1)))
    assert server.settle("SELECT count(*) FROM sums", 1) == 1
    client = flight.connect(server.url)
    descriptor = flight.FlightDescriptor.for_command(any_("CommandStatementQuery", field(1, "SELECT k, s * 2 AS twice FROM sums WHERE s > 0 EMIT CHANGES")))
    readers = [client.do_get(client.get_flight_info(descriptor).endpoints[0].ticket) for _ in range(1000)]
    for reader in readers:
        assert reader.read_chunk().data.to_pylist()[0]["twice"] == 2
    assert server.value("SELECT count(*) FROM system.queries WHERE unbounded") == 1000
    assert metric(server, "tidegate_subscribed_queries") == 1
    broker.send("events", events(("a", 5), ("b", 1)))
    for reader in readers:
        state = {"a": 2}
        while state != {"a": 12, "b": 2}:
            for row in reader.read_chunk().data.to_pylist():
                if row["_op"] in ("insert", "update_after"):
                    state[row["k"]] = row["twice"]
    other = tidegate.Subscription(server, "SUBSCRIBE sums")
    assert tidegate.settle(lambda: len(other.rows()), 2) == 2
    assert metric(server, "tidegate_subscribed_queries") == 2
    other.cancel()
    # The connection goes, and everything with it.
    for reader in readers:
        reader.cancel()
    del readers, reader
    client.close()
    assert tidegate.settle(lambda: server.value("SELECT count(*) FROM system.queries WHERE unbounded"), 0) == 0
    assert tidegate.settle(lambda: metric(server, "tidegate_subscribed_queries"), 0) == 0
