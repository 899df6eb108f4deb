//! Scripts: SQL text of several statements, taken apart at its semicolons.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Location, Token, Tokenizer},
};
use futures::TryStreamExt;

use crate::{
    error::{Error, Result},
    session::{Outcome, Session},
};

/// The statements of a text, without their semicolons; what holds only comments is none.
pub fn split(text: &str) -> Result<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|error| Error::Invalid(format!("the SQL can't be read: {error}")))?;
    let lines = Lines::of(text);
    let mut statements = vec![];
    let mut begin = None;
    let mut end = 0;
    for token in tokens {
        match token.token {
            Token::SemiColon | Token::EOF => {
                if let Some(begin) = begin.take() {
                    statements.push(text[begin..end].to_owned());
                }
            }
            // Comments and blanks between statements belong to none of them; inside of one they stay.
            Token::Whitespace(_) => {}
            _ => {
                begin = begin.or(Some(lines.byte(token.span.start)));
                end = lines.byte(token.span.end);
            }
        }
    }
    if let Some(begin) = begin {
        statements.push(text[begin..].trim_end().to_owned());
    }
    Ok(statements)
}

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

/// Where each line of a text begins, to find the byte of the tokenizer's (line, column).
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Lines and columns count from 1, columns in characters.
    fn byte(&self, location: Location) -> usize {
        let start = self.starts.get((location.line as usize).saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = &self.text[start..];
        start + rest.char_indices().nth((location.column as usize).saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
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
        assert!(split("SELECT 'a; SELECT 2").unwrap_err().to_string().starts_with("the SQL can't be read"));
    }

    #[test]
    fn windows_line_ends() {
        check("SELECT 1;\r\nSELECT 2;\r\n", &["SELECT 1", "SELECT 2"]);
    }
}
