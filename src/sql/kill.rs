//! `KILL QUERY id`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{Statement, cursor::Cursor, syntax};
use crate::error::{Error, Result};

/// What follows `KILL`.
pub(super) fn parse(mut cursor: Cursor) -> Result<Statement> {
    cursor.expect(&["QUERY"])?;
    let found = cursor.parser.next_token();
    let Token::Number(number, _) = &found.token else {
        return Err(syntax::expected("the number of a query, as SHOW QUERIES lists it", &found));
    };
    let id = number
        .to_string()
        .parse()
        .map_err(|_| Error::Invalid(format!("a query has a whole number, not {number}{}: SHOW QUERIES lists those that run", syntax::place(&found))))?;
    cursor.end()?;
    Ok(Statement::Kill { id })
}
