//! `CREATE SECRET`, `ALTER SECRET`. No message repeats a text in quotes: it may be the secret.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{
    ObjectKind, Statement,
    cursor::Cursor,
    names::{check_new, quote_identifier, quote_literal},
    show, syntax,
};
use crate::{
    catalog::{Hidden, SecretDef},
    error::{Error, Result},
};

/// The longest value in bytes: a chain of certificates is some tens of thousands.
const LONGEST: usize = 1 << 20;

/// Parses what follows `CREATE SECRET`: `[IF NOT EXISTS] name AS '…'`.
pub(super) fn create(mut cursor: Cursor) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = name(&mut cursor)?;
    check_new("a secret", &name)?;
    let value = value(&mut cursor)?;
    Ok(Statement::CreateSecret { def: secret(name, value), if_not_exists })
}

/// Parses what follows `ALTER SECRET`: `name AS '…'`, `name OWNER TO user`.
pub(super) fn alter(mut cursor: Cursor) -> Result<Statement> {
    let name = name(&mut cursor)?;
    if let Some(owned) = show::owner(&mut cursor, ObjectKind::Secret, &name)? {
        return Ok(owned);
    }
    let value = value(&mut cursor)?;
    Ok(Statement::AlterSecret { def: secret(name, value) })
}

fn secret(name: String, value: Hidden) -> SecretDef {
    let text = format!("CREATE SECRET {} AS {}", quote_identifier(&name), quote_literal(&value.0));
    SecretDef { name, value, text }
}

fn name(cursor: &mut Cursor) -> Result<String> {
    match cursor.peek().token {
        Token::Word(_) => cursor.name("the name of a secret"),
        _ => Err(expected("the name of a secret", cursor.peek())),
    }
}

fn value(cursor: &mut Cursor) -> Result<Hidden> {
    if !cursor.take(&["AS"]) {
        return Err(expected("AS and the value in single quotes", cursor.peek()));
    }
    let text = match cursor.parser.next_token() {
        TokenWithSpan { token: Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text), .. } => text,
        found => return Err(expected("the value in single quotes", &found)),
    };
    match cursor.peek().token {
        Token::EOF if text.is_empty() => Err(Error::Invalid("a secret has at least one character: write AS '…'".into())),
        Token::EOF if text.len() > LONGEST => Err(Error::Invalid(format!("a secret has at most {LONGEST} bytes, this one has {}", text.len()))),
        Token::EOF => Ok(Hidden(text)),
        _ => Err(expected("the end of the statement", cursor.peek())),
    }
}

/// As [`syntax::expected`], but what was found is not told.
fn expected(what: &str, found: &TokenWithSpan) -> Error {
    match &found.token {
        Token::EOF => syntax::expected(what, found),
        _ => Error::Invalid(format!("syntax error{}: expected {what}, found something else", syntax::place(found))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::{parse_one, redacted};

    #[test]
    fn secrets_are_read_and_never_told() {
        let Statement::CreateSecret { def, if_not_exists } = parse_one("create secret if not exists \"My pw\" as 'it''s geheim'").unwrap() else { panic!() };
        assert_eq!((def.name.as_str(), def.value.0.as_str(), if_not_exists), ("My pw", "it's geheim", true));
        let Statement::CreateSecret { def: again, .. } = parse_one(&def.text).unwrap() else { panic!() };
        assert_eq!(again, def);
        assert_eq!(redacted(&def.text), "CREATE SECRET \"My pw\" AS '***'");
        assert!(!format!("{def:?}").contains("geheim"));
        for text in [
            "CREATE SECRET AS 'geheim'",
            "CREATE SECRET 'geheim'",
            "CREATE SECRET s 'geheim'",
            "CREATE SECRET s = 'geheim'",
            "CREATE SECRET s AS geheim",
            "CREATE SECRET s AS 'geheim' 'geheim'",
            "ALTER SECRET s SET 'geheim'",
            "CREATE SECRET s AS ''",
        ] {
            let error = parse_one(text).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("geheim") && !redacted(text).contains("'geheim"), "{text}: {error}");
        }
    }
}
