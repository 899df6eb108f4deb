//! `PAUSE VIEW` and `RESUME VIEW`.

use super::{ObjectKind, Statement, cursor::Cursor, show, syntax};
use crate::error::Result;

/// What follows `PAUSE` or `RESUME`.
pub(super) fn parse(mut cursor: Cursor, resume: bool) -> Result<Statement> {
    let kind = cursor.peek().clone();
    if show::object_kind(&mut cursor) != Some(ObjectKind::View) {
        return Err(syntax::expected("VIEW and a continuous view's name", &kind));
    }
    let name = cursor.name("the name of a continuous view")?;
    cursor.end()?;
    Ok(Statement::Pause { name, resume })
}
