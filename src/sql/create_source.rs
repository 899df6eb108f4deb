//! `CREATE SOURCE [IF NOT EXISTS] name (columns, PRIMARY KEY …, WATERMARK …) WITH (…)`.

use std::time::Duration;

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::sql::sqlparser::{
    ast::{BinaryOperator, Expr},
    tokenizer::Token,
};

use super::{
    OpenColumns, SourceDraft, Statement,
    cursor::Cursor,
    dead_letters,
    format_options::{self, KeyWanted, Wanted},
    interval, kafka_options, names,
    options::Options,
    path, syntax, types,
};
use crate::{
    catalog::{ColumnDef, Format, HeaderFilter, KeyDef, KeyFormat, Metadata, Origin, SourceDef, TimeFormat, WatermarkDef},
    error::{Error, Result},
};

const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_FUTURE_SKEW: Duration = Duration::from_secs(86_400);
const MAX_DRIFT: Duration = Duration::from_secs(3_600);
const ERROR_ROWS: usize = 100_000;
pub(super) const OPTIONS: &[&str] = &[
    "connector",
    "topic",
    "bootstrap.servers",
    "connection",
    "format",
    "avro.schema",
    "protobuf.schema",
    "protobuf.descriptor",
    "protobuf.message",
    "protobuf.framing",
    "csv.delimiter",
    "csv.quote",
    "csv.null",
    "schema.registry.subject",
    "key.format",
    "key.avro.schema",
    "key.protobuf.schema",
    "key.protobuf.descriptor",
    "key.protobuf.message",
    "key.protobuf.framing",
    "key.schema.registry.subject",
    "schema.registry.url",
    "schema.registry.username",
    "schema.registry.password",
    "schema.registry.basic.auth.user.info",
    "scan.startup.mode",
    "scan.startup.offsets",
    "scan.startup.timestamp",
    "idle.timeout",
    "max.future.skew",
    "max.drift",
    "headers.filter",
    "errors.retention.rows",
    "on.data.loss",
    "max.records.per.second",
    "max.bytes.per.second",
    "properties.…",
];

/// Parses what follows `CREATE SOURCE`.
pub(super) fn parse(mut cursor: Cursor, text: String) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of the source")?;
    names::check_new("a source", &name)?;
    let owner = format!("source {name}");
    let declared = match cursor.at(&["WITH"]) {
        true => Declared::default(),
        false => columns(&owner, &mut cursor)?,
    };
    if !cursor.at(&["WITH"]) {
        return Err(syntax::expected("WITH (connector = 'kafka', topic = '…', …)", cursor.peek()));
    }
    cursor.expect(&["WITH"])?;
    let options = Options::parse(&owner, &mut cursor)?;
    let letters = dead_letters::take(&name, &text, &options, &mut cursor)?;
    cursor.end()?;
    match letters {
        None => source(name, declared, options, text, if_not_exists),
        Some((text, sink)) => {
            let source = Box::new(source(name, declared, options, text, if_not_exists)?);
            Ok(Statement::SourceAndSink { source, sink })
        }
    }
}

/// What stands between the parentheses of a source.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// None: they are to be found out.
    columns: Vec<ColumnDef>,
    /// `*`: with these, all that can be found out.
    all: bool,
    /// The names of the key's columns; none if there is no key.
    key: Vec<String>,
    watermark: Option<WatermarkDef>,
}

/// The source that columns and options declare, or what is to be found out first.
pub(super) fn source(name: String, declared: Declared, mut options: Options, text: String, if_not_exists: bool) -> Result<Statement> {
    let owner = format!("source {name}");
    let Declared { columns, all, key, watermark } = declared;
    let is_open = all || columns.is_empty();
    let connector = options.require("connector", "kafka")?;
    if !connector.eq_ignore_ascii_case("kafka") {
        return Err(Error::Unsupported(format!("{owner}: the connector '{connector}' is unknown: write connector = 'kafka'")));
    }
    let mut kafka = kafka_options::parse(&owner, &mut options)?;
    let formats = format_options::parse(&owner, &mut kafka, &mut options)?;
    let mut duration = |key: &str, default| match options.take(key) {
        Some(text) => interval::option(&format!("{owner}: '{key}'"), &text),
        None => Ok(default),
    };
    let idle_timeout = duration("idle.timeout", IDLE_TIMEOUT)?;
    let max_future_skew = duration("max.future.skew", MAX_FUTURE_SKEW)?;
    let max_drift = duration("max.drift", MAX_DRIFT)?;
    let error_rows = options.take_count("errors.retention.rows")?.unwrap_or(ERROR_ROWS);
    let header_filter = options.take("headers.filter").map(|said| header_filter(&owner, &said)).transpose()?;
    options.finish(OPTIONS)?;

    let mut schemas = vec![];
    let format = match formats.value {
        Wanted::Known(format) => Some(format),
        Wanted::Schema(wanted) => {
            schemas.push(wanted);
            None
        }
    };
    let key_format = match formats.key {
        None => Some(None),
        Some(KeyWanted::Known(format)) => Some(Some(format)),
        Some(KeyWanted::Schema(wanted)) => {
            schemas.push(wanted);
            None
        }
    };
    let (Some(format), Some(key_format), false) = (format.clone(), key_format.clone(), is_open) else {
        let open = is_open.then(|| OpenColumns {
            format,
            key_format: key_format.flatten(),
            declared: columns.into_iter().map(|column| column.name).collect(),
            key,
            subject: formats.columns_at,
            header_filter,
        });
        return Ok(Statement::DraftSource(SourceDraft { name, if_not_exists, schemas, open, kafka, text }));
    };
    if let Some(watermark) = &watermark {
        check_watermark(&owner, &columns, watermark)?;
    }
    let key = key_positions(&owner, &columns, &key, watermark.as_ref())?;
    let key = key_def(&owner, key, key_format)?;
    if format == Format::DebeziumJson && key.is_none() {
        return Err(Error::Invalid(format!(
            "{owner}: format = 'debezium_json' says how rows of a table change, so it needs to know what names a row: add PRIMARY KEY (…) with the columns of the \
             table's key; to read the events themselves write format = 'json'"
        )));
    }
    let def = SourceDef { name, columns, key, watermark, kafka, format, header_filter, idle_timeout, max_future_skew, max_drift, error_rows, text };
    Ok(Statement::CreateSource { def, if_not_exists })
}

/// `'name=value'`.
fn header_filter(owner: &str, said: &str) -> Result<HeaderFilter> {
    match said.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(HeaderFilter { name: name.into(), value: value.as_bytes().to_vec() }),
        _ => Err(Error::Invalid(format!("{owner}: 'headers.filter' is a header's name and value, 'name=value', not '{said}'"))),
    }
}

fn key_def(owner: &str, columns: Vec<usize>, format: Option<KeyFormat>) -> Result<Option<KeyDef>> {
    if columns.is_empty() {
        return match format {
            None => Ok(None),
            Some(_) => Err(Error::Invalid(format!("{owner}: 'key.format' has no effect without PRIMARY KEY (…): add that, or leave the option out"))),
        };
    }
    if format == Some(KeyFormat::Text) && columns.len() > 1 {
        return Err(Error::Invalid(format!("{owner}: 'key.format' = 'text' is for a key of one column, this one has {}", columns.len())));
    }
    Ok(Some(KeyDef { columns, format: format.unwrap_or_default() }))
}

/// Reads `(columns [, PRIMARY KEY (…)] [, WATERMARK FOR …])`.
pub(super) fn columns(owner: &str, cursor: &mut Cursor) -> Result<Declared> {
    let mut columns: Vec<ColumnDef> = vec![];
    let (mut all, mut key, mut watermark) = (false, None, None);
    let mut set_key = |names: Vec<String>| match key.replace(names) {
        None => Ok(()),
        Some(_) => Err(Error::Invalid(format!("{owner} declares two primary keys: write PRIMARY KEY (a, b) once for a key of several columns"))),
    };
    cursor.expect_token(&Token::LParen)?;
    if cursor.take_token(&Token::RParen) {
        return Ok(Declared::default());
    }
    loop {
        if cursor.take(&["WATERMARK", "FOR"]) {
            if watermark.is_some() {
                return Err(Error::Invalid(format!("{owner} declares two watermarks: leave one out")));
            }
            watermark = Some(watermark_clause(owner, cursor)?);
        } else if cursor.take(&["PRIMARY", "KEY"]) {
            set_key(key_clause(cursor)?)?;
        } else if cursor.take_token(&Token::Mul) {
            if std::mem::replace(&mut all, true) {
                return Err(Error::Invalid(format!("{owner} has * twice among its columns: leave one out")));
            }
        } else {
            let (column, is_key) = column(owner, cursor)?;
            if columns.iter().any(|c| c.name == column.name) {
                return Err(Error::Invalid(format!("{owner} declares the column {} twice: rename or leave out one", column.name)));
            }
            if is_key {
                set_key(vec![column.name.clone()])?;
            }
            columns.push(column);
        }
        if cursor.take_token(&Token::RParen) {
            break;
        }
        if !cursor.take_token(&Token::Comma) {
            return Err(syntax::expected("a comma or ) after a column", cursor.peek()));
        }
    }
    Ok(Declared { columns, all, key: key.unwrap_or_default(), watermark })
}

/// What follows `PRIMARY KEY` of a source.
fn key_clause(cursor: &mut Cursor) -> Result<Vec<String>> {
    cursor.expect_token(&Token::LParen)?;
    let mut names = vec![];
    loop {
        names.push(names::fold(&cursor.identifier("a column of the primary key")?));
        if cursor.take_token(&Token::RParen) {
            break;
        }
        if !cursor.take_token(&Token::Comma) {
            return Err(syntax::expected("a comma or ) after a column of the primary key", cursor.peek()));
        }
    }
    // The standard's words for a key that nobody checks, as peers ask for them.
    cursor.take(&["NOT", "ENFORCED"]);
    Ok(names)
}

fn key_positions(owner: &str, columns: &[ColumnDef], names: &[String], watermark: Option<&WatermarkDef>) -> Result<Vec<usize>> {
    let mut positions = vec![];
    for name in names {
        let Some(position) = columns.iter().position(|column| column.name == *name) else {
            return Err(Error::Invalid(format!("{owner} has the primary key column {name}, which it doesn't declare: add it to its columns")));
        };
        let column = &columns[position];
        let wrong = if positions.contains(&position) {
            Some("stands in it twice: leave it out once".to_string())
        } else if !matches!(column.origin, Origin::Payload { .. }) {
            Some("is METADATA: leave that out, the columns of a primary key are read from the record's key ('key.format' = 'text' takes it as it is)".into())
        } else if column.data_type.is_nested() {
            Some(format!("is {}: declare one of a plain type, or read a part of it with PATH", column.data_type))
        } else if watermark.is_some_and(|watermark| watermark.column == *name) {
            Some("is the watermark's, too: a key stands still while time goes on, so take another column for one of them".into())
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(Error::Invalid(format!("{owner}: primary key column {name} {wrong}")));
        }
        positions.push(position);
    }
    positions.sort_unstable();
    Ok(positions)
}

/// A column, and whether it is declared as the primary key.
pub(super) fn column(owner: &str, cursor: &mut Cursor) -> Result<(ColumnDef, bool)> {
    let name = names::fold(&cursor.identifier("the name of a column, PRIMARY KEY or WATERMARK FOR")?);
    names::check_characters(&format!("{owner}: a column"), &name)?;
    let what = format!("{owner}, column {name}");
    let data_type = types::parse(cursor)?;
    let mut is_key = primary_key(&what, cursor, false)?;
    if cursor.take(&["METADATA"]) {
        let metadata = match cursor.take(&["FROM"]) {
            true => cursor.text("what the metadata is of: 'partition', 'offset', 'timestamp', 'key', 'headers', 'header.name' or 'unknown'")?,
            // Flink's short form: the column has the metadata's name.
            false => name.clone(),
        };
        is_key = primary_key(&what, cursor, is_key)?;
        let (origin, data_type) = metadata_column(&what, &metadata, data_type)?;
        return Ok((ColumnDef { name, data_type, origin }, is_key));
    }
    let (mut path, mut format, mut zone) = (None, None, None);
    loop {
        let clause = if cursor.take(&["PATH"]) {
            (&mut path, "PATH", "a path like '$.type.name'")
        } else if cursor.take(&["FORMAT"]) {
            (&mut format, "FORMAT", "'rfc3339', 'epoch_s', 'epoch_ms' or 'epoch_us'")
        } else if cursor.take(&["TIMEZONE"]) {
            (&mut zone, "TIMEZONE", "a zone like 'Europe/Madrid'")
        } else if cursor.at(&["PRIMARY", "KEY"]) {
            is_key = primary_key(&what, cursor, is_key)?;
            continue;
        } else {
            break;
        };
        let (value, word, example) = clause;
        if value.replace(cursor.text(example)?).is_some() {
            return Err(Error::Invalid(format!("{what} has {word} twice: leave one out")));
        }
    }
    if cursor.at(&["NOT", "NULL"]) || cursor.at(&["NULL"]) || cursor.at(&["UNIQUE"]) || cursor.at(&["DEFAULT"]) {
        return Err(Error::Unsupported(format!(
            "{what}: a column takes no constraint (but PRIMARY KEY) or default, any may be NULL{}: leave that out, and filter in a view",
            syntax::place(cursor.peek())
        )));
    }
    let path = match path {
        Some(text) => path::parse(&text).map_err(|e| Error::Invalid(format!("{what}: {e}")))?,
        None => vec![name.clone()],
    };
    let time = time_format(&what, &data_type, format, zone)?;
    Ok((ColumnDef { name, data_type, origin: Origin::Payload { path, time } }, is_key))
}

/// Takes `PRIMARY KEY [NOT ENFORCED]` behind a column, if it comes next and was not there before.
fn primary_key(what: &str, cursor: &mut Cursor, before: bool) -> Result<bool> {
    if !cursor.take(&["PRIMARY", "KEY"]) {
        return Ok(before);
    }
    cursor.take(&["NOT", "ENFORCED"]);
    match before {
        true => Err(Error::Invalid(format!("{what} has PRIMARY KEY twice: leave one out"))),
        false => Ok(true),
    }
}

fn time_format(what: &str, data_type: &DataType, format: Option<String>, zone: Option<String>) -> Result<TimeFormat> {
    if !matches!(data_type, DataType::Timestamp(..)) {
        return match (format, zone) {
            (None, None) => Ok(TimeFormat::default()),
            _ => Err(Error::Invalid(format!("{what}: FORMAT and TIMEZONE are for TIMESTAMP columns: leave them out, or declare it as TIMESTAMP"))),
        };
    }
    match (format.map(|f| f.to_ascii_lowercase()).as_deref(), zone) {
        (None, None) | (Some("rfc3339"), None) => Ok(TimeFormat::Rfc3339),
        (Some("epoch_s"), None) => Ok(TimeFormat::EpochSeconds),
        (Some("epoch_ms"), None) => Ok(TimeFormat::EpochMillis),
        (Some("epoch_us"), None) => Ok(TimeFormat::EpochMicros),
        (Some(other), None) => Err(Error::Invalid(format!("{what}: FORMAT is 'rfc3339', 'epoch_s', 'epoch_ms' or 'epoch_us', not '{other}'"))),
        (Some(format), Some(_)) => {
            Err(Error::Invalid(format!("{what}: TIMEZONE is for text without an offset, FORMAT '{format}' has its own: leave one of them out")))
        }
        (None, Some(zone)) => match zone.parse() {
            Ok(zone) => Ok(TimeFormat::Local(zone)),
            Err(_) => Err(Error::Invalid(format!("{what}: '{zone}' is no time zone: write a name of the IANA list, like 'Europe/Madrid' or 'UTC'"))),
        },
    }
}

fn metadata_column(what: &str, metadata: &str, data_type: DataType) -> Result<(Origin, DataType)> {
    if let Some(header) = metadata.strip_prefix("header.") {
        return match data_type {
            _ if header.is_empty() => Err(Error::Invalid(format!("{what}: METADATA FROM 'header.' lacks the header's name: write it behind the dot"))),
            DataType::Utf8View | DataType::Binary => Ok((Origin::Header(header.into()), data_type)),
            other => Err(Error::Invalid(format!("{what}: METADATA FROM '{metadata}' is TEXT or BYTEA, not {other}"))),
        };
    }
    if metadata.eq_ignore_ascii_case("unknown") {
        return match data_type {
            DataType::Utf8View => Ok((Origin::Unknown, data_type)),
            other => Err(Error::Invalid(format!("{what}: METADATA FROM 'unknown' is TEXT, not {other}"))),
        };
    }
    let (metadata, fits, spelling) = match metadata.to_ascii_lowercase().as_str() {
        "partition" => (Metadata::Partition, matches!(data_type, DataType::Int32 | DataType::Int64), "INT or BIGINT"),
        "offset" => (Metadata::Offset, data_type == DataType::Int64, "BIGINT"),
        "timestamp" => (Metadata::Timestamp, matches!(data_type, DataType::Timestamp(..)), "TIMESTAMP"),
        "key" => (Metadata::Key, matches!(data_type, DataType::Utf8View | DataType::Binary), "TEXT or BYTEA"),
        "headers" => {
            let declared = headers(DataType::Utf8View);
            // The names and values of headers are copied, not views into the payload's buffer, so their text is plain.
            let read = headers(DataType::Utf8);
            return match data_type == declared {
                true => Ok((Origin::Metadata(Metadata::Headers), read)),
                false => Err(Error::Invalid(format!("{what}: METADATA FROM 'headers' is ARRAY<STRUCT<key TEXT, value BYTEA>>, not {data_type}"))),
            };
        }
        other => {
            return Err(Error::Invalid(format!(
                "{what}: METADATA is FROM 'partition', 'offset', 'timestamp', 'key', 'headers', 'header.name' or 'unknown', not '{other}'"
            )));
        }
    };
    match fits {
        true => Ok((Origin::Metadata(metadata), data_type)),
        false => Err(Error::Invalid(format!("{what}: METADATA FROM '{}' is {spelling}, not {data_type}", format!("{metadata:?}").to_lowercase()))),
    }
}

fn headers(text: DataType) -> DataType {
    let fields = Fields::from(vec![Field::new("key", text, true), Field::new("value", DataType::Binary, true)]);
    DataType::new_list(DataType::Struct(fields), true)
}

/// What follows `WATERMARK FOR`.
fn watermark_clause(owner: &str, cursor: &mut Cursor) -> Result<WatermarkDef> {
    let column = names::fold(&cursor.identifier("the watermark's column")?);
    cursor.expect(&["AS"])?;
    let expr = cursor.expression()?;
    let form = || {
        Error::Invalid(format!(
            "{owner}: a watermark is written WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND (or AS {column} alone), not AS {expr}"
        ))
    };
    let (named, bound) = match &expr {
        Expr::Identifier(named) => (named, 0),
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } => match left.as_ref() {
            Expr::Identifier(named) => (named, interval::literal_ns(&format!("{owner}: the watermark's bound"), right)?),
            _ => return Err(form()),
        },
        _ => return Err(form()),
    };
    if names::fold(named) != column {
        return Err(form());
    }
    let Ok(bound) = u64::try_from(bound) else {
        return Err(Error::Invalid(format!("{owner}: the watermark's bound can't be negative, it would run ahead of the events: write a positive INTERVAL")));
    };
    Ok(WatermarkDef { column, bound: Duration::from_nanos(bound) })
}

fn check_watermark(owner: &str, columns: &[ColumnDef], watermark: &WatermarkDef) -> Result<()> {
    let name = &watermark.column;
    match columns.iter().find(|c| c.name == *name) {
        None => Err(Error::Invalid(format!("{owner} has a watermark on {name}, which it doesn't declare: add {name} TIMESTAMP to its columns"))),
        Some(column) if !matches!(column.data_type, DataType::Timestamp(..)) => {
            Err(Error::Invalid(format!("{owner} has a watermark on {name}, which is {}: declare it as TIMESTAMP", column.data_type)))
        }
        Some(_) => Ok(()),
    }
}
