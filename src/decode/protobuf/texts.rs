//! Columns of text and bytes.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringViewBuilder},
    buffer::Buffer,
};
use prost_reflect::EnumDescriptor;

use super::{
    super::{
        json::{column::Column as _, text},
        nulls::Nulls,
    },
    column::{Column, Payload},
    fault::{Judged, misfit},
    scalar::{Scalar, utf8},
    wire::Raw,
};
use crate::error::{Error, Result};

/// A column of text: the payload's own, or what a number is written as.
#[derive(Debug)]
pub(super) struct Texts {
    scalar: Scalar,
    column: text::TextView,
}

impl Texts {
    /// An empty column of `Utf8View`.
    pub(super) fn new(scalar: Scalar) -> Self {
        Self { scalar, column: text::TextView::default() }
    }
}

impl Column for Texts {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let Some(&raw) = raws.last() else { return misfit("no value", "TEXT".into()) };
        match (&self.scalar, raw.extent(), payload.base) {
            (Scalar::String, Some((start, _)), Some(base)) => self.column.push_view(utf8(payload, raw)?, base + start),
            (Scalar::String, ..) => return copy(&mut self.column, utf8(payload, raw)?),
            (scalar, ..) => return copy(&mut self.column, &scalar.shown(payload, raw)),
        }
        Ok(())
    }

    fn put_null(&mut self) {
        self.column.put_null();
    }

    fn len(&self) -> usize {
        self.column.len()
    }

    fn truncate(&mut self, len: usize) {
        self.column.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        self.column.finish(records)
    }
}

/// Appends a copy of a text.
pub(super) fn copy(column: &mut text::TextView, text: &str) -> Judged {
    match column.push_copy(text) {
        true => Ok(()),
        false => misfit("text", "what fits beside the rest of a batch; lower max_epoch_bytes".into()),
    }
}

/// A column of text or bytes in a buffer of its own.
#[derive(Debug)]
pub(super) struct Runs {
    scalar: Scalar,
    column: text::Bytes,
}

impl Runs {
    /// An empty column of `Utf8`.
    pub(super) fn text(scalar: Scalar) -> Self {
        Self { scalar, column: text::Bytes::text() }
    }

    /// An empty column of `Binary`.
    pub(super) fn binary(scalar: Scalar) -> Self {
        Self { scalar, column: text::Bytes::binary() }
    }
}

impl Column for Runs {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let Some(&raw) = raws.last() else { return misfit("no value", "bytes".into()) };
        match (&self.scalar, raw.extent()) {
            (Scalar::Bytes, Some((start, end))) => self.column.push(&payload.bytes[start..end]),
            (Scalar::String, _) => self.column.push(utf8(payload, raw)?.as_bytes()),
            (Scalar::Enum(kind), _) => match self.scalar.integer(raw).and_then(|number| kind.get_value(number as i32)) {
                Some(value) => self.column.push(value.name().as_bytes()),
                None => self.column.push(self.scalar.shown(payload, raw).as_bytes()),
            },
            (scalar, _) => self.column.push(scalar.shown(payload, raw).as_bytes()),
        }
        Ok(())
    }

    fn put_null(&mut self) {
        self.column.put_null();
    }

    fn len(&self) -> usize {
        self.column.len()
    }

    fn truncate(&mut self, len: usize) {
        self.column.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        self.column.finish(records)
    }
}

/// A column of the names of an enum's values. A number that has none is written as it is, as in Protobuf's JSON. Each name stands in memory
/// once, however many rows have it: a record may name it with two bytes.
#[derive(Debug)]
pub(super) struct EnumNames {
    /// Each number with the extent of its name in `text`, by number.
    names: Vec<(i32, u32, u32)>,
    text: Buffer,
    rows: Vec<i32>,
    nulls: Nulls,
}

impl EnumNames {
    /// An empty column of `Utf8View`.
    pub(super) fn new(kind: &EnumDescriptor) -> Self {
        let mut text = vec![];
        let mut names: Vec<(i32, u32, u32)> = vec![];
        for value in kind.values() {
            // With allow_alias several names have one number, and the first is the one.
            if names.iter().any(|(number, ..)| *number == value.number()) {
                continue;
            }
            names.push((value.number(), text.len() as u32, value.name().len() as u32));
            text.extend_from_slice(value.name().as_bytes());
        }
        names.sort_unstable();
        Self { names, text: Buffer::from_vec(text), rows: vec![], nulls: Nulls::default() }
    }
}

impl Column for EnumNames {
    fn put(&mut self, _payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let Some(Raw::Varint(number)) = raws.last() else { return misfit("no value", "TEXT".into()) };
        self.rows.push(*number as i32);
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.rows.push(0);
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn truncate(&mut self, len: usize) {
        self.rows.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _records: &Buffer) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        let mut builder = StringViewBuilder::with_capacity(self.rows.len());
        let block = builder.append_block(self.text.clone());
        for (row, number) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                builder.append_null();
                continue;
            }
            match self.names.binary_search_by_key(&number, |(number, ..)| *number) {
                Ok(at) => {
                    let (_, offset, length) = self.names[at];
                    builder.try_append_view(block, offset, length).map_err(|error| Error::Internal(error.to_string()))?;
                }
                Err(_) => builder.append_value(number.to_string()),
            }
        }
        Ok(Arc::new(builder.finish()))
    }
}
