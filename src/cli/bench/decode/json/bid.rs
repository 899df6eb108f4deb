//! Bids of the Nexmark benchmark, all seven fields.

use arrow::{
    array::{Int64Builder, StringViewBuilder, TimestampMillisecondBuilder},
    datatypes::{DataType, Schema, TimeUnit},
};
use nexmark::{EventGenerator, config::NexmarkConfig, event::Event};
use serde::Deserialize;
use simd_json::{prelude::ValueAsScalar, tape::Object};

use super::{
    super::{
        Contest,
        builders::{Builders, builders},
        source,
    },
    Columns, Text, field, text,
};

const COLUMNS: &str = "auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP(3) FORMAT 'epoch_ms', extra TEXT";
const PLACES: [&[&str]; 7] = [&["auction"], &["bidder"], &["price"], &["channel"], &["url"], &["date_time"], &["extra"]];
/// 2015-07-15, in milliseconds: where the benchmark's time begins.
const BASE_TIME: u64 = 1_436_918_400_000;

builders!(Bids {
    auction: Int64Builder,
    bidder: Int64Builder,
    price: Int64Builder,
    channel: StringViewBuilder,
    url: StringViewBuilder,
    date_time: TimestampMillisecondBuilder,
    extra: StringViewBuilder,
});

#[derive(Default, Deserialize)]
pub(super) struct Bid<'a> {
    auction: Option<i64>,
    bidder: Option<i64>,
    price: Option<i64>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    url: Option<Text<'a>>,
    date_time: Option<i64>,
    #[serde(borrow)]
    extra: Option<Text<'a>>,
}

impl Columns for Bids {
    type Row<'a> = Bid<'a>;

    fn of_tape<'a>(object: &Object<'_, 'a>) -> Option<Bid<'a>> {
        let mut bid = Bid::default();
        for (key, value) in object {
            match key {
                "auction" => bid.auction = value.as_i64(),
                "bidder" => bid.bidder = value.as_i64(),
                "price" => bid.price = value.as_i64(),
                "channel" => bid.channel = text(value),
                "url" => bid.url = text(value),
                "date_time" => bid.date_time = value.as_i64(),
                "extra" => bid.extra = text(value),
                _ => {}
            }
        }
        Some(bid)
    }

    fn push(&mut self, bid: Bid<'_>) -> anyhow::Result<()> {
        self.auction.append_option(bid.auction);
        self.bidder.append_option(bid.bidder);
        self.price.append_option(bid.price);
        self.channel.append_option(bid.channel.map(|text| text.0));
        self.url.append_option(bid.url.map(|text| text.0));
        self.date_time.append_option(bid.date_time);
        self.extra.append_option(bid.extra.map(|text| text.0));
        Ok(())
    }
}

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let events = EventGenerator::new(NexmarkConfig { base_time: BASE_TIME, ..NexmarkConfig::default() });
    let bids = events.filter_map(|event| if let Event::Bid(bid) = event { Some(serde_json::to_vec(&bid)) } else { None });
    let schema = Schema::new(vec![
        field("auction", DataType::Int64),
        field("bidder", DataType::Int64),
        field("price", DataType::Int64),
        field("channel", DataType::Utf8View),
        field("url", DataType::Utf8View),
        field("date_time", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("extra", DataType::Utf8View),
    ]);
    Ok(super::contest::<Bids>("nexmark-bid", source(COLUMNS, "format = 'json'")?, bids.take(count).collect::<Result<_, _>>()?, schema, &PLACES))
}
