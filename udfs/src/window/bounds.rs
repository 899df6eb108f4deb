//! `__window_start` and `__window_end`: one value a row.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
        buffer::NullBuffer,
        datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    },
    common::{Result, exec_err},
};

use super::{Bound, Windows, by_time_type, windows::since_aligned};

/// The start or end of each row's tumbling window, lengths in the unit of the column.
pub(super) fn bounds(times: &ArrayRef, windows: Windows, bound: Bound) -> Result<ArrayRef> {
    match windows {
        Windows::Tumble { size_ns: size, offset_ns: offset } => by_time_type!(times, typed, size, offset, bound),
        other => exec_err!("{other:?} are no windows with one start and end a row"),
    }
}

/// One pass over the values buffer. Rows next to each other mostly lie in one window, so the window last found is tried first:
/// a subtraction and a comparison in place of a 64-bit division.
fn typed<T>(times: &ArrayRef, size: i64, offset: i64, bound: Bound) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: Into<i64> + TryFrom<i64> + Default>,
{
    let times = times.as_primitive::<T>();
    let mut last: Option<(i64, T::Native)> = None;
    let mut misfits: Vec<usize> = vec![];
    let values: Vec<T::Native> = times
        .values()
        .iter()
        .enumerate()
        .map(|(row, &t)| {
            let t: i64 = t.into();
            if let Some((start, value)) = last
                && (t.wrapping_sub(start) as u64) < size as u64
            {
                return value;
            }
            let found = t.checked_sub(since_aligned(t, size, offset)).and_then(|start| {
                // Both ends must fit, or `window_start` would know a window that `window_end` doesn't.
                let (first, past) = (T::Native::try_from(start).ok()?, T::Native::try_from(start.checked_add(size)?).ok()?);
                Some((start, if bound == Bound::Start { first } else { past }))
            });
            match found {
                Some((start, value)) => {
                    last = Some((start, value));
                    value
                }
                None => {
                    misfits.push(row);
                    T::Native::default()
                }
            }
        })
        .collect();
    let nulls = match misfits.is_empty() {
        true => times.nulls().cloned(),
        false => {
            let mut valid: Vec<bool> = (0..times.len()).map(|row| times.is_valid(row)).collect();
            misfits.into_iter().for_each(|row| valid[row] = false);
            Some(NullBuffer::from(valid))
        }
    };
    Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(times.data_type().clone())))
}
