"""CREATE OR REPLACE CONTINUOUS VIEW over a view that runs: what is kept, what is read again, and what readers, followers and other views see."""

import json
import os
import signal
import time

import pytest

import kafka as kafka_module
import tidegate

SOURCE = """CREATE SOURCE readings (id BIGINT, place TEXT, v BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second')
  WITH (connector = 'kafka', topic = 'readings', 'bootstrap.servers' = '{}', format = 'json')"""
GROUPS = "SELECT place, count(*) AS n, sum(v) AS s FROM readings GROUP BY place"
OFTEN = f"{GROUPS} HAVING count(*) > 10"
EVEN = GROUPS.replace("GROUP", "WHERE v % 2 = 0 GROUP")


class Readings:
    """Readings at places of different sizes."""

    def __init__(self, broker):
        self.broker, self.sent = broker, []

    def send(self, count=40, size=0):
        events = [
            {"id": i, "place": "abcd"[(i * i) % 7 % 4], "v": i % 5, "at": f"2024-01-01T12:{i // 60 % 60:02}:{i % 60:02}Z"}
            for i in range(len(self.sent), len(self.sent) + count)
        ]
        fill = {"fill": "x" * size} if size else {}
        self.broker.send("readings", [(0, json.dumps(event | fill).encode()) for event in events])
        self.sent += events

    def groups(self, least=0, keep=lambda event: True):
        rows = {}
        for event in filter(keep, self.sent):
            rows.setdefault(event["place"], []).append(event["v"])
        return [{"place": place, "n": len(vs), "s": sum(vs)} for place, vs in sorted(rows.items()) if len(vs) > least]

    def even(self):
        return self.groups(keep=lambda event: event["v"] % 2 == 0)


def declare(query, name="v", emit="EMIT CHANGES", replace=True):
    return f"CREATE {'OR REPLACE ' if replace else ''}CONTINUOUS VIEW {name} WITH (unbounded_state = true) AS {query} {emit}"


def rows(server, name="v"):
    return server.query(f"SELECT place, n, s FROM {name} ORDER BY place")


def check(server, want, name="v"):
    got = tidegate.settle(lambda: rows(server, name), want)
    assert got == want, server.query("SHOW VIEWS")


def shown(server, name="v"):
    [row] = [row for row in server.query("SHOW VIEWS") if row["name"] == name]
    return row


def message(server, part, name="v"):
    """What SHOW VIEWS says of the view, once it says this."""
    assert tidegate.settle(lambda: part in shown(server, name)["message"], True, 30), shown(server, name)
    return shown(server, name)["message"]


@pytest.fixture
def readings(embedded):
    return Readings(embedded(readings=1))


def start(server, readings, query=GROUPS, **more):
    server.query(SOURCE.format(readings.broker.bootstrap))
    server.query(declare(query, **more))
    readings.send()
    return server


def overflow(server, readings):
    """Sends so much that the broker no longer has what came first, and no faster than the view reads it."""
    before = len(readings.sent)
    for _ in range(24):
        readings.send(1, size=400_000)
        offset = "SELECT min(\"offset\") FROM system.partitions"
        assert server.settle(offset, len(readings.sent)) == len(readings.sent)
    [(first, _)] = kafka_module.ranges(readings.broker.bootstrap, "readings").values()
    assert first > before - 10, "the broker keeps everything"
    return first


def test_state_is_kept_though_the_topic_has_lost_its_records(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    first = overflow(server, readings)
    check(server, readings.groups())
    # HAVING and projections look at what the groups hold.
    server.query(declare(OFTEN))
    assert rows(server) == readings.groups(10)
    assert "replaced with epoch" in message(server, "its state was kept")
    assert "HAVING" in server.query("SHOW CREATE VIEW v")[0]["statement"]
    server.query(declare(GROUPS.replace("sum(v)", "sum(v) * 2")))
    assert rows(server) == [row | {"s": row["s"] * 2} for row in readings.groups()]
    # An aggregate over the one that is there.
    server.query(declare(f"SELECT 'all' AS place, sum(n) AS n, sum(s) AS s FROM ({GROUPS})"))
    both = lambda: [{"place": "all", "n": len(readings.sent), "s": sum(row["s"] for row in readings.groups())}]
    assert rows(server) == both()
    readings.send()
    check(server, both())
    server.restart()
    check(server, both())
    # The groups are still there, and what only shows them otherwise keeps the rows, too.
    server.query(declare(GROUPS))
    assert rows(server) == readings.groups()
    server.query(declare(GROUPS, emit="EMIT EVERY INTERVAL '100 milliseconds'"))
    message(server, "its state and its rows were kept")
    assert shown(server)["emit"] == "every 100ms"
    readings.send()
    check(server, readings.groups())
    # What needs the records themselves has only those that are there, and says so.
    server.query(declare(EVEN))
    told = message(server, "sources were read again")
    assert "topic readings no longer holds" in told and "offsets before offset" in told, told
    begin = int(told.split("offsets before offset ")[1].split()[0])
    check(server, readings.groups(keep=lambda event: event["v"] % 2 == 0 and event["id"] >= begin))
    assert begin >= first


def test_windows_that_have_closed_stay(serve, readings):
    windows = "SELECT window_start, place, count(*) AS n FROM TUMBLE(readings, at, INTERVAL '10 seconds') GROUP BY window_start, window_end, place"
    server = start(serve(), readings, windows, emit="EMIT ON WINDOW CLOSE")
    readings.send(60)
    overflow(server, readings)
    closed = (len(readings.sent) - 2) // 10

    def want(least=0):
        counted = {}
        for event in readings.sent[: closed * 10]:
            key = (event["id"] // 10, event["place"])
            counted[key] = counted.get(key, 0) + 1
        return sum(n for n in counted.values() if n > least)

    total = "SELECT sum(n) FROM v"
    assert server.settle(total, want()) == want()
    follower = tidegate.Subscription(server, "SELECT * FROM v EMIT CHANGES")
    tidegate.settle(lambda: sum(row["n"] for row in follower.rows()), want())
    server.query(declare(f"{windows} HAVING count(*) > 2", emit="EMIT ON WINDOW CLOSE"))
    message(server, "its state was kept")
    assert server.value(total) == want(2)
    # For those who follow it, rows that were final go.
    key = ["window_start", "place"]
    assert tidegate.settle(lambda: sum(row["n"] for row in tidegate.fold(follower.rows(), key).values()), want(2)) == want(2)
    assert {row["_op"] for row in follower.rows()} == {"insert", "delete"}
    readings.send(30)
    closed = (len(readings.sent) - 2) // 10
    assert server.settle(total, want(2)) == want(2)
    assert tidegate.settle(lambda: sum(row["n"] for row in tidegate.fold(follower.rows(), key).values()), want(2)) == want(2)
    follower.cancel()


def test_a_follower_sees_the_swap_as_the_changes_of_one_epoch(serve, readings):
    server = start(serve(), readings)
    check(server, readings.groups())
    before = shown(server)["epoch"]
    follower = tidegate.Subscription(server, "SELECT * FROM v EMIT CHANGES")
    fold = lambda: sorted(tidegate.fold(follower.rows(), ["place"]).values(), key=lambda row: row["place"])
    assert tidegate.settle(fold, readings.groups()) == readings.groups()
    count = len(follower.rows())
    server.query(declare(EVEN))
    told = message(server, "sources were read again")
    assert rows(server) == readings.even()
    assert tidegate.settle(fold, readings.even()) == readings.even()
    swap = follower.rows()[count:]
    epoch = int(told.split("replaced with epoch ")[1].split(":")[0])
    assert {row["_epoch"] for row in swap} == {epoch}
    assert {row["_op"] for row in swap} <= {"update_before", "update_after", "delete"}
    # Earlier epochs stay what they were.
    assert server.query(f"SELECT place, n, s FROM v ORDER BY place AS OF EPOCH {before}") == readings.groups()
    assert server.query(f"SELECT place, n, s FROM v ORDER BY place AS OF EPOCH {epoch}") == readings.even()
    readings.send()
    assert tidegate.settle(fold, readings.even()) == readings.even()
    server.query(declare("SELECT place, count(*) AS m FROM readings GROUP BY place"))
    assert follower.ended.wait(15) and "has other columns now: subscribe again" in tidegate.message(follower.error), follower.error
    assert [row["m"] for row in server.query("SELECT m FROM v ORDER BY place")] == [row["n"] for row in readings.groups()]
    follower.cancel()


def test_views_that_read_it_see_the_swap_too(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    server.query(declare("SELECT 'all' AS place, sum(n) AS n, sum(s) AS s FROM v", "above", replace=False))
    total = lambda rows: [{"place": "all", "n": sum(row["n"] for row in rows), "s": sum(row["s"] for row in rows)}]
    check(server, total(readings.groups()), "above")
    for query, want in [(EVEN, readings.even), (GROUPS, readings.groups), (OFTEN, lambda: readings.groups(10)), (EVEN, readings.even)]:
        server.query(declare(query))
        check(server, want())
        # At the same epoch.
        both = server.query("SELECT (SELECT sum(n) FROM v) AS own, (SELECT n FROM above) AS above")
        assert both == [{"own": total(want())[0]["n"], "above": total(want())[0]["n"]}], query
        readings.send()
        check(server, total(want()), "above")
    server.restart()
    check(server, total(readings.even()), "above")
    other = declare("SELECT place, count(*) AS n FROM readings GROUP BY place")
    assert "since above reads it and columns" in server.refusal(other)
    assert "drop that one first" in server.refusal(declare(GROUPS.replace("sum(v)", "max(v) + 0.5")))
    assert "rows would come and go where they only came, or the other way round" in server.refusal(declare("SELECT place, id AS n, v AS s FROM readings WHERE id > 2").replace("id AS n, v AS s", "coalesce(id, 0) AS n, v AS s"))
    check(server, readings.even())
    assert "can't read above, which reads v" in server.refusal(declare("SELECT place, n, s FROM above"))
    server.query("DROP VIEW above")
    server.query(other)
    # It may read what was made after it, and is dropped before that.
    server.query(declare("SELECT place, max(v) AS m FROM readings GROUP BY place", "later", replace=False))
    server.query(declare("SELECT m, count(*) AS n FROM later GROUP BY m"))
    assert tidegate.settle(lambda: server.query("SELECT m, n FROM v"), [{"m": 4, "n": len(readings.groups())}]) == [{"m": 4, "n": len(readings.groups())}]
    server.restart()
    assert tidegate.settle(lambda: server.query("SELECT m, n FROM v"), [{"m": 4, "n": len(readings.groups())}]) == [{"m": 4, "n": len(readings.groups())}]
    assert "v depends on it" in server.refusal("DROP VIEW later")
    server.query("DROP SOURCE readings CASCADE")
    assert server.query("SHOW VIEWS") == []


@pytest.mark.parametrize("query", [OFTEN, EVEN], ids=["kept", "read again"])
@pytest.mark.parametrize("point", ["replacement-noted", "replaced", "replaced-durably"])
def test_a_kill_leaves_the_old_view_or_the_new_one(serve, readings, query, point):
    server = start(serve(checkpoint_interval="100ms"), readings)
    check(server, readings.groups())
    server.settings["failpoint"] = point
    server.stop()
    server.start()
    try:
        server.query(declare(query))
    except Exception:
        pass  # the server is gone
    assert server.process.wait(20) != 0, "it was to die"
    server.disconnect()
    del server.settings["failpoint"]
    server.start()
    want = (lambda: readings.groups(10)) if query is OFTEN else readings.even
    # Until the new one stands there is the old one: never a mixture, never neither.
    deadline = time.monotonic() + 30
    while (got := rows(server)) != want():
        assert got == readings.groups() and time.monotonic() < deadline, got
    assert tidegate.settle(lambda: server.query("SHOW CREATE VIEW v")[0]["statement"], declare(query)) == declare(query)
    readings.send()
    check(server, want())
    server.restart()
    check(server, want())


def test_the_old_view_answers_while_the_new_one_reads(serve, readings):
    broker = readings.broker.process.child.pid
    server = start(serve(checkpoint_interval="100ms"), readings)
    check(server, readings.groups())
    os.kill(broker, signal.SIGSTOP)
    try:
        server.query(declare(EVEN))
        assert shown(server)["state"] == "running"
        message(server, "is being replaced")
        assert rows(server) == readings.groups()
        assert "is being replaced" in server.refusal("PAUSE VIEW v")
        assert "is being replaced" in server.refusal("ALTER SOURCE readings ADD COLUMN w INT")
        assert "is being replaced" in server.refusal(declare("SELECT n, count(*) AS c FROM v GROUP BY n", "above"))
        # The same again cancels it, another one takes its place.
        server.query(declare(GROUPS))
        message(server, "the replacement that was under way is not made")
        server.query(declare(EVEN))
        server.query(declare(OFTEN))
        message(server, "its state was kept")
        assert rows(server) == readings.groups(10)
        # Goes on after a restart.
        server.query(declare(EVEN))
        server.kill()
    finally:
        os.kill(broker, signal.SIGCONT)
    server.start()
    check(server, readings.even())
    message(server, "sources were read again")
    os.kill(broker, signal.SIGSTOP)
    try:
        server.query(declare(GROUPS))
        server.query("DROP VIEW v")
        assert server.query("SHOW VIEWS") == []
    finally:
        os.kill(broker, signal.SIGCONT)
    server.query(declare(EVEN, replace=False))
    check(server, readings.even())


def test_what_fails_changes_nothing(serve, readings):
    server = start(serve(), readings)
    check(server, readings.groups())
    # In what is there, and in what is read again.
    assert "ivide by zero" in server.refusal(declare(GROUPS.replace("sum(v)", "sum(v) / (count(*) - count(*))")))
    assert "ivide by zero" in server.refusal(declare("SELECT place, count(*) AS n, sum(v / (v - 3)) AS s FROM readings GROUP BY place"))
    message(server, "was not replaced")
    for wrong, why in [
        (declare("SELECT nothing FROM readings"), "nothing"),
        (declare("SELECT place, count(*) AS n FROM readings GROUP BY place").replace("WITH (unbounded_state = true) ", ""), "nothing bounds the state"),
        (declare("SELECT * FROM v"), "can't read itself"),
        (declare(GROUPS).replace("VIEW v", "VIEW IF NOT EXISTS v"), "exclude each other"),
        (declare(GROUPS, "readings"), "is a source and no continuous view"),
    ]:
        assert why in server.refusal(wrong), wrong
    server.query("CREATE VIEW plain AS SELECT * FROM v")
    assert "is a view and no continuous view" in server.refusal(declare(GROUPS, "plain"))
    assert shown(server)["state"] == "running" and rows(server) == readings.groups()
    readings.send()
    check(server, readings.groups())
    server.query("PAUSE VIEW v")
    assert "RESUME VIEW v first" in server.refusal(declare(OFTEN))
    server.query("RESUME VIEW v")
    # One that is not there is made.
    server.query(declare(OFTEN, "w"))
    check(server, readings.groups(10), "w")


def test_the_same_again_does_nothing(serve, readings):
    server = start(serve(), readings)
    check(server, readings.groups())
    epoch = shown(server)["epoch"]
    server.query(declare(GROUPS).replace("SELECT place, count(*)", "SELECT place,\n  -- how many\n  count( * )"))
    message(server, "the definition is what it was: nothing was done")
    assert shown(server)["epoch"] == epoch
    # A source with more columns may mean something else.
    server.query(declare("SELECT * FROM readings", "all_of_them"))
    server.query("ALTER SOURCE readings ADD COLUMN w INT")
    server.query(declare("SELECT * FROM readings", "all_of_them"))
    assert server.table("SELECT * FROM all_of_them").column_names[-1] == "w"
    assert server.settle("SELECT count(*) FROM all_of_them", len(readings.sent)) == len(readings.sent)


def test_explain_says_what_would_be_done(serve, readings):
    server = start(serve(), readings)
    check(server, readings.groups())

    def told(query, **more):
        return {row["topic"]: row["text"] for row in server.query("EXPLAIN " + declare(query, **more))}.get("replaces")

    assert told(GROUPS) == "the definition is what it is: nothing would be done"
    assert told(GROUPS, emit="EMIT EVERY INTERVAL '1 second'") == "the state and the rows that are there would be kept"
    assert told(OFTEN) == "the state that is there would be kept, and the rows come from that"
    assert told(EVEN).startswith("the sources would be read again, since it holds nothing for this operator: aggregate ")
    assert told(OFTEN, name="w") == "there is no such view: it would be made"
    assert told(OFTEN, replace=False) is None
    assert rows(server) == readings.groups()


def test_another_source_comes_in(serve, readings, embedded):
    server = start(serve(checkpoint_interval="100ms"), readings)
    check(server, readings.groups())
    places = embedded(places=1)
    places.send("places", [(0, json.dumps({"place": place, "size": ord(place)}).encode()) for place in "abcd"])
    server.query(f"CREATE SOURCE places (place TEXT, size BIGINT) WITH (connector = 'kafka', topic = 'places', 'bootstrap.servers' = '{places.bootstrap}', format = 'json')")
    server.query(declare("SELECT r.place AS place, count(*) AS n, sum(p.size) AS s FROM readings r JOIN places p ON r.place = p.place GROUP BY r.place"))
    sizes = lambda: [row | {"s": row["n"] * ord(row["place"])} for row in readings.groups()]
    check(server, sizes())
    readings.send()
    check(server, sizes())
    server.restart()
    check(server, sizes())
    server.query(declare("SELECT place, count(*) AS n, sum(size) AS s FROM places GROUP BY place"))
    check(server, [{"place": place, "n": 1, "s": ord(place)} for place in "abcd"])
    server.query("DROP VIEW v")
    server.query(declare(GROUPS))
    check(server, readings.groups())
