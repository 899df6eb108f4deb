//! Values that come as bare text (a cell of CSV, a payload or a key that is text) as JSON values of their columns, so that they are judged just as
//! in JSON.

use std::borrow::Cow;

use arrow::datatypes::DataType;

use super::{number::Number, payload::PayloadColumn};
use crate::catalog::TimeFormat;

/// How a column's values stand in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// In quotes.
    Quoted,
    /// As they are.
    Bare,
}

impl Cell {
    /// How those of a column do; `None`: a column of its type has no text.
    pub(super) fn of(column: &PayloadColumn) -> Option<Self> {
        match (&column.data_type, &column.time) {
            (data_type, _) if data_type.is_nested() => None,
            (DataType::Timestamp(..), TimeFormat::EpochSeconds | TimeFormat::EpochMillis | TimeFormat::EpochMicros) => Some(Cell::Bare),
            (DataType::Utf8View | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Timestamp(..), _) => Some(Cell::Quoted),
            _ => Some(Cell::Bare),
        }
    }

    /// Appends a text as a value. One that should stand bare and is no number, TRUE or FALSE is quoted, and will not fit then.
    pub(super) fn write(self, text: &str, out: &mut Vec<u8>) {
        if self == Cell::Bare && (matches!(text, "true" | "false") || Number::parse(text.as_bytes()).is_some()) {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.push(b'"');
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || matches!(c, '"' | '\\')) {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let escaped: Cow<'_, str> = match rest.as_bytes()[at] {
                b'"' => "\\\"".into(),
                b'\\' => "\\\\".into(),
                byte => format!("\\u{byte:04x}").into(),
            };
            out.extend_from_slice(escaped.as_bytes());
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest.as_bytes());
        out.push(b'"');
    }
}
