//! `AS OF EPOCH n` at the end of a query: all names in it mean that epoch. Found among the tokens, like EMIT: sqlparser would take
//! `FROM t AS of` for an alias.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{cursor::is_word, syntax};
use crate::error::{Error, Result};

/// Whether these tokens end with the clause.
pub(super) fn at_end(tokens: &[TokenWithSpan]) -> bool {
    let words = ["AS", "OF", "EPOCH"];
    let last = tokens.len().saturating_sub(words.len() + 1);
    tokens.len() > words.len() && words.iter().zip(&tokens[last..]).all(|(word, token)| is_word(&token.token, word))
}

/// Takes the clause off the end of a query's tokens.
pub(super) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<u64>> {
    let words = ["AS", "OF", "EPOCH"];
    let starts = |at: usize| words.iter().zip(&tokens[at..]).all(|(word, token)| is_word(&token.token, word));
    let Some(at) = (1..tokens.len().saturating_sub(words.len())).rev().find(|at| starts(*at)) else { return Ok(None) };
    let (number, rest) = (&tokens[at + words.len()], &tokens[at + words.len() + 1..]);
    let form = |found: &TokenWithSpan| syntax::expected("the number of an epoch, as SHOW VIEWS tells it, like AS OF EPOCH 42", found);
    let Token::Number(digits, _) = &number.token else { return Err(form(number)) };
    let epoch = digits.parse().map_err(|_| form(number))?;
    if let Some(next) = rest.first() {
        return Err(Error::Invalid(format!(
            "AS OF EPOCH stands at the end of the whole query and holds for all of its names{}: move it there",
            syntax::place(next)
        )));
    }
    tokens.truncate(at);
    Ok(Some(epoch))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::sql::{Statement, parse_one};

    fn at(text: &str) -> Option<(u64, String)> {
        match parse_one(text).unwrap() {
            Statement::AsOf { epoch, statement } => Some((epoch, statement.to_string())),
            _ => None,
        }
    }

    #[test]
    fn only_at_the_end() {
        assert_eq!(at("SELECT a FROM t AS OF EPOCH 42;"), Some((42, "SELECT a FROM t".into())));
        assert_eq!(at("select a from t as x as of epoch 0"), Some((0, "SELECT a FROM t AS x".into())));
        assert_eq!(at("WITH q AS (SELECT 1) SELECT * FROM q ORDER BY 1 LIMIT 3 AS OF EPOCH 7").map(|(epoch, _)| epoch), Some(7));
        assert_eq!(at("EXPLAIN SELECT a FROM t AS OF EPOCH 7"), Some((7, "EXPLAIN SELECT a FROM t".into())));
        assert_eq!(at("SELECT a AS of, epoch FROM t AS epoch"), None);
        assert_eq!(at("SELECT 'AS OF EPOCH 7'"), None);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let refused = |text: &str| parse_one(text).unwrap_err().to_string();
        assert!(refused("SELECT * FROM t AS OF EPOCH ten").contains("number of an epoch"));
        assert!(refused("SELECT * FROM t AS OF EPOCH 1.5").contains("number of an epoch"));
        assert!(refused("SELECT * FROM (SELECT a FROM t AS OF EPOCH 3) AS x").contains("end of the whole query"));
        assert!(refused("SELECT * FROM t AS OF EPOCH 3 ORDER BY a").contains("end of the whole query"));
        assert!(refused("SELECT * FROM t AS OF EPOCH 3 EMIT CHANGES").contains("stands behind EMIT"));
        assert!(parse_one("SELECT * FROM t AS OF EPOCH").is_err());
    }
}
