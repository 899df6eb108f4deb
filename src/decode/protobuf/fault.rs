//! Why a message can't be read as declared.

use super::super::quote::shorten;

/// What is wrong with a message. Boxed in results: faults are rare and results are passed for every value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No Protobuf, noticed at this byte.
    Malformed {
        /// Byte position in the payload.
        at: usize,
        /// What was looked for or found instead.
        what: String,
    },
    /// The same of a field that is written as another type's values are.
    Rewritten {
        /// Byte position in the payload.
        at: usize,
        /// How it is written.
        what: String,
        /// The names that lead to it.
        path: Vec<String>,
    },
    /// A required field is not there.
    Absent,
    /// Protobuf, but not a value of the column's type.
    Misfit {
        /// The value, as it can stand in a sentence.
        value: String,
        /// The type that was declared for it.
        expected: String,
    },
}

/// What judging a value gives.
pub(super) type Judged<T = ()> = Result<T, Box<Fault>>;

/// A fault of the wire format.
#[cold]
pub(super) fn malformed<T>(at: usize, what: &str) -> Judged<T> {
    Err(Box::new(Fault::Malformed { at, what: what.into() }))
}

/// A value that isn't what its column expects.
#[cold]
pub(super) fn misfit<T>(value: &str, expected: String) -> Judged<T> {
    Err(Box::new(Fault::Misfit { value: shorten(value.as_bytes()).into_owned(), expected }))
}

impl Fault {
    /// The sentence; `column` is the column that was judged, if it had come to that.
    pub(super) fn reason(&self, column: Option<&str>) -> String {
        match self {
            Fault::Malformed { at, what } | Fault::Rewritten { at, what, .. } => {
                let within = column.map(|name| format!(" in column {name}")).unwrap_or_default();
                format!("malformed Protobuf{within} at byte {at}: {what}")
            }
            Fault::Absent => format!("column {} has no value where a required field is expected", column.unwrap_or("?")),
            Fault::Misfit { value, expected } => format!("column {} has {value} where {expected} is expected", column.unwrap_or("?")),
        }
    }
}
