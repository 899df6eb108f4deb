//! What is read of a match event, in every format but CSV.

use std::sync::Arc;

use super::{
    record::{Part, Record, Text, Time, record},
    source,
};
use crate::catalog::SourceDef;

record!(Needed<'a> {
    match_id: i64,
    minute: i32,
    second: i32,
    "type" as kind: Named<'a>,
    team: Named<'a>,
    player: Named<'a>,
    shot: Shot,
    event_time: Time<'a>,
});
record!(Named<'a> { name: Text<'a> });
record!(Shot { statsbomb_xg: f64 });

/// A source of it, in the format that these options name.
pub(super) fn events_source(options: &str) -> anyhow::Result<Arc<SourceDef>> {
    source(&format!("{}, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'", Needed::columns()), options)
}
