"""Formats other than plain JSON, written by other people's serialisers: from the producer's bytes to what a client sees."""

import datetime
import decimal
import json
import re
import time
import uuid

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

import registry as registry_module
import tidegate

UTC = datetime.timezone.utc


@pytest.fixture
def registry():
    """`registry(user, password)` starts a schema registry."""
    started = []

    def start(*credentials):
        started.append(registry_module.Registry(*credentials))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def client(registry, **more):
    return SchemaRegistryClient({"url": registry.url, **more})


def serializer(registry, topic, schema, side=MessageField.VALUE, **more):
    """From a value to bytes, as Confluent's own clients write them."""
    write = AvroSerializer(client(registry, **more), json.dumps(schema))
    return lambda value: write(value, SerializationContext(topic, side))


def source(server, bootstrap, topic, columns="", name="s", options="", form="avro"):
    server.query(f"""CREATE SOURCE {name} {columns}
      WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', format = '{form}'{options})""")


def at(registry):
    return f", 'schema.registry.url' = '{registry.url}'"


def record(name, *fields):
    return {"type": "record", "name": name, "namespace": "shop", "fields": [{"name": n, "type": t, **dict(more)} for n, t, *more in fields]}


V1 = record("Order", ("id", "int"), ("customer", "string"), ("amount", "float"))
# A field is renamed, one is widened, two are new, one is gone.
V2 = record(
    "Order",
    ("id", "long"),
    ("client", "string", ("aliases", ["customer"])),
    ("currency", "string", ("default", "EUR")),
    ("tags", {"type": "array", "items": "string"}, ("default", ["none"])),
    ("note", ["null", "string"], ("default", None)),
)


def test_two_versions_of_a_schema_in_one_topic(embedded, serve, registry):
    broker, server, known = embedded(orders=1), serve(), registry()
    old, new = serializer(known, "orders", V1), serializer(known, "orders", V2)
    sent = [(0, old({"id": 1, "customer": "Ada", "amount": 2.5}))]
    sent.append((0, new({"id": 2**40, "client": "Bob", "currency": "NOK", "tags": ["a", "b"], "note": "x"})))
    sent.append((0, old({"id": 3, "customer": "Cyd", "amount": 0.0})))
    broker.send("orders", sent)

    source(server, broker.bootstrap, "orders", options=at(known))
    want = [
        {"id": 1, "client": "Ada", "currency": "EUR", "tags": ["none"], "note": None},
        {"id": 3, "client": "Cyd", "currency": "EUR", "tags": ["none"], "note": None},
        {"id": 2**40, "client": "Bob", "currency": "NOK", "tags": ["a", "b"], "note": "x"},
    ]
    assert server.query("SELECT * FROM s ORDER BY id") == want
    server.query("CREATE CONTINUOUS VIEW v AS SELECT id, client, currency FROM s")
    assert server.settle("SELECT count(*) FROM v", 3) == 3
    assert server.value("SELECT count(*) FROM s$errors") == 0

    # What was found out stands in the statement: columns and schema.
    text = server.query("SHOW CREATE SOURCE s")[0]["statement"]
    assert 'client TEXT' in text.replace('"', "") and "ARRAY<TEXT>" in text and "'avro.schema'" in text, text

    # A third version makes nothing of the source; its records are read as the second.
    third = serializer(known, "orders", record("Order", ("id", "long"), ("client", "string"), ("currency", "string"), ("more", "boolean")))
    broker.send("orders", [(0, third({"id": 4, "client": "Dan", "currency": "SEK", "more": True}))])
    assert server.settle("SELECT count(*) FROM v", 4) == 4
    assert server.query("SELECT * FROM s WHERE id = 4") == [{"id": 4, "client": "Dan", "currency": "SEK", "tags": ["none"], "note": None}]

    # A restart needs the registry for nothing but the records' own schemas.
    asked = len(known.asked)
    server.restart()
    assert server.query("SELECT count(*) AS n FROM s") == [{"n": 4}]
    assert all(path.startswith("/schemas/ids/") for path in known.asked[asked:]), known.asked[asked:]


def test_all_types(embedded, serve, registry):
    broker, server, known = embedded(types=1), serve(), registry()
    logical = lambda of, name, **more: {"type": of, "logicalType": name, **more}
    inner = record("Inner", ("x", "double"), ("y", ["null", "string"]))
    schema = record(
        "All",
        ("flag", "boolean"),
        ("i", "int"),
        ("l", "long"),
        ("f", "float"),
        ("d", "double"),
        ("b", "bytes"),
        ("t", "string"),
        ("e", {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}),
        ("fx", {"type": "fixed", "name": "Two", "size": 2}),
        ("day", logical("int", "date")),
        ("millis", logical("long", "timestamp-millis")),
        ("micros", logical("long", "timestamp-micros")),
        ("dec", logical("bytes", "decimal", precision=12, scale=3)),
        ("uid", logical("string", "uuid")),
        ("inner", inner),
        ("maybe", ["null", "shop.Inner"]),
        ("list", {"type": "array", "items": ["null", "long"]}),
        ("map", {"type": "map", "values": "int"}),
        ("either", ["null", "long", "string"]),
    )
    value = {
        "flag": True, "i": -(2**31), "l": 2**63 - 1, "f": 0.5, "d": 1e300, "b": b"\x00\xff", "t": "ñ€", "e": "GREEN", "fx": b"ab",
        "day": datetime.date(2024, 2, 29), "millis": datetime.datetime(2024, 1, 2, 3, 4, 5, 678000, UTC), "micros": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        "dec": decimal.Decimal("-12.345"), "uid": uuid.UUID(int=7), "inner": {"x": 1.5, "y": None}, "maybe": {"x": 2.5, "y": "z"},
        "list": [1, None, 3], "map": {"a": 1}, "either": "text",
    }  # fmt: skip
    write = serializer(known, "types", schema)
    broker.send("types", [(0, write(value)), (0, write({**value, "maybe": None, "list": [], "either": 5}))])
    source(server, broker.bootstrap, "types", options=at(known))
    first, second = server.query("SELECT * FROM s")
    naive = lambda moment: moment.replace(tzinfo=None)
    want = {
        **value, "uid": str(value["uid"]), "millis": naive(value["millis"]), "micros": naive(value["micros"]), "map": [{"key": "a", "value": 1}],
    }  # fmt: skip
    assert first == want
    assert second == {**want, "maybe": None, "list": [], "either": "5"}

    # Declared columns: parts by path, other types that hold the values exactly, nested values as JSON.
    columns = "(x REAL PATH '$.inner.x', y TEXT PATH '$.maybe.y', i BIGINT, ts TIMESTAMP PATH '$.millis', d2 DECIMAL(20, 5) PATH '$.dec', m TEXT PATH '$.map', j TEXT PATH '$.maybe', ms TIMESTAMP(3) PATH '$.l' FORMAT 'epoch_ms')"
    source(server, broker.bootstrap, "types", columns, "declared", at(known))
    first, second = server.query("SELECT x, y, i, ts, d2, m, j FROM declared ORDER BY y NULLS LAST")
    assert (first["x"], first["y"], first["i"], first["d2"], first["m"]) == (1.5, "z", -(2**31), decimal.Decimal("-12.34500"), '{"a":1}')
    assert json.loads(first["j"]) == {"x": 2.5, "y": "z"} and second["j"] is None and second["y"] is None
    assert naive(first["ts"].to_pydatetime() if hasattr(first["ts"], "to_pydatetime") else first["ts"]) == naive(value["millis"])


def test_bad_records_beside_good_ones(embedded, serve, registry):
    broker, server, known = embedded(orders=1), serve(), registry()
    write = serializer(known, "orders", V1)
    good = write({"id": 7, "customer": "Ada", "amount": 1.0})
    other = known.register("other-value", record("Else", ("name", "string")))
    header = good[:5]
    bad = [
        (b"", "the payload is "),
        (None, "the payload is NULL"),
        (b"\x00\x00", "ends within a schema registry's header"),
        (b'{"id": 7}', "begins with byte 123"),
        (b"\x00\x00\x00\x01\x00" + good[5:], "the schema registry knows no schema 256"),
        (b"\x00" + other.to_bytes(4, "big") + b"\x02a", "the writer's schema lacks it, and it has no default"),
        (good[:-1], "4 bytes are to follow, and 3 do"),
        (good + b"\x00", "the record ends here, and 1 bytes follow"),
        (header + b"\xff" * 12, "a number has more than 64 bits"),
        (header + b"\x0e\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes are to follow"),
        (header + b"\x0e\x04\xff\xfe" + b"\x00" * 4, "a string is not valid UTF-8"),
        (write({"id": 300, "customer": "x", "amount": 0.0}), "column id has 300 where TINYINT is expected"),
    ]
    sent = [(0, good)]
    for payload, _ in bad:
        sent += [(0, payload), (0, good)]
    broker.send("orders", sent)
    source(server, broker.bootstrap, "orders", "(id TINYINT, customer TEXT, amount REAL)", options=at(known))
    server.query("CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS SELECT id, count(*) AS n FROM s GROUP BY id")
    assert server.settle("SELECT coalesce(sum(n), 0) FROM v", len(bad) + 1) == len(bad) + 1
    reasons = [row["reason"] for row in server.query('SELECT reason FROM s$errors ORDER BY "offset"')]
    assert len(reasons) == len(bad), reasons
    for reason, (_, want) in zip(reasons, bad):
        assert want in reason, (reason, want)


def test_a_registry_that_is_down_loses_nothing(embedded, serve, registry):
    broker, server, known = embedded(orders=1), serve(), registry("ann", "geheim")
    write = serializer(known, "orders", V1, **{"basic.auth.user.info": "ann:geheim"})
    order = lambda number: (0, write({"id": number, "customer": "c", "amount": 1.0}))
    broker.send("orders", [order(1)])
    options = at(known) + ", 'schema.registry.username' = 'ann', 'schema.registry.password' = 'geheim'"
    source(server, broker.bootstrap, "orders", options=options)
    server.query("CREATE CONTINUOUS VIEW v AS SELECT id FROM s")
    assert server.settle("SELECT count(*) FROM v", 1) == 1
    assert "geheim" not in server.query("SHOW CREATE SOURCE s")[0]["statement"]

    # Records of a schema that is not known yet come while it is down.
    newer = serializer(known, "orders", record("Order", ("id", "int"), ("customer", "string"), ("amount", "float"), ("more", "int")), **{"basic.auth.user.info": "ann:geheim"})
    known.register("orders-value", record("Order", ("id", "int"), ("customer", "string"), ("amount", "float"), ("more", "int")))
    late = newer({"id": 2, "customer": "c", "amount": 1.0, "more": 5})
    known.stop()
    broker.send("orders", [(0, late), order(3)])
    state = lambda: str(server.query("SHOW SOURCES")[0])
    assert tidegate.settle(lambda: "can't be reached" in state(), True), state()
    assert "geheim" not in state()
    assert server.value("SELECT count(*) FROM s$errors") == 0 and server.value("SELECT count(*) FROM v") == 1
    assert "can't be reached" in server.refusal("SELECT * FROM s WHERE id = 3") or server.value("SELECT count(*) FROM s") == 3
    known.start()
    assert server.settle("SELECT count(*) FROM v", 3) == 3
    assert server.value("SELECT count(*) FROM s$errors") == 0
    assert tidegate.settle(lambda: "can't be reached" in state(), False) is False
    assert [row["id"] for row in server.query("SELECT id FROM s ORDER BY id")] == [1, 2, 3]


def test_create_says_what_is_wrong(embedded, serve, registry):
    broker, server, known = embedded(orders=1), serve(), registry()
    known.register("orders-value", V2)
    refusal = lambda columns="", options="", form="avro": server.refusal(f"""CREATE SOURCE s {columns}
        WITH (connector = 'kafka', topic = 'orders', 'bootstrap.servers' = '{broker.bootstrap}', format = '{form}'{options})""")
    assert "has no subject nobody" in refusal(options=at(known) + ", 'schema.registry.subject' = 'nobody'")
    assert "can't be reached" in refusal(options=", 'schema.registry.url' = 'http://127.0.0.1:1'")
    assert "add 'schema.registry.url'" in refusal("(id INT)")
    assert "'avro.schema'" in refusal(options=at(known) + ", 'avro.schemas' = 'x'")
    assert "no field customer; it has id, client" in refusal("(customer TEXT)", at(known))
    assert "no field clientt" in refusal("(c TEXT PATH '$.clientt')", at(known))
    assert "declare an ARRAY" in refusal("(tags BIGINT)", at(known))
    assert "can't be used" in refusal("(id INT)", ", 'avro.schema' = '{\"type\": \"record\"}'")
    assert "'key.format' has no effect" in refusal("(id INT)", at(known) + ", 'key.format' = 'avro', 'key.avro.schema' = '\"string\"'")
    assert "declares no column, and topic orders holds no record" in refusal(form="json")
    assert "declares no column, and its format has no schema" in refusal(form="text")
    assert server.query("SHOW SOURCES") == []

    shown = server.query(f"""EXPLAIN CREATE SOURCE s () WITH (connector = 'kafka', topic = 'orders', 'bootstrap.servers' = 'b:1', format = 'avro'{at(known)})""")
    assert shown[0]["name"] == "s" and "currency TEXT" in shown[0]["statement"].replace('"', ""), shown
    assert server.query("SHOW SOURCES") == []


def test_references_and_bare_records(embedded, serve, registry):
    broker, server, known = embedded(people=1, bare=1), serve(), registry()
    known.register("address", record("Address", ("city", "string")))
    known.register("people-value", record("Person", ("name", "string"), ("home", "shop.Address")), [{"name": "shop.Address", "subject": "address", "version": 1}])
    # The registry's header, then a name of three letters and a city of two.
    broker.send("people", [(0, b"\x00\x00\x00\x00\x02" + b"\x06Ada" + b"\x04NY")])
    source(server, broker.bootstrap, "people", options=at(known))
    assert server.query("SELECT * FROM s") == [{"name": "Ada", "home": {"city": "NY"}}]

    schema = json.dumps(record("Bare", ("n", "long"), ("next", ["null", "shop.Bare"])))
    broker.send("bare", [(0, b"\x02\x02\x04\x00"), (0, b"\x02"), (0, b"\x06\x00")])
    source(server, broker.bootstrap, "bare", "(n BIGINT, after BIGINT PATH '$.next.n')", "bare", f", 'avro.schema' = '{schema}'")
    assert server.query("SELECT * FROM bare ORDER BY n") == [{"n": 1, "after": 2}, {"n": 3, "after": None}]
    assert server.value("SELECT count(*) FROM bare$errors") == 1


def test_keys_in_avro(embedded, serve, registry):
    broker, server, known = embedded(users=1), serve(), registry()
    key = serializer(known, "users", record("Key", ("id", "long")), MessageField.KEY)
    value = serializer(known, "users", record("User", ("name", "string")))
    row = lambda number, name: (0, None if name is None else value({"name": name}), {"key": key({"id": number})})
    broker.send("users", [row(1, "Ada"), row(2, "Bob"), row(1, "Eve"), row(2, None), (0, value({"name": "x"}), {"key": b"\x00"})])
    source(server, broker.bootstrap, "users", "(id BIGINT PRIMARY KEY, name TEXT)", options=at(known) + ", 'key.format' = 'avro'")
    server.query("CREATE CONTINUOUS VIEW v AS SELECT id, name FROM s")
    assert server.settle("SELECT count(*) FROM s$errors", 1) == 1
    assert tidegate.settle(lambda: server.query("SELECT * FROM v"), [{"id": 1, "name": "Eve"}]) == [{"id": 1, "name": "Eve"}]
    assert server.query("SELECT * FROM s") == [{"id": 1, "name": "Eve"}]
    assert "ends within" in server.query("SELECT reason FROM s$errors")[0]["reason"]


def test_json_behind_a_registry_s_header(embedded, serve, registry):
    broker, server, known = embedded(events=1), serve(), registry()
    schema = {"title": "Event", "type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}
    write = JSONSerializer(json.dumps(schema), client(known))
    good = lambda number: write({"id": number, "name": "long enough to stand outside a view"}, SerializationContext("events", MessageField.VALUE))
    broker.send("events", [(0, good(1)), (0, b'{"id": 2}'), (0, good(3)), (0, b"\x00\x00\x00\x00\x01{")])
    source(server, broker.bootstrap, "events", "(id BIGINT, name TEXT)", options=at(known), form="json")
    assert server.query("SELECT id, name FROM s ORDER BY id") == [{"id": n, "name": "long enough to stand outside a view"} for n in (1, 3)]
    reasons = [row["reason"] for row in server.query('SELECT reason FROM s$errors ORDER BY "offset"')]
    assert "begins with byte 123" in reasons[0] and "malformed JSON" in reasons[1], reasons


def test_columns_that_a_sample_shows(embedded, serve, registry):
    broker, server = embedded(visits=3, users=1, odd=1, changes=1, empty=1), serve()
    events = [
        {"id": 1, "page": "/", "at": "2024-01-01T12:00:00Z", "team": {"id": 7, "name": "a"}, "tags": ["x"], "userId": 3},
        {"id": 2, "page": "/b", "at": "2024-01-01T12:00:01.5Z", "team": None, "tags": [], "price": 1.5, "any": [1, {}]},
    ]
    broker.send("visits", [(n, json.dumps(event).encode()) for n, event in enumerate(events)] + [(2, b"{")])
    declare = lambda topic, columns="", options="": f"""CREATE SOURCE {topic} {columns}
        WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json'{options})"""
    [shown] = server.query("EXPLAIN " + declare("visits", "(*, \"partition\" INT METADATA, WATERMARK FOR at AS at - INTERVAL '1' SECOND)"))
    assert server.query("SHOW SOURCES") == []
    server.query(shown["statement"])
    assert server.query("SHOW CREATE SOURCE visits")[0]["statement"] == shown["statement"]
    table = server.table("SELECT * FROM visits ORDER BY id")
    assert [field.name for field in table.schema] == ["id", "page", "at", "team", "tags", "userId", "price", "any", "partition"]
    first, second = table.to_pylist()
    assert (first["team"], first["tags"], first["userId"], first["partition"]) == ({"id": 7, "name": "a"}, ["x"], 3, 0)
    assert (second["price"], second["any"], second["at"]) == (1.5, ["1", "{}"], datetime.datetime(2024, 1, 1, 12, 0, 1, 500000))
    server.query("CREATE CONTINUOUS VIEW per_second AS SELECT window_start, count(*) AS n FROM TUMBLE(visits, at, INTERVAL '1 second') GROUP BY window_start, window_end EMIT CHANGES")
    assert server.settle("SELECT sum(n) FROM per_second", 2) == 2
    # What came to count stays, whatever comes later.
    broker.send("visits", [(0, b'{"id": 3, "new": true}')])
    server.restart()
    assert [field.name for field in server.table("SELECT * FROM visits").schema] == [field.name for field in table.schema]

    # The columns of keys, where payloads lack them.
    broker.send("users", [(0, b'{"name": "Ada"}', {"key": b'{"id": 5, "x": 1}'}), (0, None, {"key": b'{"id": 6, "x": 1}'})])
    server.query(declare("users", "(PRIMARY KEY (id))"))
    assert server.query("SELECT * FROM users") == [{"name": "Ada", "id": 5}]
    # One that is declared is not found out.
    row = lambda op, after, key: (0, json.dumps({"op": op, "before": None, "after": after}).encode(), {"key": json.dumps({"id": key}).encode()})
    broker.send("changes", [row("c", {"id": 1, "born": 10_000_000, "name": "Ada"}, 1), row("c", {"id": 2, "born": None, "name": "Bob"}, 2), row("d", None, 2)])
    server.query(declare("changes", "(born TIMESTAMP FORMAT 'epoch_us', *, PRIMARY KEY (id))").replace("'json'", "'debezium_json'"))
    assert server.query("SELECT * FROM changes") == [{"born": datetime.datetime(1970, 1, 1, 0, 0, 10), "id": 1, "name": "Ada"}]

    broker.send("odd", [(0, b"no json"), (0, b"5"), (0, b'{"a": 1}', {"headers": [("type", b"x")]})])
    assert "topic empty holds no record" in server.refusal(declare("empty"))
    server.query(declare("odd", options=", 'headers.filter' = 'type=x'"))
    assert server.query("SELECT * FROM odd") == [{"a": 1}]
    assert "topic odd holds no record that could show them" in server.refusal(declare("odd", options=", 'headers.filter' = 'type=y'").replace("SOURCE odd", "SOURCE other"))
    assert "declares no column, and its format" in server.refusal(declare("odd").replace("SOURCE odd", "SOURCE other").replace("'json'", "'csv'"))


def test_columns_of_a_json_schema(embedded, serve, registry):
    broker, server, known = embedded(events=1, keyed=1, framed=1), serve(), registry("ann", "s3cret")
    schema = {"title": "Event", "type": "object", "properties": {
        "id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}, "who": {"$ref": "#/definitions/who"}, "note": {"type": ["string", "null"]}},
        "definitions": {"who": {"type": "object", "properties": {"name": {"type": "string"}}}}}
    write = JSONSerializer(json.dumps(schema), client(known, **{"basic.auth.user.info": "ann:s3cret"}))
    broker.send("events", [(0, write({"id": 1, "at": "2024-01-01T00:00:00Z", "who": {"name": "Ada"}}, SerializationContext("events", MessageField.VALUE)))])
    server.query("CREATE SECRET pw AS 's3cret'")
    server.query(f"""CREATE CONNECTION c TO KAFKA ('bootstrap.servers' = '{broker.bootstrap}', 'schema.registry.url' = '{known.url}',
        'schema.registry.username' = 'ann', 'schema.registry.password' = SECRET pw)""")
    declare = lambda options="", name="s", topic="events": f"CREATE SOURCE {name} WITH (connector = 'kafka', connection = c, topic = '{topic}', format = 'json_registry'{options})"
    server.query(declare())
    want = [{"id": 1, "at": datetime.datetime(2024, 1, 1), "who": {"name": "Ada"}, "note": None}]
    assert server.query("SELECT * FROM s") == want
    # Another topic's subject.
    assert "has no subject framed-value" in server.refusal(declare(name="t", topic="framed"))
    server.query(declare(", 'schema.registry.subject' = 'events-value'", "t", "framed"))
    assert [row["column_name"] for row in server.query("DESCRIBE t")] == ["id", "at", "who", "note"]
    known.register("keyed-value", V1)
    assert "it is of type AVRO, not JSON" in server.refusal(declare(name="u", topic="keyed"))
    # The connection's password is for the connection's registry.
    other = registry()
    assert "has no subject" in server.refusal(declare(f", 'schema.registry.url' = '{other.url}'", "u"))
    assert other.asked and set(other.shown) == {None}
    # Who may use the connection, but asks with another password, is refused.
    server.query("ALTER SECRET pw AS 'wrong'")
    said = server.refusal(declare(name="u"))
    assert "401" in said or "Unauthorized" in said, said
    assert "s3cret" not in said and "wrong" not in said
    server.query("ALTER SECRET pw AS 's3cret'")
    server.query(declare(name="u"))
    assert server.query("SELECT * FROM u") == want


def drift(server, source):
    """{(kind, field): (records, example)} of a source."""
    rows = server.query("SELECT kind, field, records, example FROM system.drift WHERE source = ?", (source,))
    return {(row["kind"], row["field"]): (row["records"], row["example"]) for row in rows}


def drifted(server, source):
    """(new, missing, retyped) of a source."""
    [row] = [row for row in server.query("SHOW SOURCES") if row["name"] == source]
    assert [row] == server.query("SELECT * FROM system.sources WHERE name = ?", (source,))
    return row["new_fields"], row["missing_fields"], row["retyped_fields"]


def test_a_producer_changes_its_json(embedded, serve):
    broker, server = embedded(visits=1), serve(checkpoint_interval="200ms")
    source(server, broker.bootstrap, "visits", "(id BIGINT, team TEXT PATH '$.team.name', page TEXT)", form="json")
    assert drifted(server, "s") == (None, None, None), "no view reads it"
    server.query("CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS SELECT page, count(*) AS n FROM s GROUP BY page")
    send = lambda *values: broker.send("visits", [(0, json.dumps(value).encode()) for value in values])
    good = {"id": 1, "team": {"name": "x"}, "page": "a"}
    send(*[good] * 50, {**good, "page": None}, {**good, "team": None})
    assert server.settle("SELECT sum(n) FROM v", 52) == 52
    assert drifted(server, "s") == (0, 0, 0) and drift(server, "s") == {}

    # A field is added, one is dropped, one is written as another type.
    before = datetime.datetime.now(UTC)
    send(*[{**good, "browser": {"name": "lynx"}, "odd key": n} for n in range(5)])
    send(*[{"id": 1, "team": {}}] * 3, {"id": 1, "page": "b", "browser": 7})
    send(*[{**good, "id": "seven"}] * 2)
    assert server.settle("SELECT rows + errors FROM system.sources", 63) == 63
    assert drifted(server, "s") == (6, 4, 2)
    assert drift(server, "s") == {
        ("new", "$.browser"): (6, '{"name": "lynx"}'),
        ("new", '$."odd key"'): (5, "0"),
        ("missing", "$.team.name"): (4, None),
        ("missing", "$.page"): (3, None),
        ("retyped", "$.id"): (2, '"seven"'),
    }
    [seen] = server.query("SELECT first_seen, last_seen FROM system.drift WHERE field = '$.browser'")
    first, last = seen["first_seen"].replace(tzinfo=UTC), seen["last_seen"].replace(tzinfo=UTC)
    assert before - datetime.timedelta(seconds=1) < first <= last < datetime.datetime.now(UTC) + datetime.timedelta(seconds=1)

    # Nothing is counted twice by those who look, nor for a second view.
    assert server.value("SELECT count(*) FROM s WHERE page = 'a'") == 56
    assert server.value("SELECT count(*) FROM s$errors") == 2
    server.query("CREATE CONTINUOUS VIEW w WITH (unbounded_state = true) AS SELECT team, count(*) AS n FROM s GROUP BY team")
    assert server.settle("SELECT sum(n) FROM w", 61) == 61
    with server.connect() as other, other.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM s")
        assert cursor.fetchone() == (61,)
    assert drifted(server, "s") == (6, 4, 2)

    # What is declared from now on is known from now on.
    server.query("ALTER SOURCE s ADD COLUMN browser TEXT")
    send(*[{**good, "browser": "x"}] * 2, good)
    assert server.settle("SELECT sum(n) FROM w", 64) == 64
    assert drifted(server, "s") == (6, 5, 2)
    assert drift(server, "s")[("missing", "$.browser")] == (1, None)

    # Keys that are data are bounded.
    send(*[{**good, "browser": "x", f"user-{n}": n} for n in range(150)])
    assert server.settle("SELECT sum(n) FROM w", 214) == 214
    assert drifted(server, "s") == (156, 5, 2)
    told = {key: value for key, value in drift(server, "s").items() if key[0] == "new"}
    assert len(told) == 101 and told[("new", None)] == (52, None) and sum(records for records, _ in told.values()) == 161


def test_a_producer_changes_its_avro_schema(embedded, serve, registry):
    broker, server, known = embedded(orders=1), serve(), registry()
    old, new = serializer(known, "orders", V1), serializer(known, "orders", V2)
    broker.send("orders", [(0, new({"id": 1, "client": "Bob", "currency": "NOK", "tags": [], "note": None}))])
    source(server, broker.bootstrap, "orders", "(id BIGINT, client TEXT, currency TEXT)", options=at(known) + f", 'avro.schema' = '{json.dumps(V2)}'")
    server.query("CREATE CONTINUOUS VIEW v AS SELECT id, client FROM s")
    assert server.settle("SELECT count(*) FROM v", 1) == 1
    assert drifted(server, "s") == (0, 0, 0)
    # What no column reads is still known to the source's schema; a record by the former one has a field more, and lacks others.
    broker.send("orders", [(0, old({"id": n, "customer": "Ada", "amount": 2.5})) for n in (2, 3)])
    assert server.settle("SELECT count(*) FROM v", 3) == 3
    assert drifted(server, "s") == (2, 2, 0)
    assert drift(server, "s") == {("new", "$.amount"): (2, "2.5"), ("missing", "$.currency"): (2, None)}
    # A schema that can't be read as the source's.
    other = serializer(known, "others", record("Order", ("id", "string"), ("client", "string"), ("currency", "string")))
    broker.send("orders", [(0, other({"id": "4", "client": "Cyd", "currency": "EUR"}))])
    assert server.settle("SELECT count(*) FROM s$errors", 1) == 1
    assert server.settle("SELECT errors FROM system.sources", 1) == 1
    assert drifted(server, "s") == (2, 2, 1) and drift(server, "s")[("retyped", "$.id")] == (1, None)


def test_rows_are_written_as_they_are_read(embedded, serve, registry):
    broker, server, known = embedded(orders=1, bare=1, users=1, twice=1), serve(), registry()
    known.register("orders-value", V2)
    source(server, broker.bootstrap, "orders", options=at(known))
    server.query("INSERT INTO s (id, client, tags) VALUES (1, 'Ada', ['x', 'y']), (2, 'Bob', [])")
    want = [
        {"id": 1, "client": "Ada", "currency": "EUR", "tags": ["x", "y"], "note": None},
        {"id": 2, "client": "Bob", "currency": "EUR", "tags": [], "note": None},
    ]
    assert server.query("SELECT * FROM s ORDER BY id") == want
    assert "it is NULL, and the schema has string there" in server.refusal("INSERT INTO s (id, client) VALUES (4, NULL)")

    # Others read it by the registry.
    read = AvroDeserializer(client(known))
    messages = kafka_consumer(broker.bootstrap, "orders", 2)
    assert [read(message.value(), SerializationContext("orders", MessageField.VALUE)) for message in messages] == want

    schema = json.dumps(record("Bare", ("at", {"type": "long", "logicalType": "timestamp-millis"}), ("d", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2})))
    source(server, broker.bootstrap, "bare", options=f", 'avro.schema' = '{schema}'", name="bare")
    server.query("INSERT INTO bare VALUES (TIMESTAMP '2024-01-02 03:04:05.678', -1.25), (TIMESTAMP '1969-12-31 23:59:59.999', 327.68)")
    rows = server.query("SELECT CAST(at AS TEXT) AS at, d FROM bare ORDER BY at DESC")
    assert [(row["at"], row["d"]) for row in rows] == [("2024-01-02T03:04:05.678", decimal.Decimal("-1.25")), ("1969-12-31T23:59:59.999", decimal.Decimal("327.68"))]

    known.register("users-key", record("Key", ("id", "long")))
    known.register("users-value", record("User", ("name", ["null", "string"])))
    source(server, broker.bootstrap, "users", "(id BIGINT PRIMARY KEY, name TEXT)", "users", at(known) + ", 'key.format' = 'avro'")
    server.query("INSERT INTO users VALUES (1, 'Ada'), (2, NULL)")
    assert server.query("SELECT * FROM users ORDER BY id") == [{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]
    server.query("DELETE FROM users WHERE id = 1")
    assert server.query("SELECT * FROM users") == [{"id": 2, "name": None}]

    # A value that has the key's field, too, is given it.
    known.register("twice-key", record("Key", ("id", "long")))
    known.register("twice-value", record("Twice", ("id", "long"), ("name", ["null", "string"])))
    source(server, broker.bootstrap, "twice", "(id BIGINT PRIMARY KEY, name TEXT)", "twice", at(known) + ", 'key.format' = 'avro'")
    server.query("INSERT INTO twice VALUES (1, 'Ada')")
    assert server.query("SELECT * FROM twice") == [{"id": 1, "name": "Ada"}]
    read = AvroDeserializer(client(known))
    [message] = kafka_consumer(broker.bootstrap, "twice", 1)
    assert read(message.value(), SerializationContext("twice", MessageField.VALUE)) == {"id": 1, "name": "Ada"}


def kafka_consumer(bootstrap, topic, count):
    """The first records of a topic's only partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "formats", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        messages = []
        deadline = time.monotonic() + 30
        while len(messages) < count and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is not None and message.error() is None:
                messages.append(message)
        assert len(messages) == count
        return messages
    finally:
        consumer.close()


def test_the_way_from_a_broker_to_a_view_and_a_sink(embedded, serve, registry):
    """The first statements of docs/kafka.md, but with a broker that asks for no login."""
    broker, server, known = embedded(**{"orders": 1, "orders-by-minute": 1}), serve(), registry()
    write = serializer(known, "orders", record("Order", ("item", "string"), ("amount", "double"), ("at", {"type": "long", "logicalType": "timestamp-millis"})))
    begin = datetime.datetime(2024, 1, 1, 12, 0, tzinfo=UTC)
    broker.send("orders", [(0, write({"item": item, "amount": n + 0.5, "at": begin + datetime.timedelta(seconds=20 * n)})) for n, item in enumerate("aabab")])
    text = (tidegate.REPOSITORY / "docs" / "kafka.md").read_text().split("```text\n")[1].split("```")[0]
    text = re.sub(r"--[^\n]*", "", text)
    text = re.sub(r"\('bootstrap.servers'.*?\n\);|TO KAFKA \(.*?\n\);", f"TO KAFKA ('bootstrap.servers' = '{broker.bootstrap}', 'schema.registry.url' = '{known.url}');", text, count=1, flags=re.S)
    answers = [server.query(statement) for statement in filter(str.strip, text.split(";"))]
    assert [row["topic"] for row in answers[2] if not row["internal"]] == ["orders", "orders-by-minute"]
    assert "avro" in answers[3][0]["format"] and answers[3][0]["end_offset"] == 5
    assert '"item" TEXT' in str(answers[4]) or "item TEXT" in str(answers[4])
    assert server.settle("SELECT sum(amount) FROM by_minute", 12.5) == 12.5
    assert server.settle("SELECT count(*) FROM system.sinks WHERE state = 'running'", 1) == 1
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.assign([TopicPartition("orders-by-minute", 0, 0)])
    newest, until = {}, time.monotonic() + 20
    while sum(row["amount"] for row in newest.values()) != 12.5 and time.monotonic() < until:
        message = consumer.poll(1)
        if message and not message.error():
            newest[message.key()] = json.loads(message.value())
    consumer.close()
    assert sorted((row["window_start"][:16], row["item"], row["amount"]) for row in newest.values()) == [
        ("2024-01-01T12:00", "a", 2.0), ("2024-01-01T12:00", "b", 2.5), ("2024-01-01T12:01", "a", 3.5), ("2024-01-01T12:01", "b", 4.5)]
