//! Protobuf, beside prost's decoding into structs of what is needed, whose values are put into Arrow's builders.

use arrow::array::RecordBatch;
use prost::Message;

use super::{
    Contest, Layout, Rival,
    event::{Event, Moment},
    needed::{self, events_source},
    record::Record,
};
use crate::source::Records;

const SCHEMA: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
message Event {
  string id = 1; int32 index = 2; int32 period = 3; string timestamp = 4; int32 minute = 5; int32 second = 6; Named type = 7; int32 possession = 8;
  Named possession_team = 9; Named play_pattern = 10; Named team = 11; Named player = 12; Named position = 13; repeated double location = 14;
  optional double duration = 15; repeated string related_events = 16; Pass pass = 17; Shot shot = 18; int64 match_id = 19; string home_team = 20;
  string away_team = 21; google.protobuf.Timestamp event_time = 22;
  message Named { int32 id = 1; string name = 2; }
  message Pass { Named recipient = 1; double length = 2; double angle = 3; Named height = 4; repeated double end_location = 5; }
  message Shot { double statsbomb_xg = 1; repeated double end_location = 2; Named outcome = 3; }
}"#;
/// An event as prost is to read it: it steps over the fields that are not here.
#[derive(Clone, PartialEq, prost::Message)]
struct Needed {
    #[prost(int32, tag = "5")]
    minute: i32,
    #[prost(int32, tag = "6")]
    second: i32,
    #[prost(message, optional, tag = "7")]
    kind: Option<Name>,
    #[prost(message, optional, tag = "11")]
    team: Option<Name>,
    #[prost(message, optional, tag = "12")]
    player: Option<Name>,
    #[prost(message, optional, tag = "18")]
    shot: Option<Chance>,
    #[prost(int64, tag = "19")]
    match_id: i64,
    #[prost(message, optional, tag = "22")]
    event_time: Option<Moment>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Chance {
    #[prost(double, tag = "1")]
    statsbomb_xg: f64,
}

pub(super) fn contest(events: &[Event]) -> anyhow::Result<Contest> {
    let read = |slices: &[Records]| slices.iter().map(read).collect();
    Ok(Contest {
        case: "protobuf",
        source: events_source(&format!("format = 'protobuf', 'protobuf.schema' = '{SCHEMA}'"))?,
        payloads: events.iter().map(Message::encode_to_vec).collect(),
        rivals: vec![Rival { name: "prost", read: Box::new(read), layout: Layout::Columns }],
    })
}

fn read(records: &Records) -> anyhow::Result<RecordBatch> {
    needed::Needed::read(records, |payload, (match_id, minute, second, (kind,), (team,), (player,), (xg,), event_time)| {
        let event = Needed::decode(payload)?;
        match_id.append_value(event.match_id);
        minute.append_value(event.minute);
        second.append_value(event.second);
        kind.append_option(event.kind.map(|kind| kind.name));
        team.append_option(event.team.map(|team| team.name));
        player.append_option(event.player.map(|player| player.name));
        xg.append_option(event.shot.map(|shot| shot.statsbomb_xg));
        event_time.append_option(event.event_time.map(|at| at.seconds * 1000 + i64::from(at.nanos / 1_000_000)));
        Ok(())
    })
}
