//! `ALTER [CONTINUOUS | MATERIALIZED] VIEW name SET (memory_limit = '…')`.

use super::{ObjectKind, Statement, cursor::Cursor, options::Options, show, syntax};
use crate::error::{Error, Result};

/// Parses what follows `ALTER … VIEW`.
pub(super) fn parse(mut cursor: Cursor) -> Result<Statement> {
    let name = cursor.name("the name of a continuous view")?;
    if let Some(owned) = show::owner(&mut cursor, ObjectKind::View, &name)? {
        return Ok(owned);
    }
    if !cursor.take(&["SET"]) {
        return Err(syntax::expected("SET (memory_limit = '1 GiB') or OWNER TO user, which is all that can be altered of a view", cursor.peek()));
    }
    let owner = format!("view {name}");
    let mut options = Options::parse(&owner, &mut cursor)?;
    let limit = options.take_size("memory_limit")?;
    options.finish(&["memory_limit"])?;
    cursor.end()?;
    let limit = limit.ok_or_else(|| Error::Invalid(format!("{owner}: nothing is to be set: write SET (memory_limit = '1 GiB')")))?;
    Ok(Statement::AlterView { name, memory_limit: limit })
}
