//! JSON, beside arrow-json, simd-json, sonic-rs and serde_json.
//!
//! What of the others' interfaces is used is what was fastest for these cases. simd-json: a tape that is kept, walked once, was up to a seventh faster than its
//! serde. sonic-rs: serde was a quarter faster than `get_many` with a `PointerTree`, which allocates. serde_json: structs of the needed fields that borrow their texts, as with sonic-rs. Its
//! `Value` would be far slower.

pub(super) mod bid;
pub(super) mod flat;
pub(super) mod nested;
pub(super) mod statsbomb;
pub(super) mod wide;

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::RecordBatch,
    compute::kernels::cast_utils::string_to_timestamp_nanos,
    datatypes::{DataType, Field, Schema},
    json::ReaderBuilder,
};
use chrono::{DateTime, SecondsFormat};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use simd_json::{
    Buffers, Tape,
    prelude::ValueIntoString,
    tape::{Object, Value},
};

use super::{
    BATCH, Contest, Rival,
    builders::{Builders, payloads},
};
use crate::{catalog::SourceDef, source::Records};

/// Who else reads each case.
#[cfg(test)]
pub(super) const RIVALS: [&str; 4] = ["arrow-json", "simd-json", "sonic-rs", "serde_json"];

/// The columns of a case, filled from records as the other readers see them.
trait Columns: Builders + 'static {
    /// A record with the needed fields alone, which borrows its texts.
    type Row<'a>: Deserialize<'a>;

    /// The record that an object on simd-json's tape is.
    fn of_tape<'a>(object: &Object<'_, 'a>) -> Option<Self::Row<'a>>;

    /// Appends a record.
    fn push(&mut self, row: Self::Row<'_>) -> anyhow::Result<()>;
}

/// A text, borrowed where it has no escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    fn of(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }
}

/// A case whose payloads all four read. arrow-json is told the needed fields by `schema`, and `places` are where the columns are in what it gives.
fn contest<C: Columns>(
    case: &'static str,
    source: Arc<SourceDef>,
    payloads: Vec<Vec<u8>>,
    schema: Schema,
    places: &'static [&'static [&'static str]],
) -> Contest {
    let (lines, schema) = (payloads.join(&b'\n'), Arc::new(schema));
    let arrow_json = move |_: &[Records]| Ok(ReaderBuilder::new(schema.clone()).with_batch_size(BATCH).build(lines.as_slice())?.collect::<Result<_, _>>()?);
    let rivals = vec![
        Rival { name: "arrow-json", read: Box::new(arrow_json), places: Some(places) },
        Rival { name: "simd-json", read: Box::new(simd_json::<C>), places: None },
        Rival { name: "sonic-rs", read: Box::new(|slices| slices.iter().map(sonic_rs::<C>).collect()), places: None },
        Rival { name: "serde_json", read: Box::new(|slices| slices.iter().map(serde_json::<C>).collect()), places: None },
    ];
    Contest { case, source, payloads, rivals }
}

/// Its parser writes into the payload, so each is copied first; that is a hundredth of the time.
fn simd_json<C: Columns>(slices: &[Records]) -> anyhow::Result<Vec<RecordBatch>> {
    let (mut buffers, mut kept, mut copy) = (Buffers::default(), Tape::null(), vec![]);
    let mut batches = Vec::with_capacity(slices.len());
    for records in slices {
        let mut columns = C::new(records.len());
        for payload in payloads(records) {
            copy.clear();
            copy.extend_from_slice(payload);
            let mut tape = kept.reset();
            simd_json::fill_tape(&mut copy, &mut buffers, &mut tape)?;
            let row = tape.as_value().as_object().and_then(|object| C::of_tape(&object));
            columns.push(row.ok_or_else(|| anyhow::anyhow!("a record is not what it should be"))?)?;
            kept = tape.reset();
        }
        batches.push(columns.finish()?);
    }
    Ok(batches)
}

fn sonic_rs<C: Columns>(records: &Records) -> anyhow::Result<RecordBatch> {
    let mut columns = C::new(records.len());
    for payload in payloads(records) {
        columns.push(sonic_rs::from_slice(payload)?)?;
    }
    columns.finish()
}

fn serde_json<C: Columns>(records: &Records) -> anyhow::Result<RecordBatch> {
    let mut columns = C::new(records.len());
    for payload in payloads(records) {
        columns.push(serde_json::from_slice(payload)?)?;
    }
    columns.finish()
}

fn text<'a>(value: Value<'_, 'a>) -> Option<Text<'a>> {
    value.into_string().map(Text::of)
}

/// Milliseconds since 1970 of an RFC 3339 text, by Arrow's own parser of those.
fn millis(text: Option<Text<'_>>) -> anyhow::Result<Option<i64>> {
    Ok(text.map(|text| string_to_timestamp_nanos(&text.0)).transpose()?.map(|nanos| nanos.div_euclid(1_000_000)))
}

/// A number that is smaller than this one, with six places, as what is measured may have them. With more than 15 digits serde_json, as it is built by default,
/// would round twice, and its last bit would differ.
fn measured(random: &mut ChaCha8Rng, below: i32) -> f64 {
    f64::from(random.random_range(-below * 1_000_000..below * 1_000_000)) / 1e6
}

/// A time so many milliseconds after the beginning of 2024, as RFC 3339 has it.
fn time(ms: i64) -> Text<'static> {
    let time = DateTime::from_timestamp_millis(1_704_067_200_000 + ms).unwrap_or_default();
    Text::of(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A field that may be missing.
fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// An object of these fields.
fn object(name: &str, fields: Vec<Field>) -> Field {
    field(name, DataType::Struct(fields.into()))
}
