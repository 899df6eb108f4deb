//! Messages of Google's that stand for a plain value: `Timestamp`, and the wrappers around scalars, which are how proto3 said "or none".

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, PrimitiveArray},
    buffer::Buffer,
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
};
use prost_reflect::MessageDescriptor;

use super::{
    super::{nulls::Nulls, time},
    column::{Column, Field, Payload},
    fault::{Judged, misfit},
    tree::{Slots, Tree},
    wire::{Raw, Wire},
};
use crate::{catalog::TimeFormat, error::Result};

const WRAPPERS: &[&str] = &["DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value", "BoolValue", "StringValue", "BytesValue"];

/// Whether a message wraps a scalar.
pub(super) fn is_wrapper(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf" && WRAPPERS.contains(&message.name())
}

/// A column of what wrappers hold; without a wrapper there is no value.
#[derive(Debug)]
pub(super) struct Wrapped {
    tree: Tree,
    slots: Slots,
    value: Field,
}

impl Wrapped {
    /// An empty column.
    pub(super) fn new(name: &str, message: &MessageDescriptor, data_type: &DataType, time: &TimeFormat) -> Result<Self> {
        let (tree, leaves) = Tree::compile(message, &[&["value".to_string()]])?;
        let value = Field::new(name, &leaves[0].field, data_type, time)?;
        Ok(Self { slots: Slots::of(&tree), tree, value })
    }
}

impl Column for Wrapped {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        self.slots.clear();
        for raw in raws {
            let Some((start, end)) = raw.extent() else { return misfit("a number", "a wrapper".into()) };
            self.tree.walk(payload.bytes, start, end, &mut self.slots)?;
        }
        self.value.append(payload, self.slots.get(0))
    }

    fn put_null(&mut self) {
        self.value.column().put_null();
    }

    fn len(&self) -> usize {
        self.value.len()
    }

    fn truncate(&mut self, len: usize) {
        self.value.column().truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        self.value.column().finish(records)
    }
}

/// A column of `google.protobuf.Timestamp`: whole seconds since 1970, and nanoseconds that count onwards from there.
#[derive(Debug)]
pub(super) struct Moment {
    unit: TimeUnit,
    data_type: DataType,
    values: Vec<i64>,
    nulls: Nulls,
}

impl Moment {
    /// An empty column.
    pub(super) fn new(unit: TimeUnit, data_type: &DataType) -> Self {
        Self { unit, data_type: data_type.clone(), values: vec![], nulls: Nulls::default() }
    }
}

impl Column for Moment {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let (mut seconds, mut nanos) = (0i64, 0i32);
        for raw in raws {
            let Some((start, end)) = raw.extent() else { return misfit("a number", "a Timestamp".into()) };
            let mut wire = Wire::new(payload.bytes, start, end);
            while let Some((number, raw)) = wire.field()? {
                match (number, raw) {
                    (1, Raw::Varint(value)) => seconds = value as i64,
                    (2, Raw::Varint(value)) => nanos = value as i32,
                    _ => {}
                }
            }
        }
        let digits = time::digits_of(self.unit);
        let step = 10i32.pow(9 - digits);
        let value = i128::from(seconds) * 10i128.pow(digits) + i128::from(nanos / step);
        // Never rounded: what the unit can't hold does not fit.
        match i64::try_from(value) {
            Ok(value) if (0..1_000_000_000).contains(&nanos) && nanos % step == 0 => {
                self.values.push(value);
                self.nulls.push(true);
                Ok(())
            }
            _ => misfit(&format!("{seconds} s and {nanos} ns since 1970"), format!("TIMESTAMP({digits})")),
        }
    }

    fn put_null(&mut self) {
        self.values.push(0);
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, _records: &Buffer) -> Result<ArrayRef> {
        let values = std::mem::take(&mut self.values);
        let nulls = self.nulls.finish();
        macro_rules! array {
            ($type:ty) => {
                Arc::new(PrimitiveArray::<$type>::try_new(values.into(), nulls)?.with_data_type(self.data_type.clone())) as ArrayRef
            };
        }
        Ok(match self.unit {
            TimeUnit::Second => array!(TimestampSecondType),
            TimeUnit::Millisecond => array!(TimestampMillisecondType),
            TimeUnit::Microsecond => array!(TimestampMicrosecondType),
            TimeUnit::Nanosecond => array!(TimestampNanosecondType),
        })
    }
}
