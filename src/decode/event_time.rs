//! Event time: what a source with a watermark demands of each record.

use arrow::datatypes::{DataType, TimeUnit};

use super::{metadata::from_millis, time::to_nanos};
use crate::{
    catalog::{Metadata, Origin, SourceDef},
    error::{Error, Result},
    source::Record,
};

/// Where event time is found, and how far it may run ahead.
#[derive(Debug)]
pub(super) struct EventTime {
    column: String,
    place: Place,
    unit: TimeUnit,
    max_future_skew_ns: i128,
}

/// Where event time is found.
#[derive(Debug)]
enum Place {
    /// In the payload column of this position among payload columns.
    Payload(usize),
    /// It is the record's Kafka timestamp.
    Timestamp,
}

impl EventTime {
    /// What the source's declaration demands; `None` if it declares no watermark.
    pub(super) fn new(source: &SourceDef) -> Result<Option<Self>> {
        let Some(watermark) = &source.watermark else {
            return Ok(None);
        };
        let column = watermark.column.clone();
        let Some(position) = source.column_index(&column) else {
            return Err(Error::Invalid(format!("source {} has no column {column} for its watermark; declare it", source.name)));
        };
        let declared = &source.columns[position];
        let DataType::Timestamp(unit, _) = declared.data_type else {
            let message = format!("watermark column {column} of source {} has type {}; declare it as TIMESTAMP", source.name, declared.data_type);
            return Err(Error::Invalid(message));
        };
        let place = match &declared.origin {
            Origin::Payload { .. } => {
                // The columns of a primary key are none of the payload's.
                let in_key = |at: usize| source.key.as_ref().is_some_and(|key| key.columns.contains(&at));
                let before = source.columns[..position].iter().enumerate();
                Place::Payload(before.filter(|(at, column)| matches!(column.origin, Origin::Payload { .. } | Origin::Unknown) && !in_key(*at)).count())
            }
            Origin::Metadata(Metadata::Timestamp) => Place::Timestamp,
            Origin::Metadata(_) | Origin::Header(_) | Origin::Unknown => {
                return Err(Error::Invalid(format!("watermark column {column} of source {} is no timestamp of the record", source.name)));
            }
        };
        Ok(Some(Self { column, place, unit, max_future_skew_ns: source.max_future_skew.as_nanos() as i128 }))
    }

    /// The column that it is found in, by its position among payload columns; `None`: it is none of those.
    pub(super) fn payload_column(&self) -> Option<usize> {
        if let Place::Payload(column) = self.place { Some(column) } else { None }
    }

    /// Event time in nanoseconds of a row, or why it can't stand. `payload` gives the row's value in a timestamp column of the payload, in its unit.
    #[inline]
    pub(super) fn of_row(&self, payload: impl FnOnce(usize) -> Option<i64>, record: &Record<'_>, now_ms: i64) -> Result<i64, String> {
        let in_unit = match self.place {
            Place::Payload(column) => payload(column),
            Place::Timestamp => record.timestamp_ms.and_then(|millis| from_millis(millis, self.unit)),
        };
        let Some(value) = in_unit else {
            return Err(format!("the record has no value for its watermark column {}", self.column));
        };
        let Some(nanos) = to_nanos(value, self.unit) else {
            return Err(format!("watermark column {} lies outside the years 1677 to 2262", self.column));
        };
        // The earlier of both: the record's own, so that its fate is the same whenever it is read, and ours, since a broker's or a
        // producer's clock may be wrong by years.
        let (sent_ms, what) = match record.timestamp_ms {
            Some(sent_ms) if sent_ms <= now_ms => (sent_ms, "the record's timestamp"),
            _ => (now_ms, "the time at which it was read"),
        };
        let ahead = i128::from(nanos) - i128::from(sent_ms) * 1_000_000;
        if ahead > self.max_future_skew_ns {
            let message = format!(
                "watermark column {} lies {} s after {what}, more than max.future.skew, {} s, allows",
                self.column,
                ahead / 1_000_000_000,
                self.max_future_skew_ns / 1_000_000_000
            );
            return Err(message);
        }
        Ok(nanos)
    }
}
