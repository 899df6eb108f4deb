//! Match events of about twenty fields and nested objects, of which eight values are read.

use arrow::{
    array::{Float64Builder, Int32Builder, Int64Builder, StringViewBuilder, TimestampMillisecondBuilder},
    datatypes::{DataType, Schema, TimeUnit},
};
use serde::Deserialize;
use simd_json::{
    prelude::ValueAsScalar,
    tape::{Object, Value},
};

use super::{
    super::{
        COLUMNS, Contest, PLACES,
        builders::{Builders, builders},
        event::Event,
        source,
    },
    Columns, Text, field, millis, object, text,
};

builders!(Events {
    match_id: Int64Builder,
    minute: Int32Builder,
    second: Int32Builder,
    kind: StringViewBuilder,
    team: StringViewBuilder,
    player: StringViewBuilder,
    xg: Float64Builder,
    event_time: TimestampMillisecondBuilder,
});

#[derive(Default, Deserialize)]
pub(super) struct Needed<'a> {
    match_id: Option<i64>,
    minute: Option<i32>,
    second: Option<i32>,
    #[serde(borrow, rename = "type")]
    kind: Option<Named<'a>>,
    #[serde(borrow)]
    team: Option<Named<'a>>,
    #[serde(borrow)]
    player: Option<Named<'a>>,
    shot: Option<Shot>,
    #[serde(borrow)]
    event_time: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Shot {
    statsbomb_xg: f64,
}

impl Columns for Events {
    type Row<'a> = Needed<'a>;

    fn of_tape<'a>(object: &Object<'_, 'a>) -> Option<Needed<'a>> {
        let mut event = Needed::default();
        for (key, value) in object {
            match key {
                "match_id" => event.match_id = value.as_i64(),
                "minute" => event.minute = value.as_i32(),
                "second" => event.second = value.as_i32(),
                "type" => event.kind = named(value),
                "team" => event.team = named(value),
                "player" => event.player = named(value),
                "shot" => event.shot = Some(Shot { statsbomb_xg: value.as_object()?.get("statsbomb_xg")?.cast_f64()? }),
                "event_time" => event.event_time = text(value),
                _ => {}
            }
        }
        Some(event)
    }

    fn push(&mut self, event: Needed<'_>) -> anyhow::Result<()> {
        self.match_id.append_option(event.match_id);
        self.minute.append_option(event.minute);
        self.second.append_option(event.second);
        self.kind.append_option(event.kind.map(|kind| kind.name.0));
        self.team.append_option(event.team.map(|team| team.name.0));
        self.player.append_option(event.player.map(|player| player.name.0));
        self.xg.append_option(event.shot.map(|shot| shot.statsbomb_xg));
        self.event_time.append_option(millis(event.event_time)?);
        Ok(())
    }
}

fn named<'a>(value: Value<'_, 'a>) -> Option<Named<'a>> {
    Some(Named { name: text(value.as_object()?.get("name")?)? })
}

pub(in super::super) fn contest(events: &[Event]) -> anyhow::Result<Contest> {
    let payloads = events.iter().map(serde_json::to_vec).collect::<Result<_, _>>()?;
    let schema = Schema::new(vec![
        field("match_id", DataType::Int64),
        field("minute", DataType::Int32),
        field("second", DataType::Int32),
        object("type", vec![field("name", DataType::Utf8View)]),
        object("team", vec![field("name", DataType::Utf8View)]),
        object("player", vec![field("name", DataType::Utf8View)]),
        object("shot", vec![field("statsbomb_xg", DataType::Float64)]),
        field("event_time", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ]);
    Ok(super::contest::<Events>("statsbomb-8", source(COLUMNS, "format = 'json'")?, payloads, schema, &PLACES))
}
