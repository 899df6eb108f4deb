"""What Flight SQL's clients need of a server, item by item, over messages of our own making: no driver smooths anything over here."""

import time

import pyarrow as pa
import pyarrow.flight
import pytest
from raw_grpc import Channel, descriptor, flight_data, ingest, messages
from raw_grpc import outcome as call_outcome
from security import PASSWORD, Raw, any_, basic, field, fields

import tidegate


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def raw(server):
    return Raw(server.url)


def asked(raw, name, body=b""):
    """The FlightInfo and the rows of a metadata command."""
    info = raw.client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(any_(name, body)), raw.options)
    return info, raw.get(info.endpoints[0].ticket)


def declare(server, broker):
    server.query(f"""CREATE SOURCE walk (a BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'walk',
      'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")


def number(name, value):
    """A field that is a small number."""
    return bytes([name << 3, value])


# 1: handshake.

@pytest.mark.parametrize("padded", [True, False])
def test_1_basic_and_bearer_in_headers_and_payload(padded, serve):
    server = serve()
    assert server.query("SELECT 1 AS x") == [{"x": 1}], "nobody has to log in as long as there are no users"
    server.query(f"CREATE USER ana WITH PASSWORD '{PASSWORD}' ADMIN")
    channel = Channel(server.url, basic("ana", PASSWORD, padded))
    handshake = channel.channel.stream_stream("/arrow.flight.protocol.FlightService/Handshake", bytes, bytes)
    answers = handshake(iter([b""]), metadata=channel.metadata, timeout=20)
    token = fields(next(iter(answers)))[2].decode()
    headers = {key: value for key, value in [*answers.initial_metadata(), *(answers.trailing_metadata() or ())]}
    assert headers["authorization"] == f"Bearer {token}" and token.count(".") == 2
    for authorization in (f"Bearer {token}", basic("ana", PASSWORD, padded)):
        assert Raw(server.url, authorization).query("SELECT current_user AS u") == [{"u": "ana"}]
    assert call_outcome(lambda: Channel(server.url, "Bearer nonsense").info("SELECT 1"))[0] == "UNAUTHENTICATED"


# 2: SqlInfo.

def test_2_sql_info_in_the_right_arms(raw):
    info, rows = asked(raw, "CommandGetSqlInfo")
    assert info.schema == rows.schema
    told = dict(zip(rows["info_name"].to_pylist(), rows["value"].to_pylist()))
    arms = {row["info_name"]: rows["value"].chunk(0).type_codes[at].as_py() for at, row in enumerate(rows.to_pylist())}
    assert told[0] == "Tidegate" and told[1] and told[2] and told[3] is False, "name, version, Arrow's version, not read only"
    assert {4, 5, 8, 9, 10, 504, 508, 562} <= set(told)
    assert (told[4], told[8], told[9], told[10], told[504]) == (True, 0, True, True, '"')
    assert (arms[0], arms[3], arms[8], arms[562]) == (0, 1, 3, 2), "text, boolean, int and bigint"
    _, some = asked(raw, "CommandGetSqlInfo", bytes([0x0A, 2, 0, 1]))
    assert some["info_name"].to_pylist() == [0, 1]


# 3: catalogs, schemas, tables.

def test_3_the_tree_with_null_catalogs(server, raw, embedded):
    declare(server, embedded(walk=1))
    server.query("CREATE CONTINUOUS VIEW doubled AS SELECT a * 2 AS b FROM walk")
    info, catalogs = asked(raw, "CommandGetCatalogs")
    assert (info.schema, catalogs.to_pylist()) == (catalogs.schema, [{"catalog_name": "tidegate"}])
    info, schemas = asked(raw, "CommandGetDbSchemas")
    assert info.schema == schemas.schema and {"catalog_name": "tidegate", "db_schema_name": "public"} in schemas.to_pylist()
    info, tables = asked(raw, "CommandGetTables", number(5, 1))
    assert info.schema == tables.schema
    assert tables.schema.names == ["catalog_name", "db_schema_name", "table_name", "table_type", "table_schema"]
    found = {row["table_name"]: row for row in tables.to_pylist()}
    assert (found["walk"]["table_type"], found["doubled"]["table_type"]) == ("BASE TABLE", "VIEW")
    columns = pa.ipc.read_schema(pa.py_buffer(found["walk"]["table_schema"]))
    assert columns.names == ["a", "ts"] and columns.field("a").metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"BIGINT"
    _, kinds = asked(raw, "CommandGetTableTypes")
    assert {"BASE TABLE", "VIEW"} <= set(kinds["table_type"].to_pylist())
    _, only = asked(raw, "CommandGetTables", field(3, "doub%") + field(4, "VIEW"))
    assert only["table_name"].to_pylist() == ["doubled"] and "table_schema" not in only.schema.names


# 4: keys and types.

def test_4_keys_are_empty_and_types_are_told(server, raw, embedded):
    declare(server, embedded(walk=1))
    table = field(3, "walk")
    for name, body, column in [("CommandGetPrimaryKeys", table, "key_sequence"), ("CommandGetExportedKeys", table, "update_rule"),
                               ("CommandGetImportedKeys", table, "update_rule"), ("CommandGetCrossReference", table + field(6, "walk"), "delete_rule")]:
        info, rows = asked(raw, name, body)
        assert rows.num_rows == 0 and info.schema == rows.schema and column in rows.schema.names, name
    info, types = asked(raw, "CommandGetXdbcTypeInfo")
    assert info.schema == types.schema and {"BIGINT", "VARCHAR"} & set(types["type_name"].to_pylist())


# 5: what is no query takes effect once, when its FlightInfo is asked for or it is put.

def test_5_what_is_no_query_runs_exactly_once(server, raw):
    info = raw.info("CREATE TABLE t (a BIGINT)")
    assert info.schema == pa.schema([]) and server.query("SELECT count(*) AS n FROM t") == [{"n": 0}]
    for _ in range(2):
        assert raw.get(info.endpoints[0].ticket).num_rows == 0
    handle = raw.prepare("INSERT INTO t VALUES (1)")
    assert server.value("SELECT count(*) FROM t") == 0, "preparing does nothing"
    info = raw.prepared_info(handle)
    assert info.schema == pa.schema([]) and info.total_records == 1
    raw.get(info.endpoints[0].ticket)
    assert server.value("SELECT count(*) FROM t") == 1
    [answer] = Channel(server.url).put([flight_data(command=any_("CommandStatementUpdate", field(1, "INSERT INTO t VALUES (2), (3)")))])
    assert fields(answer)[1][:2] == b"\x08\x02", "two rows were touched"
    assert server.value("SELECT count(*) FROM t") == 3


# 6: parameters.

def test_6_parameters_by_place_beyond_nine_in_several_rows(server):
    with server.connect() as connection, connection.cursor() as cursor:
        places = ", ".join(f"? AS p{at}" for at in range(1, 13))
        cursor.execute(f"SELECT {places}", list(range(1, 13)))
        assert cursor.fetchone() == tuple(range(1, 13))
        cursor.execute("SELECT $2 AS b, $1 AS a, $12 AS l, $3 + $4 + $5 + $6 + $7 + $8 + $9 + $10 + $11 AS s", list(range(1, 13)))
        assert cursor.fetchone() == (2, 1, 12, sum(range(3, 12)))
        cursor.execute("SELECT CAST(? AS BIGINT) AS x, ? AS t", [None, "text"])
        assert cursor.fetchone() == (None, "text")
        cursor.executemany("SELECT ? * 2 AS x", [(1,), (2,), (3,)])
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE many (a BIGINT, b TEXT)")
        cursor.executemany("INSERT INTO many VALUES (?, ?)", [(1, "x"), (2, None), (3, "z")])
        assert server.query("SELECT a, b FROM many ORDER BY a") == [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": 3, "b": "z"}]


# 7: the schema told first is the rows' schema.

@pytest.mark.parametrize("query", [
    "SELECT 1 AS a, 'x' AS t, NULL AS n, arrow_cast('v', 'Utf8View') AS v, arrow_cast('d', 'Dictionary(Int32, Utf8)') AS d",
    "SELECT make_array(arrow_cast('b', 'Utf8View')) AS l, struct(1, 'x') AS s, arrow_cast('b', 'BinaryView') AS b",
    "SELECT 1 AS x UNION ALL SELECT 2.5",
    "SELECT CASE WHEN value > 1 THEN 1 ELSE 2.5 END AS c, (SELECT max(value) FROM generate_series(1, 2) WHERE value > 7) AS s FROM generate_series(1, 3)",
    "SELECT sum(value) AS s, avg(value) AS a, count(*) AS n, min(value) AS m FROM generate_series(1, 3)",
    "SELECT TIMESTAMP '2024-01-01 00:00:00' AS t, DATE '2024-01-01' AS d, INTERVAL '1 day' AS i, 1.50 AS f, true AS b",
    "SHOW VIEWS", "EXPLAIN SELECT 1", "SELECT * FROM system.settings", "SELECT * FROM information_schema.tables",
])
def test_7_schemas_agree_field_by_field(query, raw):
    info = raw.info(query)
    reader = raw.client.do_get(info.endpoints[0].ticket, raw.options)
    assert reader.schema.equals(info.schema, check_metadata=True)
    rows = reader.read_all()
    rows.validate(full=True)
    described = raw.client.get_schema(pyarrow.flight.FlightDescriptor.for_command(any_("CommandStatementQuery", field(1, query))), raw.options)
    assert described.schema.equals(info.schema)
    kinds = " ".join(str(column.type) for column in info.schema)
    assert "view" not in kinds and "dictionary" not in kinds


# 8: one endpoint, at once.

def test_8_one_endpoint_without_waiting_for_rows(server, raw, embedded):
    declare(server, embedded(walk=1))
    began = time.monotonic()
    for query in ["SELECT a FROM walk EMIT CHANGES", "SELECT sum(a.value * b.value) AS s FROM generate_series(1, 100000) a, generate_series(1, 100000) b"]:
        info = raw.info(query)
        [endpoint] = info.endpoints
        assert (endpoint.locations, info.total_records, info.total_bytes) == ([], -1, -1)
    assert time.monotonic() - began < 20, "a FlightInfo waits for no rows"


# 9: results that never end.

def test_9_an_unbounded_result_begins_at_once_beats_and_ends_when_dropped(server, raw, embedded):
    broker = embedded(walk=1)
    declare(server, broker)
    server.query("CREATE CONTINUOUS VIEW sums WITH (unbounded_state = true) AS SELECT a % 3 AS k, sum(a) AS s FROM walk GROUP BY a % 3 EMIT CHANGES")
    broker.send("walk", [(0, b'{"a": %d, "ts": "2024-01-01T00:00:00Z"}' % a) for a in range(30)])
    assert tidegate.settle(lambda: server.value("SELECT count(*) FROM sums"), 3) == 3
    reader = raw.client.do_get(raw.info("SELECT * FROM sums EMIT CHANGES").endpoints[0].ticket, raw.options)
    assert reader.read_chunk().data.num_rows == 3
    began = time.monotonic()
    sizes = [reader.read_chunk().data.num_rows for _ in range(2)]
    assert sizes == [0, 0] and time.monotonic() - began < 20, "heartbeats"
    broker.send("walk", [(0, b'{"a": 300, "ts": "2024-01-01T00:00:00Z"}')])
    while (rows := reader.read_chunk().data).num_rows == 0:
        pass
    assert [row["s"] for row in rows.to_pylist()][-1] == sum(range(0, 30, 3)) + 300
    running = "SELECT count(*) FROM system.queries WHERE unbounded"
    assert server.value(running) == 1
    reader.cancel()
    assert tidegate.settle(lambda: server.value(running), 0) == 0


# 10: sessions.

def test_10_options_of_a_session(raw):
    text = lambda value: field(1, value)
    option = lambda name, value: field(1, field(1, name) + field(2, text(value)))
    assert raw.act("SetSessionOptions", option("tidegate.stream_max_rows", "7") + option("catalog", "tidegate") + option("schema", "public")) == b""
    answer = raw.act("GetSessionOptions", b"")
    for part in (b"tidegate.stream_max_rows", b"7", b"catalog", b"schema", b"public"):
        assert part in answer
    assert raw.query("SHOW tidegate.stream_max_rows") == [{"tidegate.stream_max_rows": "7"}]
    refused = raw.act("SetSessionOptions", option("tidegate.nonsense", "1"))
    assert b"tidegate.nonsense" in refused
    assert raw.act("CloseSession", b"") == bytes([0x08, 1])
    assert raw.query("SHOW tidegate.stream_max_rows") == [{"tidegate.stream_max_rows": "none"}], "a new session has its own"


# 11: the rest of the service.

def test_11_schemas_polls_cancelling_renewing(server, raw):
    command = pyarrow.flight.FlightDescriptor.for_command(any_("CommandStatementQuery", field(1, "SELECT 1 AS x")))
    assert raw.client.get_schema(command, raw.options).schema.names == ["x"]
    channel = Channel(server.url)
    poll = channel.unary("PollFlightInfo", descriptor(any_("CommandStatementQuery", field(1, "SELECT 1 AS x"))))
    assert fields(fields(poll)[1])[1], "a poll tells the whole FlightInfo"
    info = raw.info("SELECT value FROM generate_series(1, 3)")
    assert raw.act("RenewFlightEndpoint", field(1, info.endpoints[0].serialize())) != b""
    assert raw.act("CancelFlightInfo", field(1, info.serialize())) == bytes([0x08, 1])
    with pytest.raises(pyarrow.flight.FlightCancelledError):
        raw.get(info.endpoints[0].ticket)
    info = raw.info("SELECT value FROM generate_series(1, 3)")
    assert raw.act("CancelQuery", any_("ActionCancelQueryRequest", field(1, info.serialize()))) != b""
    with pytest.raises(pyarrow.flight.FlightCancelledError):
        raw.get(info.endpoints[0].ticket)
    assert list(raw.client.list_flights(options=raw.options)) is not None
    assert {"CreatePreparedStatement", "CancelFlightInfo", "SetSessionOptions"} <= {action.type for action in raw.client.list_actions(raw.options)}


# 12: uploads.

def test_12_uploads_in_all_modes_and_as_a_live_producer(server, embedded):
    channel = Channel(server.url)
    batch = pa.record_batch({"a": pa.array([1, 2, 3], pa.int64())})

    def put(mode, table="up"):
        parts = [flight_data(header, body, command=ingest(table, mode) if at == 0 else None) for at, (header, body) in enumerate(messages(batch))]
        return call_outcome(lambda: fields(channel.put(parts)[-1])[1])

    assert put("append")[0] == "NOT_FOUND"
    assert put("create") == ("OK", bytes([0x08, 3]))
    assert put("create")[0] == "ALREADY_EXISTS"
    assert put("append") == put("create_append") == ("OK", bytes([0x08, 3]))
    assert server.value("SELECT count(*) FROM up") == 9
    with server.connect() as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("up", batch, mode="replace") == 3
    assert server.value("SELECT count(*) FROM up") == 3
    server.query(f"CREATE SOURCE plain (a BIGINT) WITH (connector = 'kafka', topic = 'walk', 'bootstrap.servers' = '{embedded(walk=1).bootstrap}', format = 'json')")
    server.query("CREATE CONTINUOUS VIEW rows AS SELECT a FROM plain")
    assert put("append", "plain") == ("OK", bytes([0x08, 3])), "rows for a topic"
    assert tidegate.settle(lambda: sorted(row["a"] for row in server.query("SELECT a FROM rows")), [1, 2, 3]) == [1, 2, 3]


# 13: codes, and whose a ticket is.

@pytest.mark.parametrize(("sql", "code"), [
    ("SELEC 1", "INVALID_ARGUMENT"),
    ("SELECT nothing FROM generate_series(1, 2)", "INVALID_ARGUMENT"),
    ("SELECT * FROM nowhere", "NOT_FOUND"),
    ("DROP VIEW nowhere", "NOT_FOUND"),
    ("COPY (SELECT 1) TO '/tmp/x.csv'", "INVALID_ARGUMENT"),
])
def test_13_each_error_has_its_code(sql, code, server):
    got, said = call_outcome(lambda: Channel(server.url).info(sql))
    assert got == code and len(said) < 2_000 and "Debug" not in said, said


def test_13_a_ticket_is_its_sessions(serve):
    server = serve()
    server.query(f"CREATE USER ana WITH PASSWORD '{PASSWORD}' ADMIN")
    ana = Raw(server.url, basic("ana", PASSWORD))
    ana.query(f"CREATE USER bob WITH PASSWORD '{PASSWORD}'")
    info = ana.info("SELECT 1 AS x")
    with pytest.raises(KeyError):
        Raw(server.url, basic("bob", PASSWORD)).get(info.endpoints[0].ticket)
    assert ana.get(info.endpoints[0].ticket).to_pylist() == [{"x": 1}]
