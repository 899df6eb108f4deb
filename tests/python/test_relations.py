"""Views over several topics and over one another: joined, aggregated again, kept to their first rows. What is read at any moment is
consistent, and a restart changes nothing."""

import json
import random

import tidegate


def source(name, columns, broker, **options):
    given = "".join(f", '{key.replace('_', '.')}' = '{value}'" for key, value in options.items())
    return f"""CREATE SOURCE {name} ({columns}) WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = '{broker.bootstrap}',
               format = 'json'{given})"""


def view(name, query, options="unbounded_state = true"):
    return f"CREATE CONTINUOUS VIEW {name} WITH ({options}) AS {query} EMIT CHANGES"


def rows(server, sql):
    return sorted((tuple(row.values()) for row in server.query(sql)), key=str)


def payload(**fields):
    return json.dumps(fields).encode()


def test_topics_are_joined_and_share_epochs_from_then_on(serve, embedded):
    """Two topics with pipelines of their own become one when a view joins them; nothing is lost, also over a kill."""
    broker, server = embedded(orders=2, payments=1), serve(checkpoint_interval="200ms")
    server.query(source("orders", "id BIGINT, customer TEXT, price BIGINT", broker))
    server.query(source("payments", "order_id BIGINT, paid BIGINT", broker))
    server.query(view("spent", "SELECT customer, sum(price) AS price FROM orders GROUP BY customer"))
    server.query(view("income", "SELECT count(*) AS n, sum(paid) AS paid FROM payments"))
    follower = tidegate.Subscription(server, "SELECT * FROM income EMIT CHANGES")
    broker.send("orders", [(i % 2, payload(id=i, customer="ab"[i % 2], price=10 * i)) for i in range(10)])
    broker.send("payments", [(0, payload(order_id=i, paid=i)) for i in range(0, 10, 2)])
    assert server.settle("SELECT n FROM income", 5) == 5
    joined = "SELECT o.id, o.customer, p.paid FROM orders o LEFT JOIN payments p ON o.id = p.order_id"
    server.query(view("orders_paid", joined))
    server.query(view("open_orders", "SELECT customer, count(*) AS n FROM orders_paid WHERE paid IS NULL GROUP BY customer"))
    assert rows(server, "SELECT * FROM orders_paid") == rows(server, joined)
    assert rows(server, "SELECT * FROM open_orders") == [("b", 5)]
    assert {row["pipeline"] for row in server.query("SELECT DISTINCT pipeline FROM system.epochs")} == {"orders+payments"}
    for round_ in range(2):
        broker.send("payments", [(0, payload(order_id=i, paid=i)) for i in (1, 3)])
        broker.send("orders", [(0, payload(id=100 + round_, customer="c", price=1))])
        assert server.settle("SELECT n FROM income", 7 + 2 * round_) == 7 + 2 * round_
        assert tidegate.settle(lambda: rows(server, "SELECT * FROM orders_paid"), rows(server, joined)) == rows(server, joined)
        assert rows(server, "SELECT * FROM spent") == rows(server, "SELECT customer, sum(price) FROM orders GROUP BY customer")
        if round_ == 0:
            # Whoever followed a view before goes on following it.
            assert tidegate.settle(lambda: [r["n"] for r in follower.rows() if r["_op"] in ("insert", "update_after")][-1], 7) == 7
            server.restart()
    assert "open_orders" in server.refusal("DROP VIEW orders_paid")
    assert "open_orders reads it: PAUSE VIEW open_orders first" in server.refusal("PAUSE VIEW orders_paid")
    server.query("DROP VIEW orders_paid CASCADE")
    server.query("DROP VIEW spent")
    server.query("DROP SOURCE orders")
    broker.send("payments", [(0, payload(order_id=50, paid=50))])
    assert server.settle("SELECT n FROM income", 10) == 10
    server.restart()
    assert server.settle("SELECT n FROM income", 10) == 10
    # The name is free again, and another source of it is another one.
    server.query(source("orders", "id BIGINT", broker))
    server.query(view("again", "SELECT count(*) AS n FROM orders"))
    assert server.settle("SELECT n FROM again", 12) == 12


def test_what_a_batch_query_can_do_stands_as_a_view(serve, embedded, tmp_path):
    broker = embedded(points=1)
    names = tmp_path / "names.csv"
    names.write_text("k,name\na,Ann\nb,Bob\n")
    server = serve("--allow-path", tmp_path)
    server.query(source("points", "id BIGINT, k TEXT, x BIGINT", broker))
    queries = {
        "best": "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY x DESC, id) AS place FROM points) WHERE place <= 2",
        "newest": "SELECT DISTINCT ON (k) k, id, x FROM points ORDER BY k, id DESC",
        "top": "SELECT id, x FROM points ORDER BY x DESC, id LIMIT 3",
        "running": "SELECT id, sum(x) OVER (PARTITION BY k ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM points",
        "cube": "SELECT k, x, count(*) AS n, grouping(k) AS g FROM points GROUP BY CUBE (k, x)",
        "above": "SELECT id, x FROM points WHERE x > (SELECT avg(x) FROM points)",
        "unseen": "SELECT x FROM points WHERE k = 'a' EXCEPT SELECT x FROM points WHERE k = 'b'",
        "named": f"SELECT p.id, n.name FROM points p LEFT JOIN '{names}' n ON p.k = n.k",
        "spread": "SELECT max(n) - min(n) AS d, avg(n) AS a, count(DISTINCT n) AS u FROM (SELECT k, count(*) AS n FROM points GROUP BY k)",
        "with_rest": "SELECT k, count(*) AS n FROM points GROUP BY k UNION ALL SELECT 'all', count(*) FROM points UNION ALL SELECT 'none', 0",
    }
    for name, query in queries.items():
        server.query(view(name, query))
    dice, sent = random.Random(3), 0
    for round_ in range(4):
        broker.send("points", [(0, payload(id=sent + i, k=dice.choice(["a", "b", "c", None]), x=dice.choice([None, *range(6)]))) for i in range(12)])
        sent += 12
        assert server.settle("SELECT n FROM with_rest WHERE k = 'all'", sent) == sent
        for name, query in queries.items():
            assert rows(server, f"SELECT * FROM {name}") == rows(server, query), (round_, name)
        if round_ == 1:
            server.restart()


def test_a_view_that_fails_takes_those_above_along_and_no_others(serve, embedded):
    broker, server = embedded(numbers=1), serve()
    server.query(source("numbers", "x BIGINT", broker))
    server.query(view("inverse", "SELECT x, 100 / x AS y FROM numbers"))
    server.query(view("sums", "SELECT sum(y) AS s FROM inverse"))
    server.query(view("counted", "SELECT count(*) AS n FROM numbers"))
    broker.send("numbers", [(0, payload(x=x)) for x in (1, 2)])
    assert server.settle("SELECT s FROM sums", 150) == 150
    broker.send("numbers", [(0, payload(x=0))])
    assert server.settle("SELECT n FROM counted", 3) == 3
    states = {row["name"]: (row["state"], row["message"]) for row in server.query("SHOW VIEWS")}
    assert states["counted"][0] == "running"
    assert states["inverse"][0] == "failed" and "zero" in states["inverse"][1].lower()
    assert states["sums"][0] == "failed" and "view inverse, which it reads, failed in epoch" in states["sums"][1]
    assert server.value("SELECT s FROM sums") == 150


def test_a_view_that_passes_rows_on_bounds_nothing_above_it(serve, embedded):
    """Late rows come through it; a view over it that groups by their window keeps its groups and counts them."""
    broker, server = embedded(clicks=1), serve()
    server.query(source("clicks", "ts TIMESTAMP, who TEXT, WATERMARK FOR ts AS ts", broker))
    server.query(view("windowed", "SELECT window_start, who FROM TUMBLE(clicks, ts, INTERVAL '10 seconds')"))
    counted = "SELECT window_start, count(*) AS n FROM windowed GROUP BY window_start"
    assert "nothing bounds the state" in server.refusal(f"CREATE CONTINUOUS VIEW counted AS {counted} EMIT CHANGES")
    server.query(view("counted", counted))
    # One that has dropped its late rows bounds what is above it.
    server.query("CREATE CONTINUOUS VIEW closed AS SELECT window_start, who, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '10 seconds') GROUP BY window_start, who")
    server.query("CREATE CONTINUOUS VIEW most AS SELECT window_start, max(n) AS n FROM closed GROUP BY window_start")
    for seconds in (1, 2, 25, 3):
        broker.send("clicks", [(0, payload(ts=f"2024-01-01T12:00:{seconds:02}Z", who="a"))])
        server.settle("SELECT count(*) FROM windowed", [1, 2, 25, 3].index(seconds) + 1)
    assert tidegate.settle(lambda: [n for _, n in rows(server, "SELECT * FROM counted")], [3, 1]) == [3, 1]
    assert tidegate.settle(lambda: [n for _, n in rows(server, "SELECT * FROM most")], [2]) == [2]
    assert server.settle("SELECT count(*) FROM closed$late", 1) == 1


def test_what_can_not_stand_is_refused_with_the_reason_and_a_way(serve, embedded):
    broker, server = embedded(points=1), serve()
    server.query(source("points", "id BIGINT, k TEXT, x BIGINT", broker))
    for query, *sentence in [
        ("SELECT id FROM points ORDER BY id", "ORDER BY has no meaning", "when reading it"),
        ("SELECT id FROM points LIMIT 3", "LIMIT without ORDER BY", "add ORDER BY"),
        ("SELECT k, row_number() OVER (PARTITION BY k ORDER BY id) AS n FROM points", "nothing bounds the state", "unbounded_state = true"),
        ("SELECT a.id FROM points a JOIN points b ON a.k = b.k", "nothing bounds the state of both sides", "unbounded_state = true"),
    ]:
        refusal = server.refusal(f"CREATE CONTINUOUS VIEW v AS {query} EMIT CHANGES")
        assert all(part in refusal for part in sentence), refusal
    assert server.query("SHOW VIEWS") == []
