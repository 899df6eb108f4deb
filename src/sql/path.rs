//! Paths into a record: `'$.type.name'`, `'type.name'`, `'$."50_50".x'`, `$['50_50']`.

use std::{iter::Peekable, str::Chars};

use crate::error::{Error, Result};

/// The object keys of a path from the top of the record; never empty.
pub(super) fn parse(text: &str) -> Result<Vec<String>> {
    let refuse = |why: &str| Error::Invalid(format!("the path '{text}' {why}; a path is written like '$.type.name' or '$.\"odd key\".name'"));
    let mut chars = text.chars().peekable();
    let mut keys = vec![];
    let from_top = chars.next_if_eq(&'$').is_some();
    if from_top && chars.peek().is_none() {
        return Err(refuse("names no key"));
    }
    while let Some(&next) = chars.peek() {
        let key = match next {
            '[' => {
                chars.next();
                let key = match chars.next() {
                    Some(quote @ ('\'' | '"')) => quoted(&mut chars, quote).ok_or_else(|| refuse("has a quote that isn't closed"))?,
                    Some(c) if c.is_ascii_digit() || c == '*' => {
                        return Err(refuse("goes into an array: declare the column as an ARRAY and take the element in the query"));
                    }
                    _ => return Err(refuse("has a [ that no quoted key follows")),
                };
                chars.next_if_eq(&']').ok_or_else(|| refuse("has a [ that isn't closed"))?;
                key
            }
            _ => {
                // The first key may stand without a dot if there is no `$`.
                if chars.next_if_eq(&'.').is_none() && (from_top || !keys.is_empty()) {
                    return Err(refuse(&format!("has {next:?} where a . or [ belongs")));
                }
                match chars.next_if(|c| matches!(c, '"' | '\'')) {
                    Some(quote) => quoted(&mut chars, quote).ok_or_else(|| refuse("has a quote that isn't closed"))?,
                    None => bare(&mut chars).map_err(|why| refuse(&why))?,
                }
            }
        };
        keys.push(key);
    }
    if keys.is_empty() { Err(refuse("names no key")) } else { Ok(keys) }
}

/// A path as it is written, so that `parse` reads the same keys.
pub fn written(keys: &[String]) -> String {
    let mut text = "$".to_string();
    for key in keys {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        text.push('.');
        if plain {
            text.push_str(key);
        } else {
            text.push('"');
            for c in key.chars() {
                if matches!(c, '"' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('"');
        }
    }
    text
}

/// A key up to its closing quote; a backslash takes the next character as it is.
fn quoted(chars: &mut Peekable<Chars>, quote: char) -> Option<String> {
    let mut key = String::new();
    loop {
        match chars.next()? {
            '\\' => key.push(chars.next()?),
            c if c == quote => return Some(key),
            c => key.push(c),
        }
    }
}

fn bare(chars: &mut Peekable<Chars>) -> Result<String, String> {
    let mut key = String::new();
    while let Some(c) = chars.next_if(|c| !matches!(c, '.' | '[')) {
        match c {
            '*' | ']' | '"' | '\'' | '\\' | '$' | '?' | '@' | '(' | ')' | ',' => return Err(format!("has {c:?} in a key that isn't quoted")),
            c if c.is_whitespace() || c.is_control() => return Err("has a blank in a key that isn't quoted".into()),
            c => key.push(c),
        }
    }
    if key.is_empty() { Err("has an empty key that isn't quoted".into()) } else { Ok(key) }
}
