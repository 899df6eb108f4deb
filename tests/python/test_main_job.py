"""The main job on the embedded broker: events arrive, a continuous view counts them, a client reads it."""

import datetime as dt
import json
import signal
import statistics
import threading
import time

import oracle
import tidegate


def start_job(server, broker, topic, bound="2 hours", options=""):
    server.query(oracle.source(topic, broker.bootstrap, bound, options))
    server.query(oracle.VIEW)


def send_paced(broker, topic, records, rate):
    """Sends records at about `rate` a second."""
    records = list(records)
    begin, sent = time.monotonic(), 0
    while sent < len(records):
        due = min(len(records), int((time.monotonic() - begin) * rate) + 1)
        if due > sent:
            broker.send(topic, records[sent:due])
            sent = due
        time.sleep(0.01)


def test_a_client_sees_the_view_change_and_end_up_right(serve, embedded):
    broker, server = embedded(matches=4), serve()
    start_job(server, broker, "matches")
    collector = oracle.Collector(broker.bootstrap, "matches")
    subscription = tidegate.Subscription(server, "SELECT * FROM team_minute EMIT CHANGES")
    sender = threading.Thread(target=send_paced, args=(broker, "matches", list(oracle.placed(oracle.synthetic_events(1, 9000), 4)), 3000))
    sender.start()
    seen = []
    while sender.is_alive():
        # The topic read beside the view stops where the view stands: no event is late here, so the two agree at any moment.
        [row] = server.query("SELECT (SELECT sum(events) FROM team_minute) AS counted, (SELECT count(*) FROM match_events) AS sent")
        assert (row["counted"] or 0) == row["sent"]
        seen.append(row["sent"])
        time.sleep(0.2)
    sender.join()
    assert seen == sorted(seen) and len(set(seen)) > 5, f"the snapshot did not grow while events arrived: {seen}"

    want, bad = collector.counts()
    assert want.total == 9000 and not bad
    oracle.check_view(server, want)
    oracle.check_equal(server.query(oracle.QUERY), want)
    snapshot = {(r["window_start"], r["match_id"], r["team"]): r for r in server.query("SELECT * FROM team_minute")}

    def folded():
        return tidegate.fold(subscription.rows(), ["window_start", "match_id", "team"])

    assert tidegate.settle(folded, snapshot, 10) == snapshot
    assert list(subscription.batches[0][1].schema.names)[-2:] == ["_op", "_epoch"]
    assert len({row["_epoch"] for row in subscription.rows()}) > 20
    assert subscription.cancel()


def test_simulated_matches(serve, embedded):
    broker, server = embedded(matches=4), serve()
    start_job(server, broker, "matches")
    collector = oracle.Collector(broker.bootstrap, "matches")
    simulator = tidegate.Process(broker.folder, "simulate", "--brokers", broker.bootstrap, "--topic", "matches", "--rate", "3000", "--seed", "7", "--matches", "2")
    assert simulator.wait() == 0, simulator.said()
    want, bad = collector.counts()
    assert want.total > 2000 and not bad
    oracle.check_view(server, want)


def test_real_matches(serve, embedded, statsbomb):
    broker, server = embedded(matches=8), serve()
    start_job(server, broker, "matches")
    chosen, kick_off = statsbomb.some(3), dt.datetime(2018, 6, 14, 15)
    tidegate.run(
        broker.folder, "replay", statsbomb.folder, "--brokers", broker.bootstrap, "--topic", "matches", "--rate", "3000",
        "--matches", ",".join(map(str, chosen)), "--concurrent", len(chosen), "--kick-off", kick_off.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    oracle.check_view(server, statsbomb.counts(chosen, kick_off))


def test_one_malformed_record_in_every_hundred(serve, embedded):
    broker, server = embedded(matches=4), serve(max_epoch_rows=777)
    start_job(server, broker, "matches")
    collector = oracle.Collector(broker.bootstrap, "matches")
    broker.send("matches", oracle.placed(oracle.with_malformed(oracle.synthetic_events(2, 9900)), 4))
    want, bad = collector.counts()
    assert want.total == 9900 and len(bad) == 100
    oracle.check_view(server, want)
    oracle.check_errors(server, bad)
    columns = server.table('SELECT * FROM "match_events$errors" LIMIT 1').column_names
    assert columns == ["topic", "partition", "offset", "timestamp", "reason", "payload"]
    # A plain SELECT judges each record as the view does.
    assert server.value("SELECT count(*) FROM match_events") == 9900


def test_late_rows_stand_in_the_late_table(serve, embedded):
    broker, server = embedded(matches=2), serve(max_epoch_rows=500)
    start_job(server, broker, "matches", bound="5 seconds")
    collector = oracle.Collector(broker.bootstrap, "matches")
    broker.send("matches", oracle.placed(oracle.synthetic_events(3, 6000, disorder=90), 2))
    want, _ = collector.counts()
    assert oracle.check_view_and_late(server, want) > 100


def test_a_restart_goes_on(serve, embedded):
    broker, server = embedded(matches=3), serve()
    start_job(server, broker, "matches")
    collector = oracle.Collector(broker.bootstrap, "matches")
    records = list(oracle.placed(oracle.with_malformed(oracle.synthetic_events(4, 4000)), 3))
    broker.send("matches", records[:1500])
    assert server.settle("SELECT sum(events) FROM team_minute", 1485) == 1485
    assert server.stop() == 0
    broker.send("matches", records[1500:3000])
    server.start()
    broker.send("matches", records[3000:])
    want, bad = collector.counts()
    oracle.check_view(server, want)
    oracle.check_errors(server, bad)


def test_a_subscription_is_prompt(serve, embedded):
    broker, server = embedded(pings=1), serve()
    server.query(f"""CREATE SOURCE pings (n BIGINT) WITH (connector = 'kafka', topic = 'pings', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    server.query("CREATE CONTINUOUS VIEW seen AS SELECT n FROM pings")
    subscription, delays = tidegate.Subscription(server, "SELECT n FROM seen EMIT CHANGES"), []
    for n in range(30):
        begin = time.monotonic()
        broker.send("pings", [(0, b'{"n": %d}' % n)])
        tidegate.settle(lambda: any(row["n"] == n for row in subscription.rows()), True, 5)
        delays.append(time.monotonic() - begin)
    # The median, and well above what it takes: a shared machine may pause now and then.
    assert statistics.median(delays) < 0.15, delays
    assert [row["n"] for row in subscription.rows()] == list(range(30))
    assert subscription.cancel()


def test_a_subscription_begins_with_the_snapshot(serve, embedded):
    broker, server = embedded(matches=2), serve()
    start_job(server, broker, "matches")
    broker.send("matches", oracle.placed(oracle.synthetic_events(5, 2000), 2))
    assert server.settle("SELECT sum(events) FROM team_minute", 2000) == 2000
    subscription = tidegate.Subscription(server, "SELECT match_id, window_start, team, events FROM team_minute WHERE match_id = 1001 EMIT CHANGES")
    snapshot = {(r["match_id"], r["window_start"], r["team"]): r for r in server.query("SELECT match_id, window_start, team, events FROM team_minute WHERE match_id = 1001")}
    key = ["match_id", "window_start", "team"]
    assert tidegate.settle(lambda: tidegate.fold(subscription.rows(), key), snapshot, 10) == snapshot
    broker.send("matches", oracle.placed(oracle.synthetic_events(6, 500), 2))
    assert server.settle("SELECT sum(events) FROM team_minute", 2500) == 2500
    snapshot = {(r["match_id"], r["window_start"], r["team"]): r for r in server.query("SELECT match_id, window_start, team, events FROM team_minute WHERE match_id = 1001")}
    assert tidegate.settle(lambda: tidegate.fold(subscription.rows(), key), snapshot, 10) == snapshot
    assert subscription.cancel()


def test_a_view_made_later_counts_what_was_there(serve, embedded):
    broker, server = embedded(matches=2), serve(max_epoch_rows=300)
    start_job(server, broker, "matches")
    collector = oracle.Collector(broker.bootstrap, "matches")
    sender = threading.Thread(target=send_paced, args=(broker, "matches", list(oracle.placed(oracle.synthetic_events(8, 6000), 2)), 3000))
    sender.start()
    time.sleep(1)
    server.query(oracle.VIEW.replace("VIEW team_minute", "VIEW second_one"))
    sender.join()
    want, _ = collector.counts()
    oracle.check_view(server, want)
    oracle.check_view(server, want, view="second_one")
    server.query("DROP VIEW team_minute")
    broker.send("matches", oracle.placed(oracle.synthetic_events(9, 100), 2))
    assert server.settle("SELECT sum(events) FROM second_one", 6100) == 6100


def test_two_views_are_at_the_same_epoch(serve, embedded):
    broker, server = embedded(matches=2), serve(max_epoch_rows=50)
    start_job(server, broker, "matches")
    server.query("""CREATE CONTINUOUS VIEW by_match AS SELECT window_start, match_id, count(*) AS events
      FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id EMIT CHANGES""")
    sender = threading.Thread(target=send_paced, args=(broker, "matches", list(oracle.placed(oracle.synthetic_events(10, 6000), 2)), 3000))
    sender.start()
    while sender.is_alive():
        [row] = server.query("SELECT (SELECT coalesce(sum(events), 0) FROM team_minute) AS a, (SELECT coalesce(sum(events), 0) FROM by_match) AS b")
        assert row["a"] == row["b"]
    sender.join()


def test_startup_modes(serve, embedded):
    broker, server = embedded(numbers=2), serve()
    broker.send("numbers", [(p, b'{"n": %d}' % n) for n in range(10) for p in range(2)])

    def declare(name, mode):
        server.query(f"""CREATE SOURCE {name} (n INT, p INT METADATA FROM 'partition') WITH (connector = 'kafka', topic = 'numbers',
          'bootstrap.servers' = '{broker.bootstrap}', format = 'json', {mode})""")
        server.query(f"CREATE CONTINUOUS VIEW {name}_seen AS SELECT n, p FROM {name}")

    declare("all_of_it", "'scan.startup.mode' = 'earliest'")
    declare("the_new", "'scan.startup.mode' = 'latest'")
    declare("from_offsets", "'scan.startup.mode' = 'offsets', 'scan.startup.offsets' = '0:7,1:9'")
    assert server.settle("SELECT count(*) FROM all_of_it_seen", 20) == 20
    broker.send("numbers", [(0, b'{"n": 10}')])
    assert server.settle("SELECT count(*) FROM all_of_it_seen", 21) == 21
    assert server.settle("SELECT count(*) FROM the_new_seen", 1) == 1
    assert server.settle("SELECT count(*) FROM from_offsets_seen", 5) == 5
    assert server.query("SELECT n, p FROM from_offsets_seen ORDER BY p, n") == [
        {"n": 7, "p": 0}, {"n": 8, "p": 0}, {"n": 9, "p": 0}, {"n": 10, "p": 0}, {"n": 9, "p": 1},
    ]
    # An ordinary query begins where the declaration begins.
    assert server.value("SELECT count(*) FROM the_new") == 1
    assert server.value("SELECT count(*) FROM from_offsets") == 5


def test_a_record_larger_than_an_epoch(serve, embedded):
    broker, server = embedded(events=1), serve(max_epoch_bytes=2000)
    server.query(f"CREATE SOURCE events (n INT, text TEXT) WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')")
    server.query("CREATE CONTINUOUS VIEW lengths AS SELECT n, length(text) AS length FROM events")
    sizes = [10, 1500, 300_000, 3, 900_000, 0]
    broker.send("events", [(0, json.dumps({"n": n, "text": "x" * size}).encode()) for n, size in enumerate(sizes)])
    assert server.settle("SELECT count(*) FROM lengths", len(sizes)) == len(sizes)
    assert [r["length"] for r in server.query("SELECT length FROM lengths ORDER BY n")] == sizes
    assert server.value("SELECT sum(length(text)) FROM events") == sum(sizes)


def test_an_empty_topic(serve, embedded):
    broker, server = embedded(matches=3), serve()
    start_job(server, broker, "matches")
    assert server.value("SELECT count(*) FROM match_events") == 0
    assert server.query("SELECT * FROM team_minute") == []
    assert server.query('SELECT * FROM "match_events$errors"') == []
    assert server.query('SELECT * FROM "team_minute$late"') == []


def test_an_empty_partition_holds_windows_open_until_it_is_idle(serve, embedded):
    broker, server = embedded(events=3), serve()
    for name, idle in [("patient", "1 hour"), ("hasty", "300 milliseconds")]:
        server.query(f"""CREATE SOURCE {name} (ts TIMESTAMP FORMAT 'epoch_s', WATERMARK FOR ts AS ts - INTERVAL '1 second')
          WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json', 'idle.timeout' = '{idle}')""")
        server.query(f"""CREATE CONTINUOUS VIEW {name}_minutes AS SELECT window_start, count(*) AS n
          FROM TUMBLE({name}, ts, INTERVAL '1 minute') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE""")
    broker.send("events", [(0, b'{"ts": %d}' % t) for t in (0, 30, 60, 90, 121)])
    assert server.settle("SELECT count(*) FROM hasty_minutes", 2) == 2
    assert server.value("SELECT count(*) FROM patient_minutes") == 0


def test_show_create_makes_the_same_again(serve, embedded):
    broker, server = embedded(matches=2), serve()
    start_job(server, broker, "matches")
    broker.send("matches", oracle.placed(oracle.synthetic_events(11, 300), 2))
    assert server.settle("SELECT sum(events) FROM team_minute", 300) == 300

    def rows():
        # Between cuts of epochs floating sums may differ in their last bits.
        return [{k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in server.query("SELECT * FROM team_minute ORDER BY 1, 2, 3")]

    before = rows()

    def statement(kind, name):
        [row] = server.query(f"SHOW CREATE {kind} {name}")
        return next(value for value in row.values() if value.upper().startswith("CREATE"))

    texts = [statement("SOURCE", "match_events"), statement("VIEW", "team_minute")]
    server.query("DROP SOURCE match_events CASCADE")
    for text in texts:
        server.query(text)
    assert server.settle("SELECT sum(events) FROM team_minute", 300) == 300
    assert rows() == before


def test_show_sources_and_views(serve, embedded):
    broker, server = embedded(matches=2), serve()
    start_job(server, broker, "matches")
    [source] = server.query("SHOW SOURCES")
    assert "match_events" in source.values() and "matches" in source.values()
    [view] = server.query("SHOW VIEWS")
    assert "team_minute" in view.values()


def test_an_unknown_topic_is_said_and_the_server_serves_on(serve, embedded):
    broker, server = embedded(matches=1), serve()
    text = oracle.source("no_such_topic", broker.bootstrap)

    def told():
        return "no_such_topic" in " ".join(str(value) for row in server.query("SHOW SOURCES") for value in row.values())

    try:
        server.query(text)
    except Exception as error:
        assert "no_such_topic" in tidegate.message(error)
    else:
        assert tidegate.settle(told, True, 20)
        assert "no_such_topic" in server.refusal("SELECT count(*) FROM match_events")
    assert server.value("SELECT 1") == 1


def test_init_scripts_run_again(serve, embedded, tmp_path):
    broker = embedded(matches=2)
    script = tmp_path / "init.sql"
    script.write_text(
        "-- a comment; with a semicolon\n" + oracle.source("matches", broker.bootstrap).replace("CREATE SOURCE", "CREATE SOURCE IF NOT EXISTS") + ";\n"
        + oracle.VIEW.replace("CONTINUOUS VIEW", "CONTINUOUS VIEW IF NOT EXISTS") + ";\n"
    )
    server = serve("--init", str(script))
    broker.send("matches", oracle.placed(oracle.synthetic_events(12, 400), 2))
    assert server.settle("SELECT sum(events) FROM team_minute", 400) == 400
    assert server.stop() == 0
    server.start()
    assert server.settle("SELECT sum(events) FROM team_minute", 400) == 400


def test_a_signal_ends_it_quickly(serve, embedded):
    broker, server = embedded(matches=2), serve()
    start_job(server, broker, "matches")
    for sig in (signal.SIGTERM, signal.SIGINT):
        subscription = tidegate.Subscription(server, "SELECT * FROM team_minute EMIT CHANGES")
        begin = time.monotonic()
        assert server.process.stop(sig) == 0, server.process.said()[-2000:]
        assert time.monotonic() - begin < 8
        assert subscription.ended.wait(5)
        server.start()


def numbers(server, broker, name="numbers", options=""):
    server.query(f"""CREATE SOURCE {name} (n BIGINT) WITH (connector = 'kafka', topic = 'numbers', 'bootstrap.servers' = '{broker.bootstrap}',
      format = 'json'{options})""")


def test_a_view_that_fails_stops_alone_and_says_why(serve, embedded):
    broker, server = embedded(numbers=1), serve()
    numbers(server, broker)
    server.query("CREATE CONTINUOUS VIEW inverse AS SELECT n, 100 / n AS share FROM numbers")
    server.query("CREATE CONTINUOUS VIEW plain AS SELECT n FROM numbers")
    broker.send("numbers", [(0, b'{"n": %d}' % n) for n in (1, 2, 5)])
    assert server.settle("SELECT count(*) FROM inverse", 3) == 3
    broker.send("numbers", [(0, b'{"n": %d}' % n) for n in (0, 10)])
    assert server.settle("SELECT count(*) FROM plain", 5) == 5

    def state():
        return " ".join(str(value) for row in server.query("SHOW VIEWS") if "inverse" in row.values() for value in row.values()).lower()

    assert tidegate.settle(lambda: "divi" in state(), True, 10), state()
    # What it held before the epoch that failed can still be read.
    assert server.query("SELECT share FROM inverse ORDER BY n") == [{"share": 100}, {"share": 50}, {"share": 20}]
    # And the failure outlives a restart: the same record would fail again.
    server.restart()
    assert server.settle("SELECT count(*) FROM plain", 5) == 5
    assert tidegate.settle(lambda: "divi" in state(), True, 10), state()


def test_error_rows_are_bounded_and_the_newest_stay(serve, embedded):
    broker, server = embedded(numbers=1), serve(max_epoch_rows=7)
    numbers(server, broker, options=", 'errors.retention.rows' = '10'")
    server.query("CREATE CONTINUOUS VIEW seen AS SELECT n FROM numbers")
    broker.send("numbers", [(0, b'{"n": "x%d"}' % n) for n in range(45)] + [(0, b'{"n": 1}')])
    assert server.settle("SELECT count(*) FROM seen", 1) == 1
    assert server.value('SELECT count(*) FROM "numbers$errors"') == 10
    assert server.value('SELECT min("offset") FROM "numbers$errors"') == 35


def test_a_long_bad_payload_is_kept_in_part(serve, embedded):
    broker, server = embedded(numbers=1), serve()
    numbers(server, broker)
    server.query("CREATE CONTINUOUS VIEW seen AS SELECT n FROM numbers")
    broker.send("numbers", [(0, b'{"n": ' + b"9" * 20_000 + b"}"), (0, b'{"n": 1}')])
    assert server.settle("SELECT count(*) FROM seen", 1) == 1
    assert server.value('SELECT payload FROM "numbers$errors"') == (b'{"n": ' + b"9" * 20_000)[:4096]


def test_further_librdkafka_properties(serve, embedded):
    broker, server = embedded(numbers=1), serve()
    numbers(server, broker, options=", 'properties.fetch.min.bytes' = '1', 'properties.client.id' = 'a-test'")
    broker.send("numbers", [(0, b'{"n": 1}')])
    assert server.value("SELECT count(*) FROM numbers") == 1
    # A property that librdkafka doesn't know is refused by name, when the source is declared or at the latest when it is read.
    try:
        numbers(server, broker, "other", ", 'properties.no.such.thing' = '1'")
    except Exception as error:
        assert "no.such.thing" in tidegate.message(error)
    else:
        assert "no.such.thing" in server.refusal("SELECT count(*) FROM other")


def test_explain_says_what_bounds_a_views_state(serve, embedded):
    broker, server = embedded(matches=1), serve()
    start_job(server, broker, "matches")

    def told(sql):
        return " ".join(str(value) for row in server.query(sql) for value in row.values()).lower()

    assert "watermark" in told("EXPLAIN VIEW team_minute")
    text = oracle.VIEW.replace("VIEW team_minute", "VIEW another")
    assert "watermark" in told("EXPLAIN " + text)
    assert "another" in server.refusal("SELECT * FROM another")
