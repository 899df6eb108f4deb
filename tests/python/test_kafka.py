"""The main job on a real Apache Kafka: everything the embedded broker doesn't do."""

import json
import time

import pytest
from confluent_kafka import Consumer

import kafka as kafka_module
import oracle
import tidegate


def start_job(server, broker, topic, bound="2 hours", options=""):
    server.query(oracle.source(topic, broker.bootstrap, bound, options))
    server.query(oracle.VIEW)


@pytest.fixture(scope="session")
def matches(kafka, request, tmp_path_factory):
    """A topic that holds all real matches, sent at full speed (simulated ones where there are none), and their independent count."""
    topic, folder = kafka.fresh_topic("matches", 4), tmp_path_factory.mktemp("matches")
    try:
        data = request.getfixturevalue("statsbomb")
    except pytest.skip.Exception as skipped:
        print(skipped)
        tidegate.run(folder, "simulate", "--brokers", kafka.bootstrap, "--topic", topic, "--rate", "max", "--seed", "5", "--matches", "20")
        want, bad = oracle.Collector(kafka.bootstrap, topic).counts()
        assert not bad
    else:
        tidegate.run(folder, "replay", data.folder, "--brokers", kafka.bootstrap, "--topic", topic, "--rate", "max")
        want = data.counts()
    assert sum(end for _, end in kafka.ranges(topic).values()) == want.total
    return topic, want


@pytest.mark.parametrize("rows", [2_000, 30_000, 1_000_000])
def test_every_row_is_right_at_any_epoch_size(rows, kafka, matches, serve):
    topic, want = matches
    server = serve(max_epoch_rows=rows)
    start_job(server, kafka, topic)
    oracle.check_view(server, want)
    assert server.value('SELECT count(*) FROM "team_minute$late"') == 0
    assert server.value('SELECT count(*) FROM "match_events$errors"') == 0


@pytest.mark.parametrize("rows", [2_000, 1_000_000])
def test_view_and_late_rows_are_right_together(rows, kafka, matches, serve):
    topic, want = matches
    server = serve(max_epoch_rows=rows)
    start_job(server, kafka, topic, bound="5 seconds")
    oracle.check_view_and_late(server, want)


def test_while_they_arrive_at_full_speed(kafka, serve):
    server, topic = serve(), kafka.fresh_topic("arriving", 4)
    start_job(server, kafka, topic)
    collector = oracle.Collector(kafka.bootstrap, topic)
    kafka_module.send(kafka.bootstrap, topic, oracle.placed(oracle.synthetic_events(21, 100_000), 4))
    want, _ = collector.counts()
    oracle.check_view(server, want)


def test_a_plain_select_over_real_matches(kafka, matches, serve):
    topic, want = matches
    server = serve()
    server.query(oracle.source(topic, kafka.bootstrap))
    oracle.check_equal(server.query(oracle.QUERY), want)


def numbers(server, kafka, topic, name="numbers", options=""):
    server.query(f"""CREATE SOURCE {name} (n INT, p INT METADATA FROM 'partition', o BIGINT METADATA FROM 'offset', t TIMESTAMP METADATA FROM 'timestamp')
      WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json'{options})""")
    server.query(f"CREATE CONTINUOUS VIEW {name}_seen AS SELECT n, p, o FROM {name}")


def number(n):
    return b'{"n": %d}' % n


def test_transactions(kafka, serve):
    topic, server = kafka.fresh_topic("transactions", 2), serve(max_epoch_rows=3)
    numbers(server, kafka, topic)
    numbers(server, kafka, topic, "dirty", ", 'properties.isolation.level' = 'read_uncommitted'")
    producer = kafka.producer(transactional_id=topic)
    producer.init_transactions(20)

    def transaction(values, commit):
        producer.begin_transaction()
        for n in values:
            producer.produce(topic, number(n), partition=n % 2)
        producer.flush(10)
        producer.commit_transaction(20) if commit else producer.abort_transaction(20)

    transaction(range(0, 10), commit=True)
    transaction(range(100, 110), commit=False)
    transaction(range(20, 25), commit=True)
    transaction(range(200, 203), commit=False)
    want = [*range(0, 10), *range(20, 25)]
    assert server.settle("SELECT count(*) FROM numbers_seen", 15) == 15
    assert [r["n"] for r in server.query("SELECT n FROM numbers_seen ORDER BY n")] == want
    # Markers and aborted records stand at the end of both partitions: a bounded read ends all the same.
    assert [r["n"] for r in server.query("SELECT n FROM numbers ORDER BY n")] == want
    assert server.settle("SELECT count(*) FROM dirty_seen", 28) == 28
    assert server.value("SELECT count(*) FROM dirty") == 28

    # An open transaction hides what comes after it, and a bounded read doesn't wait for it.
    producer.begin_transaction()
    producer.produce(topic, number(30), partition=0)
    producer.flush(10)
    kafka_module.send(kafka.bootstrap, topic, [(0, number(40)), (1, number(41))])
    begin = time.monotonic()
    assert [r["n"] for r in server.query("SELECT n FROM numbers ORDER BY n")] == [*want, 41]
    assert time.monotonic() - begin < 15
    assert server.settle("SELECT count(*) FROM numbers_seen", 16) == 16
    producer.commit_transaction(20)
    assert server.settle("SELECT count(*) FROM numbers_seen", 18) == 18

    # The markers are no records, and a restart over them neither stalls nor repeats.
    server.restart()
    assert server.settle("SELECT count(*) FROM numbers_seen", 18) == 18
    kafka_module.send(kafka.bootstrap, topic, [(0, number(50)), (1, number(51))])
    assert server.settle("SELECT count(*) FROM numbers_seen", 20) == 20


def test_compaction_leaves_gaps(kafka, serve):
    topic = kafka.fresh_topic(
        "compacted", 1, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01, max_compaction_lag_ms=100, delete_retention_ms=60000
    )
    send = lambda values: kafka_module.send(kafka.bootstrap, topic, [(0, number(n), {"key": str(n % 5)}) for n in values])
    send(range(100))
    deadline = time.monotonic() + 60
    while True:
        # A segment is only compacted once another has begun behind it.
        time.sleep(0.3)
        send(range(100, 105))
        records = oracle.Collector(kafka.bootstrap, topic).finish()
        if len(records) < 60:
            break
        assert time.monotonic() < deadline, "kafka did not compact the topic within a minute"
    # Compaction may go on meanwhile: what counts is that the newest value of each key is there and nothing comes twice.
    server = serve(max_epoch_rows=2)
    numbers(server, kafka, topic)
    newest = "SELECT count(*) FROM numbers_seen WHERE o >= (SELECT max(o) - 4 FROM numbers_seen)"
    end = kafka.ranges(topic)[0][1]
    assert server.settle("SELECT max(o) + 1 FROM numbers_seen", end) == end
    assert server.value(newest) == 5
    assert server.value("SELECT count(*) - count(DISTINCT o) FROM numbers_seen") == 0
    assert server.value("SELECT count(*) FROM numbers") < 60 + 5
    send([7])
    assert server.settle("SELECT max(o) FROM numbers_seen", end) == end


def test_records_deleted_before_it_ever_read_them(kafka, serve):
    topic, server = kafka.fresh_topic("deleted", 2), serve()
    kafka_module.send(kafka.bootstrap, topic, [(p, number(n)) for n in range(100) for p in range(2)])
    kafka.delete_below(topic, {0: 90, 1: 100})
    numbers(server, kafka, topic)
    assert server.settle("SELECT count(*) FROM numbers_seen", 10) == 10
    assert server.value("SELECT count(*) FROM numbers") == 10
    kafka_module.send(kafka.bootstrap, topic, [(1, number(7))])
    assert server.settle("SELECT count(*) FROM numbers_seen", 11) == 11


def test_empty_partitions_and_an_empty_topic(kafka, serve):
    topic, server = kafka.fresh_topic("sparse", 8), serve()
    start_job(server, kafka, topic)
    assert server.value("SELECT count(*) FROM match_events") == 0
    assert server.query("SELECT * FROM team_minute") == []
    collector = oracle.Collector(kafka.bootstrap, topic)
    kafka_module.send(kafka.bootstrap, topic, oracle.placed(oracle.synthetic_events(22, 500, matches=2), 8))
    want, _ = collector.counts()
    oracle.check_view(server, want)
    assert server.value("SELECT count(*) FROM match_events") == 500


def test_a_start_by_time(kafka, serve):
    topic, server = kafka.fresh_topic("timed", 2), serve()
    base = 1_700_000_000_000
    kafka_module.send(kafka.bootstrap, topic, [(p, number(n), {"timestamp": base + 1000 * n}) for n in range(10) for p in range(2)])
    numbers(server, kafka, topic, "since", f", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp' = '{base + 6500}'")
    numbers(server, kafka, topic, "since_text", ", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp' = '2023-11-14T22:13:28Z'")
    numbers(server, kafka, topic, "future", f", 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp' = '{base + 3_600_000}'")
    assert server.settle("SELECT count(*) FROM since_seen", 6) == 6
    assert [r["n"] for r in server.query("SELECT DISTINCT n FROM since_seen ORDER BY n")] == [7, 8, 9]
    assert server.settle("SELECT count(*) FROM since_text_seen", 4) == 4
    assert server.value("SELECT count(*) FROM future") == 0
    kafka_module.send(kafka.bootstrap, topic, [(0, number(99), {"timestamp": base + 4_000_000})])
    assert server.settle("SELECT count(*) FROM future_seen", 1) == 1


def test_offsets_are_committed_for_other_tools(kafka, serve):
    topic, server = kafka.fresh_topic("committed", 2), serve(checkpoint_interval="200ms")
    numbers(server, kafka, topic)
    kafka_module.send(kafka.bootstrap, topic, [(p, number(n)) for n in range(50) for p in range(2)])
    want = {0: 50, 1: 50}
    assert tidegate.settle(lambda: kafka.committed("tidegate-numbers", topic), want, 30) == want


QUICK = ", 'properties.topic.metadata.refresh.interval.ms' = '300'"


def test_partitions_that_are_added(kafka, serve):
    topic, server = kafka.fresh_topic("growing", 1), serve(checkpoint_interval="100ms")
    kafka_module.send(kafka.bootstrap, topic, [(0, number(n)) for n in range(10)])
    numbers(server, kafka, topic, options=QUICK)
    # A start at the end holds for the partitions that were there.
    numbers(server, kafka, topic, "newest", QUICK + ", 'scan.startup.mode' = 'latest'")
    assert server.settle("SELECT count(*) FROM numbers_seen", 10) == 10
    kafka.add_partitions(topic, 3)
    kafka_module.send(kafka.bootstrap, topic, [(p, number(100 * p + n)) for n in range(10) for p in range(3)])
    assert server.settle("SELECT count(*) FROM numbers_seen", 40) == 40
    assert server.settle("SELECT count(*) FROM newest_seen", 30) == 30
    assert server.value("SELECT count(*) FROM numbers") == 40
    # A view that comes late reads them too, and so does a server that was down when more were made.
    server.query("CREATE CONTINUOUS VIEW late AS SELECT n, p, o FROM numbers")
    assert server.settle("SELECT count(*) FROM late", 40) == 40
    server.kill()
    kafka.add_partitions(topic, 4)
    kafka_module.send(kafka.bootstrap, topic, [(3, number(1000 + n)) for n in range(10)])
    server.start()
    for view, want in (("numbers_seen", 50), ("newest_seen", 40), ("late", 50)):
        assert server.settle(f"SELECT count(*) FROM {view}", want) == want
        assert server.value(f"SELECT count(*) - count(DISTINCT p * 1000000 + o) FROM {view}") == 0


def test_a_new_partition_holds_the_watermark_and_never_moves_it_back(kafka, serve):
    topic, server = kafka.fresh_topic("watermark", 1), serve()
    server.query(f"""CREATE SOURCE ticks (n INT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '0' SECOND)
      WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json', 'idle.timeout' = '10 minutes'{QUICK})""")
    server.query("""CREATE CONTINUOUS VIEW minutes AS SELECT window_start, count(*) AS c FROM TUMBLE(ticks, at, INTERVAL '1 minute')
      GROUP BY window_start, window_end EMIT ON WINDOW CLOSE""")
    tick = lambda minute: b'{"n": 1, "at": "2024-01-01T00:%02d:00Z"}' % minute
    kafka_module.send(kafka.bootstrap, topic, [(0, tick(m)) for m in range(6)])
    assert server.settle("SELECT count(*) FROM minutes", 5) == 5
    watermark = lambda: server.query("SHOW SOURCES")[0]["watermark"]
    before = watermark()
    kafka.add_partitions(topic, 2)
    assert tidegate.settle(lambda: server.query("SHOW SOURCES")[0]["partitions"], 2) == 2
    kafka_module.send(kafka.bootstrap, topic, [(0, tick(m)) for m in range(6, 10)])
    # The new partition has said nothing yet, so nothing more closes; and what is closed stays closed.
    time.sleep(1)
    assert (server.value("SELECT count(*) FROM minutes"), watermark()) == (5, before)
    kafka_module.send(kafka.bootstrap, topic, [(1, tick(2)), (1, tick(8))])
    assert server.settle("SELECT count(*) FROM minutes", 8) == 8
    assert watermark() > before
    assert server.value('SELECT count(*) FROM "minutes$late"') == 1


def lose(kafka, server, topic):
    """Reads ten records, is down while ten more come and five of them are deleted, and starts again."""
    kafka_module.send(kafka.bootstrap, topic, [(p, number(n)) for n in range(10) for p in range(2)])
    assert server.settle("SELECT count(*) FROM numbers_seen", 20) == 20
    server.stop()
    kafka_module.send(kafka.bootstrap, topic, [(p, number(n)) for n in range(10, 20) for p in range(2)])
    kafka.delete_below(topic, {0: 15})
    server.start()


def test_records_deleted_while_it_was_down_stop_the_source(kafka, serve):
    topic, server = kafka.fresh_topic("lossy", 2), serve(checkpoint_interval="100ms")
    numbers(server, kafka, topic)
    lose(kafka, server, topic)
    source = lambda: server.query("SHOW SOURCES")[0]
    assert tidegate.settle(lambda: source()["state"], "failed") == "failed"
    [view] = server.query("SHOW VIEWS")
    assert view["state"] == "failed"
    for message in (source()["message"], view["message"]):
        for part in (topic, "partition 0: offset 10 comes next", "oldest that is there is 15", "on.data.loss"):
            assert part in message, message
    # What was read before is there, and a subscription is told.
    assert server.value("SELECT count(*) FROM numbers_seen WHERE p = 0") == 10
    subscription = tidegate.Subscription(server, "SELECT * FROM numbers_seen EMIT CHANGES")
    assert subscription.ended.wait(20) and "offset 10 comes next" in tidegate.message(subscription.error)
    subscription.cancel()
    # The advice helps.
    server.query("DROP VIEW numbers_seen")
    server.query("CREATE CONTINUOUS VIEW numbers_seen AS SELECT n, p, o FROM numbers")
    assert server.settle("SELECT count(*) FROM numbers_seen", 25) == 25
    assert source()["state"] == "running"


@pytest.mark.parametrize("option", ["'on.data.loss'", "on_data_loss"])
def test_records_deleted_while_it_was_down_are_counted(kafka, serve, option):
    topic, server = kafka.fresh_topic("lossy", 2), serve(checkpoint_interval="100ms")
    numbers(server, kafka, topic, options=f", {option} = 'continue'")
    lose(kafka, server, topic)
    assert server.settle("SELECT count(*) FROM numbers_seen", 35) == 35
    [source] = server.query("SHOW SOURCES")
    assert source["state"] == "running"
    assert "partition 0: offset 10 comes next, but the oldest that is there is 15, so 5 were deleted unread" in source["message"]
    kafka_module.send(kafka.bootstrap, topic, [(0, number(99))])
    assert server.settle("SELECT count(*) FROM numbers_seen", 36) == 36
    # What was lost is behind it: the next start finds nothing missing.
    server.stop()
    server.start()
    assert server.settle("SELECT count(*) FROM numbers_seen", 36) == 36
    assert tidegate.settle(lambda: server.query("SHOW SOURCES")[0]["state"], "running") == "running"
    assert server.query("SHOW SOURCES")[0]["message"] == ""


def checkpointed(kafka, topic, offsets):
    """Waits until the newest checkpoint stands at these offsets: the group's follow each one."""
    return tidegate.settle(lambda: kafka.committed("tidegate-numbers", topic), offsets) == offsets


def lost(server):
    return server.query('SELECT "partition", lost FROM system.partitions WHERE source = \'numbers\' ORDER BY 1')


@pytest.mark.parametrize("policy", ["fail", "continue"])
def test_a_view_that_is_resumed_after_its_records_are_gone(kafka, serve, policy):
    topic, server = kafka.fresh_topic("emptied", 2), serve(checkpoint_interval="100ms")
    numbers(server, kafka, topic, options=f", 'on.data.loss' = '{policy}'")
    server.query("CREATE CONTINUOUS VIEW others AS SELECT p, o FROM numbers")
    send = lambda begin, end: kafka_module.send(kafka.bootstrap, topic, [(p, number(n)) for n in range(begin, end) for p in range(2)])
    send(0, 10)
    assert server.settle("SELECT count(*) FROM numbers_seen", 20) == 20
    server.query("PAUSE VIEW numbers_seen")
    send(10, 20)
    assert server.settle("SELECT count(*) FROM others", 40) == 40
    # The others need none of it any more.
    assert checkpointed(kafka, topic, {0: 20, 1: 20})
    kafka.delete_below(topic, {0: 20, 1: 15})
    if policy == "fail":
        said = server.refusal("RESUME VIEW numbers_seen")
        for part in ("stays paused", "partition 0: offset 10 comes next, but the oldest that is there is 20", "partition 1: offset 10", "on.data.loss"):
            assert part in said, said
        [view] = [view for view in server.query("SHOW VIEWS") if view["name"] == "numbers_seen"]
        assert view["state"] == "paused" and "offset 10 comes next" in view["message"], view
        # It can be read on, and after a restart too.
        server.restart()
        assert server.value("SELECT count(*) FROM numbers_seen") == 20
        assert "offset 10 comes next" in server.refusal("RESUME VIEW numbers_seen")
        # The advice helps.
        server.query("DROP VIEW numbers_seen")
        server.query("CREATE CONTINUOUS VIEW numbers_seen AS SELECT n, p, o FROM numbers")
        assert server.settle("SELECT count(*) FROM numbers_seen", 5) == 5
        assert lost(server) == [{"partition": 0, "lost": 0}, {"partition": 1, "lost": 0}]
        return
    server.query("RESUME VIEW numbers_seen")
    assert server.settle("SELECT count(*) FROM numbers_seen", 25) == 25
    assert tidegate.settle(lambda: [view["state"] for view in server.query("SHOW VIEWS")], ["running", "running"]) == ["running", "running"]
    assert lost(server) == [{"partition": 0, "lost": 10}, {"partition": 1, "lost": 5}]
    send(20, 21)
    assert server.settle("SELECT count(*) FROM numbers_seen", 27) == 27


@pytest.mark.parametrize("policy", ["fail", "continue"])
def test_a_view_ahead_of_a_pipeline_whose_records_are_gone(kafka, serve, policy):
    topic, server = kafka.fresh_topic("behind", 1), serve(checkpoint_interval="100ms")
    numbers(server, kafka, topic, options=f", 'on.data.loss' = '{policy}'")
    server.query("CREATE CONTINUOUS VIEW others AS SELECT p, o FROM numbers")
    kafka_module.send(kafka.bootstrap, topic, [(0, number(n)) for n in range(10)])
    assert server.settle("SELECT count(*) FROM numbers_seen", 10) == 10
    server.stop()
    # The first epoch of a start is in a checkpoint at once: the pipeline's stays at offset 11, the paused view's is at 20.
    server.settings["checkpoint_interval"] = "1h"
    server.start()
    kafka_module.send(kafka.bootstrap, topic, [(0, number(10))])
    assert server.settle("SELECT count(*) FROM numbers_seen", 11) == 11 and checkpointed(kafka, topic, {0: 11})
    kafka_module.send(kafka.bootstrap, topic, [(0, number(n)) for n in range(11, 20)])
    assert server.settle("SELECT count(*) FROM numbers_seen", 20) == 20
    server.query("PAUSE VIEW numbers_seen")
    server.kill()
    kafka.delete_below(topic, {0: 20})
    server.start()
    states = lambda: {view["name"]: view["state"] for view in server.query("SHOW VIEWS")}
    if policy == "fail":
        assert tidegate.settle(states, {"numbers_seen": "paused", "others": "failed"}) == {"numbers_seen": "paused", "others": "failed"}
        assert "offset 11 comes next, but the oldest that is there is 20" in server.refusal("RESUME VIEW numbers_seen")
        assert states()["numbers_seen"] == "paused"
        return
    # Nothing is there to read, and yet the pipeline knows where it stands.
    server.query("RESUME VIEW numbers_seen")
    running = {"numbers_seen": "running", "others": "running"}
    assert tidegate.settle(states, running) == running
    assert (server.value("SELECT count(*) FROM numbers_seen"), server.value("SELECT count(*) FROM others")) == (20, 11)
    assert lost(server) == [{"partition": 0, "lost": 9}]
    kafka_module.send(kafka.bootstrap, topic, [(0, number(20))])
    for view, want in (("numbers_seen", 21), ("others", 12)):
        assert server.settle(f"SELECT count(*) FROM {view}", want) == want


@pytest.mark.parametrize("policy", ["fail", "continue"])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("refilled", [3, 30])
def test_a_topic_that_is_made_anew(kafka, serve, policy, down, refilled):
    topic, server = kafka.fresh_topic("anew", 1), serve(checkpoint_interval="100ms")
    numbers(server, kafka, topic, options=f", 'on.data.loss' = '{policy}'" + QUICK)
    kafka_module.send(kafka.bootstrap, topic, [(0, number(n)) for n in range(10)])
    assert server.settle("SELECT count(*) FROM numbers_seen", 10) == 10
    if down:
        # Nobody waits for the broker to tell which topic it is: a moment after the first records it has.
        time.sleep(1)
        server.stop()
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 1)
    kafka_module.send(kafka.bootstrap, topic, [(0, number(100 + n)) for n in range(refilled)])
    if down:
        server.start()
    source = lambda: server.query("SHOW SOURCES")[0]
    if policy == "fail":
        assert tidegate.settle(lambda: source()["state"], "failed", 60) == "failed"
        assert "the topic was made anew" in source()["message"]
        # It stays so, until somebody decides.
        server.stop()
        server.start()
        assert tidegate.settle(lambda: source()["state"], "failed", 60) == "failed"
        if down or refilled < 10:
            assert server.value("SELECT count(*) FROM numbers_seen") == 10
        return
    fresh = "SELECT count(DISTINCT n) FROM numbers_seen WHERE n >= 100"
    assert server.settle(fresh, refilled, 60) == refilled
    assert tidegate.settle(lambda: "made anew" in source()["message"], True)
    # It goes on at the new topic's offsets, after a restart too.
    kafka_module.send(kafka.bootstrap, topic, [(0, number(200))])
    assert server.settle(fresh, refilled + 1) == refilled + 1
    server.stop()
    kafka_module.send(kafka.bootstrap, topic, [(0, number(201))])
    server.start()
    assert server.settle(fresh, refilled + 2) == refilled + 2
    # A running reader may have read on in the new topic for a moment, before the broker said that it is another one.
    if down or refilled < 10:
        assert server.value("SELECT count(*) FROM numbers_seen") == 10 + refilled + 2


def test_an_unknown_topic(kafka, serve):
    server = serve()
    text = oracle.source("no-such-topic", kafka.bootstrap)

    def told():
        return "no-such-topic" in " ".join(str(value) for row in server.query("SHOW SOURCES") for value in row.values())

    try:
        server.query(text)
    except Exception as error:
        assert "no-such-topic" in tidegate.message(error)
    else:
        assert tidegate.settle(told, True, 20)
        assert "no-such-topic" in server.refusal("SELECT count(*) FROM match_events")
    assert server.value("SELECT 1") == 1


def test_a_broker_that_goes_away_and_comes_back(tmp_path, serve):
    broker = kafka_module.Kafka(tmp_path / "kafka")
    try:
        topic, server = broker.start().create_topic("numbers", 2), serve(checkpoint_interval="100ms")
        numbers(server, broker, topic)
        kafka_module.send(broker.bootstrap, topic, [(0, number(1)), (1, number(2))])
        assert server.settle("SELECT count(*) FROM numbers_seen", 2) == 2

        def state():
            return " ".join(str(value) for row in server.query("SHOW SOURCES") for value in row.values())

        running = state()
        broker.stop()
        # The view answers on, a read of the topic says what is wrong, and so does the source's state.
        assert server.value("SELECT count(*) FROM numbers_seen") == 2
        assert broker.bootstrap in server.refusal("SELECT count(*) FROM numbers")
        assert tidegate.settle(lambda: state() != running, True, 30)
        # A server that starts without the broker serves all the same.
        server.restart()
        assert server.value("SELECT count(*) FROM numbers_seen") == 2
        assert tidegate.settle(lambda: state() != running, True, 30)
        broker.start()
        kafka_module.send(broker.bootstrap, topic, [(0, number(3)), (1, number(4))])
        assert server.settle("SELECT count(*) FROM numbers_seen", 4) == 4
        assert server.value("SELECT count(*) FROM numbers") == 4
    finally:
        broker.close()


def test_no_broker_at_all(serve):
    server, [port] = serve(), kafka_module.free_ports(1)
    try:
        server.query(oracle.source("matches", f"127.0.0.1:{port}"))
    except Exception as error:
        assert f"127.0.0.1:{port}" in tidegate.message(error)
    else:
        assert f"127.0.0.1:{port}" in server.refusal("SELECT count(*) FROM match_events")
    assert server.value("SELECT 1") == 1
    assert server.stop() == 0


def test_inserts_are_records_that_others_read(kafka, serve):
    topic, server = kafka.fresh_topic("inserted", 3, **{"cleanup.policy": "compact"}), serve()
    server.query(f"""CREATE SOURCE inserted (id BIGINT, name TEXT PATH '$.who.name', at TIMESTAMP FORMAT 'epoch_ms', PRIMARY KEY (id), WATERMARK FOR at AS at)
      WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json', 'properties.group.id' = 'of-a-consumer')""")
    server.query("CREATE CONTINUOUS VIEW held AS SELECT id, name FROM inserted")
    server.query("INSERT INTO inserted VALUES (1, 'Ada', '2024-01-01T00:00:00.5'), (2, NULL, '2024-01-01')")
    server.query("INSERT INTO inserted SELECT value, 'n' || value, now() FROM generate_series(3, 20000)")
    server.query("DELETE FROM inserted WHERE id IN (2, 3)")
    assert server.query("SELECT count(*) AS n, min(id) AS a FROM inserted") == [{"n": 19998, "a": 1}]
    assert server.settle("SELECT count(*) FROM held", 19998) == 19998
    records = {}
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "earliest", "enable.partition.eof": True})
    consumer.subscribe([topic])
    ends = 0
    while ends < 3:
        message = consumer.poll(10)
        assert message is not None, "the topic could not be read to its end"
        if message.error():
            ends += 1
            continue
        records.setdefault(json.loads(message.key())["id"], []).append((message.partition(), message.value()))
    consumer.close()
    assert len(records) == 20000
    assert json.loads(records[1][0][1]) == {"id": 1, "who": {"name": "Ada"}, "at": 1704067200500}
    assert json.loads(records[2][0][1]) == {"id": 2, "at": 1704067200000} and records[2][1][1] is None
    # A tombstone follows its row in the same partition.
    assert all(len({partition for partition, _ in values}) == 1 for values in records.values())


def test_a_missing_topic_is_told_and_not_made(kafka, serve):
    topic, server = kafka.fresh_topic("vanishing"), serve()
    server.query(f"CREATE SOURCE vanishing (id BIGINT) WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json')")
    kafka.delete_topic(topic)
    assert topic in server.refusal("INSERT INTO vanishing VALUES (1)")
