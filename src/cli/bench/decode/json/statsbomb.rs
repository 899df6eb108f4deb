//! Match events of about twenty fields and nested objects, of which eight values are read.

use super::super::{
    Contest,
    event::Event,
    needed::{Needed, events_source},
};

pub(in super::super) fn contest(events: &[Event]) -> anyhow::Result<Contest> {
    let payloads = events.iter().map(serde_json::to_vec).collect::<Result<_, _>>()?;
    super::contest::<Needed<'_>>("statsbomb-8", events_source("format = 'json'")?, payloads)
}
