//! One string in, one line or one sentence out.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::*;
use crate::catalog::{Close, DataLoss, Emit, KeyFormat, Metadata, Origin, SourceDef, Startup, TimeFormat};

/// A statement in one line.
fn line(statement: &Statement) -> String {
    let flag = |set: bool, word: &str| if set { format!(" {word}") } else { String::new() };
    match statement {
        Statement::CreateSource { def, if_not_exists } => format!("source {}{}: {}", def.name, flag(*if_not_exists, "if-not-exists"), source(def)),
        Statement::DraftSource(draft) => {
            format!("draft of source {}: {} schemas, columns {:?}", draft.name, draft.schemas.len(), draft.open.as_ref().map(|open| &open.format))
        }
        Statement::ExplainSource(of) => format!("explain {}", line(of)),
        Statement::CreateContinuousView { def, if_not_exists, or_replace } => {
            let mut options = String::new();
            if def.options.unbounded_state {
                options.push_str(" unbounded");
            }
            if let Some(device) = def.options.device {
                write!(options, " device={device}").unwrap();
            }
            if let Some(rows) = def.options.late_rows {
                write!(options, " late={rows}").unwrap();
            }
            if !def.options.lateness.is_zero() {
                write!(options, " lateness={:?}", def.options.lateness).unwrap();
            }
            match def.options.close {
                Close::Usual => {}
                Close::After(length) => write!(options, " close-after={length:?}").unwrap(),
                Close::Never => options.push_str(" close-never"),
            }
            if let Some(name) = &def.options.late_to {
                write!(options, " late-to={name}").unwrap();
            }
            let flags = flag(*if_not_exists, "if-not-exists") + &flag(*or_replace, "or-replace");
            format!("continuous {}{flags}{options} {}: {}", def.name, emitted(def.emit), def.query)
        }
        Statement::CreateView { def, if_not_exists, or_replace } => {
            format!("plain {}{}{}: {}", def.name, flag(*if_not_exists, "if-not-exists"), flag(*or_replace, "or-replace"), def.query)
        }
        Statement::CreateTable { def, taken } => format!("table {taken:?} {}", def.text),
        Statement::CreateTableAs { name, taken, declared, query } => {
            format!("table {taken:?} {}: {query}", declared.as_ref().map_or(name, |declared| &declared.text))
        }
        Statement::Drop { kind, name, if_exists, cascade } => {
            format!("drop {kind:?} {name}{}{}", flag(*if_exists, "if-exists"), flag(*cascade, "cascade"))
        }
        Statement::AlterSource { name, declaration, if_not_exists, .. } => format!("alter {name}{}: {declaration}", flag(*if_not_exists, "if-not-exists")),
        Statement::AlterView { name, memory_limit } => format!("alter {name}: {memory_limit} bytes"),
        Statement::CreateSink { def, .. } => format!("sink {} {:?} {:?} {}", def.name, def.target, def.lag, def.query),
        Statement::Pause { name, resume, .. } => format!("{} {name}", if *resume { "resume" } else { "pause" }),
        Statement::Show(show) => format!("show {show:?}"),
        Statement::ShowCreate { kind, name } => format!("show create {kind:?} {name}"),
        Statement::ExplainView(ExplainView::Named(name)) => format!("explain {name}"),
        Statement::ExplainView(ExplainView::Declared { def, .. }) => format!("explain declared {} {}: {}", def.name, emitted(def.emit), def.text),
        Statement::AnalyzeView { name, duration } => format!("analyze {name} for {duration:?}"),
        Statement::Kill { id } => format!("kill {id}"),
        Statement::User(user) => format!("{user:?}"),
        Statement::Grant(grant) => format!("{grant:?}"),
        Statement::AlterOwner { kind, name, owner } => format!("{kind:?} {name} to {owner}"),
        Statement::ShowUsers => "show users".into(),
        Statement::ShowGrants { of } => format!("show grants {of:?}"),
        Statement::Subscribe { query, emit, .. } => format!("subscribe {}: {query}", emitted(Some(*emit))),
        Statement::Set { name, value } => format!("set {name} = {value}"),
        Statement::ShowSetting(name) => format!("show setting {name}"),
        Statement::AsOf { epoch, statement } => format!("at {epoch} {statement}"),
        Statement::DataFusion(statement) => format!("df {statement}"),
        other => format!("{other:?}"),
    }
}

fn emitted(emit: Option<Emit>) -> String {
    match emit {
        None => "emit?".into(),
        Some(Emit::Changes) => "changes".into(),
        Some(Emit::OnWindowClose) => "close".into(),
        Some(Emit::Every(interval)) => format!("every {interval:?}"),
    }
}

fn source(def: &SourceDef) -> String {
    let columns: Vec<String> = def
        .columns
        .iter()
        .map(|c| match &c.origin {
            Origin::Payload { path, time } if *time == TimeFormat::Rfc3339 => format!("{} {} {path:?}", c.name, c.data_type),
            Origin::Payload { path, time } => format!("{} {} {path:?} {time:?}", c.name, c.data_type),
            Origin::Metadata(metadata) => format!("{} {} of {metadata:?}", c.name, c.data_type),
            Origin::Header(header) => format!("{} {} of header {header}", c.name, c.data_type),
            Origin::Unknown => format!("{} {} of what is unknown", c.name, c.data_type),
        })
        .collect();
    let watermark = def.watermark.as_ref().map(|w| format!("; watermark {} - {:?}", w.column, w.bound)).unwrap_or_default();
    format!("{}{watermark}", columns.join(", "))
}

/// Parses one statement and compares its line. `\n` and blanks in the expectation don't count.
#[track_caller]
fn check(input: &str, expect: &str) {
    match parse_one(input) {
        Ok(statement) => assert_eq!(line(&statement), expect, "\n{input}"),
        Err(error) => panic!("{input:.200}\n{error}"),
    }
}

/// Parses one statement that is wrong, and looks for a part of what is said.
#[track_caller]
fn bad(input: &str, expect: &str) {
    match parse_one(input) {
        Ok(statement) => panic!("{input:.200}\nparsed as {:.200}", line(&statement)),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(expect), "{input:.200}\n{error}");
            assert!(!error.ends_with('.') && !error.contains("internal error"), "{error}");
        }
    }
}

const WITH: &str = "WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = 'localhost:9092', format = 'json')";

fn column(text: &str) -> String {
    format!("CREATE SOURCE s ({text}) {WITH}")
}

fn with(options: &str) -> String {
    format!("CREATE SOURCE s (a INT) {}, {options})", WITH.trim_end_matches(')'))
}

#[track_caller]
fn declared(text: &str) -> SourceDef {
    match parse_one(text).unwrap_or_else(|e| panic!("{text}\n{e}")) {
        Statement::CreateSource { def, .. } => def,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sources() {
    let text = "CREATE SOURCE IF NOT EXISTS Events (
      id TEXT, match_id BIGINT, type_name TEXT PATH '$.type.name', xg DOUBLE PATH 'shot.statsbomb_xg', location DOUBLE ARRAY,
      event_time TIMESTAMP, kafka_offset BIGINT METADATA FROM 'offset',
      WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
    ) WITH (connector = 'kafka', topic = 'statsbomb-360-events', 'bootstrap.servers' = 'localhost:9092', format = 'json')";
    check(
        &format!("-- the events\n{text} ; -- end"),
        "source events if-not-exists: id Utf8View [\"id\"], match_id Int64 [\"match_id\"], type_name Utf8View [\"type\", \"name\"], \
         xg Float64 [\"shot\", \"statsbomb_xg\"], location List(Float64) [\"location\"], event_time Timestamp(ns) [\"event_time\"], \
         kafka_offset Int64 of Offset; watermark event_time - 5s",
    );
    let def = declared(text);
    assert_eq!(def.text, text);
    assert_eq!((def.idle_timeout.as_secs(), def.max_future_skew.as_secs(), def.max_drift.as_secs(), def.error_rows), (30, 86_400, 3_600, 100_000));
    assert_eq!((def.kafka.topic.as_str(), def.kafka.brokers.as_str(), &def.kafka.startup), ("statsbomb-360-events", "localhost:9092", &Startup::Earliest));
    assert_eq!(parse_definition(text).unwrap().text(), text);
}

#[test]
fn source_options() {
    let def = declared(&with(
        "Scan.Startup.Mode = 'Offsets', \"scan.startup.offsets\" = '0:42, 1:300', idle.timeout = '500 ms', MAX.FUTURE.SKEW = '2 hours', max.drift = '1 minute',
         'errors.retention.rows' = 7, 'properties.client.id' = 'me', properties.check.crcs = true, 'properties.fetch.wait.max.ms' = 10",
    ));
    assert_eq!(def.kafka.startup, Startup::Offsets([(0, 42), (1, 300)].into()));
    assert_eq!((def.idle_timeout.as_millis(), def.max_future_skew.as_secs(), def.max_drift.as_secs(), def.error_rows), (500, 7200, 60, 7));
    let properties: Vec<_> = def.kafka.properties.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(properties, ["check.crcs=true", "client.id=me", "fetch.wait.max.ms=10"]);
    let policy = |options: &str| declared(&with(options)).kafka.on_data_loss;
    assert_eq!([policy("'idle.timeout' = '1 second'"), policy("'on.data.loss' = 'FAIL'")], [DataLoss::Fail; 2]);
    assert_eq!([policy("'on.data.loss' = 'continue'"), policy("on_data_loss = 'continue'")], [DataLoss::Continue; 2]);
    let startup = |options: &str| declared(&with(options)).kafka.startup;
    assert_eq!(startup("'scan.startup.mode' = 'latest'"), Startup::Latest);
    assert_eq!(startup("'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp' = '2024-01-01T01:00:00+01:00'"), Startup::Timestamp(1_704_067_200_000));
    assert_eq!(startup("'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp' = 1704067200000"), Startup::Timestamp(1_704_067_200_000));

    bad("CREATE SOURCE s (a INT) WITH (topic = 't', 'bootstrap.servers' = 'b', format = 'json')", "lacks the option 'connector': add 'connector' = 'kafka'");
    bad("CREATE SOURCE s (a INT) WITH (connector = 'kafka', 'bootstrap.servers' = 'b', format = 'json')", "lacks the option 'topic'");
    bad("CREATE SOURCE s (a INT) WITH (connector = 'kafka', topic = 't', format = 'json')", "lacks the option 'bootstrap.servers'");
    bad("CREATE SOURCE s (a INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b')", "lacks the option 'format'");
    bad("CREATE SOURCE s (a INT) WITH (connector = 'pulsar')", "source s: the connector 'pulsar' is unknown");
    bad(&WITH.replace("'json'", "'xml'").replace("WITH", "CREATE SOURCE s (a INT) WITH"), "the format 'xml' is unknown: 'format' is 'json', ");
    bad("CREATE SOURCE s (a INT)", "expected WITH (connector = 'kafka'");
    bad(&with("topic = 'u'"), "the option 'topic' is given twice");
    bad(&with("idle.timeuot = '1 s'"), "source s has no option 'idle.timeuot': did you mean 'idle.timeout'?");
    bad(&with("colour = 'red'"), "has no option 'colour': known are connector, topic");
    bad(&with("idle.timeout = 30"), "'idle.timeout' needs a unit: write '30 seconds'");
    bad(&with("idle.timeout = '0 s'"), "must be longer than nothing");
    bad(&with("idle.timeout = '-1 s'"), "must be longer than nothing");
    bad(&with("idle.timeout = '1 month'"), "has months or years");
    bad(&with("idle.timeout = 'soon'"), "is no length of time");
    bad(&with("idle.timeout = '9999999 days'"), "is too long");
    bad(&with("'errors.retention.rows' = -1"), "is a whole number from 0, not '-1'");
    bad(&with("'errors.retention.rows' = many"), "expected the value of 'errors.retention.rows' in single quotes");
    bad(&with("'on.data.loss' = 'ignore'"), "'on.data.loss' is 'fail' or 'continue', not 'ignore'");
    bad(&with("'on.data.loss' = 'fail', on_data_loss = 'fail'"), "are the same option");
    bad(&with("'scan.startup.mode' = 'earliest-offset'"), "is 'earliest', 'latest', 'offsets' or 'timestamp'");
    bad(&with("'scan.startup.mode' = 'offsets'"), "needs 'scan.startup.offsets' = '0:42,1:300'");
    bad(&with("'scan.startup.offsets' = '0:1'"), "has no effect without 'scan.startup.mode' = 'offsets'");
    bad(&with("'scan.startup.mode' = 'offsets', 'scan.startup.offsets' = '0-1'"), "is a list of partition:offset");
    bad(&with("'scan.startup.mode' = 'offsets', 'scan.startup.offsets' = '0:1,0:2'"), "names partition 0 twice");
    bad(&with("'scan.startup.mode' = 'offsets', 'scan.startup.offsets' = '0:-1'"), "is a list of partition:offset");
    bad(&with("'scan.startup.mode' = 'timestamp'"), "needs 'scan.startup.timestamp'");
    bad(&with("'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp' = 'monday'"), "is an instant since 1970");
    bad(&with("'scan.startup.timestamp' = '5'"), "has no effect without");
    bad(&WITH.replace("'events'", "'^ev.*'").replace("WITH", "CREATE SOURCE s (a INT) WITH"), "'^ev.*' is no topic's name");
    bad(&WITH.replace("localhost:9092", "a:1,,b:2").replace("WITH", "CREATE SOURCE s (a INT) WITH"), "is a list like 'host:9092,other:9092'");
}

#[test]
fn primary_keys() {
    let key = |text: &str| declared(&column(text)).key.map(|key| (key.columns, key.format));
    assert_eq!(key("a INT, b TEXT"), None);
    assert_eq!(key("a INT, b TEXT, PRIMARY KEY (b)"), Some((vec![1], KeyFormat::Json)));
    assert_eq!(key("a INT, PRIMARY KEY (B, a) NOT ENFORCED, b TEXT PATH '$.x'"), Some((vec![0, 1], KeyFormat::Json)));
    for column in
        ["b TEXT PRIMARY KEY", "b TEXT PRIMARY KEY NOT ENFORCED PATH '$.x'", "b TEXT PATH '$.x' primary key not enforced", "b TEXT PATH '$.x' PRIMARY KEY"]
    {
        assert_eq!(key(&format!("a INT, {column}, c TIMESTAMP, WATERMARK FOR c AS c")), Some((vec![1], KeyFormat::Json)), "{column}");
    }
    let formatted = |columns: &str, format: &str| format!("CREATE SOURCE s ({columns}) {}, 'key.format' = '{format}')", WITH.trim_end_matches(')'));
    assert_eq!(declared(&formatted("a INT PRIMARY KEY", "TEXT")).key.unwrap().format, KeyFormat::Text);
    assert_eq!(declared(&formatted("a INT, b INT, PRIMARY KEY (a, b)", "json")).key.unwrap().format, KeyFormat::Json);
    let external = "CREATE EXTERNAL TABLE s (a INT PRIMARY KEY) STORED AS KAFKA LOCATION 'kafka://b:1/t' OPTIONS ('key.format' 'text')";
    assert_eq!(declared(external).key.unwrap().format, KeyFormat::Text);
    assert_eq!(parse_definition(&column("a INT PRIMARY KEY")).unwrap().text(), column("a INT PRIMARY KEY"));

    bad(&column("a INT PRIMARY KEY, b INT PRIMARY KEY"), "source s declares two primary keys: write PRIMARY KEY (a, b) once");
    bad(&column("a INT PRIMARY KEY, PRIMARY KEY (a)"), "declares two primary keys");
    bad(&column("a INT PRIMARY KEY PRIMARY KEY"), "source s, column a has PRIMARY KEY twice");
    bad(&column("a INT, PRIMARY KEY (b)"), "has the primary key column b, which it doesn't declare");
    bad(&column("a INT, PRIMARY KEY (a, a)"), "primary key column a stands in it twice");
    bad(&column("a INT, PRIMARY KEY ()"), "expected");
    bad(&column("a INT, PRIMARY KEY"), "expected");
    bad(&column("a TEXT METADATA FROM 'key' PRIMARY KEY"), "primary key column a is METADATA: leave that out");
    bad(&column("a BIGINT METADATA FROM 'offset', PRIMARY KEY (a)"), "primary key column a is METADATA");
    bad(&column("a INT[] PRIMARY KEY"), "declare one of a plain type");
    bad(&column("a TIMESTAMP PRIMARY KEY, WATERMARK FOR a AS a"), "is the watermark's, too");
    bad(&formatted("a INT", "json"), "'key.format' has no effect without PRIMARY KEY");
    bad(&formatted("a INT PRIMARY KEY", "xml"), "the format 'xml' is unknown: 'key.format' is 'json', ");
    bad(&formatted("a INT PRIMARY KEY", "avro"), "Avro is read by its schema: add 'schema.registry.url' = 'http://localhost:8081', or 'key.avro.schema' = ");
    bad(&formatted("a INT, b INT, PRIMARY KEY (a, b)", "text"), "is for a key of one column, this one has 2");
}

#[test]
fn altered_sources() {
    let altered = |text: &str| match parse_one(text).unwrap_or_else(|e| panic!("{text}\n{e}")) {
        Statement::AlterSource { name, column, declaration, if_not_exists } => (name, column, declaration, if_not_exists),
        other => panic!("{other:?}"),
    };
    let say = |name: &str, column: &str, declaration: &str, if_not_exists| (name.to_string(), column.to_string(), declaration.to_string(), if_not_exists);
    assert_eq!(altered("ALTER SOURCE Events ADD COLUMN X INT"), say("events", "x", "X INT", false));
    assert_eq!(
        altered("-- more\nalter source \"É\" /* ü */ add column if not exists y STRUCT<a INT, b TEXT> -- of\n PATH '$.ä.y' ; -- done"),
        say("É", "y", "y STRUCT<a INT, b TEXT> -- of\n PATH '$.ä.y'", true)
    );
    assert_eq!(altered("ALTER SOURCE s ADD COLUMN k BYTEA METADATA FROM 'key'"), say("s", "k", "k BYTEA METADATA FROM 'key'", false));
    for statement in [
        column("a INT, b STRUCT(c INT)"),
        column("a INT, WATERMARK FOR t AS t - INTERVAL '5' SECOND, t TIMESTAMP -- (the time)\n"),
        column("\n a TEXT PATH '$[''(''].x', -- )\n PRIMARY KEY (a)\n"),
        "CREATE UNBOUNDED EXTERNAL TABLE s (a DECIMAL(5, 2)) STORED AS KAFKA LOCATION 'kafka://b:1/t' OPTIONS (format 'json')".to_string(),
    ] {
        let (before, text) = (declared(&statement), with_column(&statement, "x BIGINT METADATA -- what\n FROM 'offset'").unwrap());
        let after = declared(&text);
        assert_eq!(after.text, text);
        assert_eq!(after.columns[..before.columns.len()], before.columns[..]);
        assert_eq!((after.columns.len(), after.columns.last().unwrap().name.as_str()), (before.columns.len() + 1, "x"), "{text}");
        assert_eq!((after.key, after.watermark), (before.key, before.watermark));
        // And once more.
        assert_eq!(declared(&with_column(&text, "y INT").unwrap()).columns.last().unwrap().name, "y");
    }
    bad("ALTER SOURCE s", "expected ADD COLUMN or OWNER TO user, which is all that can be changed of a source");
    bad("ALTER SOURCE s DROP COLUMN a", "expected ADD COLUMN");
    bad("ALTER SOURCE s ADD WATERMARK FOR a AS a", "expected ADD COLUMN");
    bad("ALTER SOURCE s ADD COLUMN", "expected the name of a column");
    bad("ALTER SOURCE s ADD COLUMN x", "expected");
    bad("ALTER SOURCE s ADD COLUMN x INT, y INT", "expected the end of the statement");
    bad("ALTER SOURCE s ADD COLUMN x INT NOT NULL", "takes no constraint");
    bad("ALTER SOURCE s ADD COLUMN x INT DEFAULT 5", "takes no constraint");
    bad("ALTER SOURCE s ADD COLUMN x INT PRIMARY KEY", "a primary key is declared with its source");
    bad("ALTER SOURCE s ADD COLUMN x TIMESTAMP WATERMARK FOR x AS x", "expected the end of the statement");
    bad("ALTER SOURCE s ADD COLUMN __x INT", "reserved");
}

#[test]
fn properties_that_would_break_the_engine() {
    for (name, reason) in [
        ("enable.auto.commit", "offsets are committed with each checkpoint"),
        ("enable.auto.offset.store", "is the engine's own"),
        ("auto.offset.reset", "write 'scan.startup.mode'"),
        ("ENABLE.PARTITION.EOF", "is the engine's own"),
        ("bootstrap.servers", "is given twice"),
        ("metadata.broker.list", "is given twice"),
        ("group.instance.id", "joins no group"),
        ("partition.assignment.strategy", "joins no group"),
        ("plugin.library.paths", "would load a library"),
        ("sasl.kerberos.kinit.cmd", "would run a command"),
        ("ssl.ca.location", "'properties.ssl.ca.pem'"),
        ("sasl.kerberos.keytab", "names a file"),
        ("test.mock.num.brokers", "mock cluster"),
        ("", "has no name"),
    ] {
        bad(&with(&format!("'properties.{name}' = 'x'")), reason);
    }
    for name in ["session.timeout.ms", "group.id", "isolation.level", "sasl.password", "fetch.min.bytes"] {
        assert!(declared(&with(&format!("'properties.{name}' = 'x'"))).kafka.properties.contains_key(name));
    }
    for name in ["security.protocol' = 'ssl", "ssl.ca.pem' = '-----BEGIN CERTIFICATE-----"] {
        assert_eq!(declared(&with(&format!("'properties.{name}'"))).kafka.properties.len(), 1);
    }
}

#[test]
fn column_types() {
    for (sql, arrow) in [
        ("TEXT", "Utf8View"),
        ("VARCHAR", "Utf8View"),
        ("varchar(10)", "Utf8View"),
        ("STRING", "Utf8View"),
        ("CHAR(3)", "Utf8View"),
        ("BIGINT", "Int64"),
        ("INT8", "Int64"),
        ("INT", "Int32"),
        ("INTEGER", "Int32"),
        ("SMALLINT", "Int16"),
        ("TINYINT", "Int8"),
        ("BIGINT UNSIGNED", "UInt64"),
        ("INT UNSIGNED", "UInt32"),
        ("SMALLINT UNSIGNED", "UInt16"),
        ("TINYINT UNSIGNED", "UInt8"),
        ("DOUBLE", "Float64"),
        ("DOUBLE PRECISION", "Float64"),
        ("REAL", "Float32"),
        ("FLOAT", "Float32"),
        ("BOOLEAN", "Boolean"),
        ("BOOL", "Boolean"),
        ("DECIMAL", "Decimal128(38, 10)"),
        ("DECIMAL(10)", "Decimal128(10, 0)"),
        ("DECIMAL(10, 2)", "Decimal128(10, 2)"),
        ("NUMERIC(50, 2)", "Decimal256(50, 2)"),
        ("DATE", "Date32"),
        ("TIMESTAMP", "Timestamp(ns)"),
        ("TIMESTAMP(0)", "Timestamp(s)"),
        ("TIMESTAMP(3)", "Timestamp(ms)"),
        ("TIMESTAMP(6)", "Timestamp(µs)"),
        ("TIMESTAMP(9)", "Timestamp(ns)"),
        ("TIMESTAMP WITH TIME ZONE", "Timestamp(ns, \"+00:00\")"),
        ("TIMESTAMP(3) WITH TIME ZONE", "Timestamp(ms, \"+00:00\")"),
        ("TIMESTAMP WITHOUT TIME ZONE", "Timestamp(ns)"),
        ("TIMESTAMPTZ", "Timestamp(ns, \"+00:00\")"),
        ("BYTEA", "Binary"),
        ("BLOB", "Binary"),
        ("INT ARRAY", "List(Int32)"),
        ("INT[]", "List(Int32)"),
        ("INT[][]", "List(List(Int32))"),
        ("ARRAY<INT>", "List(Int32)"),
        ("ARRAY<ARRAY<TEXT>>", "List(List(Utf8View))"),
        ("INT ARRAY[]", "List(List(Int32))"),
        ("STRUCT<a INT, b TEXT>", "Struct(\"a\": Int32, \"b\": Utf8View)"),
        ("STRUCT<a INT, b STRUCT<c TEXT>>", "Struct(\"a\": Int32, \"b\": Struct(\"c\": Utf8View))"),
        ("STRUCT<a: INT, \"B\": STRUCT<c STRUCT<d DOUBLE>>>", "Struct(\"a\": Int32, \"B\": Struct(\"c\": Struct(\"d\": Float64)))"),
        ("STRUCT(a INT, b INT[])", "Struct(\"a\": Int32, \"b\": List(Int32))"),
        ("STRUCT<a DOUBLE ARRAY> ARRAY", "List(Struct(\"a\": List(Float64)))"),
        ("ARRAY<STRUCT<a INT, b ARRAY<INT>>>", "List(Struct(\"a\": Int32, \"b\": List(Int32)))"),
    ] {
        assert_eq!(declared(&column(&format!("x {sql}, y INT"))).columns[0].data_type.to_string(), arrow, "{sql}");
    }
    let DataType::List(item) = declared(&column("x TEXT[]")).columns[0].data_type.clone() else { panic!() };
    assert_eq!((item.name().as_str(), item.is_nullable()), ("item", true));
    bad(&column("x JSON"), "write TEXT, which takes an object");
    bad(&column("x TIME"), "write TEXT and cast it");
    bad(&column("x DATETIME"), "write TIMESTAMP");
    bad(&column("x MONEY"), "the type MONEY at line 1, column 20 can't be read from a topic");
    bad(&column("x TIMESTAMP(4)"), "0, 3, 6 or 9 digits");
    bad(&column("x DECIMAL(100, 2)"), "DECIMAL has 1 to 76 digits");
    bad(&column("x DECIMAL(5, 6)"), "DECIMAL has 1 to 76 digits");
    bad(&column("x INT[3]"), "no declared length");
    bad(&column("x STRUCT<a INT, a INT>"), "two fields called a");
    bad(&column("x STRUCT<a INT"), "expected `>`");
    bad(&column("x ARRAY<INT>>"), "syntax error");
    bad(&column(&format!("x {}INT{}", "ARRAY<".repeat(40), ">".repeat(40))), "nested deeper than 32");
    bad(&column(&format!("x {}", "STRUCT<a ".repeat(100))), "nested deeper than 32");
}

#[test]
fn columns() {
    check(
        &column("\"Odd Name\" TEXT PATH '$.\"50_50\".x', b TEXT PATH '$[''50_50''].y', c TEXT PATH 'a-b.ç', d INT"),
        "source s: Odd Name Utf8View [\"50_50\", \"x\"], b Utf8View [\"50_50\", \"y\"], c Utf8View [\"a-b\", \"ç\"], d Int32 [\"d\"]",
    );
    check(
        &column("a TIMESTAMP FORMAT 'epoch_ms', b TIMESTAMP FORMAT 'EPOCH_S', c TIMESTAMP PATH '$.t' FORMAT 'epoch_us', d TIMESTAMP TIMEZONE 'Europe/Madrid'"),
        "source s: a Timestamp(ns) [\"a\"] EpochMillis, b Timestamp(ns) [\"b\"] EpochSeconds, c Timestamp(ns) [\"t\"] EpochMicros, d Timestamp(ns) [\"d\"] Local(Europe/Madrid)",
    );
    check(
        &column(
            "p INT METADATA FROM 'partition', o BIGINT METADATA FROM 'offset', t TIMESTAMP(3) METADATA FROM 'timestamp', k BYTEA METADATA FROM 'key', offset BIGINT METADATA",
        ),
        "source s: p Int32 of Partition, o Int64 of Offset, t Timestamp(ms) of Timestamp, k Binary of Key, offset Int64 of Offset",
    );
    let headers = declared(&column("h ARRAY<STRUCT<key TEXT, value BYTEA>> METADATA FROM 'headers'")).columns.remove(0);
    assert_eq!(
        (headers.origin, headers.data_type.to_string().as_str()),
        (Origin::Metadata(Metadata::Headers), "List(Struct(\"key\": Utf8, \"value\": Binary))")
    );
    bad(&column("a INT, A TEXT"), "source s declares the column a twice");
    bad(&column("a INT FORMAT 'epoch_ms'"), "FORMAT and TIMEZONE are for TIMESTAMP columns");
    bad(&column("a TIMESTAMP FORMAT 'unix'"), "FORMAT is 'rfc3339'");
    bad(&column("a TIMESTAMP FORMAT 'epoch_ms' TIMEZONE 'UTC'"), "leave one of them out");
    bad(&column("a TIMESTAMP TIMEZONE 'Madrid'"), "'Madrid' is no time zone");
    bad(&column("a TEXT PATH '$.a' PATH '$.b'"), "has PATH twice");
    bad(&column("a TEXT PATH a"), "expected a path like");
    bad(&column("a TEXT NOT NULL"), "takes no constraint");
    bad(&column("a TEXT METADATA FROM 'offset'"), "METADATA FROM 'offset' is BIGINT, not Utf8View");
    bad(&column("a INT METADATA FROM 'key'"), "is TEXT or BYTEA");
    bad(&column("a INT METADATA FROM 'headers'"), "is ARRAY<STRUCT<key TEXT, value BYTEA>>");
    bad(&column("a INT METADATA FROM 'leader'"), "not 'leader'");
    bad(&column("a INT, *, *"), "has * twice among its columns");
    bad(&column("a INT, a.*"), "expected");
    bad(&column("\"a.b\" INT"), "'.' is none of them");
    bad(&column("\"\" INT"), "at least one letter");
    bad(&column("\"__w\" INT"), "reserved: `\"__w\"` at line 1, column 18");
    for (path, message) in [
        ("$", "names no key"),
        ("", "names no key"),
        ("$.", "empty key"),
        ("$.a..b", "empty key"),
        ("$.a[0]", "goes into an array"),
        ("$.*", "'*' in a key that isn't quoted"),
        ("$.a[b]", "no quoted key follows"),
        ("$.\"a", "isn't closed"),
        ("$[''a''", "isn't closed"),
        ("$a", "where a . or [ belongs"),
        ("a b", "has a blank"),
        ("$.\"a\"b", "where a . or [ belongs"),
    ] {
        bad(&column(&format!("a TEXT PATH '{path}'")), message);
    }
}

#[test]
fn watermarks() {
    let bound = |clause: &str| declared(&column(&format!("ts TIMESTAMP, WATERMARK FOR ts AS {clause}"))).watermark.unwrap().bound.as_millis();
    for (clause, ms) in [
        ("ts - INTERVAL '5' SECOND", 5_000),
        ("ts - INTERVAL '5 seconds'", 5_000),
        ("ts - INTERVAL '2 hours'", 7_200_000),
        ("ts - INTERVAL '1' MINUTE", 60_000),
        ("ts - INTERVAL '1 minute 30 seconds'", 90_000),
        ("TS - INTERVAL '250 ms'", 250),
        ("ts - INTERVAL 5 SECOND", 5_000),
        ("ts - INTERVAL '0' SECOND", 0),
        ("ts", 0),
    ] {
        assert_eq!(bound(clause), ms, "{clause}");
    }
    let wrong = |clause: &str, message: &str| bad(&column(&format!("ts TIMESTAMP, n INT, WATERMARK FOR {clause}")), message);
    wrong("x AS x", "has a watermark on x, which it doesn't declare");
    wrong("n AS n", "has a watermark on n, which is Int32: declare it as TIMESTAMP");
    wrong("ts AS n", "a watermark is written WATERMARK FOR ts AS ts - INTERVAL '5' SECOND");
    wrong("ts AS ts + INTERVAL '5' SECOND", "a watermark is written");
    wrong("ts AS ts - 5", "is written as INTERVAL '1 minute'");
    wrong("ts AS ts - INTERVAL '1' MONTH", "has months or years");
    wrong("ts AS ts - INTERVAL '-1' SECOND", "can't be negative");
    wrong("ts AS ts - INTERVAL '1' MINUTE TO SECOND", "is written as INTERVAL");
    wrong("ts AS ts, WATERMARK FOR ts AS ts", "declares two watermarks");
    wrong("ts", "expected AS");
    // A column may be called so.
    assert_eq!(declared(&column("watermark TEXT, a INT")).columns[0].name, "watermark");
}

#[test]
fn names() {
    check("DROP VIEW \"Team Minute\"", "drop View Team Minute");
    check("DROP VIEW IF EXISTS Team_Minute CASCADE", "drop View team_minute if-exists cascade");
    bad("CREATE VIEW x$errors AS SELECT 1", "names that end in $errors belong to");
    bad("CREATE VIEW \"x$late\" AS SELECT 1", "names that end in $late belong to");
    bad("CREATE VIEW __x AS SELECT 1", "are reserved");
    bad("CREATE VIEW \"a/b\" AS SELECT 1", "'/' is none of them");
    bad("CREATE VIEW \" a\" AS SELECT 1", "neither begins nor ends with a blank");
    bad("CREATE VIEW other.x AS SELECT 1", "has one part: leave out `other.`");
    check("DROP TABLE tidegate.public.x", "drop Table x");
    check("DROP VIEW public.x", "drop View x");
    bad(&format!("CREATE VIEW {} AS SELECT 1", "x".repeat(200)), "at most 128 bytes");
    bad("CREATE SOURCE 'x' (a INT)", "expected the name of the source, found `'x'`");
    for name in ["plain", "Upper", "two words", "a$late", "select", "1st", "quo\"te", "ärger", ""] {
        let quoted = quote_identifier(name);
        let parsed = parse_query(&format!("SELECT 1 AS {}", if name.is_empty() { "x" } else { &quoted })).unwrap();
        if !name.is_empty() {
            assert!(parsed.to_string().ends_with(&quoted));
        }
        let literal = quote_literal(name);
        assert_eq!(parse_query(&format!("SELECT {literal}")).unwrap().to_string(), format!("SELECT {literal}"));
    }
    assert_eq!((quote_identifier("a$late"), quote_identifier("Upper"), quote_identifier("select")), ("a$late".into(), "\"Upper\"".into(), "\"select\"".into()));
}

#[test]
fn companion_tables_are_one_name() {
    check("SELECT * FROM team_minute$late", "df SELECT * FROM team_minute$late");
    check("SELECT * FROM \"team_minute$late\" AS l", "df SELECT * FROM \"team_minute$late\" AS l");
    check("SELECT e.reason FROM events$errors e WHERE e.partition = $1", "df SELECT e.reason FROM events$errors e WHERE e.partition = $1");
}

const TUMBLED: &str = "(SELECT *, __window_start(ts, INTERVAL '1 minute') AS window_start, __window_end(ts, INTERVAL '1 minute') AS window_end FROM t)";

#[test]
fn views() {
    check("CREATE CONTINUOUS VIEW v AS SELECT a FROM t EMIT CHANGES", "continuous v changes: SELECT a FROM t");
    check("CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT a FROM t", "continuous v if-not-exists emit?: SELECT a FROM t");
    check("create or replace continuous view V as select a from t emit on window close;", "continuous v or-replace close: SELECT a FROM t");
    check(
        "CREATE CONTINUOUS VIEW credits WITH (unbounded_state = true) AS SELECT to_account AS account, sum(amount) AS credits FROM transactions GROUP BY to_account EMIT CHANGES",
        "continuous credits unbounded changes: SELECT to_account AS account, sum(amount) AS credits FROM transactions GROUP BY to_account",
    );
    check("CREATE CONTINUOUS VIEW v WITH ('unbounded_state' = 'false', late_rows = 5) AS SELECT 1", "continuous v late=5 emit?: SELECT 1");
    check("CREATE CONTINUOUS VIEW v WITH (device = 'GPU') AS SELECT 1", "continuous v device=gpu emit?: SELECT 1");
    check(
        "CREATE CONTINUOUS VIEW v AS SELECT window_start, count(*) FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY window_start EMIT CHANGES",
        &format!("continuous v changes: SELECT window_start, count(*) FROM {TUMBLED} AS t GROUP BY window_start"),
    );
    check("CREATE VIEW v AS WITH x AS (SELECT 1 AS a) SELECT * FROM x", "plain v: WITH x AS (SELECT 1 AS a) SELECT * FROM x");
    check("CREATE OR REPLACE VIEW v AS (SELECT 1)", "plain v or-replace: (SELECT 1)");
    let text = "CREATE CONTINUOUS VIEW v AS -- why\n  SELECT a /* b */ FROM t\nEMIT CHANGES";
    let Statement::CreateContinuousView { def, .. } = parse_one(&format!("\n/* x */ {text}\n;\n")).unwrap() else { panic!() };
    assert_eq!(def.text, text);
    bad("CREATE VIEW v AS SELECT a FROM t EMIT CHANGES", "write CREATE CONTINUOUS VIEW v");
    bad("CREATE VIEW v AS SELECT a FROM t LATE DATA TO x", "write CREATE CONTINUOUS VIEW v");
    bad("CREATE VIEW v WITH (a = 1) AS SELECT 1", "write CREATE CONTINUOUS VIEW v");
    bad("CREATE CONTINUOUS VIEW v (a) AS SELECT 1", "takes no list of columns");
    bad("CREATE CONTINUOUS VIEW v AS SELECT ?", "can't have parameters");
    bad("CREATE CONTINUOUS VIEW v AS", "expected a query");
    bad("CREATE CONTINUOUS VIEW v AS EMIT CHANGES", "syntax error");
    bad("CREATE CONTINUOUS VIEW v SELECT 1", "expected AS and the view's query, found `SELECT`");
    bad("CREATE CONTINUOUS VIEW v AS INSERT INTO t VALUES (1)", "a query reads, it can't INSERT");
    bad("CREATE VIEW v AS WITH x AS (DELETE FROM t) SELECT 1", "a query reads, it can't DELETE");
    bad("CREATE VIEW v AS SELECT a INTO b FROM t", "a query reads, it can't SELECT INTO");
    bad(
        "CREATE CONTINUOUS VIEW v WITH (unbounded = true) AS SELECT 1",
        "view v has no option 'unbounded': known are unbounded_state, state_ttl, retention, memory_limit, late_rows, device",
    );
    bad("CREATE CONTINUOUS VIEW v WITH (device = 'cuda') AS SELECT 1", "'device' is 'auto', 'cpu' or 'gpu', not 'cuda'");
    bad("CREATE CONTINUOUS VIEW v WITH (unbounded_state = 'yes') AS SELECT 1", "is true or false");
    bad("CREATE OR REPLACE CONTINUOUS VIEW IF NOT EXISTS v AS SELECT 1", "exclude each other");
    bad("CREATE CONTINUOUS v AS SELECT 1", "expected VIEW, found `v`");
    bad("CREATE OR REPLACE SOURCE s (a INT)", "a source can't be replaced");
    check("CREATE CONTINUOUS VIEW v AS SELECT a FROM t EMIT EVERY INTERVAL '1 minute'", "continuous v every 60s: SELECT a FROM t");
    bad("CREATE CONTINUOUS VIEW v AS SELECT a FROM t EMIT FINAL", "expected the end of the query, found `FINAL`");
}

#[test]
fn subscriptions() {
    check("SELECT * FROM t EMIT CHANGES", "subscribe changes: SELECT * FROM t");
    check("SELECT * FROM t WHERE a = ? AND b = ? EMIT ON WINDOW CLOSE", "subscribe close: SELECT * FROM t WHERE a = $1 AND b = $2");
    check("(SELECT a FROM t) EMIT CHANGES", "subscribe changes: (SELECT a FROM t)");
    check("WITH x AS (SELECT 1) SELECT * FROM x AS emit EMIT CHANGES", "subscribe changes: WITH x AS (SELECT 1) SELECT * FROM x AS emit");
    check("SELECT * FROM t WHERE a = 'x' emit changes -- y", "subscribe changes: SELECT * FROM t WHERE a = 'x'");
    check("SUBSCRIBE team_minute", "subscribe changes: SELECT * FROM team_minute");
    check("SUBSCRIBE TO \"Team\" EMIT ON WINDOW CLOSE", "subscribe close: SELECT * FROM \"Team\"");
    check("SUBSCRIBE TO (SELECT a FROM t)", "subscribe changes: (SELECT a FROM t)");
    check("SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute') x EMIT CHANGES", &format!("subscribe changes: SELECT * FROM {TUMBLED} x"));
    // None of these ends in the clause.
    check("SELECT emit FROM t", "df SELECT emit FROM t");
    check("SELECT emit changes FROM t", "df SELECT emit AS changes FROM t");
    check("SELECT a, emit changes", "df SELECT a, emit AS changes");
    check("SELECT * FROM emit changes", "df SELECT * FROM emit changes");
    check("SELECT * FROM t \"emit\" ", "df SELECT * FROM t \"emit\"");
    check("SELECT * FROM t WHERE x = 'a EMIT CHANGES'", "df SELECT * FROM t WHERE x = 'a EMIT CHANGES'");
    check("SELECT * FROM t -- EMIT CHANGES", "df SELECT * FROM t");
    check("SELECT a + emit changes", "df SELECT a + emit AS changes");
    bad("SELECT * FROM (SELECT * FROM t EMIT CHANGES)", "EMIT stands at the end of the whole query, not inside of parentheses at line 1, column 32");
    check("SELECT * FROM t EMIT EVERY INTERVAL '5 seconds'", "subscribe every 5s: SELECT * FROM t");
    check("SUBSCRIBE v EMIT EVERY INTERVAL '500' MILLISECOND", "subscribe every 500ms: SELECT * FROM v");
    bad("SELECT * FROM t EMIT EVERY '5 seconds'", "the length of EMIT EVERY is written as INTERVAL '1 minute'");
    bad("SELECT * FROM t EMIT EVERY INTERVAL '0 seconds'", "the length of EMIT EVERY must be longer than nothing");
    bad("SELECT * FROM t EMIT EVERY INTERVAL '-1 seconds'", "can't be negative");
    bad("SELECT * FROM t EMIT EVERY INTERVAL '1 second' x", "expected the end of the statement");
    bad("SELECT * FROM t EMIT CHANGES EMIT ON WINDOW CLOSE", "EMIT stands twice at line 1, column 17: leave one out");
    bad("SELECT * FROM t ALLOW LATENESS INTERVAL '1 minute' EMIT CHANGES", "ALLOW LATENESS belongs to a view that is kept up to date");
    bad("SELECT * FROM t CLOSE AFTER INTERVAL '1 minute'", "CLOSE AFTER belongs to a view");
    bad("SELECT * FROM t CLOSE NEVER", "CLOSE NEVER belongs to a view");
    bad("CREATE CONTINUOUS VIEW v AS SELECT a FROM t CLOSE NEVER CLOSE AFTER INTERVAL '1 minute'", "CLOSE stands twice");
    bad("EXPLAIN SELECT * FROM t LATE DATA TO x", "LATE DATA TO belongs to a view");
    bad("SELECT * FROM t EMIT ON CLOSE", "syntax error");
    bad("SUBSCRIBE", "expected the name of a view or source");
    bad("SUBSCRIBE a, b", "expected the end of the statement");
    bad("EXPLAIN SELECT * FROM t EMIT CHANGES", "a subscription can't be explained");
}

#[test]
fn tumbling_windows() {
    let from = |input: &str, expect: &str| check(&format!("SELECT * FROM {input}"), &format!("df SELECT * FROM {expect}"));
    from("TUMBLE(t, ts, INTERVAL '1 minute')", &format!("{TUMBLED} AS t"));
    from("tumble(t, ts, INTERVAL '1 minute') AS e", &format!("{TUMBLED} AS e"));
    from("TUMBLE(t, ts, INTERVAL '1 minute') e (a, b)", &format!("{TUMBLED} e (a, b)"));
    from("TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1 minute')) AS e", &format!("{TUMBLED} AS e"));
    from("TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1 minute'))", &format!("{TUMBLED} AS t"));
    from("TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1 minute'))", &format!("{TUMBLED} AS t"));
    from("TABLE(TUMBLE(SIZE => INTERVAL '1 minute', DATA => TABLE t, TIMECOL => DESCRIPTOR(ts))) e", &format!("{TUMBLED} e"));
    from(
        "TUMBLE((SELECT * FROM u WHERE a > 1), ts, INTERVAL '1 minute') e",
        &format!("{} e", TUMBLED.replace("FROM t)", "FROM (SELECT * FROM u WHERE a > 1))")),
    );
    from("TUMBLE((t), ts, INTERVAL '1 minute')", &format!("{TUMBLED} AS t"));
    from("a JOIN TUMBLE(t, ts, INTERVAL '1 minute') AS e ON a.x = e.x", &format!("a JOIN {TUMBLED} AS e ON a.x = e.x"));
    from("(SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')) AS s", &format!("(SELECT * FROM {TUMBLED} AS t) AS s"));
    from(
        "TUMBLE((SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')), ts, INTERVAL '1' HOUR) AS o",
        &format!(
            "(SELECT *, __window_start(ts, INTERVAL '1' HOUR) AS window_start, __window_end(ts, INTERVAL '1' HOUR) AS window_end FROM (SELECT * FROM {TUMBLED} AS t)) AS o"
        ),
    );
    from(
        "TUMBLE(public.t, t.ts, INTERVAL '1' MINUTE, INTERVAL '10' SECOND)",
        "(SELECT *, __window_start(t.ts, INTERVAL '1' MINUTE, INTERVAL '10' SECOND) AS window_start, __window_end(t.ts, INTERVAL '1' MINUTE, INTERVAL '10' SECOND) AS window_end FROM public.t) AS t",
    );
    from(
        "TUMBLE(\"T x\", \"Ts\", INTERVAL '1' DAY)",
        "(SELECT *, __window_start(\"Ts\", INTERVAL '1' DAY) AS window_start, __window_end(\"Ts\", INTERVAL '1' DAY) AS window_end FROM \"T x\") AS \"T x\"",
    );
    from("events$errors WHERE x IN (SELECT y FROM TUMBLE(t, ts, INTERVAL '1 minute'))", &format!("events$errors WHERE x IN (SELECT y FROM {TUMBLED} AS t)"));
    check(
        "WITH w AS (SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')) SELECT * FROM w UNION ALL SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')",
        &format!("df WITH w AS (SELECT * FROM {TUMBLED} AS t) SELECT * FROM w UNION ALL SELECT * FROM {TUMBLED} AS t"),
    );
    check("EXPLAIN SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')", &format!("df EXPLAIN SELECT * FROM {TUMBLED} AS t"));
    check("INSERT INTO x SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')", &format!("df INSERT INTO x SELECT * FROM {TUMBLED} AS t"));
    check("SELECT tumble FROM tumble", "df SELECT tumble FROM tumble");
    check("SELECT * FROM generate_series(1, 2)", "df SELECT * FROM generate_series(1, 2)");

    let wrong = |input: &str, message: &str| bad(&format!("SELECT * FROM {input}"), message);
    wrong("TUMBLE(t PARTITION BY a, ts, INTERVAL '1 minute')", "only SESSION takes PARTITION BY");
    wrong("TUMBLE(t, ts)", "not 2 arguments: write TUMBLE(table, timestamp column, INTERVAL '1 minute') in FROM");
    wrong("TUMBLE()", "not 0 arguments");
    wrong("TUMBLE(t, ts, INTERVAL '1 minute', INTERVAL '1 minute', INTERVAL '1 minute')", "not 5 arguments");
    wrong("TUMBLE(t, ts, '1 minute')", "the size of a window is written as INTERVAL '1 minute'");
    wrong("TUMBLE(t, ts, INTERVAL '1 month')", "has months or years");
    wrong("TUMBLE(t, ts, INTERVAL '0' SECOND)", "must be positive");
    wrong("TUMBLE(t, ts, INTERVAL '-1' SECOND)", "must be positive");
    wrong("TUMBLE(t, ts, INTERVAL 'soon')", "is no length of time");
    wrong("TUMBLE(t, ts, ?)", "the size of a window is written as");
    wrong("TUMBLE(t, 'ts', INTERVAL '1 minute')", "the second argument of TUMBLE is a timestamp column or proctime(), not 'ts'");
    wrong("TUMBLE(t, DESCRIPTOR(a, b), INTERVAL '1 minute')", "DESCRIPTOR takes one column");
    wrong("TUMBLE('t', ts, INTERVAL '1 minute')", "the first argument of TUMBLE is a table, not 't'");
    wrong("TUMBLE(f(1), ts, INTERVAL '1 minute')", "put it into a subquery");
    wrong("TUMBLE(*, ts, INTERVAL '1 minute')", "can't take * as an argument");
    wrong("TABLE(TUMBLE(DATA => t, COLOUR => ts))", "no argument called COLOUR");
    wrong("TUMBLE(t, ts, INTERVAL '1 minute') WITH ORDINALITY", "takes no such clause");
    bad("SELECT count(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1 minute')", "TUMBLE is a table, not a value");
}

const HOPPED: &str = "(SELECT * EXCLUDE (__window), __hop_start(__window, INTERVAL '5 minutes', INTERVAL '1 minute') AS window_start, __window AS window_end \
     FROM (SELECT *, unnest(__hop_ends(ts, INTERVAL '5 minutes', INTERVAL '1 minute')) AS __window FROM t))";

#[test]
fn hopping_and_cumulating_windows() {
    let from = |input: &str, expect: &str| check(&format!("SELECT * FROM {input}"), &format!("df SELECT * FROM {expect}"));
    from("HOP(t, ts, INTERVAL '1 minute', INTERVAL '5 minutes')", &format!("{HOPPED} AS t"));
    from("TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1 minute', INTERVAL '5 minutes')) AS e", &format!("{HOPPED} AS e"));
    from("TABLE(HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '5 minutes', SLIDE => INTERVAL '1 minute'))", &format!("{HOPPED} AS t"));
    from(
        "HOP((SELECT * FROM HOP(t, ts, INTERVAL '1 minute', INTERVAL '5 minutes')), ts, INTERVAL '1' DAY, INTERVAL '2' DAY, INTERVAL '1' HOUR) AS o",
        &format!(
            "(SELECT * EXCLUDE (__window), __hop_start(__window, INTERVAL '2' DAY, INTERVAL '1' DAY, INTERVAL '1' HOUR) AS window_start, __window AS window_end \
             FROM (SELECT *, unnest(__hop_ends(ts, INTERVAL '2' DAY, INTERVAL '1' DAY, INTERVAL '1' HOUR)) AS __window FROM (SELECT * FROM {HOPPED} AS t))) AS o"
        ),
    );
    from("CUMULATE(t, ts, INTERVAL '1 minute', INTERVAL '5 minutes')", &format!("{} AS t", HOPPED.replace("__hop", "__cumulate")));
    from(
        "TABLE(CUMULATE(STEP => INTERVAL '1 minute', DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '5 minutes'))",
        &format!("{} AS t", HOPPED.replace("__hop", "__cumulate")),
    );
    check("SELECT hop, session FROM hop AS cumulate", "df SELECT hop, session FROM hop AS cumulate");
    let wrong = |input: &str, message: &str| bad(&format!("SELECT * FROM {input}"), message);
    wrong("HOP(t, ts, INTERVAL '1 minute')", "HOP takes a table, a timestamp column, two INTERVALs and perhaps an offset, not 3 arguments: write HOP(table");
    wrong("HOP(t, ts, INTERVAL '1 second', INTERVAL '1 day')", "a row would lie in 86400 windows, at most 10000 are allowed");
    wrong("HOP(t, ts, INTERVAL '0 second', INTERVAL '1 day')", "slide must be positive");
    wrong("HOP(t, ts, INTERVAL '1 month', INTERVAL '1 day')", "the slide of a window of '1 month' has months");
    wrong("CUMULATE(t, ts, INTERVAL '7 minutes', INTERVAL '1 hour')", "a window's size must be a whole number of steps");
    wrong("CUMULATE(t, ts, INTERVAL '1 minutes', '1 hour')", "the size of a window is written as INTERVAL");
    wrong("TABLE(HOP(DATA => t, TIMECOL => ts, SIZE => INTERVAL '1 hour'))", "not 3 arguments");
    wrong("TABLE(HOP(DATA => t, STEP => ts))", "HOP has no argument called STEP: they are DATA, TIMECOL, SLIDE, SIZE, OFFSET");
    wrong("HOP(t, 1 + 1, INTERVAL '1 minute', INTERVAL '1 minute')", "the second argument of HOP is a timestamp column or proctime(), not 1 + 1");
}

fn sessions_of(partition: &str, source: &str) -> String {
    let over = |bound: &str| format!("__session_{bound}(ts, INTERVAL '5 minutes') OVER ({partition}ORDER BY ts) AS window_{bound}");
    format!("(SELECT *, {}, {} FROM {source})", over("start"), over("end"))
}

#[test]
fn session_windows() {
    let from = |input: &str, expect: &str| check(&format!("SELECT * FROM {input}"), &format!("df SELECT * FROM {expect}"));
    from("SESSION(t, ts, INTERVAL '5 minutes')", &format!("{} AS t", sessions_of("", "t")));
    from("SESSION(t PARTITION BY a, ts, INTERVAL '5 minutes') AS s", &format!("{} AS s", sessions_of("PARTITION BY a ", "t")));
    let two = sessions_of("PARTITION BY a, t.b ", "t");
    for input in [
        "SESSION(t PARTITION BY a, t.b, ts, INTERVAL '5 minutes')",
        "SESSION(t PARTITION BY (a, t.b), ts, INTERVAL '5 minutes')",
        "TABLE(SESSION(TABLE t PARTITION BY (a, t.b), DESCRIPTOR(ts), INTERVAL '5 minutes'))",
        "TABLE(SESSION(DATA => TABLE t PARTITION BY a, t.b, TIMECOL => DESCRIPTOR(ts), GAP => INTERVAL '5 minutes'))",
        "TABLE(SESSION(DATA => TABLE t PARTITION BY (a, t.b), GAP => INTERVAL '5 minutes', TIMECOL => DESCRIPTOR(ts)))",
    ] {
        from(input, &format!("{two} AS t"));
    }
    from(
        "SESSION((SELECT *, row_number() OVER (PARTITION BY x ORDER BY y) FROM u) PARTITION BY (a), ts, INTERVAL '5 minutes') s",
        &format!("{} s", sessions_of("PARTITION BY a ", "(SELECT *, row_number() OVER (PARTITION BY x ORDER BY y) FROM u)")),
    );
    let wrong = |input: &str, message: &str| bad(&format!("SELECT * FROM {input}"), message);
    wrong(
        "SESSION(t, a, ts, INTERVAL '5 minutes')",
        "SESSION takes a table, a timestamp column, an INTERVAL, not 4 arguments: write SESSION(table PARTITION BY key",
    );
    wrong("SESSION(t PARTITION BY ts, INTERVAL '5 minutes')", "SESSION's PARTITION BY stands once");
    wrong("SESSION(t PARTITION BY lower(a), ts, INTERVAL '5 minutes')", "SESSION is partitioned by columns, not by lower(a)");
    wrong("SESSION(t, ts, INTERVAL '0 minutes')", "the gap of sessions must be positive");
    wrong("SESSION(t PARTITION BY a PARTITION BY b, ts, INTERVAL '5 minutes')", "stands once");
}

#[test]
fn windows_as_spark_writes_them() {
    let tumbled = TUMBLED.replace("1 minute", "10 minutes");
    check(
        "SELECT window, count(*) FROM t GROUP BY window(ts, '10 minutes')",
        &format!(
            "df SELECT named_struct('start', window_start, 'end', window_end) AS \"window\", count(*) FROM {tumbled} AS t GROUP BY window_start, window_end"
        ),
    );
    check(
        "SELECT a, window.start, Window.END AS e, window.start + INTERVAL '1 day' FROM t AS x WHERE b > 1 GROUP BY a, window(ts, INTERVAL '10 minutes') HAVING window.end > now() ORDER BY window DESC, a",
        &format!(
            "df SELECT a, window_start AS \"start\", window_end AS e, window_start + INTERVAL '1 day' FROM {} AS x WHERE b > 1 \
             GROUP BY a, window_start, window_end HAVING window_end > now() ORDER BY window_start DESC, window_end DESC, a",
            tumbled.replace("FROM t)", "FROM t AS x)")
        ),
    );
    check(
        "SELECT window(ts, '5 minutes', '1 minute').start AS s, count(*) FROM t GROUP BY window(ts, '5 minutes', '1 minute') ORDER BY s",
        &format!("df SELECT window_start AS s, count(*) FROM {HOPPED} AS t GROUP BY window_start, window_end ORDER BY s"),
    );
    check(
        "SELECT window(ts, '10 minutes', '10 minutes', '1 minute'), count(*) FROM t GROUP BY window(ts, '10 minutes', '10 minutes', '1 minute')",
        &format!(
            "df SELECT named_struct('start', window_start, 'end', window_end) AS \"window\", count(*) FROM {} AS t GROUP BY window_start, window_end",
            tumbled.replace("'10 minutes')", "'10 minutes', INTERVAL '1 minute')")
        ),
    );
    let sessions = sessions_of("PARTITION BY a, lower(b) ", "t WHERE c > 1");
    check(
        "SELECT a, lower(b) AS l, session_window.start, count(*) FROM t WHERE c > 1 GROUP BY 1, lower(b), session_window(ts, '5 minutes')",
        &format!("df SELECT a, lower(b) AS l, window_start AS \"start\", count(*) FROM {sessions} AS t GROUP BY 1, lower(b), window_start, window_end"),
    );
    check(
        "SELECT count(*) FROM t GROUP BY window(ts, '10 minutes') UNION ALL SELECT 1",
        &format!("df SELECT count(*) FROM {tumbled} AS t GROUP BY window_start, window_end UNION ALL SELECT 1"),
    );
    check(
        "CREATE CONTINUOUS VIEW v AS SELECT window.start, count(*) AS n FROM t GROUP BY window(ts, '10 minutes') EMIT CHANGES",
        &format!("continuous v changes: SELECT window_start AS \"start\", count(*) AS n FROM {tumbled} AS t GROUP BY window_start, window_end"),
    );
    // A column may be called so.
    check(
        "SELECT t.window, session_window FROM t GROUP BY t.window, session_window",
        "df SELECT t.window, session_window FROM t GROUP BY t.window, session_window",
    );
    check("SELECT sum(a) OVER window FROM t WINDOW window AS (ORDER BY b)", "df SELECT sum(a) OVER window FROM t WINDOW window AS (ORDER BY b)");
    check(
        "SELECT (SELECT max(window) FROM u) FROM t GROUP BY window(ts, '10 minutes')",
        &format!("df SELECT (SELECT max(window) FROM u) FROM {tumbled} AS t GROUP BY window_start, window_end"),
    );
    bad("SELECT 1 FROM a JOIN b ON a.x = b.x GROUP BY window(ts, '1 minute')", "put the join into a subquery");
    bad("SELECT 1 FROM a, b GROUP BY window(ts, '1 minute')", "put the join into a subquery");
    bad("SELECT 1 FROM t GROUP BY window(ts, '1 minute'), session_window(ts, '1 minute')", "a query groups by one window");
    bad("SELECT window(ts, '1 minute'), 1 FROM t", "stands in GROUP BY, and elsewhere only as it stands there");
    bad("SELECT window(ts, '2 minutes'), 1 FROM t GROUP BY window(ts, '1 minute')", "stands in GROUP BY, and elsewhere only as it stands there");
    bad("SELECT 1 FROM t GROUP BY window(ts)", "window(ts) is no window: write window(ts, '10 minutes')");
    bad("SELECT 1 FROM t GROUP BY window(ts, '10')", "the size of a window needs a unit: write '10 seconds'");
    bad("SELECT 1 FROM t GROUP BY window(ts, 'ten minutes')", "is no length of time");
    bad("SELECT 1 FROM t GROUP BY window(ts, 10)", "is written as INTERVAL");
    bad("SELECT 1 FROM t GROUP BY session_window(ts, '5 minutes', '1 minute')", "write session_window(ts, '5 minutes')");
    bad("SELECT lower(a) AS b FROM t GROUP BY b, session_window(ts, '5 minutes')", "that is an alias of SELECT");
    bad("SELECT 1 FROM t GROUP BY ROLLUP (a), session_window(ts, '5 minutes')", "one query for each grouping");
    bad("SELECT count(*) FROM t GROUP BY 1, session_window(ts, '5 minutes'), 7", "that place of SELECT holds no expression");
}

#[test]
fn clauses_of_a_view() {
    for clauses in [
        "EMIT EVERY INTERVAL '2 seconds' ALLOW LATENESS INTERVAL '1 minute' CLOSE AFTER INTERVAL '30' SECOND LATE DATA TO too_late",
        "LATE DATA TO Too_Late CLOSE AFTER INTERVAL '30 seconds' ALLOW LATENESS INTERVAL '1' MINUTE EMIT EVERY INTERVAL '2' SECOND",
        "allow lateness interval '60 seconds' emit every interval '2 seconds' late data to too_late close after interval '30 seconds'",
    ] {
        check(
            &format!("CREATE CONTINUOUS VIEW v AS SELECT a FROM t {clauses}"),
            "continuous v lateness=60s close-after=30s late-to=too_late every 2s: SELECT a FROM t",
        );
    }
    check(
        "CREATE CONTINUOUS VIEW v WITH (late_rows = 5) AS SELECT a FROM t ALLOW LATENESS INTERVAL '1 minute'",
        "continuous v late=5 lateness=60s emit?: SELECT a FROM t",
    );
    check("CREATE CONTINUOUS VIEW v AS SELECT a FROM t EMIT CHANGES CLOSE NEVER", "continuous v close-never changes: SELECT a FROM t");
    check("CREATE CONTINUOUS VIEW v AS SELECT a FROM t LATE DATA TO \"Odd one\" EMIT ON WINDOW CLOSE", "continuous v late-to=Odd one close: SELECT a FROM t");
    // Their words are names elsewhere.
    check(
        "CREATE CONTINUOUS VIEW v AS SELECT allow lateness, close after, late AS data FROM close after ALLOW LATENESS INTERVAL '1 minute'",
        "continuous v lateness=60s emit?: SELECT allow AS lateness, close AS after, late AS data FROM close after",
    );
    check("SELECT allow lateness FROM late data WHERE close = 1", "df SELECT allow AS lateness FROM late data WHERE close = 1");
    let wrong = |clauses: &str, message: &str| bad(&format!("CREATE CONTINUOUS VIEW v AS SELECT a FROM t {clauses}"), message);
    wrong("ALLOW LATENESS '1 minute'", "the length of ALLOW LATENESS is written as INTERVAL");
    wrong("ALLOW LATENESS INTERVAL '-1 minute'", "can't be negative");
    wrong("CLOSE AFTER INTERVAL '0 seconds'", "must be longer than nothing");
    wrong("CLOSE AFTER INTERVAL '1 month'", "has months");
    wrong("LATE DATA TO v", "LATE DATA TO needs a name of its own");
    wrong("LATE DATA TO x$late", "names that end in $late belong to");
    wrong("LATE DATA TO a, b", "expected the end of the statement");
    wrong("LATE DATA TO x LATE DATA TO y", "LATE stands twice");
    wrong("ALLOW LATENESS INTERVAL '1 minute' WHERE a = 1", "expected the end of the statement, found `WHERE`");
    bad(
        "CREATE CONTINUOUS VIEW v AS (SELECT a FROM t ALLOW LATENESS INTERVAL '1 minute')",
        "ALLOW stands at the end of the whole query, not inside of parentheses",
    );
}

#[test]
fn external_tables() {
    let text = "CREATE UNBOUNDED EXTERNAL TABLE IF NOT EXISTS Events (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
      STORED AS KAFKA LOCATION 'kafka://localhost:9092,other:9093/events' OPTIONS ('scan.startup.mode' 'latest', 'idle.timeout' = '5 s', properties.client.id me)";
    bad(text, "expected the value of 'properties.client.id'");
    let text = text.replace("client.id me", "client.id 'me'");
    check(&text, "source events if-not-exists: id Int64 [\"id\"], ts Timestamp(ns) [\"ts\"]; watermark ts - 5s");
    let def = declared(&text);
    assert_eq!((def.kafka.topic.as_str(), def.kafka.brokers.as_str(), &def.kafka.startup), ("events", "localhost:9092,other:9093", &Startup::Latest));
    assert_eq!((def.idle_timeout.as_secs(), def.kafka.properties["client.id"].as_str()), (5, "me"));
    assert_eq!(parse_definition(&text).unwrap().text(), text);
    let short = declared("CREATE EXTERNAL TABLE e (a INT) LOCATION 'KAFKA://b:1/t' STORED AS KAFKA");
    assert_eq!((short.kafka.brokers.as_str(), short.kafka.topic.as_str()), ("b:1", "t"));
    let wrong = |rest: &str, message: &str| bad(&format!("CREATE EXTERNAL TABLE e (a INT) STORED AS KAFKA {rest}"), message);
    wrong("", "source e says not where its records are: add LOCATION 'kafka://localhost:9092/topic'");
    wrong("LOCATION 'localhost:9092/t'", "a location is written");
    wrong("LOCATION 'kafka://localhost:9092'", "a location is written");
    wrong("LOCATION 'kafka://localhost:9092/a/b'", "'a/b' is no topic's name");
    wrong("LOCATION 'kafka://b:1/t' LOCATION 'kafka://b:1/t'", "has LOCATION twice");
    wrong("LOCATION 'kafka://b:1/t' OPTIONS (topic 'u')", "the option 'topic' is what LOCATION says");
    wrong("LOCATION 'kafka://b:1/t' OPTIONS (format 'xml')", "the format 'xml' is unknown");
    wrong("LOCATION 'kafka://b:1/t' OPTIONS (colour 'red')", "has no option 'colour'");
    wrong("LOCATION 'kafka://b:1/t' PARTITIONED BY (a)", "expected LOCATION, OPTIONS or the end of the statement");
    bad("CREATE OR REPLACE EXTERNAL TABLE e (a INT) STORED AS KAFKA LOCATION 'kafka://b:1/t'", "a source can't be replaced");
    bad("CREATE EXTERNAL TABLE e STORED AS KAFKA LOCATION 'kafka://b:1/t'", "expected `(`");
}

#[test]
fn reserved_names() {
    bad("SELECT __window_start(ts, INTERVAL '1 minute') FROM t", "names that begin with two underscores are reserved: `__window_start` at line 1, column 8");
    bad("SELECT \"__w\" FROM t", "are reserved");
    bad("SELECT t.__w FROM t", "are reserved");
    bad("SELECT 1 AS __x", "are reserved");
    bad("SET tidegate.__x = 1", "are reserved");
    check("SELECT '__w', _partition FROM t", "df SELECT '__w', _partition FROM t");
    assert!(parse_query("SELECT __window_start(ts, INTERVAL '1 minute') FROM t").is_ok());
}

#[test]
fn short_statements() {
    check("SHOW SOURCES", "show Sources");
    check("show views;", "show Views");
    check("SHOW TABLES", "show Tables");
    check("SHOW QUERIES", "show Queries");
    check("SHOW CREATE SOURCE events", "show create Some(Source) events");
    check("SHOW CREATE CONTINUOUS VIEW \"V\"", "show create Some(View) V");
    check("SHOW CREATE MATERIALIZED VIEW v", "show create Some(View) v");
    check("SHOW CREATE TABLE x", "show create None x");
    check("PAUSE VIEW v", "pause v");
    check("resume continuous view \"V w\"", "resume V w");
    bad("PAUSE SOURCE s", "expected VIEW");
    bad("PAUSE v", "expected VIEW");
    bad("RESUME VIEW a b", "expected the end of the statement");
    check("DROP SOURCE s RESTRICT", "drop Source s");
    check("DROP MATERIALIZED VIEW v CASCADE", "drop View v cascade");
    check("EXPLAIN VIEW v", "explain v");
    check("EXPLAIN CONTINUOUS VIEW v", "explain v");
    check("explain  CREATE CONTINUOUS VIEW v AS SELECT 1 EMIT CHANGES", "explain declared v changes: CREATE CONTINUOUS VIEW v AS SELECT 1 EMIT CHANGES");
    check("SET tidegate.device = 'gpu'", "set tidegate.device = gpu");
    check("SET Tidegate.Device TO cpu", "set tidegate.device = cpu");
    check("SET tidegate.x = -1", "set tidegate.x = -1");
    check("SHOW tidegate.device", "show setting tidegate.device");
    check("SET datafusion.execution.batch_size = 100", "df SET datafusion.execution.batch_size = 100");
    check("DROP TABLE x", "drop Table x");
    check("EXPLAIN ANALYZE SELECT 1", "df EXPLAIN ANALYZE SELECT 1");
    check("EXPLAIN ANALYZE VIEW v", "analyze v for 5s");
    check("explain analyze continuous view \"V\" for interval '10 seconds';", "analyze V for 10s");
    check("EXPLAIN ANALYZE MATERIALIZED VIEW v FOR INTERVAL '1' MINUTE", "analyze v for 60s");
    bad("EXPLAIN ANALYZE VIEW v FOR INTERVAL '0 seconds'", "must be longer than nothing and at most 10m");
    bad("EXPLAIN ANALYZE VIEW v FOR INTERVAL '1 hour'", "must be longer than nothing and at most 10m");
    bad("EXPLAIN ANALYZE VIEW v FOR 10", "INTERVAL");
    bad("EXPLAIN ANALYZE VIEW v WITH x", "expected the end of the statement");
    check("KILL QUERY 12", "kill 12");
    bad("KILL 12", "expected QUERY");
    bad("KILL QUERY 1.5", "a query has a whole number, not 1.5");
    bad("KILL QUERY all", "expected the number of a query");
    bad("KILL QUERY 1 2", "expected the end of the statement");
    check("EXPLAIN FORMAT TREE SELECT 1", "df EXPLAIN FORMAT tree SELECT 1");
    check("CREATE TABLE x AS SELECT 1", "table Refused x: SELECT 1");
    check("CREATE OR REPLACE TABLE x AS SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')", &format!("table Replaced x: SELECT * FROM {TUMBLED} AS t"));
    check("create table if not exists X (A int)", "table Left CREATE TABLE x (a INT)");
    check("DROP TABLE IF EXISTS x CASCADE", "drop Table x if-exists cascade");
    check(
        "INSERT INTO t SELECT 1, x, 1 UNION ALL SELECT NULL, NULL, a",
        "df INSERT INTO t SELECT 1, x, 1 AS \"__inserted_2\" UNION ALL SELECT NULL, NULL AS \"__inserted_1\", a",
    );
    check("UPDATE t SET A = 1, \"B\" = 2", "df UPDATE t SET \"a\" = 1, \"B\" = 2");
    assert!(matches!(parse_one("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/x.csv'"), Ok(Statement::DataFusion(_))));
    bad("SHOW SOURCES x", "expected the end of the statement, found `x`");
    bad("SHOW CREATE x", "expected SOURCE, VIEW, SINK, TABLE, CONNECTION or SECRET, found `x`");
    bad("DROP VIEW a, b", "one thing at a time");
    bad("DROP VIEW a b", "expected the end of the statement");
    bad("SET tidegate.x", "expected = and a value");
    bad("SET tidegate.x = (1)", "expected a value");
}

#[test]
fn parameters() {
    let marks = ["?"; 12].join(", ");
    let numbers: Vec<String> = (1..=12).map(|n| format!("${n}")).collect();
    check(&format!("SELECT {marks}"), &format!("df SELECT {}", numbers.join(", ")));
    check("SELECT '?' -- ?\n, ?", "df SELECT '?', $1");
    check("SELECT $2, $1", "df SELECT $2, $1");
    assert_eq!(parse("SELECT ?; SELECT ?").unwrap().iter().map(line).collect::<Vec<_>>(), ["df SELECT $1", "df SELECT $1"]);
    bad("SELECT ?, $2", "mixes ? and $n as parameters at line 1, column 11");
    bad("SELECT ?1", "a parameter is written ? or $1");
    bad("SELECT $name", "a parameter is written ? or $1");
    bad("SELECT $0", "a parameter is written ? or $1");
}

#[test]
fn syntax_errors() {
    bad("", "the statement is empty");
    bad(" ; -- nothing", "the statement is empty");
    bad("SELECT 1; SELECT 2", "one statement at a time is run here, not 2");
    bad("SELEC 1", "syntax error at line 1, column 1: expected an SQL statement, found `SELEC`; did you mean SELECT?");
    bad("SUBSCRIB x", "did you mean SUBSCRIBE?");
    bad("frobnicate", "syntax error at line 1, column 1: expected an SQL statement, found `frobnicate`");
    bad("SELECT *\nFROM t\nWHERE", "found the end of the statement");
    bad("SELECT 1\n  FROM t WHERE )", "syntax error at line 2, column 16: expected an expression, found `)`");
    bad("SELECT 'abc", "syntax error at line 1, column 8: Unterminated string literal");
    bad("SELECT \"abc", "syntax error at line 1, column 8");
    bad("SELECT 1 /* abc", "syntax error at line 1, column");
    bad("SELECT 1 1", "expected");
    bad(&format!("SELECT {}1{}", "(".repeat(200), ")".repeat(200)), "nested too deeply");
    bad(&format!("SELECT 1{}", " + 1".repeat(100_000)), "longer than 2000 words");
    bad(&format!("SELECT {}1{}", "(".repeat(40), format!("{})", " + 1".repeat(500)).repeat(40)), "longer than 2000 words");
    bad(&format!("SELECT 1 FROM t{}", ", t".repeat(300)), "can have 200 joins");
    bad(&format!("SELECT 1 FROM t{}", " CROSS JOIN t".repeat(300)), "can have 200 joins");
    assert!(parse_one(&format!("SELECT a FROM t WHERE a IN (1{}) AND b = 2", ", 1".repeat(50_000))).is_ok());
    assert!(parse_one(&format!("INSERT INTO t VALUES (1, 'a'){}", ", (1, 'a')".repeat(50_000))).is_ok());
    bad(&format!("SELECT 1{}", " UNION SELECT 1".repeat(1_000)), "can have 200 joins, UNION");
    bad("SELECT 1 /*! ; DROP */", "a comment that begins with /*! is code in MySQL");
    bad("SELECT é é é FROM", "at line 1, column 12");
}

#[test]
fn texts_are_split() {
    let text = "-- a; b\nSELECT ';', \"x;y\", $$a;b$$ ;; /* ; */ SELECT 'ü' -- c\n;\nSHOW VIEWS";
    assert_eq!(split(text).unwrap(), ["SELECT ';', \"x;y\", $$a;b$$", "SELECT 'ü'", "SHOW VIEWS"]);
    assert_eq!(split("").unwrap(), [""; 0]);
    assert!(split("SELECT 'a").is_err());
    assert_eq!(parse(text).unwrap().len(), 3);
    let error = parse("SELECT 1;\nSELECT 2;\n SELEC 3").unwrap_err().to_string();
    assert!(error.contains("at line 3, column 2"), "{error}");
}

/// The longest that may pass does pass, on the stack of a worker, from text to plan to the end of its life.
#[test]
fn the_longest_expressions_fit_the_stack() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let texts = [
        format!("SELECT value{} FROM generate_series(1, 2)", " + value".repeat(990)),
        format!("SELECT {}value{} FROM generate_series(1, 2)", "(".repeat(20), format!("{})", " + value".repeat(48)).repeat(20)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(200)),
        format!("SELECT 1 FROM generate_series(1, 2) t{}", (0..200).map(|n| format!(" CROSS JOIN (SELECT 1) t{n}")).collect::<String>()),
    ];
    for text in texts {
        let task = runtime.spawn(async move {
            let Statement::DataFusion(statement) = parse_one(&text).unwrap() else { panic!() };
            let _ = format!("{statement}");
            let Statement::CreateView { def, .. } = parse_one(&format!("CREATE VIEW v AS {text}")).unwrap() else { panic!() };
            let context = datafusion::prelude::SessionContext::new();
            context.sql(&def.query).await.unwrap().collect().await.unwrap().iter().map(|b| b.num_rows()).sum::<usize>()
        });
        assert!(runtime.block_on(task).unwrap() > 0);
    }
}

/// Queries of many kinds: kept as text they stay what they are.
const QUERIES: &[&str] = &[
    "SELECT window_start, a, count(*) FROM HOP(t, ts, INTERVAL '1 minute', INTERVAL '5' MINUTE) GROUP BY window_start, window_end, a",
    "SELECT * FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE, INTERVAL '-1' SECOND)) AS c",
    "SELECT * FROM SESSION(t PARTITION BY a, b, ts, INTERVAL '5 minutes') AS s JOIN u ON s.a = u.a",
    "SELECT window, session_window.end FROM t GROUP BY window(ts, '1 hour 30 minutes', '30 minutes') ORDER BY window",
    "SELECT session_window.end AS e, session_window, a FROM t WHERE b GROUP BY a, session_window(ts, '1 hour')",
    "SELECT a, count(*) FILTER (WHERE b = 'Pass') AS passes, sum(xg) FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY window_start, a HAVING count(*) > 1",
    "SELECT CASE WHEN a > 1 THEN 'x' ELSE NULL END, CAST(a AS DOUBLE), a::TEXT, a BETWEEN 1 AND 2, NOT a, -b, (a + b) * c FROM t",
    "SELECT s['x'], s.y.z, l[1], l[1:2], [1, 2], {'a': 1}, struct(1, 2), INTERVAL '1 day' + ts FROM t",
    "SELECT a.*, b.x AS \"Odd Name\" FROM a FULL JOIN b ON a.id = b.id AND a.x IS DISTINCT FROM b.x LEFT JOIN c USING (id) CROSS JOIN d",
    "SELECT * EXCLUDE (a) FROM t WHERE a IN (SELECT x FROM u) OR EXISTS (SELECT 1 FROM v WHERE v.a = t.a) ORDER BY a DESC NULLS LAST LIMIT 5 OFFSET 2",
    "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT DISTINCT n FROM x EXCEPT SELECT 3",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), lag(a) IGNORE NULLS OVER w FROM t WINDOW w AS (ORDER BY b)",
    "SELECT array_agg(a ORDER BY b DESC), percentile_cont(0.5) WITHIN GROUP (ORDER BY a), count(DISTINCT a) FROM t GROUP BY GROUPING SETS ((a), (b), ())",
    "SELECT 'it''s', E'a\\nb', X'00ff', 1e10, .5, TIMESTAMP '2024-01-01T00:00:00', DATE '2024-01-01', true, ts AT TIME ZONE 'UTC' FROM t",
    "SELECT extract(hour FROM ts), substring(a FROM 1 FOR 2), trim(BOTH ' ' FROM a), position('x' IN a), a LIKE 'b%' ESCAPE '!', a ~ 'x' FROM t",
    "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (n, s), LATERAL (SELECT n + 1) AS l, UNNEST([1, 2]) AS u (x)",
    "VALUES (1), (2)",
];

#[test]
fn kept_queries_read_back_as_they_were() {
    for query in QUERIES {
        let Statement::CreateView { def, .. } = parse_one(&format!("CREATE VIEW v AS {query}")).unwrap_or_else(|e| panic!("{query}\n{e}")) else { panic!() };
        assert_eq!(parse_query(&def.query).unwrap().to_string(), def.query);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Statements with parts moved, doubled, dropped and replaced: an answer or a sentence, never a panic.
    #[test]
    fn mutations_never_panic(which in 0..6_usize, edits in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,3}"), 1..6)) {
        let all = [
            column("a INT PATH '$.a.\"b\"', t TIMESTAMP FORMAT 'epoch_ms', s STRUCT<x INT, y ARRAY<TEXT>>, WATERMARK FOR t AS t - INTERVAL '5' SECOND"),
            "CREATE OR REPLACE CONTINUOUS VIEW v WITH (unbounded_state = true) AS SELECT a FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) EMIT ON WINDOW CLOSE".into(),
            "SELECT ?, $1, 'x' FROM TUMBLE(\"t$late\", ts, INTERVAL '1 hour') /* c */ EMIT CHANGES; SHOW CREATE VIEW v".into(),
            with("'scan.startup.mode' = 'offsets', 'scan.startup.offsets' = '0:1,1:2', idle.timeout = '3 seconds'"),
            "SET tidegate.device = 'gpu'; DROP VIEW IF EXISTS v CASCADE; EXPLAIN VIEW v; SUBSCRIBE TO (SELECT 1)".into(),
            QUERIES.join("; "),
        ];
        let mut chars: Vec<char> = all[which].chars().collect();
        for (kind, a, b, insert) in edits {
            if chars.is_empty() { break }
            let (a, b) = (a.index(chars.len()), b.index(chars.len()));
            let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 12));
            match kind {
                0 => { chars.drain(from..to); }
                1 => { let part: Vec<char> = chars[from..to].to_vec(); let at = b.min(chars.len()); chars.splice(at..at, part); }
                _ => { chars.splice(from..to, insert.chars()); }
            }
        }
        let text: String = chars.into_iter().collect();
        if let Ok(pieces) = split(&text) {
            for piece in pieces {
                // A piece is a statement of its own, with the same text.
                prop_assert_eq!(split(&piece).unwrap(), vec![piece.clone()]);
                let _ = parse_one(&piece);
            }
        }
        let _ = parse(&text);
        let _ = parse_query(&text);
    }

    #[test]
    fn any_text_is_answered(text in ".{0,60}") {
        let _ = parse(&text);
        let _ = path::parse(&text);
    }
}

/// From text through DataFusion to rows.
#[tokio::test]
async fn windows_agree_with_date_bin() {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, RecordBatch, TimestampNanosecondArray},
        datatypes::{Field, Schema, TimeUnit},
        util::pretty::pretty_format_batches,
    };
    use datafusion::{datasource::MemTable, prelude::SessionContext};

    let schema = Arc::new(Schema::new(vec![Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), true), Field::new("n", DataType::Int64, true)]));
    let times = (0..10_000_i64).map(|i| (i % 97 != 0).then(|| i * 7_919_000_000 - 40_000_000_000_000));
    let batch =
        RecordBatch::try_new(schema.clone(), vec![Arc::new(TimestampNanosecondArray::from_iter(times)), Arc::new(Int64Array::from_iter_values(0..10_000))])
            .unwrap();
    let mut context = SessionContext::new();
    tidegate_udfs::register(&mut context).unwrap();
    context.register_table("events", Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())).unwrap();
    let ours = [
        "SELECT window_start, window_end, count(*) AS c, sum(events.n) AS s FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start, window_end ORDER BY 1",
        "SELECT window_start, window_end, count(*) AS c, sum(n) AS s FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY 1, 2 ORDER BY 1",
        "WITH w AS (SELECT e.* FROM TUMBLE((SELECT * FROM events), ts, INTERVAL '60' SECOND) AS e)
         SELECT window_start, window_end, count(*) AS c, sum(n) AS s FROM w GROUP BY 1, 2 ORDER BY 1",
        "SELECT window_start, window_end, count(*) AS c, sum(n) AS s FROM TUMBLE((SELECT * FROM events), ts, INTERVAL '60' SECOND, INTERVAL '-2' HOUR) GROUP BY 1, 2 ORDER BY 1",
    ];
    let theirs = "SELECT date_bin(INTERVAL '1 minute', ts, TIMESTAMP '1970-01-01T00:00:00') AS window_start,
                         date_bin(INTERVAL '1 minute', ts, TIMESTAMP '1970-01-01T00:00:00') + INTERVAL '1 minute' AS window_end,
                         count(*) AS c, sum(n) AS s FROM events GROUP BY 1, 2 ORDER BY 1";
    let rows = async |text: &str| {
        let Statement::DataFusion(statement) = parse_one(text).unwrap() else { panic!("{text}") };
        let plan = context.state().statement_to_plan(*statement).await.unwrap_or_else(|e| panic!("{text}\n{e}"));
        pretty_format_batches(&context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()).unwrap().to_string()
    };
    let want = rows(theirs).await;
    assert!(want.lines().count() > 1_000);
    for text in ours {
        assert_eq!(rows(text).await, want, "{text}");
    }
    // Hopping windows by hand: each window's end joined with the rows that it holds.
    let ours = [
        "SELECT window_start, window_end, count(*) AS c, sum(n) AS s FROM HOP(events, ts, INTERVAL '5 minutes', INTERVAL '12 minutes', INTERVAL '1 minute') GROUP BY 1, 2 ORDER BY 1",
        "SELECT window.start AS window_start, window.end AS window_end, count(*) AS c, sum(n) AS s FROM events GROUP BY window(ts, '12 minutes', '5 minutes', '1 minute') ORDER BY window",
    ];
    let theirs = "SELECT ends.e - INTERVAL '12 minutes' AS window_start, ends.e AS window_end, count(*) AS c, sum(n) AS s
         FROM (SELECT to_timestamp(180 + 300 * value) AS e FROM generate_series(-200, 200)) AS ends
         JOIN events ON ts >= ends.e - INTERVAL '12 minutes' AND ts < ends.e GROUP BY 1, 2
         UNION ALL SELECT NULL, NULL, count(*), sum(n) FROM events WHERE ts IS NULL ORDER BY 1";
    let want = rows(theirs).await;
    assert!(want.lines().count() > 250);
    for text in ours {
        assert_eq!(rows(text).await, want, "{text}");
    }
    // Sessions by hand: a row opens one if nothing came within the gap before it.
    let ours = [
        "SELECT k, window_start, window_end, count(*) AS c FROM SESSION((SELECT *, n % 3 AS k FROM events WHERE n % 5 < 3) PARTITION BY k, ts, INTERVAL '16 seconds') GROUP BY 1, 2, 3 ORDER BY 1, 2",
        "SELECT k, session_window.start AS window_start, session_window.end AS window_end, count(*) AS c FROM (SELECT *, n % 3 AS k FROM events) AS x WHERE n % 5 < 3 \
         GROUP BY session_window(ts, '16 seconds'), k ORDER BY 1, 2",
    ];
    let theirs = "WITH x AS (SELECT ts, n % 3 AS k FROM events WHERE n % 5 < 3 AND ts IS NOT NULL),
              opened AS (SELECT *, CASE WHEN ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) < INTERVAL '16 seconds' THEN 0 ELSE 1 END AS opens FROM x),
              numbered AS (SELECT *, sum(opens) OVER (PARTITION BY k ORDER BY ts) AS session FROM opened)
         SELECT k, min(ts) AS window_start, max(ts) + INTERVAL '16 seconds' AS window_end, count(*) AS c FROM numbered GROUP BY k, session
         UNION ALL SELECT n % 3, NULL, NULL, count(*) FROM events WHERE n % 5 < 3 AND ts IS NULL GROUP BY 1 ORDER BY 1, 2";
    let want = rows(theirs).await;
    assert!(want.lines().count() > 100);
    for text in ours {
        assert_eq!(rows(text).await, want, "{text}");
    }
}

#[test]
fn sinks() {
    const TOPIC: &str = "topic = 't', 'bootstrap.servers' = 'b:9092'";
    let parsed = |text: &str| match parse_one(text) {
        Ok(Statement::CreateSink { def, .. }) => def,
        other => panic!("{text}: {other:?}"),
    };
    let kafka = |text: &str| match parsed(text).target {
        crate::catalog::SinkTarget::Kafka(sink) => sink,
        other => panic!("{text}: {other:?}"),
    };
    let whole = parsed(&format!("CREATE SINK IF NOT EXISTS S FROM \"V\" INTO KAFKA ({TOPIC}, max.lag.bytes = '1 MiB', snapshot = false)"));
    assert_eq!((whole.name.as_str(), whole.query.as_str(), whole.lag.max_bytes, whole.lag.snapshot), ("s", "SELECT * FROM \"V\"", 1 << 20, false));
    let some = kafka(&format!("CREATE SINK s INTO KAFKA ({TOPIC}, key = 'a, b', delivery = 'exactly_once') AS SELECT a, b FROM v"));
    assert_eq!(some.key, Some(vec!["a".to_string(), "b".to_string()]));
    assert_eq!(some.delivery, crate::catalog::Delivery::ExactlyOnce);
    assert_eq!(parsed(&format!("CREATE SINK s FROM e$errors INTO KAFKA ({TOPIC})")).errors_of.as_deref(), Some("e"));
    match parsed("CREATE SINK s FROM v INTO FOLDER ('/data/out/', partition_by = 'day', 'roll.interval' = '1 minute')").target {
        crate::catalog::SinkTarget::Folder(folder) => assert_eq!((folder.path.as_str(), folder.partition_by), ("/data/out", vec!["day".to_string()])),
        other => panic!("{other:?}"),
    }
    for (options, said) in [
        ("", "lacks the option 'topic'"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', delivrey = 'x'", "did you mean 'delivery'?"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', format = 'xml'", "'format' is 'json'"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', key = 'a,,b'", "a list of columns"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', key = 'a, a'", "names a twice"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', key = 'a, b', 'key.format' = 'text'", "a key of one column"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', 'transaction.timeout' = '1 minute'", "no effect"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', delivery = 'exactly_once', 'transaction.timeout' = '1 hour'", "15 minutes"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', delivery = 'exactly_once', 'when.behind' = 'restart'", "excludes"),
        ("topic = 't', 'bootstrap.servers' = 'b:9092', 'scan.startup.mode' = 'latest'", "is about reading"),
    ] {
        bad(&format!("CREATE SINK s INTO KAFKA ({options}) AS SELECT 1 FROM v"), said);
    }
    bad(&format!("CREATE SINK s INTO KAFKA ({TOPIC}) AS SELECT a FROM v EMIT CHANGES"), "leave out EMIT");
    bad(&format!("CREATE SINK s INTO KAFKA ({TOPIC}) AS SELECT a FROM v WHERE a = ?"), "can't have parameters");
    bad(&format!("CREATE SINK s FROM e$errors INTO KAFKA ({TOPIC}, key = 'a')"), "leave out 'key'");
    bad("CREATE SINK s INTO FILE ('/x') AS SELECT 1", "expected KAFKA or FOLDER");
    bad("CREATE SINK s FROM v INTO FOLDER ('/x', path = '/y')", "leave it out");
    bad("CREATE OR REPLACE SINK s FROM v INTO FOLDER ('/x')", "can't be replaced");
    check("DROP SINK IF EXISTS s", "drop Sink s if-exists");
    check("RESUME SINK s", "resume s");
}

#[test]
fn options_are_in_the_docs() {
    let docs = [include_str!("../../docs/sql.md"), include_str!("../../docs/formats.md"), include_str!("../../docs/kafka.md")].join("\n");
    let common: &[&str] = &create_sink::COMMON;
    let all = [
        create_source::OPTIONS,
        create_view::OPTIONS,
        &subscribe::OPTIONS,
        &create_sink::KAFKA,
        &create_sink::FOLDER,
        common,
        &kafka_properties::SECURITY_OPTIONS,
    ];
    for option in all.concat() {
        let option = if option == "properties." { "properties.…" } else { option };
        assert!(docs.contains(&format!("`{option}`")), "no document names the option {option}");
    }
}
