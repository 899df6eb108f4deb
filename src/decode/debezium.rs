//! Debezium's envelope: a record says what became of a row, and holds the row as it was and as it is.
//!
//! Of a record that says that a row is there now (created, updated, read by a snapshot) the row is the payload; one that says that it was deleted
//! has none, like a tombstone. So what follows, the source's primary key included, is that of any other changing topic. Payloads and keys may stand
//! beside their schema, as Kafka Connect's converter writes them unless it is told not to.

use super::{json::Finder, quote::shorten};
use crate::error::Result;

/// Opens envelopes.
#[derive(Debug)]
pub(super) struct Debezium {
    value: Finder,
    key: Finder,
}

/// Where the parts of a record are, in its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) key: Option<(usize, usize)>,
    /// The row; `None`: it is gone.
    pub(super) value: Option<(usize, usize)>,
}

const PATHS: &[&str] = &["op", "after", "payload", "payload.op", "payload.after"];
const OP: usize = 0;
const AFTER: usize = 1;
const PAYLOAD: usize = 2;
/// So much further on stands the same beside a schema.
const WRAPPED: usize = 3;

impl Debezium {
    /// What opens any of its envelopes.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { value: Finder::new(PATHS)?, key: Finder::new(&["schema", "payload"])? })
    }

    /// Opens that of a record's key and payload; `Err` is the reason why that can't be done.
    pub(super) fn open(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Opened, String> {
        let key = key.map(|key| self.open_key(key));
        let Some(value) = value else { return Ok(Opened { key, value: None }) };
        self.value.look(value)?;
        let wrapped = self.value.found(OP, value).is_none() && self.value.found(PAYLOAD, value).is_some();
        let (op, after) = match wrapped {
            true => (OP + WRAPPED, AFTER + WRAPPED),
            false => (OP, AFTER),
        };
        let Some((start, end)) = self.value.found(op, value) else {
            return Err("the payload is no envelope of Debezium's, it has no op; for rows that stand alone, as its ExtractNewRecordState leaves them, write format = 'json'".into());
        };
        let row = match &value[start..end] {
            op @ (br#""c""# | br#""r""# | br#""u""#) => match self.value.found(after, value) {
                Some(row) => Some(row),
                None => return Err(format!("the envelope has op {} and no row in after", shorten(op))),
            },
            br#""d""# => None,
            br#""t""# => {
                return Err("the table was truncated, which takes no single row away: rows that were there before stay; \
                            have Debezium leave such events out with skipped.operations = t"
                    .into());
            }
            op => return Err(format!("the envelope has op {}, which is none of c, r, u and d", shorten(op))),
        };
        Ok(Opened { key, value: row })
    }

    /// Where the key itself is. What can't be opened is left as it is, for the key's reader to judge.
    fn open_key(&mut self, key: &[u8]) -> (usize, usize) {
        let whole = (0, key.len());
        match self.key.look(key) {
            Ok(()) if self.key.found(0, key).is_some() => self.key.found(1, key).unwrap_or(whole),
            _ => whole,
        }
    }
}
