//! `AS OF EPOCH n` at the end of a query: all names in it mean that epoch. Found among the tokens, like EMIT: sqlparser would take
//! `FROM t AS of` for an alias.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{cursor::is_word, syntax};
use crate::error::{Error, Result};

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
