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
    for name, clause in [("waits", ""), ("closes", "CLOSE AFTER INTERVAL '1 second'")]:
        server.query(f"""CREATE CONTINUOUS VIEW {name} AS SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute')
          GROUP BY window_start, window_end {clause} EMIT ON WINDOW CLOSE""")
    clicks(broker, (10, "a"), (20, "a"))
    assert tidegate.settle(lambda: rows(server, "SELECT * FROM closes"), [(at(0), 2)]) == [(at(0), 2)]
    assert rows(server, "SELECT * FROM waits") == []
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
    for n in range(30):
        clicks(broker, (n, "a"))
        time.sleep(0.1)
    for follower in (of_view, of_query):
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
