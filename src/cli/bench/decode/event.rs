//! A match event with the fields that it has in every format. What it is made of is what others write it with: serde, and prost by its tags.

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// An event.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Event {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int32, tag = "2")]
    index: i32,
    #[prost(int32, tag = "3")]
    period: i32,
    #[prost(string, tag = "4")]
    timestamp: String,
    #[prost(int32, tag = "5")]
    minute: i32,
    #[prost(int32, tag = "6")]
    second: i32,
    #[prost(message, optional, tag = "7")]
    #[serde(rename = "type")]
    kind: Option<Named>,
    #[prost(int32, tag = "8")]
    possession: i32,
    #[prost(message, optional, tag = "9")]
    possession_team: Option<Named>,
    #[prost(message, optional, tag = "10")]
    play_pattern: Option<Named>,
    #[prost(message, optional, tag = "11")]
    team: Option<Named>,
    #[prost(message, optional, tag = "12")]
    #[serde(skip_serializing_if = "Option::is_none")]
    player: Option<Named>,
    #[prost(message, optional, tag = "13")]
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Named>,
    #[prost(double, repeated, tag = "14")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    location: Vec<f64>,
    #[prost(double, optional, tag = "15")]
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[prost(string, repeated, tag = "16")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    related_events: Vec<String>,
    #[prost(message, optional, tag = "17")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<Pass>,
    #[prost(message, optional, tag = "18")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shot: Option<Shot>,
    #[prost(int64, tag = "19")]
    match_id: i64,
    #[prost(string, tag = "20")]
    home_team: String,
    #[prost(string, tag = "21")]
    away_team: String,
    #[prost(message, optional, tag = "22")]
    event_time: Option<Moment>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Named {
    #[prost(int32, tag = "1")]
    id: i32,
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Pass {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Named>,
    #[prost(double, tag = "2")]
    length: f64,
    #[prost(double, tag = "3")]
    angle: f64,
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<Named>,
    #[prost(double, repeated, tag = "5")]
    end_location: Vec<f64>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Shot {
    #[prost(double, tag = "1")]
    statsbomb_xg: f64,
    #[prost(double, repeated, tag = "2")]
    end_location: Vec<f64>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Named>,
}

/// A time, to the millisecond: Protobuf's `google.protobuf.Timestamp`, in JSON a text.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Moment {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = DateTime::from_timestamp(self.seconds, self.nanos as u32).unwrap_or_default();
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time = DateTime::parse_from_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        Ok(Self { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos() as i32 })
    }
}
