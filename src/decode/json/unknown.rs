//! The column of what a payload has beside the fields that a source's columns name. Only a source that declares it pays for it.

use std::collections::HashSet;

use super::{
    super::payload::PayloadColumn,
    fault::{Fault, Judged},
    text::TextView,
    value::{Payload, Text, unescape},
};

/// Which fields are known, and the object of the others under construction.
#[derive(Debug)]
pub(super) struct Unknown {
    /// The column's position.
    pub(super) column: usize,
    /// Whether its rows are kept for the batch.
    pub(super) needed: bool,
    known: HashSet<Vec<u8>>,
    object: Vec<u8>,
    pub(super) rows: TextView,
}

impl Unknown {
    /// The column at this position.
    pub(super) fn new(column: usize, declared: &PayloadColumn) -> Self {
        Self {
            column,
            needed: declared.needed,
            known: declared.known.iter().map(|name| name.clone().into_bytes()).collect(),
            object: vec![],
            rows: TextView::default(),
        }
    }

    /// Appends what is unknown of the object that begins at the token `open`, whose structure has been checked; NULL if nothing is. What is kept is held to the whole
    /// grammar.
    pub(super) fn put(&mut self, payload: &Payload<'_>, open: usize, depth: usize) -> Judged {
        self.object.clear();
        let mut at = open + 1;
        while payload.kind(at) != b'}' {
            let (key, value) = payload.key(at)?;
            let past = payload.skip(value, depth)?;
            let known = match key {
                Text::Plain(key) => self.known.contains(key),
                Text::Escaped(key) => {
                    let mut plain = vec![];
                    unescape(key, &mut plain);
                    self.known.contains(&plain)
                }
            };
            if !known {
                payload.check(value, past)?;
                self.object.push(if self.object.is_empty() { b'{' } else { b',' });
                self.object.extend_from_slice(payload.text_of(at, at + 1));
                self.object.push(b':');
                self.object.extend_from_slice(payload.text_of(value, past));
            }
            match payload.kind(past) {
                b',' => at = past + 1,
                b'}' => at = past,
                _ => return payload.malformed(past, "a comma or a closing bracket is missing"),
            }
        }
        if self.object.is_empty() {
            super::column::Column::put_null(&mut self.rows);
            return Ok(());
        }
        self.object.push(b'}');
        // A payload is UTF-8, and its keys and values are whole characters.
        match std::str::from_utf8(&self.object) {
            Ok(text) if self.rows.push_copy(text) => Ok(()),
            _ => Err(Box::new(Fault::Misfit {
                start: payload.place(open),
                end: payload.end_before(at + 1),
                expected: "what fits beside the rest of a batch".into(),
            })),
        }
    }
}
