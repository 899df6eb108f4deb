//! What messages have that their declared type does not know. What they lack is not told: the format leaves out what is zero or empty.

use std::collections::HashMap;

use super::{
    super::drift::{Drift, FieldPath, MOST_FIELDS, shown},
    wire::Raw,
};

/// What has been seen of a run of messages.
#[derive(Debug, Default)]
pub(super) struct Notes {
    drift: Drift,
    /// Fields that the type doesn't know, by number.
    fields: HashMap<u32, Seen>,
    /// How many messages have any.
    messages: u64,
}

#[derive(Debug)]
struct Seen {
    messages: u64,
    /// The last message that had it.
    last: u64,
    example: Option<String>,
}

impl Notes {
    /// A message has these fields.
    pub(super) fn unknown(&mut self, payload: &[u8], fields: &[(u32, Raw)]) {
        if fields.is_empty() {
            return;
        }
        self.messages += 1;
        for &(number, raw) in fields {
            let room = self.fields.len() < MOST_FIELDS;
            match self.fields.get_mut(&number) {
                Some(seen) if seen.last == self.messages => {}
                Some(seen) => (seen.messages, seen.last) = (seen.messages + 1, self.messages),
                None if room => {
                    self.fields.insert(number, Seen { messages: 1, last: self.messages, example: value(payload, raw) });
                }
                None => self.drift.new.others += 1,
            }
        }
    }

    /// A message lacks a required field.
    pub(super) fn absent(&mut self, path: &[String]) {
        self.drift.missing.records += 1;
        self.drift.missing.add(FieldPath::of(path), 1, None);
    }

    /// What has been seen; the next run begins.
    pub(super) fn take(&mut self) -> Drift {
        let Self { mut drift, fields, messages } = std::mem::take(self);
        drift.new.records = messages;
        let mut fields: Vec<(u32, Seen)> = fields.into_iter().collect();
        fields.sort_unstable_by_key(|(number, _)| *number);
        for (number, seen) in fields {
            drift.new.add(FieldPath::top(number.to_string()), seen.messages, seen.example);
        }
        drift
    }
}

/// A value as far as it can be told without its type.
fn value(payload: &[u8], raw: Raw) -> Option<String> {
    match raw {
        Raw::Varint(value) => Some(value.to_string()),
        Raw::Fixed64(value) => Some(value.to_string()),
        Raw::Fixed32(value) => Some(value.to_string()),
        Raw::Bytes(start, end) => {
            let text = std::str::from_utf8(payload.get(start as usize..end as usize)?).ok()?;
            (!text.contains(char::is_control)).then(|| shown(text.as_bytes()))
        }
        Raw::Group(..) => None,
    }
}
