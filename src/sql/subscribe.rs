//! Subscriptions: `SUBSCRIBE name`, `SUBSCRIBE (query)` or a query with `EMIT …`; behind it perhaps `AS OF EPOCH n` and `WITH (…)`.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{
    Statement, as_of, clauses,
    cursor::{Cursor, is_word},
    options::Options,
    query, quote_identifier,
};
use crate::{
    catalog::Emit,
    error::{Error, Result},
};

/// What is known of them, for messages.
pub(super) const OPTIONS: [&str; 4] = ["max_rows", "timeout", "snapshot", "when_behind"];

/// How a subscription begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Nothing but the changes after this epoch.
    pub after: Option<u64>,
    /// The rows that are there come first.
    pub snapshot: bool,
    /// It ends after so many rows, at least one.
    pub max_rows: Option<usize>,
    /// It ends after so long.
    pub timeout: Option<Duration>,
    /// What becomes of a reader who is too slow.
    pub when_behind: WhenBehind,
}

/// What becomes of a reader who has fallen further behind than changes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBehind {
    /// The subscription ends with an error.
    Fail,
    /// It goes on with a row that says so, and with what is there.
    Skip,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { after: None, snapshot: true, max_rows: None, timeout: None, when_behind: WhenBehind::Fail }
    }
}

/// What follows `SUBSCRIBE`: a name, or a query in parentheses.
pub(super) fn parse(mut cursor: Cursor) -> Result<Statement> {
    cursor.take(&["TO"]);
    let named = cursor.peek().token != Token::LParen;
    let mut tokens = cursor.rest();
    let options = take_options(&mut tokens)?;
    let after = as_of::take(&mut tokens)?;
    let emit = clauses::take(&mut tokens)?.only_emit()?.unwrap_or(Emit::Changes);
    let query = if named {
        let mut cursor = Cursor::new(tokens);
        let name = cursor.name("the name of a view or source, or a query in parentheses")?;
        cursor.end()?;
        format!("SELECT * FROM {}", quote_identifier(&name))
    } else {
        query::rewritten(tokens)?
    };
    statement(query, emit, after, options)
}

/// The subscription that a query is, if it is one.
pub(super) fn of_query(mut tokens: Vec<TokenWithSpan>) -> Result<Option<Statement>> {
    let options = take_options(&mut tokens)?;
    // Behind EMIT it is where the subscription begins.
    let after = if as_of::at_end(&tokens) { as_of::take(&mut tokens)? } else { None };
    let Some(emit) = clauses::take(&mut tokens)?.only_emit()? else { return Ok(None) };
    if as_of::take(&mut tokens)?.is_some() {
        return Err(Error::Invalid("AS OF EPOCH stands behind EMIT: a subscription gives the changes after that epoch".into()));
    }
    statement(query::rewritten(tokens)?, emit, after, options).map(Some)
}

fn statement(query: String, emit: Emit, after: Option<u64>, options: Option<Vec<TokenWithSpan>>) -> Result<Statement> {
    let owner = "the subscription";
    let mut said = match options {
        Some(tokens) => {
            let mut cursor = Cursor::new(tokens);
            let options = Options::parse(owner, &mut cursor)?;
            cursor.end()?;
            options
        }
        None => Options::new(owner),
    };
    let max_rows = said.take_count("max_rows")?;
    let timeout = said.take_duration("timeout")?;
    let snapshot = said.take_bool("snapshot")?;
    let when_behind = match said.take("when_behind").as_deref() {
        None | Some("fail") => WhenBehind::Fail,
        Some("skip") => WhenBehind::Skip,
        Some(other) => return Err(Error::Invalid(format!("{owner}: 'when_behind' is 'fail' or 'skip', not '{other}'"))),
    };
    said.finish(&OPTIONS)?;
    if max_rows == Some(0) {
        return Err(Error::Invalid(format!("{owner}: 'max_rows' is 1 or more")));
    }
    if after.is_some() && snapshot == Some(true) {
        return Err(Error::Invalid(format!("{owner} gives what came after an epoch, and no snapshot: leave out snapshot = true, or AS OF EPOCH")));
    }
    let options = SubscribeOptions { after, snapshot: snapshot.unwrap_or(after.is_none()), max_rows, timeout, when_behind };
    Ok(Statement::Subscribe { query, emit, options })
}

/// Takes `WITH (…)` off the end; the tokens of the parentheses.
fn take_options(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<Vec<TokenWithSpan>>> {
    if tokens.last().is_none_or(|last| last.token != Token::RParen) {
        return Ok(None);
    }
    let mut depth = 0_i32;
    let opening = tokens.iter().rposition(|found| {
        match found.token {
            Token::RParen => depth += 1,
            Token::LParen => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    match opening {
        // A common table expression has a name behind its WITH.
        Some(opening) if opening > 1 && is_word(&tokens[opening - 1].token, "WITH") => {
            let options = tokens.split_off(opening);
            tokens.pop();
            Ok(Some(options))
        }
        // One that opens nowhere is the parser's to tell.
        _ => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::parse_one;

    fn options(text: &str) -> SubscribeOptions {
        match parse_one(text).unwrap() {
            Statement::Subscribe { query, options, .. } => {
                assert_eq!(query.trim_matches(&['(', ')'][..]), "SELECT * FROM v");
                options
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn how_it_begins_and_ends() {
        let usual = SubscribeOptions::default();
        assert_eq!(options("SUBSCRIBE v"), usual);
        for text in ["SUBSCRIBE v WITH (max_rows = 200, timeout = '5 s')", "SELECT * FROM v EMIT CHANGES WITH (timeout = '5 seconds', max_rows = 200)"] {
            assert_eq!(options(text), SubscribeOptions { max_rows: Some(200), timeout: Some(Duration::from_secs(5)), ..usual.clone() });
        }
        let resumed = SubscribeOptions { after: Some(7), snapshot: false, ..usual.clone() };
        for text in ["SUBSCRIBE v AS OF EPOCH 7", "SUBSCRIBE (SELECT * FROM v) EMIT CHANGES AS OF EPOCH 7", "SELECT * FROM v EMIT CHANGES AS OF EPOCH 7"] {
            assert_eq!(options(text), resumed);
        }
        let lossy = SubscribeOptions { when_behind: WhenBehind::Skip, snapshot: false, ..usual };
        assert_eq!(options("SELECT * FROM v EMIT ON WINDOW CLOSE WITH (when_behind = 'skip', snapshot = false)"), lossy);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let refused = |text: &str| parse_one(text).unwrap_err().to_string();
        assert!(refused("SUBSCRIBE v WITH (max_rows = 0)").contains("'max_rows' is 1 or more"));
        assert!(refused("SUBSCRIBE v WITH (rows = 1)").contains("has no option 'rows'"));
        assert!(refused("SUBSCRIBE v WITH (when_behind = 'wait')").contains("'fail' or 'skip'"));
        assert!(refused("SUBSCRIBE v WITH (timeout = 'soon')").contains("'timeout'"));
        assert!(refused("SUBSCRIBE v AS OF EPOCH 3 WITH (snapshot = true)").contains("leave out snapshot"));
        assert!(refused("SELECT * FROM v AS OF EPOCH 3 EMIT CHANGES").contains("stands behind EMIT"));
        assert!(refused("SUBSCRIBE v AS OF EPOCH next").contains("number of an epoch"));
    }

    #[test]
    fn what_only_looks_like_options_stays_a_query() {
        assert!(matches!(parse_one("WITH x AS (SELECT 1) SELECT * FROM x WHERE a IN (SELECT 1)").unwrap(), Statement::DataFusion(_)));
        assert!(matches!(parse_one("SELECT * FROM v WHERE f(a) IN (1) EMIT CHANGES").unwrap(), Statement::Subscribe { .. }));
        assert!(matches!(parse_one("SELECT * FROM v AS OF EPOCH 3").unwrap(), Statement::AsOf { epoch: 3, .. }));
        assert!(parse_one("SELECT 1)").is_err());
    }
}
