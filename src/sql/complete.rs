//! What was found out of a source is written into its statement: a schema as an option, columns between its parentheses.

use std::collections::HashSet;

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

/// The statement that declares a source without columns, with these; what else stands between its parentheses stays behind them. Where that has
/// a `*`, they take its place.
pub fn with_columns(statement: &str, columns: &[ColumnDef]) -> Result<String> {
    let list = columns.iter().map(written).collect::<Result<Vec<_>>>()?.join(", ");
    let tokens = lexer::tokens(statement)?;
    // The options' parenthesis is behind WITH; a source's name is no parenthesis.
    let first = tokens.iter().position(|token| token.token == Token::LParen || is_word(&token.token, "with"));
    let Some(first) = first else { return Err(Error::Internal("a source's statement has no options".into())) };
    if tokens[first].token != Token::LParen {
        let before = lexer::offset(statement, tokens[first].span.start);
        return Ok(format!("{}({list}) {}", &statement[..before], &statement[before..]));
    }
    let follows = |at: usize| tokens.get(at + 1).map(|token| &token.token);
    let star = (first + 1..tokens.len()).find(|&at| {
        tokens[at].token == Token::Mul
            && matches!(tokens[at - 1].token, Token::LParen | Token::Comma)
            && matches!(follows(at), Some(Token::Comma | Token::RParen))
    });
    let (begin, end, separator) = match star {
        None => {
            let inside = lexer::offset(statement, tokens[first].span.end);
            (inside, inside, if follows(first) == Some(&Token::RParen) { "" } else { ", " })
        }
        // All columns were declared beside it: it goes with one of its commas.
        Some(star) if columns.is_empty() => match (follows(star), &tokens[star - 1].token) {
            (Some(Token::Comma), _) => (lexer::offset(statement, tokens[star].span.start), lexer::offset(statement, tokens[star + 1].span.end), ""),
            (_, Token::Comma) => (lexer::offset(statement, tokens[star - 1].span.start), lexer::offset(statement, tokens[star].span.end), ""),
            _ => (lexer::offset(statement, tokens[star].span.start), lexer::offset(statement, tokens[star].span.end), ""),
        },
        Some(star) => (lexer::offset(statement, tokens[star].span.start), lexer::offset(statement, tokens[star].span.end), ""),
    };
    Ok(format!("{}{list}{separator}{}", &statement[..begin], &statement[end..]))
}

/// Columns under names that columns can have: what is no name of one becomes the most similar that is, and the column's `PATH` says where it is.
/// `taken` are the names of others.
pub fn named_columns(mut columns: Vec<ColumnDef>, taken: &[String]) -> Vec<ColumnDef> {
    let fits = |name: &str| names::check_characters("a column", name).is_ok();
    let mut used: HashSet<String> = columns.iter().map(|column| column.name.clone()).filter(|name| fits(name)).chain(taken.iter().cloned()).collect();
    for column in columns.iter_mut().filter(|column| !fits(&column.name)) {
        let plain: String = column.name.chars().map(|c| if fits(&format!("a{c}a")) { c } else { '_' }).take(40).collect();
        let plain = plain.trim().trim_start_matches('_').trim_start();
        let plain = if plain.is_empty() { "field" } else { plain };
        let numbered = std::iter::once(plain.to_owned()).chain((2..).map(|number| format!("{plain}_{number}")));
        // Among endless names one is free.
        if let Some(free) = numbered.into_iter().find(|name| !used.contains(name)) {
            used.insert(free.clone());
            column.name = free;
        }
    }
    columns
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
        let given = |between: &str, columns: &[ColumnDef]| {
            let text = with_columns(&format!("CREATE SOURCE s ({between}) {rest}"), columns).unwrap();
            text.strip_prefix("CREATE SOURCE s (").unwrap().split_once(") WITH (connector").unwrap().0.replace('"', "")
        };
        for (between, whole, nothing) in [
            ("*", "id BIGINT", ""),
            ("*, x INT", "id BIGINT, x INT", " x INT"),
            ("x INT, *", "x INT, id BIGINT", "x INT"),
            ("x INT, *, PRIMARY KEY (x)", "x INT, id BIGINT, PRIMARY KEY (x)", "x INT,  PRIMARY KEY (x)"),
        ] {
            assert_eq!((given(between, &columns[..1]).as_str(), given(between, &[]).as_str()), (whole, nothing));
        }
        let draft = |columns: &str| matches!(parse_one(&format!("CREATE SOURCE s {columns} {rest}")), Ok(Statement::DraftSource(_)));
        assert!(draft("") && draft("()") && draft("(PRIMARY KEY (id))") && draft("(*)") && draft("(a INT, *)") && !draft("(a INT)"));
    }

    #[test]
    fn names_are_made_of_what_is_none() {
        let names = ["a_b", "a.b", " x ", "", "__y", "x", "Ok"];
        let named = named_columns(names.map(|name| column(name, &[name], DataType::Int64)).to_vec(), &["field".into()]);
        assert_eq!(named.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["a_b", "a_b_2", "x_2", "field_2", "y", "x", "Ok"]);
        let text = with_columns("CREATE SOURCE s WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')", &named).unwrap();
        let Statement::CreateSource { def, .. } = parse_one(&text).unwrap() else { panic!("{text}") };
        assert_eq!(def.columns, named, "{text}");
    }
}
