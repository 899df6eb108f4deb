// What is fuzzed: each parser of ours as a function of bytes, which must come back. A panic, an endless loop and memory without bound are findings.
// `cargo fuzz` runs them through `fuzz_targets/`, the tests through `tests/fuzz.rs`: these lines are part of both.

use std::sync::{Arc, LazyLock};

use tidegate::{
    access::{Access, AccessConfig, Credentials},
    catalog::{Catalog, SourceDef},
    config::{Config, Size, Span, Typed},
    decode::Decoder,
    source::RecordsBuilder,
    sql::{self, Statement},
    stream::{
        checkpoint::{CheckpointRoot, CheckpointStore},
        epoch_log::EpochLog,
    },
};

/// A body's name, the body, and texts that it has something to say about.
pub type Body = (&'static str, fn(&[u8]), &'static [&'static str]);

/// All of them.
pub const BODIES: &[Body] = &[
    ("sql", statements, SQL),
    ("decode", records, RECORDS),
    ("avro", avro, AVRO),
    ("times", times, TIMES),
    ("options", options, OPTIONS),
    ("config", configuration, CONFIG),
    ("credentials", credentials, CREDENTIALS),
    ("files", files, FILES),
    ("keys", keys, KEYS),
    ("messages", messages, MESSAGES),
    ("protobuf", protobuf, PROTOBUF),
    ("proto", proto, PROTO),
    ("csv", csv, CSV),
    ("envelopes", envelopes, ENVELOPES),
];

const SQL: &[&str] = &[
    "CREATE SOURCE s (k TEXT PRIMARY KEY, a BIGINT, b STRUCT<c DOUBLE, d TEXT[]>, ts TIMESTAMP FORMAT 'iso8601' TIMEZONE 'Europe/Madrid', p INT METADATA FROM 'partition', WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')",
    "CREATE CONTINUOUS VIEW v WITH (unbounded_state = true, memory_limit = '64 MiB') AS SELECT window_start, count(*) FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start EMIT ON WINDOW CLOSE",
    "SELECT * FROM HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE) h WHERE a BETWEEN ? AND ? ORDER BY 1 LIMIT 5",
    "SUBSCRIBE TO (SELECT 1) WITH (snapshot = false, max_rows = 5, timeout = '3 s'); SELECT 1 AS OF EPOCH 7; SHOW CREATE VIEW \"v\"\"w\";",
    "CREATE TABLE IF NOT EXISTS t (a BIGINT NOT NULL DEFAULT 1, b DECIMAL(10, 2), c TIMESTAMP) ; INSERT INTO t VALUES (1, 2.5, NULL), (2, $1, now())",
    "GRANT SELECT, INSERT ON t TO \"ann\"; CREATE USER bob WITH PASSWORD 'it''s long'; ALTER VIEW v SET (memory_limit = '1 GiB'); SET tidegate.device = 'cpu'; KILL QUERY 7",
    "WITH a AS (SELECT CAST(x AS TEXT) FROM (VALUES (1), (2)) v(x)) SELECT CASE WHEN x = '1' THEN [1, 2][1] ELSE -1 END FROM a JOIN s FOR SYSTEM_TIME AS OF ts ON true /* c */ -- d",
    "UPDATE t SET a = a + 1 WHERE b IS NULL; DELETE FROM t USING s; TRUNCATE TABLE t; EXPLAIN ANALYZE VIEW v FOR '5 s'; MATCH_RECOGNIZE",
];

fn statements(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = sql::redacted(&text);
    if let Ok(pieces) = sql::split(&text) {
        for piece in &pieces {
            let again = sql::split(piece).expect("a piece is a statement of its own");
            assert_eq!(again.as_slice(), std::slice::from_ref(piece));
            let _ = sql::parse_one(piece);
        }
    }
    let _ = sql::parse(&text);
    let _ = sql::parse_definition(&text);
    if let Ok(query) = sql::parse_query(&text) {
        let _ = query.to_string();
    }
    let quoted = sql::quote_literal(&text);
    assert!(text.contains('\0') || sql::split(&format!("SELECT {quoted}")).is_ok_and(|pieces| pieces.len() == 1), "{quoted}");
}

fn source(columns: &str, more: &str) -> Arc<SourceDef> {
    let text = format!("CREATE SOURCE s ({columns}) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json'{more})");
    match sql::parse_one(&text) {
        Ok(Statement::CreateSource { def, .. }) => Arc::new(def),
        other => panic!("{other:?}"),
    }
}

const RECORDS: &[&str] = &[
    r#"{"a": 1, "b": "x", "c": {"d": [1.5, null, -0.0e10], "e": true}, "l": [{"m": "n"}], "ts": "2024-01-01T00:00:00.123Z"}"#,
    r#"[{"a": -9223372036854775808, "b": "\ud83d\ude00\u0000", "j": {"any": [1, {"x": []}]}}, {"a": null}]"#,
    r#"{"a": 1e3, "b": null, "a": 2, "dec": "12.34", "c": null, "l": []} {"dec": 99999999.99, "bytes": "aGVsbG8="}"#,
    r#"{"c": {"d": "not a list"}, "ts": 1704067200000, "day": "2024-02-30"}"#,
    "\u{feff}{} \t\r\n {}",
];

fn records(bytes: &[u8]) {
    static SOURCES: LazyLock<[Arc<SourceDef>; 2]> = LazyLock::new(|| {
        let columns = "a BIGINT, b TEXT, c STRUCT<d DOUBLE[], e BOOLEAN>, l STRUCT<m TEXT>[], j TEXT, dec DECIMAL(10, 2), day DATE, i SMALLINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second'";
        [source(columns, ""), source(&columns.replace("a BIGINT", "a BIGINT PRIMARY KEY"), "")]
    });
    let mut builder = RecordsBuilder::new();
    let (key, value) = bytes.split_at(bytes.len().min(usize::from(bytes.first().copied().unwrap_or(0)) % 16));
    builder.push(0, Some(1), Some(key), Some(bytes), vec![]);
    builder.push(1, None, Some(br#"{"a": 1}"#), Some(value), vec![]);
    builder.push(2, None, None, None, vec![]);
    let records = builder.finish();
    for source in SOURCES.iter() {
        let all: Vec<usize> = (0..source.columns.len()).collect();
        let mut fates = vec![];
        for needed in [all.as_slice(), &[], &[0], &[2, 4]] {
            let decoded = Decoder::new(source, needed).and_then(|mut decoder| decoder.decode(0, &records, 0)).expect("bad records are rows of errors");
            assert_eq!(decoded.batch.num_rows(), decoded.record_of.len());
            fates.push((decoded.record_of, decoded.errors));
        }
        assert!(fates.windows(2).all(|two| two[0] == two[1]), "a record's fate depends on the declaration alone: {fates:?}");
    }
}

const AVRO: &[&str] = &[
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","long"]},{"name":"t","type":"string","default":"x"},{"name":"n","type":["null","R"]}]}"#,
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","aliases":["b"]},{"name":"m","type":{"type":"map","values":{"type":"array","items":"null"}}}]}"#,
    "\u{2}\u{4}\u{6}abc\u{2}\u{2}\u{0}\u{0}",
    "\u{0}\u{0}\u{0}\u{0}\u{1}\u{2}",
];

/// Bytes as a payload of schemas that are known, and text as a schema, of payloads made of its own bytes.
fn avro(bytes: &[u8]) {
    static KNOWN: LazyLock<Vec<Arc<SourceDef>>> = LazyLock::new(|| AVRO[..2].iter().map(|schema| avro_source(schema).expect("a schema")).collect());
    let text = String::from_utf8_lossy(bytes);
    let own = avro_source(&text);
    let mut builder = RecordsBuilder::new();
    for cut in [0, 1, bytes.len() / 2] {
        builder.push(0, None, None, Some(&bytes[cut.min(bytes.len())..]), vec![]);
    }
    let records = builder.finish();
    for source in KNOWN.iter().chain(&own) {
        // A schema may lack the columns; that is refused when it is declared.
        let Ok(mut decoder) = Decoder::new(source, &[0]) else { continue };
        let decoded = decoder.decode(0, &records, 0).expect("bad records are rows of errors");
        assert_eq!(decoded.record_of.len() + decoded.errors.len(), 3);
    }
}

fn avro_source(schema: &str) -> Option<Arc<SourceDef>> {
    let text = format!(
        "CREATE SOURCE s (a BIGINT, n TEXT, m TEXT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'avro', 'avro.schema' = {})",
        sql::quote_literal(schema)
    );
    let fewer = text.replace("a BIGINT, n TEXT, m TEXT", if schema.contains("\"m\"") { "a BIGINT, m TEXT" } else { "a BIGINT, n TEXT" });
    match sql::parse_one(&fewer) {
        Ok(Statement::CreateSource { def, .. }) => Some(Arc::new(def)),
        _ => None,
    }
}

const TIMES: &[&str] = &[
    "2024-02-29T23:59:60.999999999+23:59",
    "1704067200",
    "-62135596800000",
    "2024-10-27 02:30:00",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "9223372036854775807",
    "0001-01-01T00:00:00Z",
    "24:00:00",
    "1.7e9",
];

fn times(bytes: &[u8]) {
    static SOURCE: LazyLock<Arc<SourceDef>> = LazyLock::new(|| source("a TIMESTAMP, b TIMESTAMP TIMEZONE 'Europe/Madrid', d DATE, f TEXT", ""));
    let text = String::from_utf8_lossy(bytes);
    let quoted = serde_json::to_string(&text).expect("text");
    let mut builder = RecordsBuilder::new();
    for name in ["a", "b", "d", "f"] {
        for value in [quoted.as_str(), &text] {
            builder.push(0, None, None, Some(format!("{{\"{name}\": {value}}}").as_bytes()), vec![]);
        }
    }
    let all: Vec<usize> = (0..SOURCE.columns.len()).collect();
    Decoder::new(&SOURCE, &all).and_then(|mut decoder| decoder.decode(0, &builder.finish(), 0)).expect("bad records are rows of errors");
}

const OPTIONS: &[&str] =
    &["5 seconds", "1.5s", "64 MiB", "-3 days", "99999999999999999999 years", "1e400s", "0x10", "12:30:00", "1 month 2 days", "NaN GiB", "µs"];

fn options(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<Span>();
    let _ = text.parse::<Size>();
    let _ = sql::duration_option("tidegate.stream_timeout", &text);
    let literal = sql::quote_literal(&text);
    for name in ["scan.startup.mode", "scan.startup.offsets", "scan.startup.timestamp", "idle.timeout", "on.data.loss", "properties.x", "format"] {
        let _ = sql::parse_one(&format!(
            "CREATE SOURCE s (a INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json', '{name}' = {literal})"
        ));
    }
    for statement in [
        "SUBSCRIBE v WITH (timeout = {})",
        "SELECT * FROM TUMBLE(s, ts, INTERVAL {})",
        "CREATE CONTINUOUS VIEW v WITH (memory_limit = {}) AS SELECT 1 FROM s",
        "SET tidegate.device = {}",
    ] {
        let _ = sql::parse(&statement.replace("{}", &literal));
    }
}

const CONFIG: &[&str] = &[
    "listen = '127.0.0.1:0'\ndata_dir = 'd'\nmax_sessions = 5\nsession_timeout = '1h'\nmax_message_size = '1 MiB'\nlog = 'tidegate=debug,rdkafka=info'",
    "[auth.jwt]\nissuer = 'https://id'\naudience = ['a', 'b']\njwks = 'https://id/keys'\nalgorithms = ['RS256']",
    "checkpoint_url = 's3://b/p'\nthreads = 2\nmemory_limit = '1.5 GiB'\nhttp = 'localhost:8080'\ntls_self_signed = true",
];

fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(typed) = toml::from_str::<Typed>(&text) {
        let _ = Config::check(typed);
    }
    let _ = Typed::from_environment([("TIDEGATE_LISTEN".to_owned(), text.to_string()), ("TIDEGATE_MAX_SESSIONS".to_owned(), text.to_string())])
        .and_then(Config::check);
}

const CREDENTIALS: &[&str] =
    &["Basic YWxpY2U6cHc=", "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x", "basic  dG9rZW46YWJj", "Bearer a.b.c", "Basic dG9rZW46"];

fn credentials(bytes: &[u8]) {
    static ACCESS: LazyLock<Arc<Access>> = LazyLock::new(|| {
        let access = Access::fleeting(AccessConfig::default()).expect("random bytes");
        access.create_user("alice", "correct horse", true, false).expect("the first user");
        access
    });
    let _ = ACCESS.ended(Some(bytes));
    if let Ok(credentials @ Credentials::Bearer(_)) = Credentials::read(Some(bytes)) {
        // Nothing in it waits for anything.
        let admitted = futures::FutureExt::now_or_never(ACCESS.admit(credentials, None)).expect("it is known at once");
        assert!(admitted.is_err(), "nobody has signed this");
    }
}

const FILES: &[&str] = &[
    r#"{"version": 1, "next": 3, "objects": [{"id": 1, "kind": "source", "text": "CREATE SOURCE s (a INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b', format = 'json')"}]}"#,
    r#"{"version":1,"users":[{"name":"a","id":1,"hash":"x","credential":"c","admin":true,"roles":[]}],"roles":[],"grants":[]}"#,
    r#"{"version": 2, "engine": "datafusion-55", "epoch": 7, "generation": 1, "sources": {}, "views": [], "segments": [{"pack": 1, "offset": 0, "length": 18446744073709551615, "crc": 0}]}"#,
    r#"{"epoch": 18446744073709551615, "at": 1, "ranges": {"0": [0, 5]}}"#,
    r#"{"version":1,"sequence":7,"files":[{"name":"a.parquet","rows":3,"bytes":4}]}"#,
];

/// What the server reads of its own data directory, with checksums that are right: nobody but a disk should have changed it.
fn files(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).and_then(|()| std::fs::write(path, content)).expect("a file");
    };
    let crc = format!("{:08x}", crc32fast::hash(bytes));
    write("catalog.json", bytes);
    let _ = Catalog::open(folder.path(), &sql::parse_definition);
    write("access.json", bytes);
    let _ = Access::open(folder.path(), AccessConfig::default());
    let line = [crc.as_bytes(), b" ", bytes].concat();
    write("epochs/epochs-000000000001.log", &line);
    write("epochs/epochs-1.log", &line);
    let _ = EpochLog::open(folder.path().join("epochs"), None);
    write("checkpoints/1/checkpoints/manifest-000000000001.json", &[crc.as_bytes(), b"\n", bytes].concat());
    write("checkpoints/1/checkpoints/pack-000000000001.arrows", bytes);
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    RUNTIME.block_on(async {
        let Ok(root) = CheckpointRoot::local(folder.path().join("checkpoints")).await else { return };
        if let Ok(mut store) = CheckpointStore::new(Arc::new(root), "1") {
            let _ = store.newest().await;
        }
    });
    tidegate::tables::read_manifest(bytes);
}

const KEYS: &[&str] = &[
    r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, {"kty": "odd"}]}"#,
    r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "2", "use": "sig"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "oct", "k": "AA"}]}"#,
    r#"{"keys": null}"#,
];

fn keys(bytes: &[u8]) {
    tidegate::access::read_keys(bytes);
}

const MESSAGES: &[&str] = &[
    "\n2type.googleapis.com/arrow.flight.protocol.sql.TicketStatementQuery\u{12}\u{6}\n\u{4}abcd",
    "\n\u{6}option\u{12}\u{5}\n\u{3}cpu",
    "tidegate_session=abc; other=\"x\"",
];

fn messages(bytes: &[u8]) {
    tidegate::serve::read_messages(bytes);
}

/// Decodes a payload with several choices of columns: what becomes of it may not depend on them.
fn decode(source: &SourceDef, key: Option<&[u8]>, payload: &[u8]) {
    let mut builder = RecordsBuilder::new();
    builder.push(0, Some(1), key, Some(payload), vec![]);
    builder.push(1, None, Some(b"1"), Some(payload.split_at(payload.len() / 2).0), vec![]);
    let records = builder.finish();
    let all: Vec<usize> = (0..source.columns.len()).collect();
    let mut fates = vec![];
    for needed in [all.as_slice(), &[], &[0]] {
        let decoded = Decoder::new(source, needed).and_then(|mut decoder| decoder.decode(0, &records, 0)).expect("bad records are rows of errors");
        assert_eq!(decoded.batch.num_rows(), decoded.record_of.len());
        let size = decoded.batch.get_array_memory_size();
        assert!(size < (1 << 20) + 4096 * payload.len(), "{} bytes became {size}", payload.len());
        fates.push((decoded.record_of, decoded.errors));
    }
    assert!(fates.windows(2).all(|two| two[0] == two[1]), "a record's fate depends on the declaration alone: {fates:?}");
}

fn source_of(columns: &str, options: &str) -> Arc<SourceDef> {
    let text = format!("CREATE SOURCE s ({columns}) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', {options})");
    match sql::parse_one(&text) {
        Ok(Statement::CreateSource { def, .. }) => Arc::new(def),
        other => panic!("{other:?}"),
    }
}

const PROTOBUF: &[&str] = &[
    "\u{8}\u{7}\u{12}\u{3}abc\u{1a}\u{4}\n\u{2}xy\"\u{3}\u{1}\u{2}\u{3}*\u{6}\n\u{1}k\u{10}\u{5}2\u{4}\u{8}\u{1}\u{10}\u{2}",
    "\u{3b}\u{8}\u{1}\u{3c}\u{42}\u{2}hi\u{1a}\u{6}\u{1a}\u{4}\u{1a}\u{2}\u{1a}\u{0}",
    "\u{0}\u{0}\u{0}\u{0}\u{7}\u{0}\u{8}\u{1}",
];

fn protobuf(bytes: &[u8]) {
    static SOURCES: LazyLock<Vec<Arc<SourceDef>>> = LazyLock::new(|| {
        let schema = "syntax = \"proto2\"; import \"google/protobuf/timestamp.proto\"; message M { optional int64 a = 1; optional string b = 2; repeated M c = 3; \
            repeated sint32 d = 4; map<string, int32> e = 5; optional google.protobuf.Timestamp f = 6; optional group G = 7 { optional int32 x = 1; } \
            oneof o { string h = 8; M i = 9; } optional E j = 10; } enum E { ZERO = 0; ONE = 1; }";
        let columns = "a BIGINT, b TEXT, c STRUCT<b TEXT, c STRUCT<d INT[]>[]>[], d INT[], e STRUCT<key TEXT, value INT>[], f TIMESTAMP, x INT PATH '$.g.x', \
            h TEXT, i TEXT, j TEXT, c_json TEXT PATH '$.c'";
        let options = |framing: &str| format!("format = 'protobuf', 'protobuf.schema' = '{schema}', 'protobuf.framing' = '{framing}'");
        vec![source_of(columns, &options("none")), source_of(columns, &options("confluent"))]
    });
    for source in SOURCES.iter() {
        decode(source, None, bytes);
    }
}

const PROTO: &[&str] = &[
    "syntax = \"proto3\"; package a.b; import \"google/protobuf/wrappers.proto\"; message M { repeated M m = 1; map<int32, M> n = 2; oneof o { string p = 3; } reserved 4 to 9; enum E { X = 0; } }",
    "message M { optional group G = 1 { required int32 x = 2 [default = -5]; } extensions 100 to max; } extend M { optional string s = 100; } service S { rpc F(M) returns (stream M); }",
    "edition = \"2023\"; option features.field_presence = IMPLICIT; message M { option (x).y = { a: [1, 2] b { c: \"\\x00\" } }; }",
    "CgdhLnByb3RvIggKAU0SAwoBYQ==",
];

/// The schema of a statement: text, and a descriptor set in base64.
fn proto(bytes: &[u8]) {
    let literal = sql::quote_literal(&String::from_utf8_lossy(bytes));
    let with = |options: &str| {
        let text = format!("CREATE SOURCE s (a INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'protobuf', {options})");
        if let Ok(Statement::CreateSource { def, .. }) = sql::parse_one(&text) {
            let _ = Decoder::new(&def, &[]);
        }
    };
    with(&format!("'protobuf.schema' = {literal}"));
    with(&format!("'protobuf.descriptor' = {literal}, 'protobuf.message' = 'M'"));
    let _ = tidegate::catalog::read_descriptor_set(bytes);
}

const CSV: &[&str] = &["1,\"a \"\"b\"\"\",2.5,true\r\n2,,,", "x;y\n\n,\"\n\",1e5,false", "\"", "1,null,NaN,TRUE,\u{feff}"];

fn csv(bytes: &[u8]) {
    static SOURCES: LazyLock<Vec<Arc<SourceDef>>> = LazyLock::new(|| {
        vec![
            source_of("a BIGINT, b TEXT, c DECIMAL(6, 2), d BOOLEAN", "format = 'csv'"),
            source_of("k INT PRIMARY KEY, a DOUBLE PATH '$.2', t TIMESTAMP", "format = 'csv', 'csv.delimiter' = ';', 'csv.null' = 'x'"),
            source_of("a TEXT", "format = 'text'"),
            source_of("a DOUBLE", "format = 'text'"),
            source_of("a BYTEA", "format = 'bytes'"),
        ]
    });
    for source in SOURCES.iter() {
        decode(source, Some(b"1"), bytes);
    }
}

const ENVELOPES: &[&str] = &[
    r#"{"schema": {"type": "struct"}, "payload": {"before": null, "after": {"id": 1, "a": "x"}, "op": "c", "ts_ms": 1}}"#,
    r#"{"before": {"id": 1}, "after": null, "op": "d"}"#,
    r#"{"op": "u", "after": {"id": 1, "a": null}, "payload": {"op": "t"}}"#,
];

fn envelopes(bytes: &[u8]) {
    static SOURCE: LazyLock<Arc<SourceDef>> = LazyLock::new(|| source_of("id INT PRIMARY KEY, a TEXT", "format = 'debezium_json', 'headers.filter' = 'a='"));
    static ALL: LazyLock<Arc<SourceDef>> = LazyLock::new(|| source_of("id INT PRIMARY KEY, a TEXT", "format = 'debezium_json'"));
    decode(&ALL, Some(br#"{"schema": 1, "payload": {"id": 1}}"#), bytes);
    decode(&ALL, Some(bytes), br#"{"op": "c", "after": {"a": "x"}}"#);
    decode(&SOURCE, Some(b"1"), bytes);
}
