"""ALTER SOURCE … ADD COLUMN beside views that run, rest and come later."""

import json

import tidegate

COLUMNS = "id BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second'"
WITH = "WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{}', format = 'json')"


def event(n, **more):
    return 0, json.dumps({"id": n, "at": f"2024-01-01T12:{n // 60:02}:{n % 60:02}Z", **more}).encode()


def ids(server, name):
    return [row["id"] for row in server.query(f"SELECT id FROM {name} ORDER BY id")]


def columns(server, name):
    return server.table(f"SELECT * FROM {name}").column_names


def test_a_new_column(embedded, serve):
    broker, server = embedded(events=1), serve()
    server.query(f"CREATE SOURCE events ({COLUMNS}) {WITH.format(broker.bootstrap)}")
    server.query("CREATE VIEW plain AS SELECT * FROM events")
    server.query("CREATE CONTINUOUS VIEW old AS SELECT * FROM events")
    server.query("CREATE CONTINUOUS VIEW rested AS SELECT * FROM plain")
    server.query("""CREATE CONTINUOUS VIEW windows AS SELECT window_end, count(*) AS n FROM TUMBLE(events, at, INTERVAL '10 seconds')
      GROUP BY window_end EMIT ON WINDOW CLOSE""")
    broker.send("events", [event(1), event(2, x="not a number"), event(30)])
    for view in ["old", "rested"]:
        assert tidegate.settle(lambda: ids(server, view), [1, 2, 30]) == [1, 2, 30]
    server.query("PAUSE VIEW rested")
    broker.send("events", [event(3)])
    assert server.settle("SELECT count(*) FROM windows$late", 1) == 1

    server.query("ALTER SOURCE events ADD COLUMN x INT")
    server.query("ALTER SOURCE events ADD COLUMN IF NOT EXISTS x TEXT")
    server.query("ALTER SOURCE events ADD COLUMN o BIGINT METADATA FROM 'offset'")
    assert "AS at - INTERVAL '1 second', x INT, o BIGINT METADATA FROM 'offset') WITH" in server.query("SHOW CREATE SOURCE events")[0]["statement"]
    server.query("CREATE CONTINUOUS VIEW young AS SELECT * FROM events")
    # What was read by the old declaration stays; what is read now is judged by the new one, whoever reads it.
    broker.send("events", [event(31, x=7), event(32, x="not a number"), event(33), event(4, x=1)])
    server.query("RESUME VIEW rested")

    def check():
        for view, want in [("old", [1, 2, 3, 4, 30, 31, 33]), ("rested", [1, 2, 3, 4, 30, 31, 33]), ("young", [1, 3, 4, 30, 31, 33])]:
            assert tidegate.settle(lambda: ids(server, view), want) == want, view
        assert columns(server, "old") == columns(server, "rested") == ["id", "at"]
        assert columns(server, "young") == columns(server, "events") == columns(server, "plain") == ["id", "at", "x", "o"]
        assert [(row["x"], row["o"]) for row in server.query("SELECT x, o FROM young WHERE id > 30 ORDER BY id")] == [(7, 4), (None, 6)]
        assert server.query("SELECT x FROM events WHERE id = 31") == [{"x": 7}]
        # Late rows have the columns that their view knows.
        assert ids(server, "windows$late") == [3, 4]
        assert "x" not in columns(server, "windows$late")

    check()
    assert server.value("SELECT count(*) FROM events$errors") == 1
    server.restart()
    check()
    server.stop()
    server.start()
    check()
    assert "SELECT * FROM events" in server.query("SHOW CREATE VIEW old")[0]["statement"]


def test_what_can_not_be_changed(embedded, serve):
    broker, server = embedded(events=1), serve()
    server.query(f"CREATE SOURCE events ({COLUMNS}) {WITH.format(broker.bootstrap)}")
    server.query("CREATE CONTINUOUS VIEW old AS SELECT * FROM events")
    for statement, reason in [
        ("ALTER SOURCE events ADD COLUMN id TEXT", "source events has a column id already"),
        ("ALTER SOURCE nowhere ADD COLUMN x TEXT", "there is no source nowhere"),
        ("ALTER SOURCE old ADD COLUMN x TEXT", "old is a continuous view: ALTER SOURCE changes sources"),
        ("ALTER SOURCE events ADD COLUMN x TEXT NOT NULL", "takes no constraint"),
        ("ALTER SOURCE events ADD COLUMN x NUMERIC(50, 2)", "which JSON can't be read as"),
        ("ALTER SOURCE events DROP COLUMN id", "expected ADD COLUMN"),
    ]:
        assert reason in server.refusal(statement), statement
    assert columns(server, "events") == ["id", "at"]
