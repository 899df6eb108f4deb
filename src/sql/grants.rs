//! `GRANT` and `REVOKE`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{Statement, cursor::Cursor, show, syntax};
use crate::{
    access::{On, Privilege},
    error::{Error, Result},
};

/// `GRANT … TO …` or `REVOKE … FROM …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantStatement {
    /// `GRANT role, … TO user, …`.
    Roles {
        /// The roles.
        roles: Vec<String>,
        /// The users.
        users: Vec<String>,
        /// Given, or taken away.
        give: bool,
    },
    /// `GRANT SELECT, … ON … TO name, …`.
    Privileges {
        /// What they may do.
        privileges: Vec<Privilege>,
        /// On what.
        on: On,
        /// Users and roles.
        names: Vec<String>,
        /// Given, or taken away.
        give: bool,
    },
}

/// What follows `GRANT`, or `REVOKE` if it is not to `give`.
pub(super) fn parse(mut cursor: Cursor, give: bool) -> Result<Statement> {
    if cursor.take(&["READ", "FILES"]) {
        let names = names(&mut cursor, give)?;
        return Ok(Statement::Grant(GrantStatement::Privileges { privileges: vec![Privilege::ReadFiles], on: On::Files, names, give }));
    }
    let words = list(&mut cursor, "SELECT, INSERT, USAGE, CREATE, ALL, READ FILES or the name of a role")?;
    let all = words.iter().any(|word| word == "all");
    if all {
        cursor.take(&["PRIVILEGES"]);
    }
    if !cursor.at(&["ON"]) {
        if all {
            return Err(syntax::expected("ON and what the privileges are granted on", cursor.peek()));
        }
        let users = names(&mut cursor, give)?;
        return Ok(Statement::Grant(GrantStatement::Roles { roles: words, users, give }));
    }
    cursor.expect(&["ON"])?;
    let link = cursor.at(&["CONNECTION"]) || cursor.at(&["SECRET"]);
    let on = on(&mut cursor)?;
    let mut privileges = privileges(&words, all, &on)?;
    if all && matches!(on, On::Object(_)) {
        // Of what has rows, or of what others use.
        privileges.retain(|privilege| (*privilege == Privilege::Usage) == link);
    }
    let names = names(&mut cursor, give)?;
    Ok(Statement::Grant(GrantStatement::Privileges { privileges, on, names, give }))
}

fn on(cursor: &mut Cursor) -> Result<On> {
    if cursor.take(&["SCHEMA"]) {
        let name = cursor.name("public, the schema of sources and views")?;
        return match name.as_str() {
            "public" => Ok(On::Schema),
            other => Err(Error::Invalid(format!("there is nothing to grant on schema {other}: sources and views are in schema public"))),
        };
    }
    if show::object_kind(cursor).is_none() && !cursor.take(&["TABLE"]) && !cursor.take(&["CONNECTION"]) {
        cursor.take(&["SECRET"]);
    }
    // `public.name` is the same as `name`.
    if cursor.at(&["PUBLIC"]) && cursor.parser.peek_nth_token_ref(1).token == Token::Period {
        cursor.parser.advance_token();
        cursor.expect_token(&Token::Period)?;
    }
    Ok(On::Object(cursor.name("the name of a source or view, or SCHEMA public")?))
}

fn privileges(words: &[String], all: bool, on: &On) -> Result<Vec<Privilege>> {
    let possible = on.privileges();
    if all {
        return match words.len() {
            1 => Ok(possible.to_vec()),
            _ => Err(Error::Invalid("ALL stands alone: leave the other privileges out".into())),
        };
    }
    let listed = || possible.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let known = |word: &String| {
        let found = possible.iter().find(|privilege| privilege.to_string().eq_ignore_ascii_case(word));
        found.copied().ok_or_else(|| Error::Invalid(format!("there is no privilege {} on {on}: there is {}, or ALL", word.to_uppercase(), listed())))
    };
    words.iter().map(known).collect()
}

/// `TO name, …` or `FROM name, …`, and the end.
fn names(cursor: &mut Cursor, give: bool) -> Result<Vec<String>> {
    cursor.expect(&[if give { "TO" } else { "FROM" }])?;
    let names = list(cursor, "the name of a user or role")?;
    cursor.end()?;
    Ok(names)
}

fn list(cursor: &mut Cursor, what: &str) -> Result<Vec<String>> {
    let mut names = vec![cursor.name(what)?];
    while cursor.take_token(&Token::Comma) {
        names.push(cursor.name(what)?);
    }
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::parse_one;

    fn parsed(text: &str) -> GrantStatement {
        match parse_one(text).unwrap() {
            Statement::Grant(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    fn privileges(on: On, privileges: &[Privilege], names: &[&str], give: bool) -> GrantStatement {
        GrantStatement::Privileges { privileges: privileges.to_vec(), on, names: names.iter().map(|name| name.to_string()).collect(), give }
    }

    #[test]
    fn what_is_granted_on_what_to_whom() {
        use Privilege::{Create, Insert, ReadFiles, Select};
        let object = |name: &str| On::Object(name.into());
        assert_eq!(parsed("GRANT SELECT ON v TO bob"), privileges(object("v"), &[Select], &["bob"], true));
        assert_eq!(parsed("grant select, insert on continuous view V to Bob, \"Ann\";"), privileges(object("v"), &[Select, Insert], &["bob", "Ann"], true));
        assert_eq!(parsed("REVOKE ALL PRIVILEGES ON SOURCE public.s FROM bob"), privileges(object("s"), &[Select, Insert], &["bob"], false));
        assert_eq!(parsed("GRANT ALL ON TABLE \"schema\" TO bob"), privileges(object("schema"), &[Select, Insert], &["bob"], true));
        assert_eq!(parsed("GRANT USAGE ON CONNECTION c TO bob"), privileges(object("c"), &[Privilege::Usage], &["bob"], true));
        assert_eq!(parsed("GRANT ALL ON SECRET c TO bob"), privileges(object("c"), &[Privilege::Usage], &["bob"], true));
        assert_eq!(parsed("GRANT ALL ON SCHEMA public TO bob"), privileges(On::Schema, &[Select, Insert, Create], &["bob"], true));
        assert_eq!(parsed("REVOKE READ FILES FROM bob"), privileges(On::Files, &[ReadFiles], &["bob"], false));
        let roles = GrantStatement::Roles { roles: vec!["a".into(), "b".into()], users: vec!["bob".into()], give: true };
        assert_eq!(parsed("GRANT a, b TO bob"), roles);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("GRANT", "expected SELECT, INSERT"),
            ("GRANT SELECT ON v FROM bob", "expected TO"),
            ("REVOKE SELECT ON v TO bob", "expected FROM"),
            ("GRANT SELECT ON v TO", "the name of a user or role"),
            ("GRANT SELECT ON v TO bob WITH GRANT OPTION", "the end of the statement"),
            ("GRANT ALL TO bob", "expected ON"),
            ("GRANT ALL, SELECT ON v TO bob", "ALL stands alone"),
            ("GRANT CREATE ON v TO bob", "no privilege CREATE on v"),
            ("GRANT DELETE ON SCHEMA public TO bob", "no privilege DELETE"),
            ("GRANT SELECT ON SCHEMA system TO bob", "schema public"),
        ] {
            let error = parse_one(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
