//! `PAUSE VIEW | SINK` and `RESUME VIEW | SINK`.

use super::{ObjectKind, Statement, cursor::Cursor, show, syntax};
use crate::error::Result;

/// What follows `PAUSE` or `RESUME`.
pub(super) fn parse(mut cursor: Cursor, resume: bool) -> Result<Statement> {
    let said = cursor.peek().clone();
    let (kind, what) = match show::object_kind(&mut cursor) {
        Some(kind @ ObjectKind::View) => (kind, "the name of a continuous view"),
        Some(kind @ ObjectKind::Sink) => (kind, "the name of a sink"),
        _ => return Err(syntax::expected("VIEW and a continuous view's name, or SINK and a sink's", &said)),
    };
    let name = cursor.name(what)?;
    cursor.end()?;
    Ok(Statement::Pause { kind, name, resume })
}
