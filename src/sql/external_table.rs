//! `CREATE [UNBOUNDED] EXTERNAL TABLE [IF NOT EXISTS] name (columns) STORED AS KAFKA LOCATION 'kafka://host:9092/topic' [OPTIONS (…)]`:
//! a source in the words of DataFusion's users. All other external tables are DataFusion's.

use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use super::{
    Statement, create_source,
    cursor::{Cursor, is_word},
    names,
    options::Options,
    syntax,
};
use crate::error::{Error, Result};

const LOCATION: &str = "LOCATION 'kafka://localhost:9092/topic'";

/// Whether a statement says `STORED AS KAFKA`.
pub(super) fn is_kafka(tokens: &[TokenWithSpan]) -> bool {
    tokens.windows(3).any(|words| ["STORED", "AS", "KAFKA"].iter().zip(words).all(|(word, token)| is_word(&token.token, word)))
}

/// Parses what follows `CREATE [UNBOUNDED] EXTERNAL TABLE` where [`is_kafka`].
pub(super) fn parse(mut cursor: Cursor, text: String) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of the table")?;
    names::check_new("a source", &name)?;
    let owner = format!("source {name}");
    let declared = create_source::columns(&owner, &mut cursor)?;
    let (mut location, mut options) = (None, None);
    loop {
        let (clause, repeated) = if cursor.take(&["STORED", "AS", "KAFKA"]) {
            continue;
        } else if cursor.take(&["LOCATION"]) {
            ("LOCATION", location.replace(cursor.text("a location like 'kafka://localhost:9092/topic'")?).is_some())
        } else if cursor.take(&["OPTIONS"]) {
            ("OPTIONS", options.replace(Options::parse_datafusion(&owner, &mut cursor)?).is_some())
        } else {
            break;
        };
        if repeated {
            return Err(Error::Invalid(format!("{owner} has {clause} twice: leave one out")));
        }
    }
    cursor.end().map_err(|_| syntax::expected("LOCATION, OPTIONS or the end of the statement", cursor.peek()))?;
    let Some(location) = location else { return Err(Error::Invalid(format!("{owner} says not where its records are: add {LOCATION}"))) };
    let (brokers, topic) = broker_and_topic(&owner, &location)?;
    let mut options = options.unwrap_or_else(|| Options::new(&owner));
    options.add("connector", "kafka".into(), "STORED AS")?;
    options.add("bootstrap.servers", brokers, "LOCATION")?;
    options.add("topic", topic, "LOCATION")?;
    options.set_default("format", "json");
    create_source::source(name, declared, options, text, if_not_exists)
}

fn broker_and_topic(owner: &str, location: &str) -> Result<(String, String)> {
    const SCHEME: &str = "kafka://";
    let parts = match location.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => location[SCHEME.len()..].split_once('/'),
        _ => None,
    };
    match parts {
        Some((brokers, topic)) if !brokers.is_empty() && !topic.is_empty() => Ok((brokers.into(), topic.into())),
        _ => Err(Error::Invalid(format!("{owner}: a location is written {LOCATION}, with commas between several brokers, not '{location}'"))),
    }
}
