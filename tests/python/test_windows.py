"""Windows of every kind, lateness, closing by the wall clock and EMIT EVERY, as a client sees them."""

import datetime as dt
import time

import tidegate

EPOCH = dt.datetime(2024, 1, 1, 12)


def at(seconds):
    return EPOCH + dt.timedelta(seconds=seconds)


def clicks(broker, *events):
    """Sends (seconds, user) pairs."""
    broker.send("clicks", [(0, f'{{"ts": "{at(s).isoformat()}Z", "who": "{who}"}}'.encode()) for s, who in events])


def start(serve, embedded, bound="0 seconds"):
    broker, server = embedded(clicks=1), serve()
    server.query(f"""CREATE SOURCE clicks (ts TIMESTAMP, who TEXT, WATERMARK FOR ts AS ts - INTERVAL '{bound}')
      WITH (connector = 'kafka', topic = 'clicks', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    return broker, server


def rows(server, sql):
    return [tuple(row.values()) for row in server.query(sql)]


def test_overlapping_windows_equal_the_batch_answer(serve, embedded):
    broker, server = start(serve, embedded, bound="1 hour")
    queries = {
        "hop": "SELECT window_start, window_end, who, count(*) AS n FROM HOP(clicks, ts, INTERVAL '10 seconds', INTERVAL '1 minute') GROUP BY window_start, window_end, who",
        "cumulate": "SELECT window_start, window_end, count(*) AS n FROM TABLE(CUMULATE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
        "session": "SELECT window_start, window_end, who, count(*) AS n FROM SESSION(clicks PARTITION BY who, ts, INTERVAL '4 seconds') GROUP BY window_start, window_end, who",
        "spark": "SELECT window.start AS s, window.end AS e, count(*) AS n FROM clicks GROUP BY window(ts, '1 minute', '30 seconds')",
    }
    for name, query in queries.items():
        server.query(f"CREATE CONTINUOUS VIEW {name}_view AS {query} EMIT CHANGES")
    for batch in range(8):
        clicks(broker, *[((batch * 37 + k * 11) % 400, "ab"[k % 2]) for k in range(25)])
    assert server.settle("SELECT count(*) FROM clicks", 200) == 200
    for name, query in queries.items():
        want = sorted(rows(server, query), key=str)
        assert len(want) > 3, name
        assert tidegate.settle(lambda: sorted(rows(server, f"SELECT * FROM {name}_view"), key=str), want) == want, name


def test_sessions_merge_and_close(serve, embedded):
    broker, server = start(serve, embedded, bound="20 seconds")
    query = "SELECT window_start, window_end, who, count(*) AS n FROM SESSION(clicks PARTITION BY who, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, who"
    server.query(f"CREATE CONTINUOUS VIEW live AS {query} EMIT CHANGES")
    server.query(f"CREATE CONTINUOUS VIEW closed AS {query} EMIT ON WINDOW CLOSE")
    clicks(broker, (0, "a"), (16, "a"), (3, "b"))
    assert server.settle("SELECT count(*) FROM live", 3) == 3
    # One click between two sessions makes them one.
    clicks(broker, (8, "a"))
    want = [(at(0), at(26), "a", 3), (at(3), at(13), "b", 1)]
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM live ORDER BY who"), want) == want
    assert rows(server, "SELECT * FROM closed") == []
    clicks(broker, (46, "a"))
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM closed ORDER BY who"), want) == want
    # Too late: its session has closed.
    clicks(broker, (25, "a"))
    assert server.settle('SELECT count(*) FROM "closed$late"', 1) == 1
    assert rows(server, "SELECT * FROM closed ORDER BY who") == want


def test_allowed_lateness_corrects_an_answer(serve, embedded):
    broker, server = start(serve, embedded)
    server.query("""CREATE CONTINUOUS VIEW minutes AS SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute')
      GROUP BY window_start, window_end ALLOW LATENESS INTERVAL '1 minute' LATE DATA TO missed EMIT ON WINDOW CLOSE""")
    follower = tidegate.Subscription(server, "SELECT * FROM minutes EMIT CHANGES")
    clicks(broker, (10, "a"), (61, "a"))
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM minutes"), [(at(0), 1)]) == [(at(0), 1)]
    clicks(broker, (20, "b"))
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM minutes"), [(at(0), 2)]) == [(at(0), 2)]
    clicks(broker, (121, "a"))
    assert server.settle("SELECT count(*) FROM minutes", 2) == 2
    clicks(broker, (30, "late"))
    assert tidegate.settle(lambda: rows(server, "SELECT who FROM missed"), [("late",)]) == [("late",)]
    assert rows(server, "SELECT * FROM minutes ORDER BY window_start") == [(at(0), 2), (at(60), 1)]
    ops = [(row["_op"], row["n"]) for row in tidegate.settle(follower.rows, None, 1) if row["window_start"] == at(0)]
    assert ops == [("insert", 1), ("update_before", 1), ("update_after", 2)]
    assert follower.cancel()
    refused = server.refusal("CREATE VIEW missed AS SELECT 1")
    assert "late rows of view minutes" in refused


def test_a_quiet_topic_closes_its_windows(serve, embedded):
    broker, server = start(serve, embedded)
    for name, clause in [("waits", ""), ("never", "CLOSE NEVER"), ("closes", "CLOSE AFTER INTERVAL '1 second'")]:
        server.query(f"""CREATE CONTINUOUS VIEW {name} AS SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute')
          GROUP BY window_start, window_end {clause} EMIT ON WINDOW CLOSE""")
    clicks(broker, (10, "a"), (20, "a"))
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM closes"), [(at(0), 2)]) == [(at(0), 2)]
    assert rows(server, "SELECT * FROM waits") == rows(server, "SELECT * FROM never") == []
    bounds = {name: " ".join(str(row) for row in server.query(f"EXPLAIN VIEW {name}")) for name in ["waits", "never"]}
    assert "nothing has come for 10m" in bounds["waits"] and "nothing has come" not in bounds["never"]
    # What comes for that window now is late for the one and in time for the other.
    clicks(broker, (30, "a"), (70, "a"))
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM waits"), [(at(0), 3)]) == [(at(0), 3)]
    assert server.value('SELECT count(*) FROM "closes$late"') == 1
    assert server.settle("SELECT count(*) FROM closes", 2) == 2
    server.stop()
    server.start()
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM closes ORDER BY 1"), [(at(0), 2), (at(60), 1)]) == [(at(0), 2), (at(60), 1)]


def test_emit_every_holds_changes_together(serve, embedded):
    broker, server = start(serve, embedded)
    server.query("""CREATE CONTINUOUS VIEW totals WITH (unbounded_state = true) AS SELECT who, count(*) AS n FROM clicks GROUP BY who EMIT EVERY INTERVAL '2 seconds'""")
    server.query("CREATE CONTINUOUS VIEW at_once WITH (unbounded_state = true) AS SELECT who, count(*) AS n FROM clicks GROUP BY who EMIT CHANGES")
    of_view = tidegate.Subscription(server, "SELECT * FROM totals EMIT CHANGES")
    of_query = tidegate.Subscription(server, "SELECT * FROM at_once EMIT EVERY INTERVAL '2 seconds'")
    of_source = tidegate.Subscription(server, "SELECT who, count(*) AS n FROM clicks GROUP BY who EMIT EVERY INTERVAL '2 seconds'")
    for n in range(30):
        clicks(broker, (n, "a"))
        time.sleep(0.1)
    for follower in (of_view, of_query, of_source):
        want = {("a",): {"who": "a", "n": 30}}
        assert tidegate.settle(lambda: tidegate.fold(follower.rows(), ["who"]), want, 15) == want
        updates = [row for row in follower.rows() if row["_op"] == "update_after"]
        assert 0 < len(updates) <= 4, f"thirty changes in three seconds were given in {len(updates)} pieces"
        assert follower.cancel()
    assert rows(server, "SELECT * FROM totals") == [("a", 30)]


def test_order_does_not_depend_on_epochs(serve, embedded):
    broker, server = start(serve, embedded, bound="1 hour")
    server.query("""CREATE CONTINUOUS VIEW names AS SELECT window_start, array_agg(who) AS all_of_them, first_value(who) AS first, last_value(who) AS last
      FROM TUMBLE(clicks, ts, INTERVAL '1 hour') GROUP BY window_start, window_end EMIT CHANGES""")
    for n in range(12):
        clicks(broker, ((n * 7) % 12, f"u{n}"))
    want = [(at(0), [f"u{n}" for n in range(12)], "u0", "u11")]
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM names"), want) == want
    explained = " ".join(str(row) for row in server.query("EXPLAIN VIEW names"))
    assert "partition, offset" in explained


def recent(broker, *events):
    """Sends (seconds from now, user) pairs."""
    now = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
    broker.send("clicks", [(0, f'{{"ts": "{(now + dt.timedelta(seconds=s)).isoformat()}Z", "who": "{who}"}}'.encode()) for s, who in events])


def test_rows_come_and_go_with_the_clock(serve, embedded):
    broker, server = start(serve, embedded)
    server.query("CREATE CONTINUOUS VIEW fresh AS SELECT who FROM clicks WHERE ts > now() - INTERVAL '6 seconds'")
    server.query("CREATE CONTINUOUS VIEW old AS SELECT who FROM clicks WHERE ts <= now() - INTERVAL '6 seconds'")
    recent(broker, (-100, "long ago"), (-1, "a"), (0, "b"))
    both = "SELECT who, 'fresh' FROM fresh UNION ALL SELECT who, 'old' FROM old ORDER BY who"
    want = [("a", "fresh"), ("b", "fresh"), ("long ago", "old")]
    assert tidegate.settle(lambda: rows(server, both), want) == want
    # Nothing comes any more, and a restart lies between: the clock moves them all the same.
    server.stop()
    server.start()
    want = [("a", "old"), ("b", "old"), ("long ago", "old")]
    assert tidegate.settle(lambda: rows(server, both), want, 15) == want
    # A view reads what is there at every epoch: no row is ever in both, or in neither.
    recent(broker, *[(-5.5 + n / 50, "c") for n in range(100)])
    seen = set()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (100, 0) not in seen:
        [(old, fresh, read)] = rows(server, """SELECT (SELECT count(*) FROM old WHERE who = 'c') AS old,
          (SELECT count(*) FROM fresh WHERE who = 'c') AS fresh, (SELECT count(*) FROM clicks WHERE who = 'c') AS read""")
        assert old + fresh == read, f"{old} old and {fresh} fresh of {read}"
        seen.add((old, fresh))
    assert (100, 0) in seen and len(seen) > 3, f"they did not go one after the other: {sorted(seen)}"


def test_changes_of_a_view_that_follows_the_clock(serve, embedded):
    broker, server = start(serve, embedded)
    server.query("CREATE CONTINUOUS VIEW fresh AS SELECT who FROM clicks WHERE ts > now() - INTERVAL '3 seconds'")
    followers = [tidegate.Subscription(server, q) for q in ["SELECT * FROM fresh EMIT CHANGES", "SELECT who FROM clicks WHERE ts > now() - INTERVAL '3 seconds' EMIT CHANGES"]]
    recent(broker, (0, "a"))
    for follower in followers:
        want = [("a", "insert"), ("a", "delete")]
        assert tidegate.settle(lambda: [(row["who"], row["_op"]) for row in follower.rows()], want, 15) == want
        assert follower.cancel()
    assert "follow the clock" in server.refusal("SELECT who FROM fresh WHERE now() > TIMESTAMP '2020-01-01T00:00:00' EMIT CHANGES")


def test_windows_over_the_clock_close_without_input(serve, embedded):
    broker, server = start(serve, embedded)
    server.query("""CREATE CONTINUOUS VIEW arrivals AS SELECT window_start, window_end, count(*) AS n, max(proctime()) AS newest
      FROM TUMBLE(clicks, proctime(), INTERVAL '2 seconds') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE""")
    server.query("CREATE CONTINUOUS VIEW stamped AS SELECT who, proctime() AS read_at, now() AS seen_at FROM clicks")
    began = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None) - dt.timedelta(seconds=1)
    # Event times long ago: they do not matter.
    clicks(broker, (0, "a"), (1, "b"))
    assert server.settle("SELECT sum(n) FROM arrivals", 2) == 2
    clicks(broker, (0, "c"))
    assert server.settle("SELECT sum(n) FROM arrivals", 3) == 3
    ended = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
    for start_, end, n, newest in rows(server, "SELECT * FROM arrivals"):
        assert began - dt.timedelta(seconds=2) < start_ <= newest < end <= ended and end - start_ == dt.timedelta(seconds=2)
    stamps = rows(server, "SELECT * FROM stamped ORDER BY read_at, who")
    assert [who for who, *_ in stamps] == ["a", "b", "c"]
    assert all(began < read_at == seen_at < ended for _, read_at, seen_at in stamps)
    # They stay as they are.
    server.stop()
    server.start()
    assert rows(server, "SELECT * FROM stamped ORDER BY read_at, who") == stamps
    assert rows(server, "SELECT count(*) FROM clicks WHERE proctime() > TIMESTAMP '2024-01-01T00:00:00'") == [(3,)]


def test_a_partition_that_leads_waits_for_the_one_that_is_behind(serve, embedded):
    broker, hours = embedded(clicks=2), 10
    # Ten hours in both, but partition 0 has ten times as many records of them.
    for partition, count in [(0, 60_000), (1, 6_000)]:
        step = hours * 3600 / count
        sent = [(partition, f'{{"ts": "{at(n * step).isoformat()}Z", "who": "p{partition}"}}'.encode()) for n in range(count)]
        for n in range(0, count, 10_000):
            broker.send("clicks", sent[n : n + 10_000])
    moved = {}
    for name, drift in [("held", "1 hour"), ("free", "100 days")]:
        server = serve(max_epoch_rows="1000", min_epoch_interval="50ms")
        server.query(f"""CREATE SOURCE clicks (ts TIMESTAMP, who TEXT, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'clicks',
          'bootstrap.servers' = '{broker.bootstrap}', format = 'json', 'max.drift' = '{drift}')""")
        server.query("CREATE CONTINUOUS VIEW counted WITH (unbounded_state = true) AS SELECT who, count(*) AS n FROM clicks GROUP BY who")
        moved[name], last = False, None
        while rows(server, "SELECT sum(n) FROM counted") != [(66_000,)]:
            of_both = rows(server, "SELECT watermark FROM system.partitions WHERE watermark IS NOT NULL ORDER BY partition")
            if len(of_both) == 2:
                [(slow,), (fast,)] = of_both
                # It leads by an hour, and an epoch takes less than two hours from it.
                moved[name] |= last is not None and fast > last and fast - slow > dt.timedelta(hours=3)
                last = fast
        assert rows(server, "SELECT who, n FROM counted ORDER BY who") == [("p0", 60_000), ("p1", 6_000)]
        server.stop()
    assert moved == {"held": False, "free": True}


def test_times_from_the_future_move_nothing(serve, embedded):
    broker, server = start(serve, embedded)
    server.query("CREATE CONTINUOUS VIEW minutes AS SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, window_end")
    year_2100 = int(dt.datetime(2100, 1, 1, tzinfo=dt.timezone.utc).timestamp() * 1000)
    now, day = int(time.time() * 1000), 86_400_000

    def send(ts, timestamp):
        broker.send("clicks", [(0, f'{{"ts": "{ts}", "who": "a"}}'.encode(), {"timestamp": timestamp})])

    send(f"{at(10).isoformat()}Z", now)
    # A producer's clock, and then the broker's too.
    send("2100-01-01T00:00:00Z", now)
    send("2100-01-01T00:00:00Z", year_2100)
    # The broker's clock jumps ahead, and back again: what the records say counts.
    for timestamp in [year_2100, now - day, now]:
        send(f"{at(20).isoformat()}Z", timestamp)
    send(f"{at(130).isoformat()}Z", now)
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM minutes"), [(at(0), 4)]) == [(at(0), 4)]
    assert server.value('SELECT count(*) FROM "minutes$late"') == 0
    reasons = rows(server, 'SELECT reason FROM "clicks$errors" ORDER BY "offset"')
    assert len(reasons) == 2 and all("max.future.skew" in reason for (reason,) in reasons), reasons
    assert rows(server, "SELECT watermark FROM system.sources") == [(at(130),)]


def test_an_idle_partition_holds_nobody_up_and_loses_nothing(serve, embedded):
    broker, server = embedded(clicks=2), serve()
    server.query(f"""CREATE SOURCE clicks (ts TIMESTAMP, who TEXT, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'clicks',
      'bootstrap.servers' = '{broker.bootstrap}', format = 'json', 'idle.timeout' = '1 second')""")
    server.query("CREATE CONTINUOUS VIEW minutes AS SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, window_end")

    def send(partition, *seconds):
        broker.send("clicks", [(partition, f'{{"ts": "{at(s).isoformat()}Z", "who": "a"}}'.encode()) for s in seconds])

    send(0, 10, 70)
    send(1, 20)
    # Partition 1 says no more: after a second its minute closes without it.
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM minutes"), [(at(0), 2)]) == [(at(0), 2)]
    # It returns. What is still open takes its rows; what has closed keeps them beside.
    send(1, 30, 80, 140)
    # That it has returned is known when it is read.
    assert server.settle('SELECT "offset" FROM system.partitions WHERE "partition" = 1', 4) == 4
    send(0, 150, 200)
    want = [(at(0), 2), (at(60), 2)]
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM minutes ORDER BY 1 LIMIT 2"), want) == want
    assert rows(server, 'SELECT ts FROM "minutes$late"') == [(at(30),)]
    assert server.value("SELECT count(*) FROM clicks") == 8
