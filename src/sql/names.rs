//! Names: how they are folded, which can be given, and how names and texts are quoted.

use datafusion::sql::sqlparser::ast::Ident;

use super::lexer::RESERVED;
use crate::error::{Error, Result};

/// Suffixes of the tables that hang on a source or view.
const COMPANIONS: [&str; 2] = ["$errors", "$late"];
/// The longest name in bytes; a name becomes part of log lines, metric labels and consumer groups.
const LONGEST: usize = 128;

/// Folds as DataFusion does: a quoted name stays as it is, another is in ASCII lower case.
pub(super) fn fold(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

/// Checks a name that a statement wants to give to a source or view.
pub(super) fn check_new(what: &str, name: &str) -> Result<()> {
    check_characters(what, name)?;
    match COMPANIONS.iter().find(|suffix| name.ends_with(**suffix)) {
        Some(suffix) => {
            Err(Error::Invalid(format!("{what} can't be called {name}: names that end in {suffix} belong to the tables of a source or view; leave that out")))
        }
        None => Ok(()),
    }
}

/// Checks the characters of a name that a statement wants to give to anything.
pub(super) fn check_characters(what: &str, name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::Invalid(format!("{what} can't be called {name:?}: {why}")));
    if name.is_empty() {
        return refuse("a name has at least one letter");
    }
    if name.len() > LONGEST {
        return refuse(&format!("a name has at most {LONGEST} bytes"));
    }
    if name.starts_with(RESERVED) {
        return refuse("names that begin with two underscores are reserved");
    }
    if name.trim() != name {
        return refuse("a name neither begins nor ends with a blank");
    }
    match name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | ' ' | '#' | '@'))) {
        Some(odd) => refuse(&format!("a name is made of letters, digits, blanks and _ - $ # @, and {odd:?} is none of them")),
        None => Ok(()),
    }
}

/// A name as SQL text that stays this name: bare where that is safe, else in double quotes.
pub fn quote_identifier(name: &str) -> String {
    let bare = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '$'))
        && !is_keyword(name);
    if bare { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn is_keyword(name: &str) -> bool {
    datafusion::sql::sqlparser::keywords::ALL_KEYWORDS.binary_search(&name.to_ascii_uppercase().as_str()).is_ok()
}

/// A text as an SQL literal.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
