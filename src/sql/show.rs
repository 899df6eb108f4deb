//! Short statements: `DROP`, `SHOW`, `SET`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{ObjectKind, Show, Statement, connection, cursor::Cursor, syntax};
use crate::error::{Error, Result};

/// The settings that are ours rather than DataFusion's.
const SETTINGS: &str = "tidegate";

/// Takes `SOURCE`, `SINK`, `VIEW`, `CONTINUOUS VIEW` or `MATERIALIZED VIEW`.
pub(super) fn object_kind(cursor: &mut Cursor) -> Option<ObjectKind> {
    if cursor.take(&["SOURCE"]) {
        return Some(ObjectKind::Source);
    }
    if cursor.take(&["SINK"]) {
        return Some(ObjectKind::Sink);
    }
    let view = cursor.take(&["VIEW"]) || cursor.take(&["CONTINUOUS", "VIEW"]) || cursor.take(&["MATERIALIZED", "VIEW"]);
    view.then_some(ObjectKind::View)
}

/// What follows `DROP SOURCE` or `DROP VIEW`.
pub(super) fn drop(mut cursor: Cursor, kind: ObjectKind) -> Result<Statement> {
    let if_exists = cursor.take(&["IF", "EXISTS"]);
    let name = cursor.name("the name of what to drop")?;
    if cursor.peek().token == Token::Comma {
        return Err(Error::Unsupported(format!("one thing at a time is dropped{}: write a DROP for each", syntax::place(cursor.peek()))));
    }
    let cascade = cursor.take(&["CASCADE"]);
    if !cascade {
        cursor.take(&["RESTRICT"]);
    }
    cursor.end()?;
    Ok(Statement::Drop { kind, name, if_exists, cascade })
}

/// What follows `SHOW`, if it is ours.
pub(super) fn show(cursor: &mut Cursor) -> Result<Option<Statement>> {
    let lists = [
        ("SOURCES", Show::Sources),
        ("VIEWS", Show::Views),
        ("SINKS", Show::Sinks),
        ("TABLES", Show::Tables),
        ("QUERIES", Show::Queries),
        ("CONNECTIONS", Show::Connections),
        ("SECRETS", Show::Secrets),
    ];
    for (word, listed) in lists {
        if cursor.take(&[word]) {
            cursor.end()?;
            return Ok(Some(Statement::Show(listed)));
        }
    }
    if cursor.take(&["TOPICS"]) {
        return connection::show_topics(cursor).map(Some);
    }
    if cursor.take(&["USERS"]) {
        cursor.end()?;
        return Ok(Some(Statement::ShowUsers));
    }
    if cursor.take(&["GRANTS"]) {
        let of = cursor.take(&["FOR"]).then(|| cursor.name("the name of a user or role")).transpose()?;
        cursor.end()?;
        return Ok(Some(Statement::ShowGrants { of }));
    }
    if cursor.take(&["CREATE"]) {
        let kind = match object_kind(cursor) {
            None if cursor.take(&["CONNECTION"]) => Some(ObjectKind::Connection),
            None if cursor.take(&["SECRET"]) => Some(ObjectKind::Secret),
            None if !cursor.take(&["TABLE"]) => return Err(syntax::expected("SOURCE, VIEW, SINK, TABLE, CONNECTION or SECRET", cursor.peek())),
            kind => kind,
        };
        let name = cursor.name("the name of a source or view")?;
        cursor.end()?;
        return Ok(Some(Statement::ShowCreate { kind, name }));
    }
    match at_setting(cursor) {
        true => {
            let name = setting(cursor)?;
            cursor.end()?;
            Ok(Some(Statement::ShowSetting(name)))
        }
        false => Ok(None),
    }
}

/// Whether a setting of ours comes next.
pub(super) fn at_setting(cursor: &Cursor) -> bool {
    cursor.at(&[SETTINGS]) && cursor.parser.peek_nth_token_ref(1).token == Token::Period
}

/// What follows `SET` where [`at_setting`].
pub(super) fn set(mut cursor: Cursor) -> Result<Statement> {
    let name = setting(&mut cursor)?;
    if !cursor.take_token(&Token::Eq) && !cursor.take(&["TO"]) {
        return Err(syntax::expected("= and a value", cursor.peek()));
    }
    let negative = cursor.take_token(&Token::Minus);
    let found = cursor.parser.next_token();
    let value = match found.token {
        Token::Number(number, _) if negative => format!("-{number}"),
        Token::Number(number, _) => number.to_string(),
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) if !negative => text,
        Token::Word(word) if !negative => word.value,
        _ => return Err(syntax::expected("a value, like 'cpu'", &found)),
    };
    cursor.end()?;
    Ok(Statement::Set { name, value })
}

fn setting(cursor: &mut Cursor) -> Result<String> {
    let mut name = cursor.identifier("a setting")?.value;
    while cursor.take_token(&Token::Period) {
        name.push('.');
        name.push_str(&cursor.identifier("the name of a setting")?.value);
    }
    Ok(name.to_ascii_lowercase())
}

/// What follows `ALTER SOURCE name` or `ALTER VIEW name`, if it is `OWNER TO user`.
pub(super) fn owner(cursor: &mut Cursor, kind: ObjectKind, name: &str) -> Result<Option<Statement>> {
    if !cursor.take(&["OWNER"]) {
        return Ok(None);
    }
    cursor.expect(&["TO"])?;
    let owner = cursor.name("the name of a user")?;
    cursor.end()?;
    Ok(Some(Statement::AlterOwner { kind, name: name.into(), owner }))
}
