//! A flat record of twelve fields, all of them: what a device reports.

use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::{
    super::{
        Contest,
        record::{Part, Record, Text, Time, record},
        source,
    },
    measured, time,
};

record!(
    #[derive(Serialize)]
    Reading<'a> {
        id: i64,
        device: Text<'a>,
        site: Text<'a>,
        kind: Text<'a>,
        status: i64,
        attempts: i64,
        temperature: f64,
        humidity: f64,
        pressure: f64,
        online: bool,
        alarm: bool,
        at: Time<'a>,
    }
);

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
            at: Some(Time(Text::of(time(id * 37)))),
        };
        serde_json::to_vec(&reading)
    });
    let payloads = payloads.collect::<Result<_, _>>()?;
    super::contest::<Reading<'_>>("flat-12", source(&Reading::columns(), "format = 'json'")?, payloads)
}
