//! A flat record of twelve fields, all of them: what a device reports.

use arrow::{
    array::{BooleanBuilder, Float64Builder, Int64Builder, StringViewBuilder, TimestampMillisecondBuilder},
    datatypes::{DataType, Schema, TimeUnit},
};
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use simd_json::{prelude::ValueAsScalar, tape::Object};

use super::{
    super::{
        Contest,
        builders::{Builders, builders},
        source,
    },
    Columns, Text, field, measured, millis, text, time,
};

const COLUMNS: &str = "id BIGINT, device TEXT, site TEXT, kind TEXT, status BIGINT, attempts BIGINT, temperature DOUBLE, humidity DOUBLE, pressure DOUBLE,
  online BOOLEAN, alarm BOOLEAN, at TIMESTAMP(3)";
const PLACES: [&[&str]; 12] =
    [&["id"], &["device"], &["site"], &["kind"], &["status"], &["attempts"], &["temperature"], &["humidity"], &["pressure"], &["online"], &["alarm"], &["at"]];

builders!(Readings {
    id: Int64Builder,
    device: StringViewBuilder,
    site: StringViewBuilder,
    kind: StringViewBuilder,
    status: Int64Builder,
    attempts: Int64Builder,
    temperature: Float64Builder,
    humidity: Float64Builder,
    pressure: Float64Builder,
    online: BooleanBuilder,
    alarm: BooleanBuilder,
    at: TimestampMillisecondBuilder,
});

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Reading<'a> {
    id: Option<i64>,
    #[serde(borrow)]
    device: Option<Text<'a>>,
    #[serde(borrow)]
    site: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    status: Option<i64>,
    attempts: Option<i64>,
    temperature: Option<f64>,
    humidity: Option<f64>,
    pressure: Option<f64>,
    online: Option<bool>,
    alarm: Option<bool>,
    #[serde(borrow)]
    at: Option<Text<'a>>,
}

impl Columns for Readings {
    type Row<'a> = Reading<'a>;

    fn of_tape<'a>(object: &Object<'_, 'a>) -> Option<Reading<'a>> {
        let mut reading = Reading::default();
        for (key, value) in object {
            match key {
                "id" => reading.id = value.as_i64(),
                "device" => reading.device = text(value),
                "site" => reading.site = text(value),
                "kind" => reading.kind = text(value),
                "status" => reading.status = value.as_i64(),
                "attempts" => reading.attempts = value.as_i64(),
                "temperature" => reading.temperature = value.cast_f64(),
                "humidity" => reading.humidity = value.cast_f64(),
                "pressure" => reading.pressure = value.cast_f64(),
                "online" => reading.online = value.as_bool(),
                "alarm" => reading.alarm = value.as_bool(),
                "at" => reading.at = text(value),
                _ => {}
            }
        }
        Some(reading)
    }

    fn push(&mut self, reading: Reading<'_>) -> anyhow::Result<()> {
        self.id.append_option(reading.id);
        self.device.append_option(reading.device.map(|text| text.0));
        self.site.append_option(reading.site.map(|text| text.0));
        self.kind.append_option(reading.kind.map(|text| text.0));
        self.status.append_option(reading.status);
        self.attempts.append_option(reading.attempts);
        self.temperature.append_option(reading.temperature);
        self.humidity.append_option(reading.humidity);
        self.pressure.append_option(reading.pressure);
        self.online.append_option(reading.online);
        self.alarm.append_option(reading.alarm);
        self.at.append_option(millis(reading.at)?);
        Ok(())
    }
}

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(12);
    let payloads = (0..count as i64).map(|id| {
        let reading = Reading {
            id: Some(id),
            device: Some(Text::of(format!("device-{:05}", random.random_range(0..20_000)))),
            site: Some(Text::of(["València", "Leiden", "Gdańsk", "Graz"][random.random_range(0..4)])),
            kind: Some(Text::of(["thermostat", "weather station", "meter"][random.random_range(0..3)])),
            status: Some(random.random_range(200..600)),
            attempts: Some(random.random_range(0..10)),
            temperature: Some(f64::from(random.random_range(-2000..4500)) / 100.0),
            humidity: Some(measured(&mut random, 1).abs()),
            pressure: Some(f64::from(random.random_range(95_000..105_000)) / 100.0),
            online: Some(random.random_bool(0.9)),
            alarm: Some(random.random_bool(0.05)),
            at: Some(time(id * 37)),
        };
        serde_json::to_vec(&reading)
    });
    let schema = Schema::new(vec![
        field("id", DataType::Int64),
        field("device", DataType::Utf8View),
        field("site", DataType::Utf8View),
        field("kind", DataType::Utf8View),
        field("status", DataType::Int64),
        field("attempts", DataType::Int64),
        field("temperature", DataType::Float64),
        field("humidity", DataType::Float64),
        field("pressure", DataType::Float64),
        field("online", DataType::Boolean),
        field("alarm", DataType::Boolean),
        field("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ]);
    Ok(super::contest::<Readings>("flat-12", source(COLUMNS, "format = 'json'")?, payloads.collect::<Result<_, _>>()?, schema, &PLACES))
}
