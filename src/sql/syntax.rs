//! Syntax errors as sentences: where, what was expected, what was found.

use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{
        parser::ParserError,
        tokenizer::{Token, TokenWithSpan},
    },
};

use crate::error::Error;

/// "expected this, found that token", with its place.
pub(super) fn expected(what: &str, found: &TokenWithSpan) -> Error {
    Error::Invalid(format!("syntax error{}: expected {what}, found {}", place(found), shown(&found.token)))
}

/// Where a token stands, as " at line 1, column 5"; nothing for the end of the text.
pub(super) fn place(token: &TokenWithSpan) -> String {
    match token.span.start.line {
        0 => String::new(),
        line => format!(" at line {line}, column {}", token.span.start.column),
    }
}

/// A token as it is quoted in a message.
pub(super) fn shown(token: &Token) -> String {
    match token {
        Token::EOF => "the end of the statement".into(),
        other => format!("`{}`", shortened(&other.to_string())),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// What `sqlparser` says, as a sentence of ours.
pub(super) fn from_parser(error: ParserError) -> Error {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return Error::Invalid("the statement is nested too deeply: split it with WITH, or put parts of it into views".into());
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    // sqlparser's own form: "Expected: X, found: Y at Line: 1, Column: 5".
    let (what, place) = match message.rsplit_once(" at Line: ") {
        Some((what, place)) => (what.to_string(), format!(" at line {}", place.replace(", Column: ", ", column "))),
        None => (message, String::new()),
    };
    let what = match what.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) {
        Some((wanted, "EOF")) => format!("expected {wanted}, found the end of the statement"),
        Some((wanted, found)) => format!("expected {wanted}, found `{}`", shortened(found)),
        None => what.trim_end_matches('.').to_string(),
    };
    Error::Invalid(format!("syntax error{place}: {what}"))
}

/// The same for what DataFusion's parser gives, which wraps sqlparser's errors.
pub(super) fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::SQL(inner, _) => from_parser(*inner),
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => from_datafusion(*inner),
        other => Error::from(other),
    }
}

/// The candidate that a misspelt word most likely stood for.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates.into_iter().map(|c| (distance(&word, &c.to_lowercase()), c)).min().filter(|(d, c)| *d <= 2 && *d * 3 <= c.len()).map(|(_, c)| c)
}

/// How many letters have to be changed, added or dropped (Levenshtein), two rows at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate().take(64) {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
