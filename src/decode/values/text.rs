//! Columns of text and bytes.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, StringArray, StringViewArray},
    buffer::{Buffer, OffsetBuffer},
};

use super::{super::nulls::Nulls, Natural, ValueColumn};
use crate::error::{Error, Result};

/// Runs of bytes one after the other.
#[derive(Debug, Default)]
struct Runs {
    /// One past each row's last byte.
    ends: Vec<usize>,
    bytes: Vec<u8>,
    nulls: Nulls,
}

impl Runs {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.nulls.push(true);
    }

    fn put_null(&mut self) {
        self.ends.push(self.bytes.len());
        self.nulls.push(false);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.nulls.truncate(len);
    }

    fn finish(&mut self) -> Result<(OffsetBuffer<i32>, Buffer, Option<arrow::buffer::NullBuffer>)> {
        let offsets = offsets(&std::mem::take(&mut self.ends))?;
        Ok((offsets, Buffer::from_vec(std::mem::take(&mut self.bytes)), self.nulls.finish()))
    }
}

/// A column of text.
#[derive(Debug)]
pub(super) struct Texts {
    runs: Runs,
    views: bool,
}

impl Texts {
    /// A column of `Utf8View`.
    pub(super) fn views() -> Self {
        Self { runs: Runs::default(), views: true }
    }

    /// A column of `Utf8`.
    pub(super) fn plain() -> Self {
        Self { runs: Runs::default(), views: false }
    }
}

impl ValueColumn for Texts {
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String> {
        match value {
            Natural::Text(text) => self.runs.put(text.as_bytes()),
            _ => match value.written() {
                Some(written) => self.runs.put(written.as_bytes()),
                None => return Err(value.misfit(&self.expected())),
            },
        }
        Ok(())
    }

    fn put_null(&mut self) {
        self.runs.put_null();
    }

    fn len(&self) -> usize {
        self.runs.ends.len()
    }

    fn truncate(&mut self, len: usize) {
        self.runs.truncate(len);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let (offsets, bytes, nulls) = self.runs.finish()?;
        let array = StringArray::try_new(offsets, bytes, nulls)?;
        Ok(if self.views { Arc::new(StringViewArray::from(&array)) } else { Arc::new(array) })
    }

    fn expected(&self) -> String {
        "TEXT".into()
    }
}

/// A column of bytes; text is taken as its UTF-8.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    runs: Runs,
}

impl ValueColumn for Bytes {
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String> {
        match value {
            Natural::Bytes(bytes) => self.runs.put(bytes),
            Natural::Text(text) => self.runs.put(text.as_bytes()),
            _ => return Err(value.misfit(&self.expected())),
        }
        Ok(())
    }

    fn put_null(&mut self) {
        self.runs.put_null();
    }

    fn len(&self) -> usize {
        self.runs.ends.len()
    }

    fn truncate(&mut self, len: usize) {
        self.runs.truncate(len);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let (offsets, bytes, nulls) = self.runs.finish()?;
        Ok(Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?))
    }

    fn expected(&self) -> String {
        "BYTEA".into()
    }
}

/// Row ends as Arrow's offsets.
pub(super) fn offsets(ends: &[usize]) -> Result<OffsetBuffer<i32>> {
    let fits = ends.last().is_none_or(|&end| end <= i32::MAX as usize);
    if !fits {
        return Err(Error::Unsupported("a column of one batch is over 2 GiB; lower max_epoch_bytes".into()));
    }
    let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().map(|&end| end as i32)).collect();
    Ok(OffsetBuffer::new(offsets.into()))
}
