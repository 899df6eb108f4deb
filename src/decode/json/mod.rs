//! JSON, a record at a time.
//!
//! What is read of a payload:
//!
//! * the objects on declared paths, key by key, and the declared values in them, to the whole of JSON's grammar;
//! * of all else the structure: UTF-8 is valid, strings are closed, brackets balance and match, no backslash stands outside
//!   strings, nesting stays within 128, nothing follows the end. A value that a later equal key replaces counts as such.
//!
//! A payload is one object, objects with white space between them, or one array of objects; each object is a row. If one
//! of a payload's objects is bad, so is the record: it gives no rows and one error. An empty array gives no rows and no error.
//!
//! How a record is read: `scan` lists its tokens, `path` walks the list to where the declared values are (guided by `order`; `shapes` recalls where they
//! were in a record that looked the same), `column` judges and appends them. A record that turns out bad on the way is cut off all columns again.

mod cells;
pub(super) mod column;
mod device;
mod drift;
mod fault;
mod find;
mod nested;
mod order;
mod path;
mod same;
mod scan;
mod shapes;
pub(super) mod text;
mod unknown;
mod value;

use arrow::{array::ArrayRef, buffer::Buffer};

use self::{
    column::{AnyColumn, Column, new_column},
    drift::Notes,
    fault::{Fault, Judged},
    path::{Paths, Rest, Slot},
    scan::{END, Tokens},
    shapes::Shapes,
    unknown::Unknown,
    value::{Payload, Value},
};
pub(super) use self::{
    device::{Bits, DeviceColumn, DeviceRows, device_column},
    find::Finder,
    scan::instructions,
};
use super::{
    Reason,
    drift::{Drift, FieldPath, Retyped, shown},
    payload::PayloadColumn,
};
use crate::{
    error::{Error, Result},
    source::framing,
};

/// Reads JSON into columns.
#[derive(Debug)]
pub(super) struct JsonReader {
    /// The paths of all columns.
    paths: Paths,
    /// All columns.
    columns: Vec<JsonColumn>,
    /// Records that look like one before are not walked.
    shapes: Shapes,
    /// The tokens of the record at hand.
    tokens: Tokens,
    /// Whether nobody needs some of the columns.
    forgets: bool,
    /// Where the values of the row at hand are.
    slots: Vec<Slot>,
    /// The column of what no other column names, if there is one.
    unknown: Option<Unknown>,
    /// Whether payloads stand behind a registry's header.
    framed: bool,
    /// What records have beside the declared fields and lack of them, where somebody wants to know.
    notes: Option<Notes>,
}

/// A column under construction and where its values are.
#[derive(Debug)]
struct JsonColumn {
    name: String,
    path: Vec<String>,
    /// Its path's node.
    node: usize,
    column: AnyColumn,
    /// Whether its rows are kept for the batch.
    needed: bool,
}

impl JsonReader {
    /// What reads these columns; `framed`: from payloads that stand behind a registry's header. `known` are fields that aren't new although no
    /// path leads to them; without it nobody wants to know what is new.
    pub(super) fn new(declared: &[PayloadColumn], framed: bool, known: Option<&[String]>) -> Result<Self> {
        let mut unknown = None;
        for (position, column) in declared.iter().enumerate().filter(|(_, column)| column.path.is_empty()) {
            if unknown.replace(Unknown::new(position, column)).is_some() {
                return Err(Error::Invalid(format!("column {} is METADATA FROM 'unknown', which another column is already: leave one out", column.name)));
            }
        }
        let declared: Vec<&PayloadColumn> = declared.iter().filter(|column| !column.path.is_empty()).collect();
        let mut all: Vec<&[String]> = declared.iter().map(|column| column.path.as_slice()).collect();
        let count = all.len();
        all.extend(known.into_iter().flatten().map(std::slice::from_ref));
        let (paths, nodes) = Paths::compile(&all)?;
        let notes = known.map(|_| Notes::new(&all[..count], &nodes[..count], &paths));
        let column = |(declared, node): (&PayloadColumn, usize)| {
            let column = new_column(&declared.name, &declared.data_type, &declared.time)?;
            Ok(JsonColumn { name: declared.name.clone(), path: declared.path.clone(), node, column, needed: declared.needed })
        };
        let columns: Vec<JsonColumn> = declared.into_iter().zip(nodes).map(column).collect::<Result<_>>()?;
        let forgets = columns.iter().any(|column| !column.needed) || unknown.as_ref().is_some_and(|unknown| !unknown.needed);
        Ok(Self {
            forgets,
            slots: vec![Slot::EMPTY; paths.len()],
            paths,
            columns,
            shapes: Shapes::default(),
            tokens: Tokens::default(),
            unknown,
            framed,
            notes,
        })
    }

    /// Makes room for so many rows more.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.needed().for_each(|column| column.reserve(rows));
    }

    /// Forgets the rows from `len` on of the columns that are needed.
    pub(super) fn truncate(&mut self, len: usize) {
        self.needed().for_each(|column| column.truncate(len));
        if let Some(unknown) = self.unknown.as_mut().filter(|unknown| unknown.needed) {
            unknown.rows.truncate(len);
        }
    }

    /// Empties the columns that nobody needs: they have been judged.
    #[inline]
    pub(super) fn forget_unneeded(&mut self) {
        if !self.forgets {
            return;
        }
        self.columns.iter_mut().filter(|column| !column.needed).for_each(|column| column.column.truncate(0));
        if let Some(unknown) = self.unknown.as_mut().filter(|unknown| !unknown.needed) {
            unknown.rows.truncate(0);
        }
    }

    /// Appends a row without values.
    pub(super) fn put_nulls(&mut self) {
        self.columns.iter_mut().for_each(|column| column.column.put_null());
        if let Some(unknown) = &mut self.unknown {
            unknown.rows.put_null();
        }
    }

    /// A column's rows; it is empty then. `records` is the buffer that payloads lie in.
    pub(super) fn finish(&mut self, column: usize, records: &Buffer) -> Result<ArrayRef> {
        match &mut self.unknown {
            Some(unknown) if unknown.column == column => unknown.rows.finish(records),
            _ => {
                let position = self.position(column);
                self.columns[position].column.finish(records)
            }
        }
    }

    /// The last row of a timestamp column, in its unit.
    pub(super) fn last_timestamp(&self, column: usize) -> Option<i64> {
        self.columns[self.position(column)].column.last_timestamp()
    }

    /// The position of a declared column among those that have a path.
    fn position(&self, column: usize) -> usize {
        column - usize::from(self.unknown.as_ref().is_some_and(|unknown| unknown.column < column))
    }

    /// Appends the rows of a payload that lies at `base` of the records' buffer; `Err` is the reason why the record is bad, and some of its
    /// rows may have been appended then. `finish_row` judges each row that was just appended.
    pub(super) fn read(&mut self, bytes: &[u8], base: usize, finish_row: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), Reason> {
        let (bytes, base) = self.behind_header(bytes, base)?;
        self.listed(bytes, base, |reader, payload| {
            // From here on a fault may concern a column.
            let mut column = None;
            let read = reader.read_rows(payload, &mut column, finish_row);
            if let Some(notes) = &mut reader.notes {
                match &read {
                    Err(Stop::Fault(fault)) if fault.misfit().is_none() => notes.forget(),
                    _ => notes.end(payload, &reader.paths),
                }
            }
            read.map_err(|stop| match stop {
                Stop::Fault(fault) => reader.reason(&fault, bytes, column),
                Stop::Reason(reason) => reason.into(),
            })
        })
    }

    /// Appends a key, an object with the columns, or the value alone where there is one column; `Err` is the reason why it can't be read.
    pub(super) fn read_key(&mut self, bytes: &[u8], base: usize) -> Result<(), Reason> {
        let (bytes, base) = self.behind_header(bytes, base)?;
        self.listed(bytes, base, |reader, key| {
            let mut column = None;
            let read = reader.read_key_value(key, &mut column);
            read.map_err(|fault| reader.reason(&fault, bytes, column))?;
            let is_null = |slot: Slot| !slot.is_set() || Value { payload: key, first: slot.first as usize, past: slot.past as usize }.is_null();
            match reader.columns.iter().find(|column| is_null(reader.slots[column.node])) {
                Some(column) => Err(format!("column {} is NULL", column.name).into()),
                None => Ok(()),
            }
        })
    }

    /// What stands behind the registry's header, if there is to be one.
    fn behind_header<'a>(&self, bytes: &'a [u8], base: usize) -> Result<(&'a [u8], usize), String> {
        match self.framed {
            true => Ok((framing::split(bytes)?.1, base + framing::LENGTH)),
            false => Ok((bytes, base)),
        }
    }

    fn needed(&mut self) -> impl Iterator<Item = &mut AnyColumn> {
        self.columns.iter_mut().filter(|column| column.needed).map(|column| &mut column.column)
    }

    /// What records had beside the declared fields and lacked of them since the last call.
    pub(super) fn take_drift(&mut self) -> Drift {
        self.notes.as_mut().map(|notes| notes.take(&self.paths)).unwrap_or_default()
    }

    fn reason(&self, fault: &Fault, bytes: &[u8], column: Option<usize>) -> Reason {
        let column = column.map(|column| &self.columns[column]);
        let retyped = column.zip(fault.misfit()).map(|(column, value)| {
            let example = bytes.get(value).map(shown);
            Box::new(Retyped { path: FieldPath::of(&column.path), example })
        });
        Reason { text: fault.reason(bytes, column.map(|column| column.name.as_str())), retyped }
    }

    /// Lists the tokens of a payload and does something with it.
    fn listed<T>(&mut self, bytes: &[u8], base: usize, read: impl FnOnce(&mut Self, &Payload<'_>) -> Result<T, Reason>) -> Result<T, Reason> {
        // Taken out for the while, so that the payload can refer to it while columns change.
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.list(bytes);
        let result = check_whole(bytes, &tokens).map_err(Reason::from).and_then(|()| read(self, &Payload::new(bytes, &tokens, base)));
        self.tokens = tokens;
        result
    }

    /// Reads each object of a payload as a row. `judged` is the column at hand when a fault comes up.
    fn read_rows(
        &mut self,
        payload: &Payload<'_>,
        judged: &mut Option<usize>,
        mut finish_row: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let mut at = 0;
        if payload.kind(at) != b'[' {
            loop {
                let past = self.read_row(payload, at, 1, judged)?;
                finish_row(self)?;
                if payload.kind(past) == END {
                    return Ok(());
                }
                if payload.place(past) == payload.end_before(past) {
                    payload.malformed(past, "an object has something after it")?;
                }
                at = past;
            }
        }
        at += 1;
        if payload.kind(at) != b']' {
            loop {
                let past = self.read_row(payload, at, 2, judged)?;
                finish_row(self)?;
                at = past + 1;
                match payload.kind(past) {
                    b',' => {}
                    b']' => break,
                    _ => payload.malformed(past, "a comma or a closing bracket is missing")?,
                }
            }
        } else {
            at += 1;
        }
        if payload.kind(at) != END {
            payload.malformed(at, "the array has something after it")?;
        }
        Ok(())
    }

    /// Appends the object that begins at the token `open` to the columns: one past its last token.
    fn read_row(&mut self, payload: &Payload<'_>, open: usize, depth: usize, judged: &mut Option<usize>) -> Judged<usize> {
        *judged = None;
        if payload.kind(open) != b'{' {
            return payload.malformed(open, "an object is expected");
        }
        let past = self.walk(payload, open, depth)?;
        if let Some(notes) = &mut self.notes {
            notes.walked(payload, open, &self.paths, &self.slots);
        }
        for (position, column) in self.columns.iter_mut().enumerate() {
            *judged = Some(position);
            column.column.append(payload, self.slots[column.node])?;
        }
        *judged = None;
        if let Some(unknown) = &mut self.unknown {
            unknown.put(payload, open, depth)?;
        }
        Ok(past)
    }

    /// Finds the values of the object that begins at the token `open`: one past its last token.
    #[inline]
    fn walk(&mut self, payload: &Payload<'_>, open: usize, depth: usize) -> Judged<usize> {
        let digest = match open {
            0 => match self.shapes.find(payload) {
                Ok(shape) => {
                    self.slots.copy_from_slice(shape.slots());
                    self.paths.recall(shape.outcome());
                    return Ok(shape.past());
                }
                Err(digest) => digest,
            },
            _ => 0,
        };
        self.slots.fill(Slot::EMPTY);
        let past = self.paths.walk(payload, open, depth, Rest::Skipped, &mut self.slots)?;
        if digest != 0 {
            self.shapes.learn(digest, payload, &self.paths, &self.slots);
        }
        Ok(past)
    }

    fn read_key_value(&mut self, key: &Payload<'_>, judged: &mut Option<usize>) -> Judged {
        let past = match (key.kind(0), self.columns.as_mut_slice()) {
            (b'{', _) => self.read_row(key, 0, 1, judged)?,
            (_, [only]) => {
                let past = key.skip(0, 0)?;
                let slot = Slot { first: 0, past: past as u32 };
                self.slots.fill(Slot::EMPTY);
                self.slots[only.node] = slot;
                *judged = Some(0);
                only.column.append(key, slot)?;
                *judged = None;
                past
            }
            _ => return key.malformed(0, "an object with the columns of the primary key is expected"),
        };
        match key.kind(past) {
            END => Ok(()),
            _ => key.malformed(past, "the key has something after it"),
        }
    }
}

/// Why reading a payload stopped.
enum Stop {
    /// At something in the payload.
    Fault(Box<Fault>),
    /// At something around it; the sentence is ready.
    Reason(String),
}

impl From<Box<Fault>> for Stop {
    fn from(fault: Box<Fault>) -> Self {
        Stop::Fault(fault)
    }
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Stop::Reason(reason)
    }
}

/// What can be told of a payload without looking at its tokens one by one.
fn check_whole(bytes: &[u8], tokens: &Tokens) -> Result<(), String> {
    if tokens.kinds()[0] == END {
        return Err("the payload is empty".into());
    }
    // What doesn't pass the fast check is looked at again for the place.
    if tokens.foreign
        && simdutf8::basic::from_utf8(bytes).is_err()
        && let Err(error) = simdutf8::compat::from_utf8(bytes)
    {
        return Err(format!("the payload is not valid UTF-8 at byte {}", error.valid_up_to()));
    }
    if tokens.open_string {
        return Err("malformed JSON: a string is not closed".into());
    }
    if tokens.stray_backslash {
        return Err("malformed JSON: a backslash stands outside strings".into());
    }
    Ok(())
}
