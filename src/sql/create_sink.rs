//! `CREATE SINK [IF NOT EXISTS] name INTO KAFKA | FOLDER (…) AS query`, and `CREATE SINK … FROM view INTO …`.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{Statement, clauses, clauses::Clauses, cursor::Cursor, kafka_options, names, options::Options, query, syntax};
use crate::{
    catalog::{Delivery, Envelope, FolderSink, KafkaSink, KeyFormat, LagOptions, SinkDef, SinkTarget},
    error::{Error, Result},
};

/// Options of every sink.
pub(super) const COMMON: [&str; 4] = ["max.lag.bytes", "when.behind", "commit.interval", "snapshot"];
pub(super) const KAFKA: [&str; 10] =
    ["topic", "connection", "bootstrap.servers", "format", "key", "key.format", "envelope", "delivery", "transaction.timeout", "properties."];
pub(super) const FOLDER: [&str; 6] = ["path", "format", "partition_by", "roll.interval", "roll.rows", "envelope"];
/// What says where reading starts.
const READING: [&str; 7] =
    ["scan.startup.mode", "scan.startup.offsets", "scan.startup.timestamp", "on.data.loss", "on_data_loss", "max.records.per.second", "max.bytes.per.second"];
/// What exactly-once and the order of records rest on.
const OWN: [&str; 7] =
    ["transactional.id", "transaction.timeout.ms", "enable.idempotence", "acks", "request.required.acks", "max.in.flight.requests.per.connection", "group.id"];

/// Changes that wait for a sink take at most so much.
const MAX_LAG: usize = 256 << 20;
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// More than brokers allow by default.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(900);
const ROLL_ROWS: usize = 1 << 20;

/// Parses what follows `CREATE SINK`.
pub(super) fn parse(mut cursor: Cursor, text: String, has_parameters: bool) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of the sink")?;
    names::check_new("a sink", &name)?;
    let owner = format!("sink {name}");
    if has_parameters {
        return Err(Error::Invalid(format!("{owner}: a sink can't have parameters like ? or $1: write the value")));
    }
    let from = cursor.take(&["FROM"]).then(|| cursor.identifier("the name of a view")).transpose()?;
    if !cursor.take(&["INTO"]) {
        return Err(syntax::expected("INTO KAFKA (…) or INTO FOLDER (…)", cursor.peek()));
    }
    let kafka = cursor.take(&["KAFKA"]);
    if !kafka && !cursor.take(&["FOLDER"]) {
        return Err(syntax::expected("KAFKA or FOLDER", cursor.peek()));
    }
    let mut options = match kafka {
        true => Options::parse(&owner, &mut cursor)?,
        false => folder_options(&owner, &mut cursor)?,
    };
    let mut errors_of = None;
    let query = match from {
        Some(view) => {
            cursor.end()?;
            errors_of = names::fold(&view).strip_suffix("$errors").map(String::from);
            format!("SELECT * FROM {view}")
        }
        None => {
            if !cursor.take(&["AS"]) {
                return Err(syntax::expected("AS and the sink's query", cursor.peek()));
            }
            let mut tokens = cursor.rest();
            if clauses::take(&mut tokens)? != Clauses::default() {
                return Err(Error::Invalid(format!("{owner}: a sink is given what its view emits: leave out EMIT and what belongs to it")));
            }
            query::rewritten(tokens)?
        }
    };
    if errors_of.is_some()
        && let Some(said) = options.any_of(&["format", "key", "key.format", "envelope", "delivery", "transaction.timeout", "snapshot", "when.behind", "path"])
    {
        return Err(Error::Invalid(format!("{owner}: bad records are written to a topic as they were, with their keys, at least once: leave out '{said}'")));
    }
    let lag = lag(&owner, &mut options)?;
    let target = match kafka {
        true => SinkTarget::Kafka(Box::new(kafka_sink(&owner, &mut options, lag)?)),
        false if lag.restart => {
            return Err(Error::Invalid(format!("{owner}: 'when.behind' = 'restart' writes rows a second time, and a folder has each once: leave it out")));
        }
        false => SinkTarget::Folder(folder_sink(&owner, &mut options)?),
    };
    let known: Vec<&str> = if kafka { KAFKA.as_slice() } else { FOLDER.as_slice() }.iter().chain(&COMMON).copied().collect();
    options.finish(&known)?;
    Ok(Statement::CreateSink { def: SinkDef { name, query, errors_of, target, lag, text }, if_not_exists })
}

/// `('folder', option = value, …)`: the place may stand first, without its name.
fn folder_options(owner: &str, cursor: &mut Cursor) -> Result<Options> {
    let named = matches!(cursor.parser.peek_nth_token_ref(2).token, Token::Eq | Token::Period);
    if cursor.peek().token != Token::LParen || named {
        return Options::parse(owner, cursor);
    }
    cursor.expect_token(&Token::LParen)?;
    let path = cursor.text("the folder, like '/data/out'")?;
    let mut options = match cursor.take_token(&Token::Comma) {
        true => Options::parse_rest(owner, cursor)?,
        false => {
            cursor.expect_token(&Token::RParen)?;
            Options::new(owner)
        }
    };
    options.add("path", path, "the text at the beginning")?;
    Ok(options)
}

fn lag(owner: &str, options: &mut Options) -> Result<LagOptions> {
    let restart = match options.take("when.behind").map(|said| said.to_ascii_lowercase()).as_deref() {
        None | Some("fail") => false,
        Some("restart") => true,
        Some(other) => return Err(Error::Invalid(format!("{owner}: 'when.behind' is 'fail' or 'restart', not '{other}'"))),
    };
    Ok(LagOptions {
        max_bytes: options.take_size("max.lag.bytes")?.unwrap_or(MAX_LAG),
        restart,
        commit_interval: options.take_duration("commit.interval")?.unwrap_or(COMMIT_INTERVAL),
        snapshot: options.take_bool("snapshot")?.unwrap_or(true),
    })
}

fn kafka_sink(owner: &str, options: &mut Options, lag: LagOptions) -> Result<KafkaSink> {
    if let Some(reading) = options.any_of(&READING) {
        return Err(Error::Invalid(format!("{owner}: '{reading}' is about reading, and a sink writes: leave it out")));
    }
    let kafka = kafka_options::parse(owner, options)?;
    if let Some(own) = OWN.iter().find(|own| kafka.properties.contains_key(**own)) {
        return Err(Error::Invalid(format!(
            "{owner}: the property '{own}' is the sink's own: leave it out, and say 'delivery' = 'exactly_once' for transactions"
        )));
    }
    format(owner, options, "json")?;
    let key = options.take("key").map(|key| columns(owner, "key", &key)).transpose()?;
    let key_format = match options.take("key.format").map(|said| said.to_ascii_lowercase()).as_deref() {
        None | Some("json") => KeyFormat::Json,
        Some("text") => KeyFormat::Text,
        Some(other) => return Err(Error::Invalid(format!("{owner}: 'key.format' is 'json' or 'text', not '{other}'"))),
    };
    if key_format == KeyFormat::Text && key.as_ref().is_some_and(|key| key.len() != 1) {
        return Err(Error::Invalid(format!("{owner}: 'key.format' = 'text' is for a key of one column: write 'json', or name one column")));
    }
    let delivery = match options.take("delivery").map(|said| said.to_ascii_lowercase()).as_deref() {
        None | Some("at_least_once") => Delivery::AtLeastOnce,
        Some("exactly_once") => Delivery::ExactlyOnce,
        Some(other) => return Err(Error::Invalid(format!("{owner}: 'delivery' is 'at_least_once' or 'exactly_once', not '{other}'"))),
    };
    if delivery == Delivery::ExactlyOnce && lag.restart {
        return Err(Error::Invalid(format!(
            "{owner}: 'when.behind' = 'restart' writes rows a second time, which 'delivery' = 'exactly_once' excludes: leave one out"
        )));
    }
    let transaction_timeout = options.take_duration("transaction.timeout")?;
    if let Some(timeout) = transaction_timeout {
        if delivery == Delivery::AtLeastOnce {
            return Err(Error::Invalid(format!("{owner}: 'transaction.timeout' has no effect without 'delivery' = 'exactly_once': add that, or leave it out")));
        }
        if timeout < Duration::from_secs(1) || timeout > LONGEST_TRANSACTION {
            return Err(Error::Invalid(format!("{owner}: 'transaction.timeout' is from '1 second' to '15 minutes', which is what brokers allow")));
        }
    }
    let transaction_timeout = transaction_timeout.unwrap_or(TRANSACTION_TIMEOUT);
    Ok(KafkaSink { kafka, key, key_format, envelope: envelope(owner, options)?, delivery, transaction_timeout })
}

fn folder_sink(owner: &str, options: &mut Options) -> Result<FolderSink> {
    let path = options.require("path", "/data/out")?;
    format(owner, options, "parquet")?;
    let partition_by = options.take("partition_by").map(|said| columns(owner, "partition_by", &said)).transpose()?.unwrap_or_default();
    let roll_rows = options.take_count("roll.rows")?.unwrap_or(ROLL_ROWS);
    if roll_rows == 0 {
        return Err(Error::Invalid(format!("{owner}: 'roll.rows' is a whole number from 1")));
    }
    Ok(FolderSink {
        path: path.trim_end_matches('/').into(),
        partition_by,
        roll_interval: options.take_duration("roll.interval")?.unwrap_or_default(),
        roll_rows,
        envelope: envelope(owner, options)?,
    })
}

fn format(owner: &str, options: &mut Options, only: &str) -> Result<()> {
    match options.take("format") {
        Some(said) if !said.eq_ignore_ascii_case(only) => Err(Error::Unsupported(format!("{owner}: 'format' is '{only}', not '{said}'"))),
        _ => Ok(()),
    }
}

fn envelope(owner: &str, options: &mut Options) -> Result<Envelope> {
    match options.take("envelope").map(|said| said.to_ascii_lowercase()).as_deref() {
        None | Some("rows") => Ok(Envelope::Rows),
        Some("changes") => Ok(Envelope::Changes),
        Some(other) => Err(Error::Invalid(format!("{owner}: 'envelope' is 'rows' or 'changes', not '{other}'"))),
    }
}

/// Names in a text, between commas.
fn columns(owner: &str, option: &str, said: &str) -> Result<Vec<String>> {
    let named: Vec<String> = said.split(',').map(|name| name.trim().to_string()).collect();
    if named.iter().any(String::is_empty) && !said.trim().is_empty() {
        return Err(Error::Invalid(format!("{owner}: '{option}' is a list of columns like 'a, b', not '{said}'")));
    }
    let named: Vec<String> = named.into_iter().filter(|name| !name.is_empty()).collect();
    match named.iter().enumerate().find(|(at, name)| named[..*at].contains(name)) {
        Some((_, twice)) => Err(Error::Invalid(format!("{owner}: '{option}' names {twice} twice: leave one out"))),
        None => Ok(named),
    }
}
