//! `ALTER SOURCE name ADD COLUMN [IF NOT EXISTS] column`, and what it makes of the source's declaration.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{ObjectKind, Statement, create_source, cursor::Cursor, lexer, show, syntax};
use crate::error::{Error, Result};

/// Parses what follows `ALTER SOURCE` in the statement `text`.
pub(super) fn parse(mut cursor: Cursor, text: &str) -> Result<Statement> {
    let name = cursor.name("the name of the source")?;
    if let Some(owned) = show::owner(&mut cursor, ObjectKind::Source, &name)? {
        return Ok(owned);
    }
    if !cursor.at(&["ADD", "COLUMN"]) {
        return Err(syntax::expected("ADD COLUMN or OWNER TO user, which is all that can be changed of a source", cursor.peek()));
    }
    cursor.expect(&["ADD", "COLUMN"])?;
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let owner = format!("source {name}");
    let declaration = lexer::last_tokens(text, cursor.remaining())?;
    let (column, is_key) = create_source::column(&owner, &mut cursor)?;
    if is_key {
        return Err(Error::Unsupported(format!(
            "{owner}, column {}: a primary key is declared with its source, since views hold rows by it: leave PRIMARY KEY out",
            column.name
        )));
    }
    cursor.end()?;
    Ok(Statement::AlterSource { name, column: column.name, declaration, if_not_exists })
}

/// The statement that declares a source, with one column more behind what it has between its parentheses.
pub fn with_column(statement: &str, declaration: &str) -> Result<String> {
    let tokens = lexer::tokens(statement)?;
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 && at > 0 => {
                // Behind the last token, since a comment may stand before the parenthesis.
                let end = lexer::offset(statement, tokens[at - 1].span.end);
                return Ok(format!("{}, {declaration}{}", &statement[..end], &statement[end..]));
            }
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    Err(Error::Internal("a source's statement has no columns".into()))
}
