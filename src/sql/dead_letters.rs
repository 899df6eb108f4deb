//! `CREATE SOURCE … ERRORS TO KAFKA (…)`: with the source the sink of its bad records, `<source>_errors`, a declaration of its own.
//!
//! What the clause doesn't say of brokers and logins is what the source says.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    Statement,
    cursor::{Cursor, is_word},
    kafka_properties, lexer,
    names::{quote_identifier, quote_literal},
    options::Options,
};
use crate::{
    catalog::{OptionValue, SinkDef},
    error::{Error, Result},
};

/// The clause, if it comes next: the source's statement without it, and the sink.
pub(super) fn take(source: &str, text: &str, options: &Options, cursor: &mut Cursor) -> Result<Option<(String, SinkDef)>> {
    if !cursor.take(&["ERRORS", "TO", "KAFKA"]) {
        return Ok(None);
    }
    let name = format!("{source}_errors");
    let said = Options::parse(&format!("sink {name}"), cursor)?.listed();
    let says = |key: &str| said.iter().any(|(known, _)| known == key);
    let has_place = says("connection") || says("bootstrap.servers");
    let inherited = options.listed().into_iter().filter(|(key, _)| !has_place && kafka_properties::is_place(key) && !says(key));
    let written = |(key, value): (String, OptionValue)| match value {
        OptionValue::Text(text) => format!("{} = {}", quote_literal(&key), quote_literal(&text)),
        OptionValue::Secret(secret) => format!("{} = SECRET {}", quote_literal(&key), quote_identifier(&secret)),
    };
    let all: Vec<String> = inherited.chain(said.clone()).map(written).collect();
    let sink = format!("CREATE SINK {} FROM {} INTO KAFKA ({})", quote_identifier(&name), quote_identifier(&format!("{source}$errors")), all.join(", "));
    match super::parse_one(&sink)? {
        Statement::CreateSink { def, .. } => Ok(Some((without(text)?, def))),
        _ => Err(Error::Internal("a sink parsed as something else".into())),
    }
}

/// The statement up to the clause, which is its last.
fn without(text: &str) -> Result<String> {
    let tokens = lexer::tokens(text)?;
    let words = |at: usize| ["errors", "to", "kafka"].iter().zip(&tokens[at..]).all(|(word, token)| is_word(&token.token, word));
    let clause = (1..tokens.len()).rfind(|&at| tokens[at - 1].token == Token::RParen && words(at));
    let clause = clause.ok_or_else(|| Error::Internal("a source's statement has no ERRORS TO KAFKA".into()))?;
    Ok(text[..lexer::offset(text, tokens[clause - 1].span.end)].to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::parse_one;

    #[test]
    fn a_source_and_its_sink() {
        let source = "CREATE SOURCE s (id INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', 'security.protocol' = 'ssl', 'properties.fetch.min.bytes' = 9, format = 'json')";
        let Statement::SourceAndSink { source: parsed, sink } = parse_one(&format!("{source} /* a ) */ ERRORS TO KAFKA (topic = 'bad')")).unwrap() else {
            panic!()
        };
        let Statement::CreateSource { def, .. } = *parsed else { panic!() };
        assert_eq!((def.text.as_str(), sink.name.as_str(), sink.errors_of.as_deref()), (source, "s_errors", Some("s")));
        assert_eq!(sink.text, "CREATE SINK s_errors FROM s$errors INTO KAFKA ('bootstrap.servers' = 'b:1', 'security.protocol' = 'ssl', 'topic' = 'bad')");
        let with = |clause: &str| match parse_one(&format!("{source} ERRORS TO KAFKA ({clause})")) {
            Ok(Statement::SourceAndSink { sink, .. }) => sink.text,
            Ok(other) => panic!("{other:?}"),
            Err(error) => error.to_string(),
        };
        assert!(with("topic = 'b', connection = c").ends_with("('topic' = 'b', 'connection' = 'c')"), "{}", with("topic = 'b', connection = c"));
        assert!(with("topic = 'b', 'bootstrap.servers' = 'x:1'").contains("('topic' = 'b', 'bootstrap.servers' = 'x:1')"));
        assert!(with("").contains("lacks the option 'topic'"), "{}", with(""));
        assert!(with("topic = 'b', tpic = 'c'").contains("has no option 'tpic': did you mean 'topic'?"));
        assert!(with("topic = 'b', format = 'json'").contains("leave out 'format'"));
    }
}
