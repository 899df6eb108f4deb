//! `CREATE`, `ALTER` and `DROP` of users and roles. No message repeats a text in quotes: it may be a password.

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{Statement, cursor::Cursor, syntax};
use crate::error::{Error, Result};

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A statement about users and roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserStatement {
    /// `CREATE USER [IF NOT EXISTS] name WITH PASSWORD '…' [ADMIN]`.
    CreateUser {
        /// The user.
        name: String,
        /// Their password.
        password: Secret,
        /// Whether they may do everything.
        admin: bool,
        /// A taken name is no error.
        if_not_exists: bool,
    },
    /// `ALTER USER name WITH PASSWORD '…'`.
    SetPassword {
        /// The user.
        name: String,
        /// Their new password.
        password: Secret,
    },
    /// `ALTER USER name [NOT] ADMIN`.
    SetAdmin {
        /// The user.
        name: String,
        /// Whether they are to be one.
        admin: bool,
    },
    /// `DROP USER [IF EXISTS] name`.
    DropUser {
        /// The user.
        name: String,
        /// An unknown name is no error.
        if_exists: bool,
    },
    /// `CREATE ROLE [IF NOT EXISTS] name`.
    CreateRole {
        /// The role.
        name: String,
        /// A taken name is no error.
        if_not_exists: bool,
    },
    /// `DROP ROLE [IF EXISTS] name`.
    DropRole {
        /// The role.
        name: String,
        /// An unknown name is no error.
        if_exists: bool,
    },
}

/// What follows `CREATE USER`.
pub(super) fn create_user(mut cursor: Cursor) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = user(&mut cursor)?;
    let password = password(&mut cursor)?;
    let admin = cursor.take(&["ADMIN"]);
    end(&cursor, "ADMIN or the end of the statement")?;
    Ok(Statement::User(UserStatement::CreateUser { name, password, admin, if_not_exists }))
}

/// What follows `ALTER USER`.
pub(super) fn alter_user(mut cursor: Cursor) -> Result<Statement> {
    let name = user(&mut cursor)?;
    let not = cursor.take(&["NOT"]);
    let statement = if cursor.take(&["ADMIN"]) {
        UserStatement::SetAdmin { name, admin: !not }
    } else if not {
        return Err(expected("ADMIN", cursor.peek()));
    } else if cursor.at(&["WITH"]) {
        UserStatement::SetPassword { name, password: password(&mut cursor)? }
    } else {
        return Err(expected("WITH PASSWORD '…', ADMIN or NOT ADMIN", cursor.peek()));
    };
    end(&cursor, "the end of the statement")?;
    Ok(Statement::User(statement))
}

/// What follows `DROP USER`.
pub(super) fn drop_user(mut cursor: Cursor) -> Result<Statement> {
    let if_exists = cursor.take(&["IF", "EXISTS"]);
    let name = user(&mut cursor)?;
    cursor.end()?;
    Ok(Statement::User(UserStatement::DropUser { name, if_exists }))
}

/// What follows `CREATE ROLE`.
pub(super) fn create_role(mut cursor: Cursor) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of a role")?;
    cursor.end()?;
    Ok(Statement::User(UserStatement::CreateRole { name, if_not_exists }))
}

/// What follows `DROP ROLE`.
pub(super) fn drop_role(mut cursor: Cursor) -> Result<Statement> {
    let if_exists = cursor.take(&["IF", "EXISTS"]);
    let name = cursor.name("the name of a role")?;
    cursor.end()?;
    Ok(Statement::User(UserStatement::DropRole { name, if_exists }))
}

fn user(cursor: &mut Cursor) -> Result<String> {
    match cursor.peek().token {
        Token::Word(_) => cursor.name("the name of a user"),
        _ => Err(expected("the name of a user", cursor.peek())),
    }
}

fn password(cursor: &mut Cursor) -> Result<Secret> {
    for word in ["WITH", "PASSWORD"] {
        if !cursor.take(&[word]) {
            return Err(expected("WITH PASSWORD '…'", cursor.peek()));
        }
    }
    match cursor.parser.next_token() {
        TokenWithSpan { token: Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text), .. } => Ok(Secret(text)),
        found => Err(expected("a password in single quotes", &found)),
    }
}

fn end(cursor: &Cursor, wanted: &str) -> Result<()> {
    if cursor.peek().token == Token::EOF { Ok(()) } else { Err(expected(wanted, cursor.peek())) }
}

/// As [`syntax::expected`], but what was found is only told if it is a word that can't be part of a password.
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
    use crate::sql::parse_one;

    fn parsed(text: &str) -> UserStatement {
        match parse_one(text).unwrap() {
            Statement::User(user) => user,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn users_and_roles() {
        let (name, password) = (String::from("bob"), Secret("it's".into()));
        let create = |admin, if_not_exists| UserStatement::CreateUser { name: name.clone(), password: password.clone(), admin, if_not_exists };
        assert_eq!(parsed("CREATE USER Bob WITH PASSWORD 'it''s'"), create(false, false));
        assert_eq!(parsed("create user if not exists bob with password 'it''s' admin;"), create(true, true));
        assert_eq!(parsed("ALTER USER bob WITH PASSWORD 'it''s'"), UserStatement::SetPassword { name: name.clone(), password: password.clone() });
        assert_eq!(parsed("ALTER USER bob NOT ADMIN"), UserStatement::SetAdmin { name: name.clone(), admin: false });
        assert_eq!(parsed("DROP USER IF EXISTS bob"), UserStatement::DropUser { name: name.clone(), if_exists: true });
        assert_eq!(parsed("CREATE ROLE bob"), UserStatement::CreateRole { name: name.clone(), if_not_exists: false });
        assert_eq!(parsed("DROP ROLE bob"), UserStatement::DropRole { name, if_exists: false });
        assert!(!format!("{:?}", parsed("CREATE USER bob WITH PASSWORD 'it''s'")).contains("it's"));
    }

    #[test]
    fn what_is_wrong_is_said_without_what_was_written() {
        for (text, words) in [
            ("CREATE USER", "the name of a user"),
            ("CREATE USER 'secret'", "the name of a user"),
            ("CREATE USER bob", "expected WITH PASSWORD '…', found the end"),
            ("CREATE USER bob PASSWORD secret", "expected WITH PASSWORD"),
            ("CREATE USER bob WITH PASSWORD secret", "in single quotes"),
            ("CREATE USER bob WITH PASSWORD 'secret' ROOT", "expected ADMIN or the end"),
            ("ALTER USER bob", "WITH PASSWORD '…', ADMIN or NOT ADMIN"),
            ("ALTER USER bob NOT secret", "expected ADMIN"),
        ] {
            let error = parse_one(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
