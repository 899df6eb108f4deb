"""Sources with a primary key, from the producer's keys and tombstones to what a client sees."""

import json
import random
import time

import kafka as kafka_module
import oracle
import tidegate


def source(server, bootstrap, topic, columns="id BIGINT, name TEXT, city TEXT, PRIMARY KEY (id)", name="users", options=""):
    server.query(f"""CREATE SOURCE {name} ({columns})
      WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', format = 'json'{options})""")


def record(key, row, partition=0):
    encoded = lambda value: None if value is None else json.dumps(value).encode()
    return partition, encoded(row), {"key": encoded(key)}


def user(key, name, city, partition=0):
    return record(key, {"id": 99, "name": name, "city": city}, partition)


def people(server, table="people"):
    return [tuple(row.values()) for row in server.query(f"SELECT id, name, city FROM {table} ORDER BY id")]


def test_a_topic_as_a_table(embedded, serve):
    broker, server = embedded(users=1), serve()
    source(server, broker.bootstrap, "users")
    server.query("CREATE CONTINUOUS VIEW people AS SELECT * FROM users")
    server.query("CREATE CONTINUOUS VIEW romans AS SELECT name FROM users WHERE city = 'Rome'")
    broker.send("users", [user(1, "Ada", "Rome"), user({"id": 2}, "Bob", "Oslo"), user(3, "Cyd", "Rome"), user(1, "Ada", "Oslo"), record(3, None), record(7, None)])
    want = [(1, "Ada", "Oslo"), (2, "Bob", "Oslo")]
    assert tidegate.settle(lambda: people(server), want) == want
    assert people(server, "users") == want
    assert server.query("SELECT name FROM romans") == []

    # Filters see the newest rows only; projections, joins and limits count them.
    assert server.query("SELECT name FROM users WHERE city = 'Rome'") == []
    assert server.value("SELECT count(*) FROM users") == 2
    assert server.query("SELECT u.name FROM users AS u JOIN people AS p ON u.id = p.id AND u.city = p.city ORDER BY 1") == [{"name": "Ada"}, {"name": "Bob"}]
    assert server.query("SELECT city, count(*) AS n FROM users GROUP BY city") == [{"city": "Oslo", "n": 2}]
    assert len(server.query("SELECT id FROM users LIMIT 1")) == 1
    assert server.query("SELECT id, _offset FROM users WHERE _offset < 3 ORDER BY id") == [{"id": 2, "_offset": 1}]
    assert "NewestExec: newest row by [id]" in str(server.query("EXPLAIN SELECT name FROM users WHERE _offset < 3"))
    explained = str(server.query("EXPLAIN VIEW people"))
    assert "newest row of users by [id], emits changes" in explained and "the topic's keys: one row each" in explained

    # Bad records: the older row stays.
    bad = [(0, b"{}"), record("2", {"name": "Eve"}), (0, None, {"key": b"{"}), (0, b'{"name": tru}', {"key": b"2"}), record(1, [{}, {}])]
    broker.send("users", bad)
    assert server.settle("SELECT count(*) FROM users$errors", 5) == 5
    errors = [row["reason"] for row in server.query("SELECT reason FROM users$errors ORDER BY \"offset\"")]
    assert errors[0].startswith("the record has no key") and errors[1].startswith("the key can't be read: column id has \"2\""), errors
    assert errors[2].startswith("the key can't be read") and errors[3].startswith("malformed JSON in column name") and "holds 2 objects" in errors[4], errors
    assert people(server) == want == people(server, "users")

    # Declared once, known for good.
    assert "PRIMARY KEY (id)" in server.query("SHOW CREATE SOURCE users")[0]["statement"]
    server.restart()
    assert tidegate.settle(lambda: people(server), want) == want
    broker.send("users", [record(1, None), user(2, "Bob", "Rome")])
    want = [(2, "Bob", "Rome")]
    assert tidegate.settle(lambda: people(server), want) == want
    assert server.query("SELECT name FROM romans") == [{"name": "Bob"}]


def test_subscriptions_see_changes(embedded, serve):
    broker, server = embedded(users=1), serve()
    source(server, broker.bootstrap, "users")
    server.query("CREATE CONTINUOUS VIEW people AS SELECT id, name, city FROM users")
    broker.send("users", [user(1, "Ada", "Rome"), user(2, "Bob", "Oslo")])
    assert server.settle("SELECT count(*) FROM people", 2) == 2
    followers = [tidegate.Subscription(server, sql) for sql in ["SELECT id, name, city FROM users EMIT CHANGES", "SUBSCRIBE people"]]
    state = lambda follower: sorted(tuple(row.values()) for row in tidegate.fold(follower.rows(), ["id"]).values())
    for follower in followers:
        want = [(1, "Ada", "Rome"), (2, "Bob", "Oslo")]
        assert tidegate.settle(lambda: state(follower), want) == want, follower.error
    broker.send("users", [user(1, "Ada", "Oslo")])
    for follower in followers:
        want = ["update_before", "update_after"]
        assert tidegate.settle(lambda: [row["_op"] for row in follower.rows()][2:], want) == want
    # The same again changes nothing.
    broker.send("users", [user(1, "Ada", "Oslo"), record(2, None)])
    for follower in followers:
        want = ["update_before", "update_after", "delete"]
        assert tidegate.settle(lambda: [row["_op"] for row in follower.rows()][2:], want) == want
        assert state(follower) == [(1, "Ada", "Oslo")]
        assert follower.cancel()


def test_random_changes_through_restarts(embedded, serve):
    broker, server = embedded(users=3), serve(checkpoint_interval="200 ms", max_epoch_rows=7)
    columns = "tenant TEXT PATH '$.t', id INT, n BIGINT, PRIMARY KEY (tenant, id)"
    source(server, broker.bootstrap, "users", columns)
    server.query("CREATE CONTINUOUS VIEW all_of_them AS SELECT tenant, id, n FROM users")
    chance, table = random.Random(7), {}
    answer = lambda name: {(row["tenant"], row["id"]): row["n"] for row in server.query(f"SELECT tenant, id, n FROM {name}")}
    for turn in range(6):
        records = []
        for _ in range(chance.randrange(200)):
            key, n = (chance.choice("ab"), chance.randrange(40)), chance.randrange(3)
            if chance.random() < 0.3:
                table.pop(key, None)
                row = None
            else:
                table[key] = n
                row = {"n": n}
            records.append(record({"id": key[1], "t": key[0]}, row, key[1] % 3))
        broker.send("users", records)
        if turn % 2:
            server.restart()
        assert tidegate.settle(lambda: answer("all_of_them"), table) == table
        assert answer("users") == table


def test_keys_as_text(embedded, serve):
    broker, server = embedded(users=1), serve()
    source(server, broker.bootstrap, "users", "name TEXT PRIMARY KEY NOT ENFORCED, n INT", options=", 'key.format' = 'text'")
    broker.send("users", [(0, b'{"n": 1}', {"key": b"a"}), (0, b'{"n": 2}', {"key": b'"b" {'}), (0, b'{"n": 3}', {"key": b"a"}), (0, b'{"n": 4}', {"key": b"\xff"})])
    assert server.query("SELECT name, n FROM users ORDER BY n") == [{"name": '"b" {', "n": 2}, {"name": "a", "n": 3}]
    assert server.value("SELECT count(*) FROM users$errors") == 1


def test_what_views_over_tables_can_not_do_yet(embedded, serve):
    broker, server = embedded(users=1), serve()
    source(server, broker.bootstrap, "users")
    assert "of a source with PRIMARY KEY, there is no such row" in server.refusal("CREATE CONTINUOUS VIEW v AS SELECT id, proctime() AS p FROM users")
    assert "needs a windowed aggregate" in server.refusal("CREATE CONTINUOUS VIEW v AS SELECT id FROM users EMIT ON WINDOW CLOSE")


def test_a_compacted_topic(kafka, serve):
    topic = kafka.fresh_topic(
        "users", 1, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01, max_compaction_lag_ms=100, delete_retention_ms=60000
    )
    server = serve()
    source(server, kafka.bootstrap, topic)
    server.query("CREATE CONTINUOUS VIEW before AS SELECT * FROM users")
    chance, table, records = random.Random(3), {}, []
    for turn in range(400):
        key = chance.randrange(30)
        if chance.random() < 0.3:
            table.pop(key, None)
            records.append(record(key, None))
        else:
            table[key] = (key, f"name {turn}", "Rome")
            records.append(user(key, f"name {turn}", "Rome"))
    kafka_module.send(kafka.bootstrap, topic, records)
    want = [table[key] for key in sorted(table)]
    assert tidegate.settle(lambda: people(server, "before"), want) == want
    deadline = time.monotonic() + 60
    while len(oracle.Collector(kafka.bootstrap, topic).finish()) > 250:
        # A segment is only compacted once another has begun behind it.
        assert time.monotonic() < deadline, "kafka did not compact the topic within a minute"
        time.sleep(0.3)
        kafka_module.send(kafka.bootstrap, topic, [user(key, "later", "Rome") for key in range(1000, 1005)])
        table.update({key: (key, "later", "Rome") for key in range(1000, 1005)})
    want = [table[key] for key in sorted(table)]
    server.query("CREATE CONTINUOUS VIEW after AS SELECT * FROM users")
    for name in ["before", "after", "users"]:
        assert tidegate.settle(lambda: people(server, name), want) == want, name


def test_rows_meet_the_version_of_their_time(embedded, serve):
    """FOR SYSTEM_TIME AS OF: in a view and in a query alike; a version that comes late corrects what was shown."""
    broker, server = embedded(orders=1, rates=1), serve(checkpoint_interval="200ms")
    source(server, broker.bootstrap, "rates", "currency TEXT, rate DOUBLE, at TIMESTAMP METADATA FROM 'timestamp', WATERMARK FOR at AS at - INTERVAL '1 minute', PRIMARY KEY (currency)", "rates", ", 'key.format' = 'text'")
    source(server, broker.bootstrap, "orders", "id BIGINT, currency TEXT, amount DOUBLE, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 minute'", "orders")
    noon = 1_704_110_400_000

    def rate(minute, currency, value):
        return (0, None if value is None else json.dumps({"rate": value}).encode(), {"key": currency.encode(), "timestamp": noon + 60_000 * minute})

    def order(number, minute, currency, amount):
        return (0, json.dumps({"id": number, "currency": currency, "amount": amount, "at": f"2024-01-01T12:{minute:02}:00Z"}).encode())

    converted = """SELECT o.id, o.amount * r.rate AS euros FROM orders AS o
                   LEFT JOIN rates FOR SYSTEM_TIME AS OF o.at AS r ON o.currency = r.currency"""
    server.query(f"CREATE CONTINUOUS VIEW converted AS {converted} EMIT CHANGES")
    server.query("CREATE CONTINUOUS VIEW total WITH (unbounded_state = true) AS SELECT count(euros) AS n, count(*) AS orders FROM converted")
    explained = str(server.query("EXPLAIN VIEW converted"))
    assert "left temporal join on [o.currency = r.currency] as of o.at" in explained and "until the watermark of rates passes their time" in explained, explained
    broker.send("rates", [rate(0, "usd", 0.5), rate(10, "usd", 0.25), rate(5, "gbp", 1.5)])
    broker.send("orders", [order(1, 1, "usd", 8), order(2, 11, "usd", 8), order(3, 2, "gbp", 2), order(4, 6, "gbp", 2), order(5, 6, None, 2)])

    def both(want):
        assert tidegate.settle(lambda: {row["id"]: row["euros"] for row in server.query("SELECT * FROM converted")}, want) == want
        assert {row["id"]: row["euros"] for row in server.query(converted)} == want

    both({1: 4.0, 2: 2.0, 3: None, 4: 3.0, 5: None})
    server.restart()
    # Late, but not too late: it counts from minute 9 on, until minute 10. A deletion ends what was there.
    broker.send("rates", [rate(12, "usd", None), rate(11, "gbp", 3.0)])
    broker.send("orders", [order(6, 12, "usd", 8), order(7, 12, "gbp", 8), order(8, 11, "usd", 8)])
    both({1: 4.0, 2: 2.0, 3: None, 4: 3.0, 5: None, 6: None, 7: 24.0, 8: 2.0})
    assert server.settle("SELECT orders FROM total", 8) == 8 and server.value("SELECT n FROM total") == 5
    versions = server.query('SELECT rate, _deleted, _valid_to IS NULL AS is_last FROM "rates$versions" WHERE currency = \'usd\' ORDER BY _valid_from')
    assert [tuple(row.values()) for row in versions] == [(0.5, False, False), (0.25, False, False), (None, True, True)], versions
    for sql, sentence in [
        ("CREATE CONTINUOUS VIEW v AS SELECT o.id FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.at AS r ON o.amount = r.rate", "by its primary key: add AND r.currency = "),
        ("SELECT o.id FROM orders o JOIN orders FOR SYSTEM_TIME AS OF o.at AS r ON o.id = r.id", "declare it with a PRIMARY KEY and a WATERMARK"),
        ("SELECT o.id FROM orders o FULL JOIN rates FOR SYSTEM_TIME AS OF o.at AS r ON o.currency = r.currency", "takes JOIN and LEFT JOIN"),
    ]:
        assert sentence in server.refusal(sql), server.refusal(sql)
