//! What a source's `WITH (…)` says of its CSV.

use super::options::Options;
use crate::{
    catalog::CsvDef,
    error::{Error, Result},
};

/// Takes the options of format = 'csv'.
pub(super) fn parse(owner: &str, options: &mut Options) -> Result<CsvDef> {
    let usual = CsvDef::default();
    let delimiter = character(owner, options, "csv.delimiter", usual.delimiter)?;
    let quote = character(owner, options, "csv.quote", usual.quote)?;
    if delimiter == quote {
        return Err(Error::Invalid(format!("{owner}: 'csv.delimiter' and 'csv.quote' are the same character: change one")));
    }
    let null = options.take("csv.null").unwrap_or(usual.null);
    if null.contains([delimiter, quote, '\n', '\r']) {
        return Err(Error::Invalid(format!("{owner}: 'csv.null' can't hold the delimiter, the quote or a line's end, no cell without quotes does")));
    }
    Ok(CsvDef { delimiter, quote, null })
}

fn character(owner: &str, options: &mut Options, name: &str, usual: char) -> Result<char> {
    let Some(said) = options.take(name) else { return Ok(usual) };
    // Whoever writes a tab in SQL writes it so.
    let said = if said == "\\t" { "\t".to_string() } else { said };
    let mut characters = said.chars();
    match (characters.next(), characters.next()) {
        (Some(only), None) if !only.is_control() || only == '\t' => Ok(only),
        _ => Err(Error::Invalid(format!("{owner}: '{name}' is one character, like '{usual}' or '\\t', not '{said}'"))),
    }
}
