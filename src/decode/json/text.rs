//! Columns of text and bytes.
//!
//! A string goes in as its content; a number, `true`, `false`, an object or an array goes into text as it is written.
//!
//! Safety: the only unsafe code assembles a view array without checking again that each view shows valid UTF-8 within
//! its buffer, which would cost more than making it.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, ByteView, StringArray, StringViewArray},
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
};

use super::{
    super::nulls::Nulls,
    column::Column,
    fault::Judged,
    value::{Text, Value, unescape},
};
use crate::error::{Error, Result};

/// Text of at most this many bytes lies in the view itself.
const INLINE: usize = 12;

/// Which buffer a view that isn't inline points into.
const RECORDS: u32 = 0;
const SIDE: u32 = 1;

/// Text as views into the records' own buffer; only what had to be unescaped is copied, into a buffer beside it.
#[derive(Debug, Default)]
pub(in crate::decode) struct TextView {
    views: Vec<u128>,
    side: Vec<u8>,
    nulls: Nulls,
    /// Whether there may be views that were not made here.
    foreign: bool,
}

impl TextView {
    #[inline]
    fn push(&mut self, text: &[u8], buffer: u32, offset: usize) {
        self.push_within(text, 0, text.len(), buffer, offset);
    }

    /// Appends the text at `start..end` of some bytes. Both views are made and one is taken: how long texts are can't be guessed.
    #[inline(always)]
    fn push_within(&mut self, bytes: &[u8], start: usize, end: usize, buffer: u32, offset: usize) {
        let length = end - start;
        let first = match bytes.get(start..).and_then(<[u8]>::first_chunk) {
            Some(sixteen) => u128::from_le_bytes(*sixteen),
            None => few(&bytes[start..end]),
        };
        let inline = length as u128 | (first & !(!0 << (8 * length.min(INLINE)))) << 32;
        let outside = u128::from(length as u32) | u128::from(first as u32) << 32 | u128::from(buffer) << 64 | u128::from(offset as u32) << 96;
        self.views.push(if length <= INLINE { inline } else { outside });
        self.nulls.push(true);
    }

    /// Appends views that were made elsewhere, those of a range of rows; `valid` says of each row whether it has one. Longer ones show bytes of a buffer in which
    /// the records' own begins at `shift` (which may be less than 0, in two's complement). They are checked when the column is finished.
    pub(super) fn extend(&mut self, views: &[u128], valid: &[u8], rows: std::ops::Range<usize>, shift: u32) {
        let here = |&view: &u128| match view as u32 as usize > INLINE {
            true => view & !(u128::from(u32::MAX) << 96) | u128::from(((view >> 96) as u32).wrapping_sub(shift)) << 96,
            false => view,
        };
        self.foreign |= !rows.is_empty();
        self.views.extend(views.iter().map(here));
        self.nulls.extend(valid, rows);
    }

    /// Appends a value that is no string.
    #[inline(never)]
    fn put_as_written(&mut self, value: Value<'_>) -> Judged {
        value.check()?;
        self.push(value.raw(), RECORDS, value.payload.base as usize + value.start());
        Ok(())
    }

    /// Appends what a string's content with escapes stands for.
    #[inline(never)]
    fn put_unescaped(&mut self, inner: &[u8]) {
        let start = self.side.len();
        unescape(inner, &mut self.side);
        let text = std::mem::take(&mut self.side);
        self.push(&text[start..], SIDE, start);
        self.side = text;
        if self.side.len() - start <= INLINE {
            self.side.truncate(start);
        }
    }

    /// Appends text that lies at this place of the records' buffer.
    #[inline]
    pub(in crate::decode) fn push_view(&mut self, text: &str, at: usize) {
        self.push(text.as_bytes(), RECORDS, at);
    }

    /// Appends a copy of a text; false if there is no room for it: views reach 4 GiB.
    #[must_use]
    pub(in crate::decode) fn push_copy(&mut self, text: &str) -> bool {
        if text.len() <= INLINE {
            self.push(text.as_bytes(), SIDE, 0);
            return true;
        }
        let start = self.side.len();
        if start + text.len() > u32::MAX as usize {
            return false;
        }
        self.side.extend_from_slice(text.as_bytes());
        self.push(text.as_bytes(), SIDE, start);
        true
    }
}

/// The first 16 bytes, or as many as there are.
fn few(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = text.len().min(16);
    bytes[..length].copy_from_slice(&text[..length]);
    u128::from_le_bytes(bytes)
}

impl Column for TextView {
    fn reserve(&mut self, rows: usize) {
        self.views.reserve(rows);
    }

    #[inline(always)]
    fn put(&mut self, value: Value<'_>) -> Judged {
        let base = value.payload.base as usize + value.start();
        if !value.is_text() {
            return self.put_as_written(value);
        }
        match value.text()? {
            Text::Plain(text) => {
                let start = value.start() + 1;
                self.push_within(value.payload.bytes, start, start + text.len(), RECORDS, base + 1);
            }
            Text::Escaped(inner) => self.put_unescaped(inner),
        }
        Ok(())
    }

    #[inline(always)]
    fn put_null(&mut self) {
        self.views.push(0);
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.views.len()
    }

    fn truncate(&mut self, len: usize) {
        let gone = self.views.get(len..).unwrap_or_default().iter().map(|&view| ByteView::from(view));
        let side = gone.filter(|view| view.length as usize > INLINE && view.buffer_index == SIDE).map(|view| view.offset as usize).min();
        self.side.truncate(side.unwrap_or(self.side.len()));
        self.views.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        let views = ScalarBuffer::from(std::mem::take(&mut self.views));
        let outside = |&view: &u128| ByteView::from(view).length as usize > INLINE;
        // Text that is all inline need not keep the records in memory.
        let buffers: Vec<Buffer> = match views.iter().any(outside) {
            true => vec![records.clone(), Buffer::from_vec(std::mem::take(&mut self.side))],
            false => Vec::new(),
        };
        let nulls = self.nulls.finish();
        if std::mem::take(&mut self.foreign) {
            return Ok(Arc::new(StringViewArray::try_new(views, buffers, nulls)?));
        }
        debug_assert!(StringViewArray::try_new(views.clone(), buffers.clone(), nulls.clone()).is_ok());
        // SAFETY: a payload is valid UTF-8 as a whole before any of it gets here, and a view shows either all that is between
        // two ASCII bytes of it (quotes, or a value's first and last byte), or what `unescape` made of that, which is
        // whole characters, or a `&str` (`push_view`, whose callers slice the payload at that place; `push_copy`); `push` takes length,
        // prefix and place from the same slice, and a side buffer is only cut where the first of the views that go away begins.
        let array = unsafe { StringViewArray::new_unchecked(views, buffers, nulls) };
        Ok(Arc::new(array))
    }
}

/// Text or bytes one after the other in a buffer of their own.
#[derive(Debug)]
pub(in crate::decode) struct Bytes {
    binary: bool,
    /// One past each row's last byte.
    ends: Vec<usize>,
    bytes: Vec<u8>,
    nulls: Nulls,
}

impl Bytes {
    /// A column of `Utf8`.
    pub(in crate::decode) fn text() -> Self {
        Self { binary: false, ends: Vec::new(), bytes: Vec::new(), nulls: Nulls::default() }
    }

    /// A column of `Binary`, which takes strings only: their content as UTF-8.
    pub(in crate::decode) fn binary() -> Self {
        Self { binary: true, ..Self::text() }
    }

    /// Appends a run of bytes; text must be UTF-8.
    pub(in crate::decode) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.nulls.push(true);
    }
}

impl Column for Bytes {
    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn put(&mut self, value: Value<'_>) -> Judged {
        if !value.is_text() {
            if self.binary {
                return value.misfit("BYTEA as text".into());
            }
            value.check()?;
            self.bytes.extend_from_slice(value.raw());
        } else {
            match value.text()? {
                Text::Plain(text) => self.bytes.extend_from_slice(text),
                Text::Escaped(inner) => unescape(inner, &mut self.bytes),
            }
        }
        self.ends.push(self.bytes.len());
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.ends.push(self.bytes.len());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _records: &Buffer) -> Result<ArrayRef> {
        let offsets = offsets(&std::mem::take(&mut self.ends))?;
        let bytes = Buffer::from_vec(std::mem::take(&mut self.bytes));
        let nulls = self.nulls.finish();
        Ok(if self.binary { Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?) } else { Arc::new(StringArray::try_new(offsets, bytes, nulls)?) })
    }
}

/// Row ends as Arrow's offsets.
pub(in crate::decode) fn offsets(ends: &[usize]) -> Result<OffsetBuffer<i32>> {
    let fits = ends.last().is_none_or(|&end| end <= i32::MAX as usize);
    if !fits {
        return Err(Error::Unsupported("a column of one batch is over 2 GiB; lower max_epoch_bytes".into()));
    }
    let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().map(|&end| end as i32)).collect();
    Ok(OffsetBuffer::new(offsets.into()))
}
