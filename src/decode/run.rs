//! A run of records on its way through a format's reader: which rows are kept, and what is demanded of each by what lies around the payload.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, TimeUnit},
    datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
};

use super::{
    BadRecord, Reason,
    event_time::EventTime,
    json::{DeviceRows, JsonReader},
    key::Keys,
    metadata::MetadataColumn,
    payload::{BatchReader, ReadBatch},
};
use crate::{
    error::Result,
    source::{Record, Records},
};

/// What a source declares of a record beside its payload and key.
#[derive(Debug)]
pub(super) struct Around {
    /// All declared metadata columns.
    pub(super) metadata: Vec<MetadataColumn>,
    /// What the watermark demands, if there is one.
    pub(super) event_time: Option<EventTime>,
}

/// A run of records that is being decoded.
pub(super) struct Run<'a> {
    /// The records.
    pub(super) records: &'a Records,
    /// Their keys, where there is a primary key.
    pub(super) keys: Option<&'a Keys>,
    /// What is demanded of each beside payload and key.
    pub(super) around: &'a Around,
    /// The epoch's logged time.
    pub(super) now_ms: i64,
}

impl Run<'_> {
    /// Reads JSON, a record at a time: the rows stand in the reader's columns then.
    pub(super) fn read_json(&self, reader: &mut JsonReader, rows: &mut Rows, errors: &mut Vec<BadRecord>) {
        reader.reserve(self.records.len());
        for (index, record) in (0u32..).zip(self.records.iter()) {
            let before = rows.record_of.len();
            if let Err(reason) = self.read_json_record(reader, index, &record, rows) {
                rows.truncate(before);
                reader.truncate(before);
                errors.push(reason.of(index));
            }
            reader.forget_unneeded();
        }
    }

    /// The same where a device has read most records.
    pub(super) fn read_json_from(&self, device: &DeviceRows<'_>, reader: &mut JsonReader, rows: &mut Rows, errors: &mut Vec<BadRecord>) {
        reader.reserve(self.records.len());
        let mut translation = reader.translation(device.bits);
        // Rows of the device that are kept and not appended yet.
        let mut kept = device.first..device.first;
        for (index, record) in (0u32..).zip(self.records.iter()) {
            let (before, row) = (rows.record_of.len(), device.first + index as usize);
            let has_key = self.keys.is_none_or(|keys| keys.of[index as usize].is_ok());
            let taken = has_key && record.value.is_some() && reader.takes(device, &mut translation, row);
            let read = if taken {
                self.push_device_row(device, index, &record, row, rows)
            } else {
                reader.extend(device, &kept);
                kept = row..row;
                let read = self.read_json_record(reader, index, &record, rows);
                if read.is_err() {
                    reader.truncate(before);
                }
                reader.forget_unneeded();
                if device.is_read(row) {
                    // It has a key that the reader had yet to meet, and has met now.
                    translation = reader.translation(device.bits);
                }
                read
            };
            match read {
                Ok(()) if taken => kept.end = row + 1,
                Ok(()) => kept = row + 1..row + 1,
                Err(reason) => {
                    reader.extend(device, &kept);
                    kept = row + 1..row + 1;
                    rows.truncate(before);
                    errors.push(reason.of(index));
                }
            }
        }
        reader.extend(device, &kept);
    }

    /// Judges a row that a device has read by what lies around it, and counts it.
    fn push_device_row(&self, device: &DeviceRows<'_>, at: u32, record: &Record<'_>, row: usize, rows: &mut Rows) -> Result<(), Reason> {
        let key = self.keys.map(|keys| keys.of[at as usize].clone()).transpose()?;
        self.push_row(at, record, |column| device.timestamp(column, row), rows)?;
        Ok(self.finish_record(key, 1, rows)?)
    }

    /// Appends a record's rows; `Err` is the reason why it is bad.
    fn read_json_record(&self, reader: &mut JsonReader, at: u32, record: &Record<'_>, rows: &mut Rows) -> Result<(), Reason> {
        let key = self.keys.map(|keys| keys.of[at as usize].clone()).transpose()?;
        let (Some(bytes), Some((base, _))) = (record.value, record.value_at) else {
            let key = key.ok_or("the payload is NULL")?;
            reader.put_nulls();
            self.push_gone(at, key, rows);
            return Ok(());
        };
        let before = rows.record_of.len();
        reader.read(bytes, base, |reader| self.push_row(at, record, |column| reader.last_timestamp(column), rows))?;
        Ok(self.finish_record(key, rows.record_of.len() - before, rows)?)
    }

    /// Reads all payloads with a reader of batches: what it read, and for each row that is kept which of its rows that is.
    pub(super) fn read_batch(&self, reader: &mut dyn BatchReader, rows: &mut Rows, errors: &mut Vec<BadRecord>) -> Result<(ReadBatch, Vec<Option<u32>>)> {
        let has_key = |index: usize| self.keys.is_none_or(|keys| keys.of[index].is_ok());
        let mut read = reader.read(self.records, &|index| self.records.get(index).value.is_some() && has_key(index))?;
        let mut bad = std::mem::take(&mut read.errors).into_iter().peekable();
        let mut taken = Vec::with_capacity(read.record_of.len());
        let mut row = 0;
        for (index, record) in (0u32..).zip(self.records.iter()) {
            let (before, first) = (rows.record_of.len(), row);
            while read.record_of.get(row) == Some(&index) {
                row += 1;
            }
            let judged = match bad.next_if(|bad| bad.record == index) {
                Some(bad) => Err(Reason { text: bad.reason, retyped: bad.retyped }),
                None => self.judge_rows(&read, index, &record, first..row, rows),
            };
            match judged {
                Ok(true) => taken.push(None),
                Ok(false) => taken.extend((first..row).map(|row| Some(row as u32))),
                Err(reason) => {
                    rows.truncate(before);
                    errors.push(reason.of(index));
                }
            }
        }
        Ok((read, taken))
    }

    /// Judges the rows that a record gave; whether it says instead that its key's row is gone.
    fn judge_rows(&self, read: &ReadBatch, at: u32, record: &Record<'_>, range: std::ops::Range<usize>, rows: &mut Rows) -> Result<bool, Reason> {
        let key = self.keys.map(|keys| keys.of[at as usize].clone()).transpose()?;
        if record.value.is_none() {
            self.push_gone(at, key.ok_or("the payload is NULL")?, rows);
            return Ok(true);
        }
        for row in range.clone() {
            self.push_row(at, record, |column| timestamp_at(&read.columns[column], row), rows)?;
        }
        self.finish_record(key, range.len(), rows)?;
        Ok(false)
    }

    /// Judges a row of the payload by what lies around it, and counts it. `payload` gives its value in a timestamp column.
    fn push_row(&self, at: u32, record: &Record<'_>, payload: impl FnOnce(usize) -> Option<i64>, rows: &mut Rows) -> Result<(), String> {
        if let Some(reason) = self.around.metadata.iter().find_map(|column| column.misfit(record)) {
            return Err(reason);
        }
        if let Some(event_time) = &self.around.event_time {
            rows.event_time.push(event_time.of_row(payload, record, self.now_ms)?);
        }
        rows.record_of.push(at);
        Ok(())
    }

    /// Counts a row that says that its key's row is gone.
    fn push_gone(&self, at: u32, key: u32, rows: &mut Rows) {
        if self.around.event_time.is_some() {
            rows.event_time.push(i64::MIN);
        }
        rows.record_of.push(at);
        rows.gone.push(true);
        rows.key_of.push(key);
    }

    /// Where there is a primary key, a record is one row, of its key.
    fn finish_record(&self, key: Option<u32>, count: usize, rows: &mut Rows) -> Result<(), String> {
        let Some(key) = key else { return Ok(()) };
        if count != 1 {
            return Err(format!("the payload holds {count} objects, and a record of a source with PRIMARY KEY is one row: send one object"));
        }
        rows.gone.push(false);
        rows.key_of.push(key);
        Ok(())
    }
}

/// The rows so far, beside their columns.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Which record each came from.
    pub(super) record_of: Vec<u32>,
    /// Its event time, if the source declares a watermark.
    pub(super) event_time: Vec<i64>,
    /// Where there is a primary key: whether the row is gone,
    pub(super) gone: Vec<bool>,
    /// and the row of [`Keys`].
    pub(super) key_of: Vec<u32>,
}

impl Rows {
    fn truncate(&mut self, len: usize) {
        self.record_of.truncate(len);
        self.event_time.truncate(len);
        self.gone.truncate(len);
        self.key_of.truncate(len);
    }
}

/// The value of a timestamp column in its unit.
fn timestamp_at(column: &ArrayRef, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => Some(column.as_primitive::<TimestampSecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(column.as_primitive::<TimestampMillisecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(column.as_primitive::<TimestampNanosecondType>().value(row)),
        _ => None,
    }
}
