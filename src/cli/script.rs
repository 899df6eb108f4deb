//! Scripts: SQL text of several statements, run one after the other.

use futures::TryStreamExt;

use crate::{
    error::{Error, Result},
    session::{Outcome, Session},
    sql::split,
};

/// Runs the statements of a script one after the other; says which one failed.
pub async fn run(session: &Session, name: &str, text: &str) -> Result<()> {
    let statements = split(text).map_err(|error| Error::Invalid(format!("{name}: {error}")))?;
    for (at, statement) in statements.iter().enumerate() {
        run_one(session, statement).await.map_err(|error| Error::Invalid(format!("{name}, statement {}: {error}", at + 1)))?;
    }
    tracing::info!(script = name, statements = statements.len(), "ran a script");
    Ok(())
}

async fn run_one(session: &Session, statement: &str) -> Result<()> {
    if session.prepare(statement).await?.is_unbounded {
        return Err(Error::Invalid("a subscription never ends, so a script can't hold one".into()));
    }
    match session.execute(statement, &[]).await? {
        Outcome::Done(_) => Ok(()),
        Outcome::Rows(mut rows) => {
            while rows.try_next().await?.is_some() {}
            Ok(())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(split(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn statements_end_at_semicolons() {
        check("SELECT 1", &["SELECT 1"]);
        check("SELECT 1;\n\nSELECT 2 ;", &["SELECT 1", "SELECT 2"]);
        check(";;  ; -- nothing\n /* ; */", &[]);
        check("", &[]);
    }

    #[test]
    fn quotes_and_comments_hold_no_ends() {
        check("SELECT 'a;''b', \"c;d\" -- e;f\n, 2; SELECT /* ; */ 3", &["SELECT 'a;''b', \"c;d\" -- e;f\n, 2", "SELECT /* ; */ 3"]);
        check("SELECT $$a;b$$; SELECT 1", &["SELECT $$a;b$$", "SELECT 1"]);
        check("SELECT count(*) FROM events$errors; SELECT 2", &["SELECT count(*) FROM events$errors", "SELECT 2"]);
    }

    #[test]
    fn text_beyond_ascii_keeps_its_place() {
        check("SELECT 'Vinícius €😀';\nSELECT 'ñ' AS ü; SELECT 1", &["SELECT 'Vinícius €😀'", "SELECT 'ñ' AS ü", "SELECT 1"]);
    }

    #[test]
    fn an_open_quote_is_a_sentence() {
        let error = split("SELECT 'a; SELECT 2").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn windows_line_ends() {
        check("SELECT 1;\r\nSELECT 2;\r\n", &["SELECT 1", "SELECT 2"]);
    }
}
