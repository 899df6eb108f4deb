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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::sql::{Statement, parse_one};

    fn column(name: &str, path: &[&str], data_type: DataType) -> ColumnDef {
        let path = path.iter().map(|key| key.to_string()).collect();
        ColumnDef { name: name.into(), data_type, origin: Origin::Payload { path, time: TimeFormat::Rfc3339 } }
    }

    #[test]
    fn options_go_to_the_end() {
        let given = |text: &str| with_option(text, "avro.schema", "it's").unwrap();
        assert_eq!(given("CREATE SOURCE s WITH (a = 'b' /* c */)"), "CREATE SOURCE s WITH (a = 'b', 'avro.schema' = 'it''s' /* c */)");
        assert_eq!(given("CREATE SOURCE s (x INT) WITH (\n a = 'b'\n)"), "CREATE SOURCE s (x INT) WITH (\n a = 'b', 'avro.schema' = 'it''s'\n)");
    }

    #[test]
    fn columns_go_where_they_are_declared() {
        let columns = [column("id", &["id"], DataType::Int64), column("Odd one", &["a.b", "c\"\\"], DataType::new_list(DataType::Utf8View, true))];
        let rest = "WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'avro', 'avro.schema' = '\"int\"')";
        for (before, behind) in [("", ""), ("()", ""), ("(WATERMARK FOR t AS t)", "WATERMARK FOR t AS t"), ("(PRIMARY KEY (id))", "PRIMARY KEY (id)")] {
            let text = with_columns(&format!("CREATE SOURCE s {before} {rest}"), &columns).unwrap();
            assert!(text.contains(behind), "{text}");
            if behind.contains("WATERMARK") {
                continue;
            }
            let Statement::CreateSource { def, .. } = parse_one(&text).unwrap() else { panic!("{text}") };
            assert_eq!(def.columns, columns, "{text}");
        }
        let draft = |columns: &str| matches!(parse_one(&format!("CREATE SOURCE s {columns} {rest}")), Ok(Statement::DraftSource(_)));
        assert!(draft("") && draft("()") && draft("(PRIMARY KEY (id))") && !draft("(a INT)"));
    }
}
