//! `EXPLAIN ANALYZE VIEW name [FOR INTERVAL '10 seconds']`.

use std::time::Duration;

use super::{Statement, cursor::Cursor, interval, show, syntax};
use crate::{
    catalog::ObjectKind,
    error::{Error, Result},
};

/// How long it looks if nobody says.
const DEFAULT: Duration = Duration::from_secs(5);
/// How long it looks at most: a client that hears nothing for longer takes the server for dead.
const LONGEST: Duration = Duration::from_secs(600);

/// What follows `EXPLAIN`, if it is `ANALYZE VIEW`.
pub(super) fn parse(cursor: &mut Cursor) -> Result<Option<Statement>> {
    let ours = ["VIEW", "CONTINUOUS", "MATERIALIZED"].iter().any(|word| cursor.at(&["ANALYZE", word]));
    if !ours {
        return Ok(None);
    }
    cursor.expect(&["ANALYZE"])?;
    if show::object_kind(cursor) != Some(ObjectKind::View) {
        return Err(syntax::expected("VIEW", cursor.peek()));
    }
    let name = cursor.name("the name of a view")?;
    let mut duration = DEFAULT;
    if cursor.take(&["FOR"]) {
        let what = "the time to look for";
        duration = match u64::try_from(interval::literal_ns(what, &cursor.expression()?)?) {
            Ok(ns) if ns > 0 && Duration::from_nanos(ns) <= LONGEST => Duration::from_nanos(ns),
            _ => return Err(Error::Invalid(format!("{what} must be longer than nothing and at most {}", humantime::format_duration(LONGEST)))),
        };
    }
    cursor.end()?;
    Ok(Some(Statement::AnalyzeView { name, duration }))
}
