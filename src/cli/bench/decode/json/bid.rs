//! Bids of the Nexmark benchmark, all seven fields.

use nexmark::{EventGenerator, config::NexmarkConfig, event::Event};

use super::super::{
    Contest,
    record::{EpochMillis, Part, Record, Text, record},
    source,
};
use crate::cli::bench::nexmark::BASE_TIME;

record!(Bid<'a> { auction: i64, bidder: i64, price: i64, channel: Text<'a>, url: Text<'a>, date_time: EpochMillis, extra: Text<'a> });

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let events = EventGenerator::new(NexmarkConfig { base_time: BASE_TIME, ..NexmarkConfig::default() });
    let bids = events.filter_map(|event| if let Event::Bid(bid) = event { Some(serde_json::to_vec(&bid)) } else { None });
    let payloads = bids.take(count).collect::<Result<_, _>>()?;
    super::contest::<Bid<'_>>("nexmark-bid", source(&Bid::columns(), "format = 'json'")?, payloads)
}
