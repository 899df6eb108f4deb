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

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Fields, Schema},
    json::ReaderBuilder,
};
use chrono::{DateTime, SecondsFormat};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use simd_json::{Buffers, Tape};

use super::{
    BATCH, Contest, Layout, Rival, path,
    record::{Part, Record},
};
use crate::{catalog::SourceDef, source::Records};

/// Who else reads each case.
#[cfg(test)]
pub(super) const RIVALS: [&str; 4] = ["arrow-json", "simd-json", "sonic-rs", "serde_json"];

/// A case whose payloads all four read.
fn contest<R: Record>(case: &'static str, source: Arc<SourceDef>, payloads: Vec<Vec<u8>>) -> anyhow::Result<Contest> {
    let columns = source.columns.iter().map(|column| Ok((path(column)?, &column.data_type))).collect::<anyhow::Result<Vec<_>>>()?;
    let (lines, schema) = (payloads.join(&b'\n'), Arc::new(Schema::new(fields(&columns))));
    let arrow_json = move |_: &[Records]| Ok(ReaderBuilder::new(schema.clone()).with_batch_size(BATCH).build(lines.as_slice())?.collect::<Result<_, _>>()?);
    let rivals = vec![
        Rival { name: "arrow-json", read: Box::new(arrow_json), layout: Layout::Objects },
        Rival { name: "simd-json", read: Box::new(simd_json::<R>), layout: Layout::Columns },
        Rival { name: "sonic-rs", read: Box::new(sonic_rs::<R>), layout: Layout::Columns },
        Rival { name: "serde_json", read: Box::new(serde_json::<R>), layout: Layout::Columns },
    ];
    Ok(Contest { case, source, payloads, rivals })
}

/// What arrow-json is to read: columns at these paths, within objects. Those of an object stand together.
fn fields(columns: &[(&[String], &DataType)]) -> Fields {
    let beside = columns.chunk_by(|(one, _), (other, _)| one[0] == other[0]);
    let field = |together: &[(&[String], &DataType)]| match together {
        [([name], data_type)] => Field::new(name, (*data_type).clone(), true),
        _ => {
            let within: Vec<_> = together.iter().map(|(path, data_type)| (&path[1..], *data_type)).collect();
            Field::new(&together[0].0[0], DataType::Struct(fields(&within)), true)
        }
    };
    beside.map(field).collect()
}

/// Its parser writes into the payload, so each is copied first; that is a hundredth of the time.
fn simd_json<R: Record>(slices: &[Records]) -> anyhow::Result<Vec<RecordBatch>> {
    let (mut buffers, mut kept, mut copy) = (Buffers::default(), None, vec![]);
    let mut row = |payload: &[u8], builder: &mut R::Builder| {
        copy.clear();
        copy.extend_from_slice(payload);
        let mut tape = kept.take().unwrap_or_else(Tape::null).reset();
        simd_json::fill_tape(&mut copy, &mut buffers, &mut tape)?;
        let row = R::Row::of_tape(tape.as_value()).ok_or_else(|| anyhow::anyhow!("a record is not what it should be"))?;
        Part::push(Some(row), builder)?;
        kept = Some(tape.reset());
        Ok(())
    };
    slices.iter().map(|records| R::read(records, &mut row)).collect()
}

fn sonic_rs<R: Record>(slices: &[Records]) -> anyhow::Result<Vec<RecordBatch>> {
    let row = |payload: &[u8], builder: &mut R::Builder| R::Row::push(Some(sonic_rs::from_slice(payload)?), builder);
    slices.iter().map(|records| R::read(records, row)).collect()
}

fn serde_json<R: Record>(slices: &[Records]) -> anyhow::Result<Vec<RecordBatch>> {
    let row = |payload: &[u8], builder: &mut R::Builder| R::Row::push(Some(serde_json::from_slice(payload)?), builder);
    slices.iter().map(|records| R::read(records, row)).collect()
}

/// A number that is smaller than this one, with six places, as what is measured may have them. With more than 15 digits serde_json, as it is built by default,
/// would round twice, and its last bit would differ.
fn measured(random: &mut ChaCha8Rng, below: i32) -> f64 {
    f64::from(random.random_range(-below * 1_000_000..below * 1_000_000)) / 1e6
}

/// A time so many milliseconds after the beginning of 2024, as RFC 3339 has it.
fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(1_704_067_200_000 + ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}
