//! Protobuf, beside prost's decoding into structs of what is needed, whose values are put into Arrow's builders.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringViewBuilder, TimestampMillisecondBuilder},
    datatypes::DataType,
};
use prost::Message;

use super::{
    BATCH, COLUMNS, Contest,
    event::{Event, Moment},
    source,
};

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
/// The columns that the builders make.
const BUILT: [&[&str]; 8] = [&["match_id"], &["minute"], &["second"], &["type"], &["team"], &["player"], &["xg"], &["event_time"]];

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
    let payloads: Vec<Vec<u8>> = events.iter().map(Message::encode_to_vec).collect();
    let copy = payloads.clone();
    Ok(Contest {
        format: "protobuf",
        source: source(COLUMNS, &format!("format = 'protobuf', 'protobuf.schema' = '{SCHEMA}'"))?,
        payloads,
        baseline: "prost into structs, then Arrow's builders",
        theirs: Box::new(move || copy.chunks(BATCH).map(read).collect()),
        places: &BUILT,
    })
}

fn read(payloads: &[Vec<u8>]) -> anyhow::Result<RecordBatch> {
    let mut match_ids = Int64Builder::with_capacity(payloads.len());
    let [mut minutes, mut seconds] = [(); 2].map(|()| Int32Builder::with_capacity(payloads.len()));
    let [mut kinds, mut teams, mut players] = [(); 3].map(|()| StringViewBuilder::with_capacity(payloads.len()));
    let mut xg = Float64Builder::with_capacity(payloads.len());
    let mut times =
        TimestampMillisecondBuilder::with_capacity(payloads.len()).with_data_type(DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None));
    for payload in payloads {
        let event = Needed::decode(payload.as_slice())?;
        match_ids.append_value(event.match_id);
        minutes.append_value(event.minute);
        seconds.append_value(event.second);
        kinds.append_option(event.kind.map(|kind| kind.name));
        teams.append_option(event.team.map(|team| team.name));
        players.append_option(event.player.map(|player| player.name));
        xg.append_option(event.shot.map(|shot| shot.statsbomb_xg));
        times.append_option(event.event_time.map(|at| at.seconds * 1000 + i64::from(at.nanos / 1_000_000)));
    }
    let columns: [ArrayRef; 8] = [
        Arc::new(match_ids.finish()),
        Arc::new(minutes.finish()),
        Arc::new(seconds.finish()),
        Arc::new(kinds.finish()),
        Arc::new(teams.finish()),
        Arc::new(players.finish()),
        Arc::new(xg.finish()),
        Arc::new(times.finish()),
    ];
    Ok(RecordBatch::try_from_iter(BUILT.iter().map(|place| place[0]).zip(columns))?)
}
