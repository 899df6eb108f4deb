//! A flat record of a hundred fields, of which five are read.

use arrow::{
    array::{BooleanBuilder, Float64Builder, Int64Builder, StringViewBuilder, TimestampMillisecondBuilder},
    datatypes::{DataType, Schema, TimeUnit},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use simd_json::{prelude::ValueAsScalar, tape::Object};

use super::{
    super::{
        Contest,
        builders::{Builders, builders},
        source,
    },
    Columns, Text, field, measured, millis, text, time,
};

const COLUMNS: &str = "count_5 BIGINT, ratio_26 DOUBLE, label_47 TEXT, flag_68 BOOLEAN, at_94 TIMESTAMP(3)";
const PLACES: [&[&str]; 5] = [&["count_5"], &["ratio_26"], &["label_47"], &["flag_68"], &["at_94"]];

builders!(Needed { count_5: Int64Builder, ratio_26: Float64Builder, label_47: StringViewBuilder, flag_68: BooleanBuilder, at_94: TimestampMillisecondBuilder });

#[derive(Default, Deserialize)]
pub(super) struct Row<'a> {
    count_5: Option<i64>,
    ratio_26: Option<f64>,
    #[serde(borrow)]
    label_47: Option<Text<'a>>,
    flag_68: Option<bool>,
    #[serde(borrow)]
    at_94: Option<Text<'a>>,
}

impl Columns for Needed {
    type Row<'a> = Row<'a>;

    fn of_tape<'a>(object: &Object<'_, 'a>) -> Option<Row<'a>> {
        let mut row = Row::default();
        for (key, value) in object {
            match key {
                "count_5" => row.count_5 = value.as_i64(),
                "ratio_26" => row.ratio_26 = value.cast_f64(),
                "label_47" => row.label_47 = text(value),
                "flag_68" => row.flag_68 = value.as_bool(),
                "at_94" => row.at_94 = text(value),
                _ => {}
            }
        }
        Some(row)
    }

    fn push(&mut self, row: Row<'_>) -> anyhow::Result<()> {
        self.count_5.append_option(row.count_5);
        self.ratio_26.append_option(row.ratio_26);
        self.label_47.append_option(row.label_47.map(|text| text.0));
        self.flag_68.append_option(row.flag_68);
        self.at_94.append_option(millis(row.at_94)?);
        Ok(())
    }
}

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let mut random = ChaCha8Rng::seed_from_u64(100);
    let payloads = (0..count as i64).map(|number| payload(number, &mut random).into_bytes()).collect();
    let schema = Schema::new(vec![
        field("count_5", DataType::Int64),
        field("ratio_26", DataType::Float64),
        field("label_47", DataType::Utf8View),
        field("flag_68", DataType::Boolean),
        field("at_94", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ]);
    Ok(super::contest::<Needed>("wide-100-5", source(COLUMNS, "format = 'json'")?, payloads, schema, &PLACES))
}

/// Counts, ratios, labels, flags and times by turns.
fn payload(number: i64, random: &mut ChaCha8Rng) -> String {
    let fields = (0..100).map(|at| match at % 5 {
        0 => format!("\"count_{at}\":{}", random.random_range(0..10_000_000)),
        1 => format!("\"ratio_{at}\":{}", measured(random, 1)),
        2 => format!("\"label_{at}\":\"label {} of field {at}\"", random.random_range(0..1000)),
        3 => format!("\"flag_{at}\":{}", random.random_bool(0.5)),
        _ => format!("\"at_{at}\":\"{}\"", time(number * 1000 + at).0),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}
