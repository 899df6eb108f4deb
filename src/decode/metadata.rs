//! Columns whose values lie around the payload. They are made once the rows are known, so a bad record leaves no trace.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, PrimitiveArray, StringArray, StringViewArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{ArrowPrimitiveType, DataType, FieldRef, Fields, TimeUnit},
    datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
};

use crate::{
    catalog::{ColumnDef, Metadata, Origin},
    error::{Error, Result},
    source::{Header, Record, Records},
};

/// A column made from what is around the payload.
#[derive(Debug)]
pub(super) struct MetadataColumn {
    name: String,
    origin: Around,
    data_type: DataType,
}

/// What of a record a column is.
#[derive(Debug)]
enum Around {
    Metadata(Metadata),
    /// The last header of this name.
    Header(String),
}

impl MetadataColumn {
    /// The column, if its type can hold such values.
    pub(super) fn new(declared: &ColumnDef) -> Result<Self> {
        let ColumnDef { name, data_type, origin } = declared;
        let origin = match origin {
            Origin::Metadata(metadata) => Around::Metadata(*metadata),
            Origin::Header(header) => Around::Header(header.clone()),
            Origin::Payload { .. } | Origin::Unknown => return Err(Error::Internal(format!("column {name} lies in the payload"))),
        };
        let Around::Metadata(metadata) = origin else {
            return match is_text(data_type) || *data_type == DataType::Binary {
                true => Ok(Self { name: name.clone(), origin, data_type: data_type.clone() }),
                false => Err(Error::Unsupported(format!("metadata column {name} can't have type {data_type}; declare it as TEXT or BYTEA"))),
            };
        };
        let (fits, wanted) = match metadata {
            Metadata::Partition => (matches!(data_type, DataType::Int32 | DataType::Int64), "INT or BIGINT"),
            Metadata::Offset => (*data_type == DataType::Int64, "BIGINT"),
            Metadata::Timestamp => (matches!(data_type, DataType::Timestamp(..)), "TIMESTAMP"),
            Metadata::Key => (is_text(data_type) || *data_type == DataType::Binary, "TEXT or BYTEA"),
            Metadata::Headers => (header_fields(data_type).is_some(), "ARRAY<STRUCT<key TEXT, value BYTEA>>"),
        };
        if !fits {
            return Err(Error::Unsupported(format!("metadata column {name} can't have type {data_type}; declare it as {wanted}")));
        }
        Ok(Self { name: name.clone(), origin, data_type: data_type.clone() })
    }

    /// Why a record's value does not fit the column, if it doesn't.
    pub(super) fn misfit(&self, record: &Record<'_>) -> Option<String> {
        let (Around::Metadata(Metadata::Timestamp), DataType::Timestamp(unit, _)) = (&self.origin, &self.data_type) else {
            return None;
        };
        let millis = record.timestamp_ms?;
        let fits = from_millis(millis, *unit).is_some();
        (!fits).then(|| format!("column {} can't hold the record's timestamp, {millis} ms since 1970", self.name))
    }

    /// The column for rows that came from these records.
    pub(super) fn build(&self, partition: i32, records: &Records, record_of: &[u32]) -> Result<ArrayRef> {
        let rows = || record_of.iter().map(|&index| records.get(index as usize));
        let metadata = match &self.origin {
            Around::Metadata(metadata) => *metadata,
            Around::Header(name) => {
                fn value<'a>(record: Record<'a>, name: &str) -> Option<&'a [u8]> {
                    record.headers.iter().rfind(|header| header.key == *name).and_then(|header| header.value.as_deref())
                }
                return Ok(match &self.data_type {
                    DataType::Binary => Arc::new(BinaryArray::from_iter(rows().map(|record| value(record, name)))),
                    _ => texts(rows().map(|record| simdutf8::basic::from_utf8(value(record, name)?).ok()), &self.data_type),
                });
            }
        };
        Ok(match (metadata, &self.data_type) {
            (Metadata::Partition, DataType::Int32) => Arc::new(Int32Array::from_value(partition, record_of.len())),
            (Metadata::Partition, _) => Arc::new(Int64Array::from_value(partition.into(), record_of.len())),
            (Metadata::Offset, _) => Arc::new(Int64Array::from_iter_values(rows().map(|record| record.offset))),
            (Metadata::Timestamp, DataType::Timestamp(unit, _)) => {
                let values = rows().map(|record| from_millis(record.timestamp_ms?, *unit));
                match unit {
                    TimeUnit::Second => timestamps::<TimestampSecondType>(values, &self.data_type),
                    TimeUnit::Millisecond => timestamps::<TimestampMillisecondType>(values, &self.data_type),
                    TimeUnit::Microsecond => timestamps::<TimestampMicrosecondType>(values, &self.data_type),
                    TimeUnit::Nanosecond => timestamps::<TimestampNanosecondType>(values, &self.data_type),
                }
            }
            (Metadata::Key, DataType::Binary) => Arc::new(BinaryArray::from_iter(rows().map(|record| record.key))),
            (Metadata::Key, _) => texts(rows().map(|record| simdutf8::basic::from_utf8(record.key?).ok()), &self.data_type),
            (Metadata::Headers, _) => self.headers(rows())?,
            (Metadata::Timestamp, other) => return Err(Error::Internal(format!("a metadata timestamp of type {other}"))),
        })
    }

    fn headers<'a>(&self, rows: impl Iterator<Item = Record<'a>> + Clone) -> Result<ArrayRef> {
        let Some((item, fields)) = header_fields(&self.data_type) else {
            return Err(Error::Internal(format!("headers of type {}", self.data_type)));
        };
        let all = || rows.clone().flat_map(|record| record.headers);
        let keys = texts(all().map(|header: &Header| Some(header.key.as_str())), fields[0].data_type());
        let values: ArrayRef = Arc::new(BinaryArray::from_iter(all().map(|header| header.value.as_deref())));
        let structs = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
        let offsets = OffsetBuffer::from_lengths(rows.map(|record| record.headers.len()));
        Ok(Arc::new(ListArray::try_new(item.clone(), offsets, Arc::new(structs), None)?))
    }
}

/// Milliseconds in another unit; seconds round down. `None` if the unit can't hold them.
pub(super) fn from_millis(millis: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => Some(millis.div_euclid(1000)),
        TimeUnit::Millisecond => Some(millis),
        TimeUnit::Microsecond => millis.checked_mul(1000),
        TimeUnit::Nanosecond => millis.checked_mul(1_000_000),
    }
}

fn timestamps<T: ArrowPrimitiveType<Native = i64>>(values: impl Iterator<Item = Option<i64>>, data_type: &DataType) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter(values).with_data_type(data_type.clone()))
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Utf8View => Arc::new(StringViewArray::from_iter(values)),
        _ => Arc::new(StringArray::from_iter(values)),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View)
}

/// The item and its two fields, if the type can hold headers.
fn header_fields(data_type: &DataType) -> Option<(&FieldRef, &Fields)> {
    let DataType::List(item) = data_type else {
        return None;
    };
    let DataType::Struct(fields) = item.data_type() else {
        return None;
    };
    let [key, value] = fields.as_ref() else {
        return None;
    };
    let fits = is_text(key.data_type()) && *value.data_type() == DataType::Binary && value.is_nullable();
    fits.then_some((item, fields))
}
