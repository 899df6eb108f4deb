//! `WITH (key = value, …)`, and DataFusion's `OPTIONS ('key' 'value', …)`.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidegate_kernels::device::Device;

use super::{
    cursor::{Cursor, is_word},
    interval, names, syntax,
};
use crate::{
    catalog::OptionValue,
    error::{Error, Result},
    units::Size,
};

/// The options of a statement. Keys are in lower case; what is taken is gone, so what is left is unknown.
#[derive(Debug)]
pub(super) struct Options {
    /// Whose they are, for messages.
    owner: String,
    entries: Vec<(String, String)>,
    /// Options whose values are secrets: the names of those.
    secrets: Vec<(String, String)>,
}

impl Options {
    /// No options.
    pub(super) fn new(owner: &str) -> Self {
        Self { owner: owner.into(), entries: vec![], secrets: vec![] }
    }

    /// Reads `(key = value, …)`. Keys are quoted or bare and may have dots; values are texts, numbers, TRUE, FALSE or `SECRET name`.
    pub(super) fn parse(owner: &str, cursor: &mut Cursor) -> Result<Self> {
        Self::parse_pairs(owner, cursor, |cursor| cursor.expect_token(&Token::Eq))
    }

    /// Reads `(key value, …)`, the form of DataFusion's external tables; a `=` between the two is allowed.
    pub(super) fn parse_datafusion(owner: &str, cursor: &mut Cursor) -> Result<Self> {
        Self::parse_pairs(owner, cursor, |cursor| {
            cursor.take_token(&Token::Eq);
            Ok(())
        })
    }

    /// Reads `key = value, …)`: what follows an opening parenthesis and something else.
    pub(super) fn parse_rest(owner: &str, cursor: &mut Cursor) -> Result<Self> {
        Self::pairs(owner, cursor, |cursor| cursor.expect_token(&Token::Eq))
    }

    fn parse_pairs(owner: &str, cursor: &mut Cursor, between: fn(&mut Cursor) -> Result<()>) -> Result<Self> {
        cursor.expect_token(&Token::LParen)?;
        Self::pairs(owner, cursor, between)
    }

    fn pairs(owner: &str, cursor: &mut Cursor, between: fn(&mut Cursor) -> Result<()>) -> Result<Self> {
        let mut options = Self::new(owner);
        while !cursor.take_token(&Token::RParen) {
            let key = key(cursor)?;
            between(cursor)?;
            let value = value(&key, cursor)?;
            if options.entries.iter().chain(&options.secrets).any(|(k, _)| *k == key) {
                return Err(Error::Invalid(format!("{owner}: the option '{key}' is given twice: leave one out")));
            }
            match value {
                OptionValue::Text(text) => options.entries.push((key, text)),
                OptionValue::Secret(name) => options.secrets.push((key, name)),
            }
            if !cursor.take_token(&Token::Comma) && cursor.peek().token != Token::RParen {
                return Err(syntax::expected("a comma or )", cursor.peek()));
            }
        }
        Ok(options)
    }

    /// Adds an option that another clause, `said_by`, gives.
    pub(super) fn add(&mut self, key: &str, value: String, said_by: &str) -> Result<()> {
        if self.entries.iter().any(|(k, _)| k == key) {
            return Err(Error::Invalid(format!("{}: the option '{key}' is what {said_by} says: leave it out", self.owner)));
        }
        self.entries.push((key.into(), value));
        Ok(())
    }

    /// Adds an option unless it is there.
    pub(super) fn set_default(&mut self, key: &str, value: &str) {
        if !self.entries.iter().any(|(k, _)| k == key) {
            self.entries.push((key.into(), value.into()));
        }
    }

    /// Takes an option.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }

    /// The options as they were written.
    pub(super) fn listed(&self) -> Vec<(String, OptionValue)> {
        let texts = self.entries.iter().map(|(key, text)| (key.clone(), OptionValue::Text(text.clone())));
        texts.chain(self.secrets.iter().map(|(key, name)| (key.clone(), OptionValue::Secret(name.clone())))).collect()
    }

    /// Takes all options whose keys are wanted, secrets among them, in order of their keys.
    pub(super) fn take_wanted(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<(String, OptionValue)> {
        let (taken, left) = std::mem::take(&mut self.entries).into_iter().partition(|(key, _)| wanted(key));
        self.entries = left;
        let texts: Vec<(String, String)> = taken;
        let (taken, left) = std::mem::take(&mut self.secrets).into_iter().partition(|(key, _)| wanted(key));
        self.secrets = left;
        let secrets: Vec<(String, String)> = taken;
        let texts = texts.into_iter().map(|(key, text)| (key, OptionValue::Text(text)));
        let mut all: Vec<_> = texts.chain(secrets.into_iter().map(|(key, name)| (key, OptionValue::Secret(name)))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// The first of these options that is there.
    pub(super) fn any_of<'a>(&self, keys: &[&'a str]) -> Option<&'a str> {
        keys.iter().find(|key| self.entries.iter().any(|(k, _)| k == *key)).copied()
    }

    /// Takes an option that must be there.
    pub(super) fn require(&mut self, key: &str, example: &str) -> Result<String> {
        if self.secrets.iter().any(|(k, _)| k == key) {
            return Err(self.no_secret(key));
        }
        self.take(key).ok_or_else(|| Error::Invalid(format!("{} lacks the option '{key}': add '{key}' = '{example}' to WITH (…)", self.owner)))
    }

    /// Takes TRUE or FALSE.
    pub(super) fn take_bool(&mut self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(Error::Invalid(format!("{}: '{key}' is true or false, not '{value}'", self.owner))),
        }
    }

    /// Takes a count.
    pub(super) fn take_count(&mut self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.parse() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Error::Invalid(format!("{}: '{key}' is a whole number from 0, not '{value}'", self.owner))),
        }
    }

    /// Takes a length of time, like `'1 hour'`.
    pub(super) fn take_duration(&mut self, key: &str) -> Result<Option<Duration>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        interval::option(&format!("{}: '{key}'", self.owner), &value).map(Some)
    }

    /// Takes a number of bytes, like `'256 MiB'`.
    pub(super) fn take_size(&mut self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.parse::<Size>() {
            Ok(Size(bytes)) if bytes > 0 => Ok(Some(bytes)),
            _ => Err(Error::Invalid(format!("{}: '{key}' is a size like '256 MiB', not '{value}'", self.owner))),
        }
    }

    /// Takes a device: auto, cpu or gpu.
    pub(super) fn take_device(&mut self, key: &str) -> Result<Option<Device>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.parse() {
            Ok(device) => Ok(Some(device)),
            Err(_) => Err(Error::Invalid(format!("{}: '{key}' is 'auto', 'cpu' or 'gpu', not '{value}'", self.owner))),
        }
    }

    fn no_secret(&self, key: &str) -> Error {
        Error::Invalid(format!("{}: the option '{key}' can't be a SECRET: write its value in single quotes", self.owner))
    }

    /// Refuses what is left.
    pub(super) fn finish(self, known: &[&str]) -> Result<()> {
        if let Some((key, _)) = self.secrets.first()
            && known.contains(&key.as_str())
        {
            return Err(self.no_secret(key));
        }
        let Some((key, _)) = self.entries.iter().chain(&self.secrets).next() else { return Ok(()) };
        let advice = match syntax::nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("known are {}", known.join(", ")),
        };
        Err(Error::Invalid(format!("{} has no option '{key}': {advice}", self.owner)))
    }
}

fn key(cursor: &mut Cursor) -> Result<String> {
    let found = cursor.parser.next_token();
    let mut key = match found.token {
        Token::SingleQuotedString(text) => text,
        Token::Word(word) => word.value,
        _ => return Err(syntax::expected("an option like topic = 'name'", &found)),
    };
    while cursor.take_token(&Token::Period) {
        key.push('.');
        key.push_str(&cursor.identifier("the rest of an option's name")?.value);
    }
    Ok(key.to_ascii_lowercase())
}

fn value(key: &str, cursor: &mut Cursor) -> Result<OptionValue> {
    let negative = cursor.take_token(&Token::Minus);
    if !negative && cursor.take(&["SECRET"]) {
        return cursor.name("the name of a secret").map(OptionValue::Secret);
    }
    let found = cursor.parser.next_token();
    let text = match &found.token {
        Token::Number(number, _) => format!("{}{number}", if negative { "-" } else { "" }),
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) if !negative => text.clone(),
        token if !negative && (is_word(token, "true") || is_word(token, "false")) => token.to_string().to_ascii_lowercase(),
        // A connection has a name like a table's.
        Token::Word(word) if !negative && key == "connection" => names::fold(&word.clone().into_ident(found.span)),
        _ => return Err(expected_value(key, &found)),
    };
    Ok(OptionValue::Text(text))
}

fn expected_value(key: &str, found: &TokenWithSpan) -> Error {
    syntax::expected(&format!("the value of '{key}' in single quotes, a number, TRUE, FALSE or SECRET and a name"), found)
}
