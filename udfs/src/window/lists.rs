//! `__hop_ends` and its like: a list a row; and the way back from an end to its start.

use std::{ops::Range, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBufferBuilder, ListArray, PrimitiveArray},
        buffer::{NullBuffer, OffsetBuffer},
        datatypes::{DataType, Date32Type, Field, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    },
    common::{Result, exec_err},
};

use super::{Windows, by_time_type, windows::since_aligned};

/// The ends of each row's windows, lengths in the unit of the column.
pub(super) fn ends(times: &ArrayRef, windows: Windows) -> Result<ArrayRef> {
    by_time_type!(times, typed_ends, windows)
}

/// The start of the window that ends at each row's value, lengths in the unit of the column.
pub(super) fn starts(ends: &ArrayRef, windows: Windows) -> Result<ArrayRef> {
    by_time_type!(ends, typed_starts, windows)
}

/// Rows next to each other mostly lie in one pane and so in the same windows: then the list before is repeated.
fn typed_ends<T>(times: &ArrayRef, windows: Windows) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: Into<i64> + TryFrom<i64> + Default>,
{
    let times = times.as_primitive::<T>();
    let (low, high) = representable(times.data_type());
    let Windows::Tumble { size_ns: pane, offset_ns: offset } = windows.panes() else { return exec_err!("panes tumble") };
    let mut last: Option<(i64, Range<usize>)> = None;
    let mut values: Vec<T::Native> = vec![];
    let mut valid = BooleanBufferBuilder::new(times.len());
    let mut offsets = Vec::with_capacity(times.len() + 1);
    offsets.push(0_i32);
    for row in 0..times.len() {
        if times.is_null(row) {
            values.push(T::Native::default());
            valid.append(false);
        } else {
            let t: i64 = times.value(row).into();
            let begin = values.len();
            match &last {
                Some((start, list)) if (t.wrapping_sub(*start) as u64) < pane as u64 => values.extend_from_within(list.clone()),
                _ => {
                    values.extend(windows.ends_within(t, low, high).filter_map(|end| T::Native::try_from(end).ok()));
                    last = t.checked_sub(since_aligned(t, pane, offset)).map(|start| (start, begin..values.len()));
                }
            }
            valid.append_n(values.len() - begin, true);
        }
        match i32::try_from(values.len()) {
            Ok(end) => offsets.push(end),
            Err(_) => return exec_err!("the rows of one batch lie in more than {} windows: make a window's slide or step longer", i32::MAX),
        }
    }
    let valid = NullBuffer::new(valid.finish());
    let values = PrimitiveArray::<T>::new(values.into(), (valid.null_count() > 0).then_some(valid)).with_data_type(times.data_type().clone());
    let item = Arc::new(Field::new_list_field(times.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets.into()), Arc::new(values), None)?))
}

fn typed_starts<T>(ends: &ArrayRef, windows: Windows) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: Into<i64> + TryFrom<i64>>,
{
    let ends = ends.as_primitive::<T>();
    let starts: PrimitiveArray<T> = ends.unary_opt(|end| T::Native::try_from(windows.start_of(end.into())?).ok());
    Ok(Arc::new(starts.with_data_type(ends.data_type().clone())))
}

/// The least and the greatest value of a type that windows can be over.
fn representable(time: &DataType) -> (i64, i64) {
    match time {
        DataType::Date32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}
