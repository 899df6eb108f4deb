//! The rows that stand beside a view or a source: what came too late, and what could not be read. Nothing vanishes.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryBuilder, Int32Array, Int64Array, StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array},
    compute::interleave_record_batch,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};

use super::epoch::LateRow;
use crate::{
    catalog::SourceDef,
    decode::{BadRecord, Decoder},
    error::{Error, Result},
    source::{RecordsBuilder, Slice},
};

/// So much of a bad payload is kept.
const PAYLOAD_BYTES: usize = 4096;

/// Columns of `<source>$errors`.
pub fn error_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8View, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("payload", DataType::Binary, true),
    ]))
}

/// Columns of what a dead-letter topic is given of a bad record: all of it, and why.
pub fn letter_schema() -> Schema {
    Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("key", DataType::Binary, true),
        Field::new("payload", DataType::Binary, true),
    ])
}

/// The bad records of one slice as they were.
pub fn letter_rows(slice: &Slice, errors: &[BadRecord]) -> Result<RecordBatch> {
    let records: Vec<_> = errors.iter().map(|e| slice.records.get(e.record as usize)).collect();
    let (mut keys, mut payloads) = (BinaryBuilder::new(), BinaryBuilder::new());
    for record in &records {
        keys.append_option(record.key);
        payloads.append_option(record.value);
    }
    Ok(RecordBatch::try_new(
        Arc::new(letter_schema()),
        vec![
            Arc::new(Int32Array::from(vec![slice.partition; records.len()])),
            Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.offset))),
            Arc::new(TimestampMillisecondArray::from_iter(records.iter().map(|r| r.timestamp_ms))),
            Arc::new(StringViewArray::from_iter_values(errors.iter().map(|e| e.reason.as_str()))),
            Arc::new(keys.finish()),
            Arc::new(payloads.finish()),
        ],
    )?)
}

/// The error rows of one slice.
pub fn error_rows(topic: &str, slice: &Slice, errors: &[BadRecord]) -> Result<RecordBatch> {
    let records: Vec<_> = errors.iter().map(|e| slice.records.get(e.record as usize)).collect();
    let mut payloads = BinaryBuilder::new();
    for record in &records {
        payloads.append_option(record.value.map(|v| &v[..v.len().min(PAYLOAD_BYTES)]));
    }
    Ok(RecordBatch::try_new(
        error_schema(),
        vec![
            Arc::new(StringViewArray::from_iter_values(records.iter().map(|_| topic))),
            Arc::new(Int32Array::from(vec![slice.partition; records.len()])),
            Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.offset))),
            Arc::new(TimestampMillisecondArray::from_iter(records.iter().map(|r| r.timestamp_ms))),
            Arc::new(StringViewArray::from_iter_values(errors.iter().map(|e| e.reason.as_str()))),
            Arc::new(payloads.finish()),
        ],
    )?)
}

/// Columns of `<view>$late`: the source's own, then the window and the watermark that had closed it, and where the record lies.
/// A view over several sources has the columns that all of them share by name and type.
pub fn late_schema(sources: &[&SourceDef]) -> SchemaRef {
    let extra = late_columns();
    let shared = |field: &Field| {
        sources.iter().all(|s| s.columns.iter().any(|c| c.name == *field.name() && c.data_type == *field.data_type()))
            && !extra.iter().any(|e| e.name() == field.name())
    };
    let mut fields: Vec<FieldRef> = sources.first().map(|s| s.schema().fields().iter().filter(|f| shared(f)).cloned().collect()).unwrap_or_default();
    fields.extend(extra);
    Arc::new(Schema::new(fields))
}

fn late_columns() -> Vec<FieldRef> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    vec![
        Arc::new(Field::new("window_start", time.clone(), false)),
        Arc::new(Field::new("window_end", time.clone(), false)),
        Arc::new(Field::new("_partition", DataType::Int32, false)),
        Arc::new(Field::new("_offset", DataType::Int64, false)),
        Arc::new(Field::new("_watermark", time, false)),
        Arc::new(Field::new("_late_ms", DataType::Int64, false)),
        Arc::new(Field::new("_epoch", DataType::UInt64, false)),
    ]
}

/// One slice of an epoch with what it was decoded to, for finding a late row again.
#[derive(Debug)]
pub struct LateOrigin<'a> {
    /// The slice.
    pub slice: &'a Slice,
    /// See [`crate::decode::Decoded::record_of`].
    pub record_of: &'a [u32],
    /// See [`crate::decode::Decoded::event_time`].
    pub event_time: &'a [i64],
}

/// The late rows of one source's slice, with all of the source's columns: a view's plan holds only those that it needs, so the
/// few records are decoded once more, in full.
pub fn late_rows(schema: &SchemaRef, decoder: &mut Decoder, origin: &LateOrigin, rows: &[(usize, LateRow)], now_ms: i64, epoch: u64) -> Result<RecordBatch> {
    let mut builder = RecordsBuilder::new();
    let mut last = None;
    for (row, _) in rows {
        let record = origin.record_of[*row];
        if last != Some(record) {
            let r = origin.slice.records.get(record as usize);
            builder.push(r.offset, r.timestamp_ms, r.key, r.value, r.headers.to_vec());
            last = Some(record);
        }
    }
    let records = builder.finish();
    let decoded = decoder.decode(origin.slice.partition, &records, now_ms)?;
    // Row n of a record in the epoch is row n of it here: find each record's first row in both.
    let mut first_here = vec![];
    for (row, record) in decoded.record_of.iter().enumerate() {
        if first_here.len() <= *record as usize {
            first_here.push(row);
        }
    }
    let mut places = vec![];
    let mut offsets = vec![];
    let mut copied = 0;
    let mut last = None;
    for (row, _) in rows {
        let record = origin.record_of[*row];
        if last.is_some_and(|l| l != record) {
            copied += 1;
        }
        last = Some(record);
        let first_there = origin.record_of.partition_point(|r| *r < record);
        let here = first_here.get(copied).ok_or_else(|| Error::Internal("a late record could not be read a second time".into()))?;
        places.push((0, here + (row - first_there)));
        offsets.push(origin.slice.records.get(record as usize).offset);
    }
    let gathered = interleave_record_batch(&[&decoded.batch], &places)?;
    let count = rows.len();
    let column = |name: &str| -> Result<ArrayRef> {
        Ok(match name {
            "window_start" => Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|(_, l)| l.window_start))),
            "window_end" => Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|(_, l)| l.window_end))),
            "_partition" => Arc::new(Int32Array::from(vec![origin.slice.partition; count])),
            "_offset" => Arc::new(Int64Array::from(offsets.clone())),
            "_watermark" => Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|(_, l)| l.watermark))),
            "_late_ms" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|(row, l)| l.watermark.saturating_sub(origin.event_time[*row]) / 1_000_000))),
            "_epoch" => Arc::new(UInt64Array::from(vec![epoch; count])),
            name => gathered.column_by_name(name).cloned().ok_or_else(|| Error::Internal(format!("late rows lack the source's column {name}")))?,
        })
    };
    let columns = schema.fields().iter().map(|f| column(f.name())).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
