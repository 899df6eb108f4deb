//! Why a record can't be read as declared, from the place where it was noticed to the sentence a person reads.

use super::super::quote::shorten;

/// What is wrong with a payload. Boxed in results: faults are rare and results are passed for every value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) enum Fault {
    /// Not JSON, noticed at this byte of the payload.
    Malformed {
        /// Byte position in the payload.
        at: usize,
        /// What was looked for or found instead.
        what: &'static str,
    },
    /// JSON, but not a value of the column's type.
    Misfit {
        /// The value as it stands in the payload.
        start: usize,
        /// One past its last byte.
        end: usize,
        /// The type that was declared for it.
        expected: String,
    },
}

/// What judging a value gives.
pub(super) type Judged<T = ()> = Result<T, Box<Fault>>;

/// A fault of grammar.
#[cold]
pub(super) fn malformed<T>(at: usize, what: &'static str) -> Judged<T> {
    Err(Box::new(Fault::Malformed { at, what }))
}

impl Fault {
    /// Where the value is that isn't one of its column's type, if that is the fault.
    pub(super) fn misfit(&self) -> Option<std::ops::Range<usize>> {
        match self {
            Fault::Malformed { .. } => None,
            Fault::Misfit { start, end, .. } => Some(*start..*end),
        }
    }

    /// The sentence; `column` is the column that was judged, if it had come to that.
    pub(super) fn reason(&self, payload: &[u8], column: Option<&str>) -> String {
        match self {
            Fault::Malformed { at, what } => {
                let within = column.map(|name| format!(" in column {name}")).unwrap_or_default();
                format!("malformed JSON{within} at byte {at}: {what}")
            }
            Fault::Misfit { start, end, expected } => {
                let column = column.unwrap_or("?");
                format!("column {column} has {} where {expected} is expected", shorten(payload.get(*start..*end).unwrap_or_default()))
            }
        }
    }
}
