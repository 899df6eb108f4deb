//! What was found out of a source is written into its statement: a schema as an option, columns between its parentheses.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{cursor::is_word, lexer, names, types};
use crate::{
    catalog::{ColumnDef, Origin, TimeFormat},
    error::{Error, Result},
};

/// The statement that declares a source, with one option more at the end of its `WITH (…)` or `OPTIONS (…)`.
pub fn with_option(statement: &str, name: &str, value: &str) -> Result<String> {
    let tokens = lexer::tokens(statement)?;
    let last = tokens.iter().rposition(|token| token.token == Token::RParen).filter(|at| *at > 0);
    let Some(last) = last else { return Err(Error::Internal("a source's statement has no options".into())) };
    // Behind the last token, since a comment may stand before the parenthesis.
    let end = lexer::offset(statement, tokens[last - 1].span.end);
    let comma = if tokens[last - 1].token == Token::Comma { "" } else { "," };
    Ok(format!("{}{comma} {} = {}{}", &statement[..end], names::quote_literal(name), names::quote_literal(value), &statement[end..]))
}

/// The statement that declares a source without columns, with these; what else stands between its parentheses stays behind them.
pub fn with_columns(statement: &str, columns: &[ColumnDef]) -> Result<String> {
    let list = columns.iter().map(written).collect::<Result<Vec<_>>>()?.join(", ");
    let tokens = lexer::tokens(statement)?;
    // The options' parenthesis is behind WITH; a source's name is no parenthesis.
    let first = tokens.iter().position(|token| token.token == Token::LParen || is_word(&token.token, "with"));
    let Some(first) = first else { return Err(Error::Internal("a source's statement has no options".into())) };
    if tokens[first].token == Token::LParen {
        let inside = lexer::offset(statement, tokens[first].span.end);
        let comma = if tokens.get(first + 1).is_some_and(|token| token.token == Token::RParen) { "" } else { ", " };
        return Ok(format!("{}{list}{comma}{}", &statement[..inside], &statement[inside..]));
    }
    let before = lexer::offset(statement, tokens[first].span.start);
    Ok(format!("{}({list}) {}", &statement[..before], &statement[before..]))
}

/// A column as it is declared.
fn written(column: &ColumnDef) -> Result<String> {
    let mut text = format!("{} {}", names::quote_identifier(&column.name), types::written(&column.data_type)?);
    let Origin::Payload { path, time } = &column.origin else {
        return Err(Error::Internal(format!("column {} is metadata, which no schema tells", column.name)));
    };
    if path.as_slice() != [column.name.clone()] {
        text.push_str(&format!(" PATH {}", names::quote_literal(&super::path::written(path))));
    }
    match time {
        TimeFormat::Rfc3339 => {}
        TimeFormat::Local(zone) => text.push_str(&format!(" TIMEZONE '{zone}'")),
        TimeFormat::EpochSeconds => text.push_str(" FORMAT 'epoch_s'"),
        TimeFormat::EpochMillis => text.push_str(" FORMAT 'epoch_ms'"),
        TimeFormat::EpochMicros => text.push_str(" FORMAT 'epoch_us'"),
    }
    Ok(text)
}
