//! What comes out: columns as Arrow lays them out, and each row's status.

/// Why a row was not decoded, or that it was. The numbers are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Decoded.
    Decoded = 0,
    /// Empty, an array, several objects, or something after the object.
    NotOneObject = 1,
    /// Something is wrong with brackets, commas, colons or quotes.
    Structure = 2,
    /// Skipped values nest deeper than is followed.
    TooDeep = 3,
    /// Not UTF-8, or other than ASCII outside strings.
    Utf8 = 4,
    /// A backslash in a key or value that is read, or outside strings.
    Escape = 5,
    /// A control character in such a string.
    Control = 6,
    /// A declared key comes twice.
    Twice = 7,
    /// A value not of its column's type, or written in an unusual way.
    Value = 8,
    /// A key at the top that is neither declared nor noted, if such rows are to be left.
    UnknownKey = 9,
    /// Something on the way to a declared value is no object, if such rows are to be left.
    Blocked = 10,
}

impl Status {
    /// All of them, by number.
    pub const ALL: [Status; 11] = [
        Status::Decoded,
        Status::NotOneObject,
        Status::Structure,
        Status::TooDeep,
        Status::Utf8,
        Status::Escape,
        Status::Control,
        Status::Twice,
        Status::Value,
        Status::UnknownKey,
        Status::Blocked,
    ];
}

/// Rows as columns. A row that was not decoded is NULL in all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Each row's status.
    pub status: Vec<Status>,
    /// The columns in the schema's order; `None`: nobody wants it.
    pub columns: Vec<Option<Column>>,
    /// Which keys each row has, if that is asked for: for each of [`super::Schema::seen_words`] the rows' words. A row that was not decoded has
    /// none.
    pub seen: Vec<Vec<u64>>,
}

/// A column in Arrow's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Which rows have a value: a bitmap, least bit first.
    pub valid: Vec<u8>,
    /// The values; zero in rows that have none.
    pub cells: Cells,
}

/// A column's values.
#[derive(Debug, Clone)]
pub enum Cells {
    /// A bitmap.
    Boolean(Vec<u8>),
    /// Integers of 8, 16 or 32 bits.
    Int32(Vec<i32>),
    /// The same without sign.
    UInt32(Vec<u32>),
    /// Integers of 64 bits.
    Int64(Vec<i64>),
    /// Floats.
    Float64(Vec<f64>),
    /// Arrow's views; longer ones point into buffer 0, the payload.
    Text(Vec<u128>),
    /// Counts of the column's unit since 1970.
    Timestamp(Vec<i64>),
    /// Where values lie in the payload: offset and length.
    Raw(Vec<[u32; 2]>),
}

/// To the bit: -0 is not 0.
impl PartialEq for Cells {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Cells::Boolean(a), Cells::Boolean(b)) => a == b,
            (Cells::Int32(a), Cells::Int32(b)) => a == b,
            (Cells::UInt32(a), Cells::UInt32(b)) => a == b,
            (Cells::Int64(a), Cells::Int64(b)) | (Cells::Timestamp(a), Cells::Timestamp(b)) => a == b,
            (Cells::Float64(a), Cells::Float64(b)) => a.iter().map(|value| value.to_bits()).eq(b.iter().map(|value| value.to_bits())),
            (Cells::Text(a), Cells::Text(b)) => a == b,
            (Cells::Raw(a), Cells::Raw(b)) => a == b,
            _ => false,
        }
    }
}

impl Decoded {
    /// The rows that were not decoded.
    pub fn left_over(&self) -> impl Iterator<Item = usize> + '_ {
        self.status.iter().enumerate().filter(|(_, status)| **status != Status::Decoded).map(|(row, _)| row)
    }
}

/// A view of text that lies at `offset` of buffer 0; up to 12 bytes lie in the view itself.
pub(super) fn view(text: &[u8], offset: u32) -> u128 {
    let mut view = [0u8; 16];
    view[..4].copy_from_slice(&(text.len() as u32).to_le_bytes());
    if text.len() <= 12 {
        view[4..4 + text.len()].copy_from_slice(text);
    } else {
        view[4..8].copy_from_slice(&text[..4]);
        view[12..].copy_from_slice(&offset.to_le_bytes());
    }
    u128::from_le_bytes(view)
}
