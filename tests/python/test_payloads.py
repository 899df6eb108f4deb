"""Payloads other than JSON and Avro, from other people's serialisers to what a client sees: Protobuf, CSV, text, bytes, Debezium's envelopes; and header filters."""

import base64
import json

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

import tidegate

PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Head { int32 a = 1; }
message Order {
  int64 id = 1;
  string name = 2;
  repeated int32 sizes = 3;
  google.protobuf.Timestamp at = 4;
  Head head = 5;
  Kind kind = 6;
  optional double price = 7;
  map<string, int32> counts = 8;
}
enum Kind { PLAIN = 0; GIFT = 1; }
"""


def shop():
    """The same schema as Google's own library has it: the set of descriptors and the class of Order."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3", dependency=["google/protobuf/timestamp.proto"])
    kinds = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name="Head").field.add(name="a", number=1, type=kinds.TYPE_INT32, label=1)
    order = file.message_type.add(name="Order")
    for name, number, kind, label, of in [
        ("id", 1, kinds.TYPE_INT64, 1, None),
        ("name", 2, kinds.TYPE_STRING, 1, None),
        ("sizes", 3, kinds.TYPE_INT32, 3, None),
        ("at", 4, kinds.TYPE_MESSAGE, 1, ".google.protobuf.Timestamp"),
        ("head", 5, kinds.TYPE_MESSAGE, 1, ".shop.Head"),
        ("kind", 6, kinds.TYPE_ENUM, 1, ".shop.Kind"),
        ("counts", 8, kinds.TYPE_MESSAGE, 3, ".shop.Order.CountsEntry"),
    ]:
        order.field.add(name=name, number=number, type=kind, label=label, type_name=of)
    order.oneof_decl.add(name="_price")
    order.field.add(name="price", number=7, type=kinds.TYPE_DOUBLE, label=1, proto3_optional=True, oneof_index=0)
    entry = order.nested_type.add(name="CountsEntry")
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=kinds.TYPE_INT32, label=1)
    entry.options.map_entry = True
    of_kind = file.enum_type.add(name="Kind")
    of_kind.value.add(name="PLAIN", number=0)
    of_kind.value.add(name="GIFT", number=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    files = descriptor_pb2.FileDescriptorSet()
    files.file.add().ParseFromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
    files.file.append(file)
    return files.SerializeToString(), message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def create(server, broker, name, columns, options, topic=None, start="CREATE SOURCE"):
    text = "".join(f", '{key}' = '{value.replace(chr(39), 2 * chr(39))}'" for key, value in options.items())
    return server.query(f"{start} {name} ({columns}) WITH (connector = 'kafka', topic = '{topic or name}', 'bootstrap.servers' = '{broker.bootstrap}'{text})")


def refused(ask):
    with pytest.raises(Exception) as error:
        ask()
    return str(error.value)


COLUMNS = """id BIGINT, name TEXT, sizes INT[], at TIMESTAMP, a INT PATH '$.head.a', kind TEXT, price DOUBLE,
  counts ARRAY<STRUCT<key TEXT, value INT>>, head TEXT, WATERMARK FOR at AS at - INTERVAL '1 second'"""


def orders(Order):
    full = Order(id=7, name="seven, and a long text", sizes=[1, -2], kind=1, price=2.5, counts={"x": 3})
    full.at.FromJsonString("2024-01-01T00:00:00.5Z")
    full.head.a = 9
    bare = Order()
    bare.at.FromJsonString("2024-01-01T00:00:01Z")
    return full, bare


WANT = [
    {"id": 0, "name": "", "sizes": [], "a": None, "kind": "PLAIN", "price": None, "counts": [], "head": None},
    {"id": 7, "name": "seven, and a long text", "sizes": [1, -2], "a": 9, "kind": "GIFT", "price": 2.5, "counts": [{"key": "x", "value": 3}], "head": '{"a":9}'},
]
SELECT = "SELECT id, name, sizes, a, kind, price, counts, head FROM {} ORDER BY id"


def test_protobuf_of_other_serialisers(embedded, serve):
    broker, server = embedded(bare=1, framed=1), serve()
    descriptors, Order = shop()
    full, none = orders(Order)
    create(server, broker, "bare", COLUMNS, {"format": "protobuf", "protobuf.schema": PROTO, "protobuf.message": "shop.Order"})
    described = {"format": "protobuf", "protobuf.descriptor": base64.b64encode(descriptors).decode(), "protobuf.message": "shop.Order"}
    create(server, broker, "described", COLUMNS, described, topic="bare")
    create(server, broker, "framed", COLUMNS, {**described, "protobuf.framing": "confluent"})
    create(server, broker, "told", "", {"format": "protobuf", "protobuf.schema": PROTO, "protobuf.message": "shop.Order"}, topic="bare")
    assert 'head STRUCT<a INT>' in server.query("SHOW CREATE SOURCE told")[0]["statement"], server.query("SHOW CREATE SOURCE told")
    server.query("CREATE CONTINUOUS VIEW held WITH (unbounded_state = true) AS SELECT kind, count(*) AS n, sum(price) AS price FROM bare GROUP BY kind")

    registry = SchemaRegistryClient.new_client({"url": "mock://shop"})
    serialise = ProtobufSerializer(Order, registry)
    context = SerializationContext("framed", MessageField.VALUE)
    broker.send("bare", [(0, full.SerializeToString()), (0, b"\x0a\xff"), (0, none.SerializeToString()), (0, b"\x08\x01"), (0, full.SerializeToString()[:-1])])
    broker.send("framed", [(0, serialise(full, context)), (0, full.SerializeToString()), (0, serialise(none, context))])
    for source in ["bare", "described", "framed"]:
        assert tidegate.settle(lambda: server.query(SELECT.format(source)), WANT) == WANT, source
    told = server.query("SELECT id, at, head, counts FROM told ORDER BY id, at")
    assert [(row["id"], row["at"] is None, row["head"]) for row in told] == [(0, False, None), (1, True, None), (7, False, {"a": 9})], told
    held = [{"kind": "GIFT", "n": 1, "price": 2.5}, {"kind": "PLAIN", "n": 1, "price": None}]
    assert tidegate.settle(lambda: server.query("SELECT * FROM held ORDER BY kind"), held) == held

    errors = [(row["offset"], row["reason"]) for row in server.query("SELECT \"offset\", reason FROM bare$errors ORDER BY \"offset\"")]
    assert [offset for offset, _ in errors] == [1, 3, 4], errors
    assert errors[0][1].startswith("malformed Protobuf at byte 1") and "watermark column at" in errors[1][1] and "malformed Protobuf" in errors[2][1], errors
    assert "schema registry's header" in server.value("SELECT reason FROM framed$errors")

    # What was compiled stands in the statement, and is there again after a restart.
    server.restart()
    broker.send("bare", [(0, full.SerializeToString())])
    held[0].update(n=2, price=5.0)
    assert tidegate.settle(lambda: server.query("SELECT * FROM held ORDER BY kind"), held) == held
    assert server.value("SELECT count(*) FROM framed") == 2

    # Written, and read by Google's library as well as here.
    server.query("""INSERT INTO bare (id, name, sizes, at, a, kind, price, counts)
      VALUES (8, 'é', [3, -4], '2024-01-01T00:00:02.25', 5, 'GIFT', NULL, [{'key': 'k', 'value': 6}])""")
    create(server, broker, "raw", "raw BYTEA", {"format": "bytes"}, topic="bare")
    written = Order.FromString(server.value("SELECT raw FROM raw WHERE _offset = 6"))
    assert (written.id, written.name, list(written.sizes), written.head.a, written.kind, dict(written.counts)) == (8, "é", [3, -4], 5, 1, {"k": 6})
    assert written.at.ToJsonString() == "2024-01-01T00:00:02.250Z" and not written.HasField("price")
    assert server.query("SELECT id, sizes, a, kind, price, counts FROM bare WHERE id = 8") == [
        {"id": 8, "sizes": [3, -4], "a": 5, "kind": "GIFT", "price": None, "counts": [{"key": "k", "value": 6}]}]
    assert "'NONE' is no name of enum shop.Kind" in refused(lambda: server.query("INSERT INTO bare (id, at, kind) VALUES (1, '2024-01-01T00:00:00', 'NONE')"))
    assert "can't be written" in refused(lambda: server.query("INSERT INTO framed (id, at) VALUES (1, '2024-01-01T00:00:00')"))


def test_protobuf_declarations_are_held_to_the_schema(embedded, serve):
    broker, server = embedded(bare=1), serve()
    options = {"format": "protobuf", "protobuf.schema": PROTO, "protobuf.message": "shop.Order"}
    for columns, part, options in [
        ("nope INT", "has no field nope: it has id, name", options),
        ("sizes INT", "declare it as an ARRAY", options),
        ("id BOOLEAN", "declare it as an integer type", options),
        ("id INT", "say which is meant with 'protobuf.message'", {**options, "protobuf.message": None}),
        ("id INT", "has no message Order: it has shop.Head, shop.Order", {**options, "protobuf.message": "Order"}),
        ("id INT", "can't be compiled", {**options, "protobuf.schema": "message Order { int64 id = 1 }"}),
        ("id INT", "add 'protobuf.schema'", {"format": "protobuf"}),
        ("id INT", "base64", {"format": "protobuf", "protobuf.descriptor": "???", "protobuf.message": "x"}),
        ("id INT", "did you mean 'protobuf.message'?", {**options, "protobuf.massage": "x"}),
    ]:
        options = {key: value for key, value in options.items() if value is not None}
        message = refused(lambda: create(server, broker, "bare", columns, options))
        assert part in message, message
    assert server.query("SHOW SOURCES") == []


def test_csv(embedded, serve):
    broker, server = embedded(lines=1, semicolons=1), serve()
    create(server, broker, "lines", "id BIGINT, name TEXT, price DECIMAL(8, 2), at TIMESTAMP, late BOOLEAN PATH '$.6'", {"format": "csv"})
    broker.send("lines", [
        (0, b'1,"a ""b"", c",2.50,2024-01-01T00:00:00Z,x,true'),
        (0, b'2,,,,,\n3,"",1e1,,,false,more\r\n'),
        (0, b"4,a,b"),
        (0, b"x,a,1,,,true"),
        (0, b'5,"a,1,,,true'),
        (0, b"6,null,2.505,,,"),
        (0, b"\xff,a,1,,,"),
        (0, b"7,\xc3\xa9,1,,,"),
    ])
    want = [(1, 'a "b", c', "2.50", True), (2, None, "None", None), (3, "", "10.00", False), (7, "é", "1.00", None)]
    rows = lambda: [(row["id"], row["name"], str(row["price"]), row["late"]) for row in server.query("SELECT id, name, price, late FROM lines ORDER BY id")]
    assert tidegate.settle(rows, want) == want
    errors = {row["offset"]: row["reason"] for row in server.query("SELECT \"offset\", reason FROM lines$errors")}
    assert sorted(errors) == [2, 3, 4, 5, 6], errors
    assert errors[2] == "line 1 has 3 cells where 6 are expected" and errors[3] == 'column id has "x" where BIGINT is expected', errors
    assert "a quote is not closed" in errors[4] and "DECIMAL(8, 2)" in errors[5] and "UTF-8" in errors[6], errors

    # Written and read back.
    server.query("INSERT INTO lines (id, name, price, late) VALUES (8, 'x, \"y\"', 3.25, true), (9, '', NULL, false)")
    assert rows()[-2:] == [(8, 'x, "y"', "3.25", True), (9, "", "None", False)]
    create(server, broker, "semicolons", "id INT, at TIMESTAMP FORMAT 'epoch_ms', name TEXT", {"format": "csv", "csv.delimiter": ";", "csv.null": "NULL", "csv.quote": "'"})
    broker.send("semicolons", [(0, b"1;1700000000000;'a;b'"), (0, b"2;NULL;NULL"), (0, b"3;NULL;'NULL'")])
    want = [{"id": 1, "name": "a;b"}, {"id": 2, "name": None}, {"id": 3, "name": "NULL"}]
    assert tidegate.settle(lambda: server.query("SELECT id, name FROM semicolons ORDER BY id"), want) == want
    assert "CSV has positions" in refused(lambda: create(server, broker, "other", "a INT PATH '$.x'", {"format": "csv"}, topic="lines"))
    assert "declare it as TEXT" in refused(lambda: create(server, broker, "other", "a INT[]", {"format": "csv"}, topic="lines"))


def test_text_and_bytes(embedded, serve):
    broker, server = embedded(words=1), serve()
    create(server, broker, "words", "word TEXT, place BIGINT METADATA FROM 'offset'", {"format": "text"})
    create(server, broker, "numbers", "n BIGINT", {"format": "text"}, topic="words")
    create(server, broker, "raw", "raw BYTEA", {"format": "bytes"}, topic="words")
    broker.send("words", [(0, b'say "hi"\n\\'), (0, b""), (0, b"\xff\x00"), (0, b"42"), (0, None)])
    want = [{"word": 'say "hi"\n\\', "place": 0}, {"word": "", "place": 1}, {"word": "42", "place": 3}]
    assert tidegate.settle(lambda: server.query("SELECT * FROM words ORDER BY place"), want) == want
    assert server.query("SELECT n FROM numbers") == [{"n": 42}]
    assert [row["raw"] for row in server.query("SELECT raw FROM raw ORDER BY _offset")] == [b'say "hi"\n\\', b"", b"\xff\x00", b"42"]
    assert server.value("SELECT count(*) FROM words$errors") == 2 and server.value("SELECT count(*) FROM raw$errors") == 1
    server.query("INSERT INTO words (word) VALUES ('new\nline')")
    server.query("INSERT INTO raw VALUES (X'00ff')")
    assert server.value("SELECT word FROM words WHERE place = 5") == "new\nline"
    assert server.value("SELECT raw FROM raw WHERE _offset = 6") == b"\x00\xff"
    assert "one too many" in refused(lambda: create(server, broker, "other", "a TEXT, b TEXT", {"format": "text"}, topic="words"))
    assert "declare it as BYTEA" in refused(lambda: create(server, broker, "other", "a TEXT", {"format": "bytes"}, topic="words"))


def change(op, before, after, key=None, schema=True):
    """A change event of Debezium's PostgreSQL connector, as its documentation shows them, beside its schema or without."""
    source = {"version": "3.0.0.Final", "connector": "postgresql", "name": "pg", "ts_ms": 1559033904863, "snapshot": False, "db": "shop", "schema": "public", "table": "customers"}
    payload = {"before": before, "after": after, "source": source, "op": op, "ts_ms": 1559033904863}
    wrap = lambda value, name: {"schema": {"type": "struct", "fields": [{"type": "int32", "optional": False, "field": "id"}], "optional": False, "name": name}, "payload": value}
    row = after or before or {}
    key = {"id": row.get("id")} if key is None else key
    value = wrap(payload, "pg.public.customers.Envelope") if schema else payload
    key = wrap(key, "pg.public.customers.Key") if schema else key
    return 0, json.dumps(value).encode(), {"key": json.dumps(key).encode()}


def customer(id, name, email):
    return {"id": id, "first_name": name, "email": email}


@pytest.mark.parametrize("schema", [True, False])
def test_debezium(embedded, serve, schema):
    broker, server = embedded(customers=1), serve()
    columns = "id INT, first_name TEXT, email TEXT, PRIMARY KEY (id)"
    create(server, broker, "customers", columns, {"format": "debezium_json"})
    server.query("CREATE CONTINUOUS VIEW people AS SELECT * FROM customers")
    server.query("CREATE CONTINUOUS VIEW n AS SELECT count(*) AS n FROM customers")
    ada, bob, cyd = customer(1, "Ada", "a@x"), customer(2, "Bob", "b@x"), customer(3, "Cyd", "c@x")
    tombstone = lambda event: (0, None, event[2])
    deleted = change("d", bob, None, schema=schema)
    broker.send("customers", [
        change("r", None, ada, schema=schema),
        change("r", None, bob, schema=schema),
        change("c", None, cyd, schema=schema),
        change("u", ada, customer(1, "Ada", "ada@x"), schema=schema),
        deleted,
        tombstone(deleted),
        # A changed key is a delete, a tombstone and a create.
        change("d", cyd, None, schema=schema),
        tombstone(change("d", cyd, None, schema=schema)),
        change("c", None, customer(4, "Cyd", "c@x"), schema=schema),
    ])
    want = [(1, "Ada", "ada@x"), (4, "Cyd", "c@x")]
    rows = lambda name: [tuple(row.values()) for row in server.query(f"SELECT id, first_name, email FROM {name} ORDER BY id")]
    assert tidegate.settle(lambda: rows("people"), want) == want
    assert rows("customers") == want and server.value("SELECT n FROM n") == 2
    assert server.value("SELECT count(*) FROM customers$errors") == 0

    broker.send("customers", [
        change("t", None, None, schema=schema),
        change("c", None, None, key={"id": 5}, schema=schema),
        (0, b'{"id": 1}', {"key": b'{"id": 1}'}),
        change("c", None, {"id": 5, "first_name": [], "email": 1}, schema=schema)[:2],
        change("u", None, customer(1, "Eve", "e@x"), schema=schema),
    ])
    want[0] = (1, "Eve", "e@x")
    assert tidegate.settle(lambda: rows("people"), want) == want
    reasons = [row["reason"] for row in server.query("SELECT reason FROM customers$errors ORDER BY \"offset\"")]
    assert "truncated" in reasons[0] and "no row in after" in reasons[1] and "no envelope" in reasons[2] and "has no key" in reasons[3], reasons
    server.restart()
    assert tidegate.settle(lambda: rows("people"), want) == want
    assert "PRIMARY KEY" in refused(lambda: create(server, broker, "other", "id INT", {"format": "debezium_json"}, topic="customers"))
    assert "Debezium" in refused(lambda: server.query("INSERT INTO customers VALUES (7, 'x', 'y')"))


def test_a_header_filter_holds_wherever_the_topic_is_read(embedded, serve):
    broker, server = embedded(events=1), serve()
    create(server, broker, "events", "id INT, at BIGINT METADATA FROM 'offset'", {"format": "json", "headers.filter": "type=order"})
    server.query("CREATE CONTINUOUS VIEW held AS SELECT * FROM events")
    follower = tidegate.Subscription(server, "SELECT id FROM events EMIT CHANGES")
    order, other = {"headers": [("type", b"order"), ("x", b"1")]}, {"headers": [("type", b"other")]}
    broker.send("events", [(0, b'{"id": 1}', order), (0, b'{"id": 2}', other), (0, b"broken", other), (0, b'{"id": 3}'), (0, b"broken", order), (0, b'{"id": 4}', order)])
    want = [{"id": 1, "at": 0}, {"id": 4, "at": 5}]
    assert tidegate.settle(lambda: server.query("SELECT * FROM held ORDER BY id"), want) == want
    assert server.query("SELECT * FROM events ORDER BY id") == want
    assert server.query("SELECT \"offset\" FROM events$errors") == [{"offset": 4}]
    assert tidegate.settle(lambda: [row["id"] for row in follower.rows()], [1, 4]) == [1, 4]
    assert "'name=value'" in refused(lambda: create(server, broker, "other", "id INT", {"format": "json", "headers.filter": "type"}, topic="events"))


def test_single_headers_and_unknown_fields(embedded, serve):
    broker, server = embedded(events=1), serve()
    columns = "id INT, a TEXT PATH '$.in.a', trace TEXT METADATA FROM 'header.trace-id', raw BYTEA METADATA FROM 'header.trace-id', more TEXT METADATA FROM 'unknown'"
    create(server, broker, "events", columns, {"format": "json"})
    server.query("CREATE CONTINUOUS VIEW held AS SELECT id, more FROM events WHERE more IS NOT NULL")
    broker.send("events", [
        (0, b'{"id": 1, "in": {"a": "x", "b": 1}}', {"headers": [("trace-id", b"one"), ("trace-id", b"two")]}),
        (0, '{"z" : [1, {"y": "\\u00e9"}], "id": 2, "\\u0069d": 3, "é\\n": null}'.encode(), {"headers": [("trace-id", b"\xff"), ("Trace-Id", b"x")]}),
        (0, b'{"id": 4, "z": tru}'),
        (0, b'[{"id": 5}, {"id": 6, "w": 1.50}]'),
    ])
    want = [
        {"id": 1, "a": "x", "trace": "two", "raw": b"two", "more": None},
        {"id": 3, "a": None, "trace": None, "raw": b"\xff", "more": '{"z":[1, {"y": "\\u00e9"}],"é\\n":null}'},
        {"id": 5, "a": None, "trace": None, "raw": None, "more": None},
        {"id": 6, "a": None, "trace": None, "raw": None, "more": '{"w":1.50}'},
    ]
    assert tidegate.settle(lambda: server.query("SELECT * FROM events ORDER BY id"), want) == want
    assert server.query("SELECT * FROM held ORDER BY id") == [{"id": row["id"], "more": row["more"]} for row in want if row["more"]]
    assert server.query("SELECT \"offset\" FROM events$errors") == [{"offset": 2}]
    assert server.query("SELECT id FROM events ORDER BY id") == [{"id": row["id"]} for row in want]
    assert "TEXT" in refused(lambda: create(server, broker, "other", "x INT METADATA FROM 'unknown'", {"format": "json"}, topic="events"))
    assert "leave it out" in refused(lambda: create(server, broker, "other", "a INT, x TEXT METADATA FROM 'unknown'", {"format": "csv"}, topic="events"))


def test_a_key_that_the_message_has_no_field_for(embedded, serve):
    broker, server = embedded(names=1), serve()
    options = {"format": "protobuf", "protobuf.schema": 'syntax = "proto3"; message Name { string name = 1; }', "key.format": "text"}
    create(server, broker, "names", "id BIGINT PRIMARY KEY, name TEXT", options)
    server.query("INSERT INTO names VALUES (1, 'Ada'), (2, 'Bob')")
    assert server.query("SELECT * FROM names ORDER BY id") == [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]
