"""State that has an end: idle keys are forgotten, rows leave after a time, and a view that would hold too much is paused, the others not."""

import json

import tidegate


def source(broker, topic="events"):
    return f"""CREATE SOURCE {topic} (k TEXT, x BIGINT) WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{broker.bootstrap}',
               format = 'json')"""


def events(*rows):
    return [(0, json.dumps({"k": k, "x": x}).encode()) for k, x in rows]


def views(server):
    return {row["name"]: row for row in server.query("SHOW VIEWS")}


def test_what_is_idle_is_forgotten(serve, embedded):
    broker, server = embedded(events=1), serve(checkpoint_interval="200ms")
    server.query(source(broker))
    counted = "SELECT k, count(*) AS n, max(x) AS most FROM events GROUP BY k"
    assert "state_ttl = '1 hour'" in server.refusal(f"CREATE CONTINUOUS VIEW counted AS {counted}")
    server.query(f"CREATE CONTINUOUS VIEW counted WITH (state_ttl = '3 seconds') AS {counted}")
    server.query("CREATE CONTINUOUS VIEW keys WITH (unbounded_state = true) AS SELECT count(*) AS n, sum(n) AS s FROM counted")
    bounds = [row["text"] for row in server.query("EXPLAIN VIEW counted") if row["topic"] == "bounded by"]
    assert any("is forgotten, and what it gave leaves, when no row has come for it for 3s (state_ttl)" in bound for bound in bounds), bounds
    broker.send("events", events(("a", 1), ("a", 5), ("b", 2)))
    assert server.settle("SELECT s FROM keys", 3) == 3
    # What a checkpoint does not hold is read again, and is there anew for three seconds.
    epoch = views(server)["counted"]["epoch"]
    assert tidegate.settle(lambda: (server.value("SELECT max(checkpoint_epoch) FROM system.pipelines") or 0) >= epoch, True) is True
    server.restart()
    # With nothing read, the clock alone does it.
    assert server.settle("SELECT count(*) FROM counted", 0) == 0
    assert server.settle("SELECT n FROM keys", 0) == 0
    assert views(server)["counted"]["state_rows"] == 0
    # It is there for three seconds: who follows the view can't miss it.
    follower = tidegate.Subscription(server, "SELECT * FROM counted EMIT CHANGES")
    broker.send("events", events(("a", 3)))
    tidegate.settle(lambda: [row["_op"] for row in follower.rows()], ["insert", "delete"])
    assert [(row["_op"], row["k"], row["n"], row["most"]) for row in follower.rows()] == [("insert", "a", 1, 3), ("delete", "a", 1, 3)]


def test_rows_leave_after_their_retention(serve, embedded):
    broker, server = embedded(events=1), serve()
    server.query(source(broker))
    server.query("CREATE CONTINUOUS VIEW recent WITH (retention = '2 seconds') AS SELECT k, x FROM events WHERE x > 1")
    server.query("CREATE CONTINUOUS VIEW total AS SELECT sum(x) AS s FROM recent")
    broker.send("events", events(("a", 1), ("a", 5), ("b", 2)))
    assert server.settle("SELECT s FROM total", 7) == 7
    assert server.settle("SELECT count(*) FROM recent", 0) == 0
    assert server.settle("SELECT s FROM total", None) is None
    for options, sentence in [
        ("state_ttl = 'soon'", "state_ttl"),
        ("retention = '0 seconds'", "longer than nothing"),
        ("memory_limit = 'much'", "'memory_limit' is a size like '256 MiB', not 'much'"),
        ("state_ttl = '1 hour', unbounded_state = true", "leave one out"),
    ]:
        said = server.refusal(f"CREATE CONTINUOUS VIEW v WITH ({options}) AS SELECT k, count(*) AS n FROM events GROUP BY k")
        assert sentence in said, said


def test_a_view_that_would_hold_too_much_is_paused_and_loses_nothing(serve, embedded):
    broker, server = embedded(events=1), serve(checkpoint_interval="200ms", max_epoch_rows=500)
    server.query(source(broker))
    server.query("CREATE CONTINUOUS VIEW counted AS SELECT count(*) AS n FROM events")
    by_key = "SELECT k, count(*) AS n, sum(x) AS s FROM events GROUP BY k"
    server.query(f"CREATE CONTINUOUS VIEW by_key WITH (unbounded_state = true, memory_limit = '1 MiB') AS {by_key}")
    sent = 0
    for _ in range(12):
        broker.send("events", events(*[(f"key number {sent + i}", i) for i in range(2000)]))
        sent += 2000
        assert server.settle("SELECT n FROM counted", sent) == sent
    assert tidegate.settle(lambda: views(server)["by_key"]["state"], "paused") == "paused"
    message = views(server)["by_key"]["message"]
    assert "its memory_limit is 1.0 MiB: raise that with ALTER VIEW by_key SET (memory_limit = '…'), then RESUME VIEW by_key" in message, message
    held = server.value("SELECT count(*) FROM by_key")
    assert 0 < held < sent
    # It stands where it stood, and says why, also when the server starts again.
    server.restart()
    assert "raise that with ALTER VIEW" in views(server)["by_key"]["message"]
    assert server.value("SELECT count(*) FROM by_key") == held
    # Nothing has changed: it does not go on.
    assert "raise that with ALTER VIEW" in server.refusal("RESUME VIEW by_key")
    assert "is a source: only a continuous view has a memory limit" in server.refusal("ALTER VIEW events SET (memory_limit = '1 GiB')")
    assert "memory_limit" in server.refusal("ALTER VIEW by_key SET (memory = '1 GiB')")
    server.query("ALTER VIEW by_key SET (memory_limit = '1 GiB')")
    server.query("RESUME VIEW by_key")
    assert server.settle("SELECT sum(n) FROM by_key", sent) == sent
    want = sorted(map(str, server.query(by_key)))
    assert sorted(map(str, server.query("SELECT * FROM by_key"))) == want
    server.restart()
    broker.send("events", events(("key number 0", 7)))
    assert server.settle("SELECT n FROM by_key WHERE k = 'key number 0'", 2) == 2


def test_a_view_that_comes_late_and_would_hold_too_much_is_paused_too(serve, embedded):
    broker, server = embedded(events=1), serve(max_epoch_rows=1000)
    server.query(source(broker))
    server.query("CREATE CONTINUOUS VIEW counted AS SELECT count(*) AS n FROM events")
    for part in range(5):
        broker.send("events", events(*[(f"key number {part * 4000 + i}", i) for i in range(4000)]))
    assert server.settle("SELECT n FROM counted", 20_000) == 20_000
    by_key = "SELECT k, count(*) AS n FROM events GROUP BY k"
    server.query(f"CREATE CONTINUOUS VIEW by_key WITH (unbounded_state = true, memory_limit = '500 KiB') AS {by_key}")
    assert tidegate.settle(lambda: views(server)["by_key"]["state"], "paused") == "paused"
    assert 0 < server.value("SELECT count(*) FROM by_key") < 20_000
    server.query("ALTER VIEW by_key SET (memory_limit = '100 MiB')")
    server.query("RESUME VIEW by_key")
    assert server.settle("SELECT count(*) FROM by_key", 20_000) == 20_000


def test_a_server_has_a_limit_for_all(serve, embedded):
    """The view whose growth does not fit is paused, and those that read it. Queries are refused what is not there."""
    broker, server = embedded(events=1), serve(memory_limit="16MiB", max_epoch_rows=2000)
    server.query(source(broker))
    server.query("CREATE CONTINUOUS VIEW counted AS SELECT count(*) AS n FROM events")
    server.query("CREATE CONTINUOUS VIEW by_key WITH (unbounded_state = true) AS SELECT k, count(*) AS n FROM events GROUP BY k")
    server.query("CREATE CONTINUOUS VIEW ones AS SELECT count(*) AS n FROM by_key WHERE n = 1")
    sent = 0
    for _ in range(30):
        broker.send("events", events(*[(f"{'x' * 200}{sent + i}", i) for i in range(2000)]))
        sent += 2000
    assert server.settle("SELECT n FROM counted", sent) == sent
    state = views(server)
    assert {name: row["state"] for name, row in state.items()} == {"by_key": "paused", "ones": "paused", "counted": "running"}
    assert "greater --memory-limit, then RESUME VIEW by_key" in state["by_key"]["message"], state["by_key"]
    assert "reads view by_key, which holds too much and is paused: RESUME VIEW by_key, then RESUME VIEW ones" in state["ones"]["message"], state["ones"]
    assert server.value("SELECT value FROM system.settings WHERE name = 'memory_limit'") == str(16 << 20)
    said = server.refusal("SELECT k, array_agg(x), count(*) FROM events GROUP BY k ORDER BY 3 DESC, 1")
    assert "memory" in said.lower(), said
    assert server.value("SELECT count(*) FROM events") > 0


def test_views_over_a_view_that_holds_too_much_come_back_with_it(serve, embedded):
    """A chain is paused from its end, outlives a restart, and is resumed from its beginning; nothing is lost."""
    broker, server = embedded(events=1, names=1), serve(checkpoint_interval="200ms", max_epoch_rows=500)
    server.query(source(broker))
    server.query(source(broker, "names"))
    queries = {
        "by_key": "SELECT k, count(*) AS n, sum(x) AS s FROM events GROUP BY k",
        "big": "SELECT k, n FROM by_key WHERE n > 1",
        "named": "SELECT names.k, names.x, big.n FROM big JOIN names ON names.k = big.k",
        "of_named": "SELECT count(*) AS n, sum(x) AS s FROM named",
    }
    limit = {"by_key": ", memory_limit = '1 MiB'"}
    for name, query in queries.items():
        server.query(f"CREATE CONTINUOUS VIEW {name} WITH (unbounded_state = true{limit.get(name, '')}) AS {query}")
    server.query("CREATE CONTINUOUS VIEW counted AS SELECT count(*) AS n FROM events")

    def states():
        return {name: row["state"] for name, row in views(server).items()}

    def as_batch():
        """What the views hold and what they would as queries over the topics, inside out."""
        over = "WITH " + ", ".join(f"{name} AS ({query})" for name, query in queries.items())
        return [
            (sorted(map(str, server.query(f"SELECT * FROM {name}"))), sorted(map(str, server.query(f"{over} SELECT * FROM {name}")))) for name in queries
        ]

    broker.send("names", events(*[(f"key {i}", i) for i in range(0, 9000, 3)]))
    sent = 0
    for _ in range(8):
        broker.send("events", events(*[(f"key {i % 9000}", i) for i in range(sent, sent + 2000)]))
        sent += 2000
        assert server.settle("SELECT n FROM counted", sent) == sent
    all_paused = {**dict.fromkeys(queries, "paused"), "counted": "running"}
    assert tidegate.settle(states, all_paused) == all_paused
    server.restart()
    assert states() == all_paused
    assert "RESUME VIEW by_key, then RESUME VIEW of_named" in views(server)["of_named"]["message"]
    for name, below in [("big", "by_key"), ("named", "big"), ("of_named", "named")]:
        assert f"view {below}, which {name} reads, is paused: RESUME VIEW {below} first" in server.refusal(f"RESUME VIEW {name}")
    server.query("ALTER VIEW by_key SET (memory_limit = '1 GiB')")
    broker.send("names", events(("key 1", 1), ("nobody", 1)))
    for name in queries:
        server.query(f"RESUME VIEW {name}")
    assert server.settle("SELECT sum(n) FROM by_key", sent) == sent
    running = dict.fromkeys(all_paused, "running")
    assert tidegate.settle(states, running) == running
    tidegate.settle(lambda: all(view == batch for view, batch in as_batch()), True)
    for view, batch in as_batch():
        assert view == batch
    # By hand, too: those that are read last. What has been resumed outlives a crash at once.
    for name in reversed(queries):
        server.query(f"PAUSE VIEW {name}")
    broker.send("events", events(*[(f"key {i}", 1) for i in range(100)]))
    for name in queries:
        server.query(f"RESUME VIEW {name}")
    server.kill()
    server.start()
    assert tidegate.settle(states, running) == running
    tidegate.settle(lambda: all(view == batch for view, batch in as_batch()), True)
    for view, batch in as_batch():
        assert view == batch
    assert tidegate.settle(lambda: list((server.data / "pipelines").glob("paused-*/**/*.json")), [], 20) == []
