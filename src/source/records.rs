//! Records as they come from a topic: one shared payload buffer and a few columns beside it.

use std::{ops::Range, sync::Arc};

use arrow::buffer::Buffer;

use crate::catalog::HeaderFilter;

/// Consecutive records of one topic partition: the offsets `begin..end`, of which gaps (compaction, transaction markers) hold no record.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The topic partition.
    pub partition: i32,
    /// First offset of the range.
    pub begin: i64,
    /// One past the last offset of the range; where the next slice begins.
    pub end: i64,
    /// The records in offset order.
    pub records: Records,
}

/// Records of one partition in offset order. All bytes (values, keys, header values) lie in one buffer, so that
/// decoded text columns can be views into it.
#[derive(Debug, Clone)]
pub struct Records {
    bytes: Buffer,
    /// What these are some of: parts of it share it.
    items: Arc<Vec<Item>>,
    /// Which of them.
    span: Range<usize>,
    headers: Arc<Vec<Header>>,
}

#[derive(Debug, Clone)]
struct Item {
    offset: i64,
    timestamp_ms: Option<i64>,
    value: Option<Range<u32>>,
    key: Option<Range<u32>>,
    headers: Range<u32>,
}

impl Item {
    fn byte_len(&self) -> usize {
        [&self.value, &self.key].into_iter().flatten().map(ExactSizeIterator::len).sum()
    }
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The header's name.
    pub key: String,
    /// Its value; Kafka allows none.
    pub value: Option<Vec<u8>>,
}

impl HeaderFilter {
    /// Whether a record with these headers is read.
    pub fn passes(&self, headers: &[Header]) -> bool {
        headers.iter().any(|header| header.key == self.name && header.value.as_deref() == Some(&self.value))
    }
}

/// A record of [`Records`], with other extents of their buffer as its key and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Its position.
    pub index: usize,
    /// Where its key lies.
    pub key: Option<(usize, usize)>,
    /// Where its payload lies.
    pub value: Option<(usize, usize)>,
}

/// One record, borrowed from [`Records`].
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// The record's Kafka timestamp in milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Where the payload lies in [`Records::bytes`]; `None` is a NULL payload (a tombstone).
    pub value_at: Option<(usize, usize)>,
    /// The payload.
    pub value: Option<&'a [u8]>,
    /// Where the key lies in [`Records::bytes`].
    pub key_at: Option<(usize, usize)>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The headers in the order they were sent.
    pub headers: &'a [Header],
}

impl Record<'_> {
    /// How many bytes its value and key have.
    pub fn byte_len(&self) -> usize {
        [self.value, self.key].into_iter().flatten().map(<[u8]>::len).sum()
    }
}

impl Records {
    fn new(bytes: Buffer, items: Vec<Item>, headers: Arc<Vec<Header>>) -> Self {
        Self { bytes, span: 0..items.len(), items: Arc::new(items), headers }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.span.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.span.is_empty()
    }

    fn items(&self) -> &[Item] {
        &self.items[self.span.clone()]
    }

    /// The buffer that all values and keys lie in, with what belongs to other parts of the same; smaller than 4 GiB, so a string view's offset reaches all of it.
    pub fn bytes(&self) -> &Buffer {
        &self.bytes
    }

    /// How many bytes their values and keys have.
    pub fn byte_len(&self) -> usize {
        self.items().iter().map(Item::byte_len).sum()
    }

    /// The first so many records, and the others; nothing is copied.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let middle = self.span.start + count.min(self.len());
        let (head, rest) = (self.span.start..middle, middle..self.span.end);
        (Self { span: head, ..self.clone() }, Self { span: rest, ..self })
    }

    /// The same records with their keys in the place of payloads, in the same buffer.
    pub fn keys_as_values(&self) -> Self {
        let turned = |item: &Item| Item { value: item.key.clone(), key: None, headers: 0..0, ..item.clone() };
        Self::new(self.bytes.clone(), self.items().iter().map(turned).collect(), Arc::default())
    }

    /// Some of the records, in order, with these extents of the same buffer as their keys and payloads.
    pub fn pick(&self, picked: &[Picked]) -> Self {
        let range = |extent: (usize, usize)| extent.0 as u32..extent.1 as u32;
        let item = |picked: &Picked| Item { key: picked.key.map(range), value: picked.value.map(range), ..self.items()[picked.index].clone() };
        Self::new(self.bytes.clone(), picked.iter().map(item).collect(), self.headers.clone())
    }

    /// The record at a position.
    #[inline]
    pub fn get(&self, index: usize) -> Record<'_> {
        let item = &self.items()[index];
        let slice = |r: &Range<u32>| &self.bytes.as_slice()[r.start as usize..r.end as usize];
        Record {
            offset: item.offset,
            timestamp_ms: item.timestamp_ms,
            value_at: item.value.as_ref().map(|r| (r.start as usize, r.end as usize)),
            value: item.value.as_ref().map(slice),
            key_at: item.key.as_ref().map(|r| (r.start as usize, r.end as usize)),
            key: item.key.as_ref().map(slice),
            headers: &self.headers[item.headers.start as usize..item.headers.end as usize],
        }
    }

    /// The records in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// Gathers records into one buffer.
#[derive(Debug, Default)]
pub struct RecordsBuilder {
    bytes: Vec<u8>,
    items: Vec<Item>,
    headers: Vec<Header>,
}

impl RecordsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes gathered so far.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Records gathered so far.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was gathered yet.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// One past the last gathered record's offset.
    pub fn next_offset(&self) -> Option<i64> {
        self.items.last().map(|item| item.offset + 1)
    }

    /// An empty builder with room for so many bytes and records.
    pub fn with_capacity(bytes: usize, records: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), items: Vec::with_capacity(records), headers: vec![] }
    }

    /// Adds a record. Offsets must rise. A caller keeps a builder well below 4 GiB: it cuts slices by bytes.
    pub fn push(&mut self, offset: i64, timestamp_ms: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>, headers: Vec<Header>) {
        let value = value.map(|v| self.place(v));
        let key = key.map(|k| self.place(k));
        let first = self.headers.len() as u32;
        self.headers.extend(headers);
        self.items.push(Item { offset, timestamp_ms, value, key, headers: first..self.headers.len() as u32 });
    }

    fn place(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len() as u32
    }

    /// The gathered records.
    pub fn finish(self) -> Records {
        Records::new(Buffer::from_vec(self.bytes), self.items, Arc::new(self.headers))
    }
}
