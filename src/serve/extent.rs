//! How much a column stands for, written out: a few bytes of a message may say "this text, a million times" or "a billion NULLs".

use arrow::{
    array::{Array, AsArray, GenericListViewArray, OffsetSizeTrait},
    datatypes::{ArrowNativeType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType},
};

/// What each row counts at least, whatever its type: NULLs without bytes become values of another type.
const ROW: u64 = 8;

/// About how many bytes a column's rows take, written out without sharing. Bounded work: it stops counting above `most`.
pub(crate) fn extent(array: &dyn Array, most: u64) -> u64 {
    let rows = array.len() as u64;
    let own = rows.saturating_mul(ROW);
    if own > most {
        return own;
    }
    let inside = match array.data_type() {
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => span(array.as_string::<i64>().value_offsets()),
        DataType::Binary => span(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => span(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => array.as_string_view().views().iter().map(|view| u64::from(*view as u32)).sum(),
        DataType::BinaryView => array.as_binary_view().views().iter().map(|view| u64::from(*view as u32)).sum(),
        DataType::FixedSizeBinary(width) => rows.saturating_mul(u64::try_from(*width).unwrap_or(0)),
        DataType::Decimal128(..) | DataType::Interval(_) => own,
        DataType::Decimal256(..) => own.saturating_mul(3),
        DataType::List(_) => extent(array.as_list::<i32>().values(), most),
        DataType::LargeList(_) => extent(array.as_list::<i64>().values(), most),
        DataType::Map(..) => extent(array.as_map().entries(), most),
        DataType::FixedSizeList(..) => extent(array.as_fixed_size_list().values(), most),
        DataType::ListView(_) => list_view(array.as_list_view::<i32>(), most),
        DataType::LargeListView(_) => list_view(array.as_list_view::<i64>(), most),
        DataType::Struct(_) => sum(array.as_struct().columns().iter().map(|column| extent(column, most)), most),
        DataType::Union(fields, _) => sum(fields.iter().map(|(id, _)| extent(array.as_union().child(id), most)), most),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let each = each(dictionary.values(), most);
            // Keys of NULLs may be anything.
            let keys = dictionary.normalized_keys();
            sum(keys.iter().map(|key| each.get(*key).copied().unwrap_or(ROW)), most)
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => runs::<Int16Type>(array, most),
            DataType::Int32 => runs::<Int32Type>(array, most),
            _ => runs::<Int64Type>(array, most),
        },
        // Everything else is at most 8 bytes wide.
        _ => 0,
    };
    own.saturating_add(inside)
}

fn span<O: OffsetSizeTrait>(offsets: &[O]) -> u64 {
    match offsets {
        [first, .., last] => last.as_usize().saturating_sub(first.as_usize()) as u64,
        _ => 0,
    }
}

fn sum(parts: impl Iterator<Item = u64>, most: u64) -> u64 {
    let mut all = 0u64;
    for part in parts {
        all = all.saturating_add(part);
        if all > most {
            break;
        }
    }
    all
}

/// What each value counts; nothing if there are too many of them.
fn each(values: &dyn Array, most: u64) -> Vec<u64> {
    let whole = extent(values, most);
    // More than can be written out even once: whatever refers to it is too much.
    let count = if whole > most { 0 } else { values.len() };
    (0..count).map(|at| extent(&values.slice(at, 1), most)).collect()
}

fn list_view<O: OffsetSizeTrait>(array: &GenericListViewArray<O>, most: u64) -> u64 {
    let each = each(array.values(), most);
    let rows = (0..array.len()).map(|row| {
        let (from, count) = (array.value_offset(row).as_usize(), array.value_size(row).as_usize());
        each.get(from..from.saturating_add(count)).map_or(u64::MAX, |part| sum(part.iter().copied(), most))
    });
    sum(rows, most)
}

fn runs<R: RunEndIndexType>(array: &dyn Array, most: u64) -> u64 {
    let Some(runs) = array.as_run_opt::<R>() else { return u64::MAX };
    let each = each(runs.values(), most);
    let ends = runs.run_ends().values();
    let lengths = ends.iter().scan(0, |before, end| {
        let end = end.as_usize();
        Some(end.saturating_sub(std::mem::replace(before, end)) as u64)
    });
    sum(lengths.enumerate().map(|(at, length)| length.saturating_mul(each.get(at).copied().unwrap_or(u64::MAX))), most)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{
            ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, ListViewArray, NullArray, RunArray, StringArray, StringViewArray, UInt8Array,
        },
        datatypes::Field,
    };

    use super::*;

    const MOST: u64 = 1 << 30;

    #[test]
    fn what_shares_counts_as_often_as_it_is_shared() {
        let long = "x".repeat(1000);
        let text: ArrayRef = Arc::new(StringArray::from(vec![long.as_str()]));
        assert_eq!(extent(&text, MOST), 1008);
        let keys = UInt8Array::from(vec![0; 100]);
        let dictionary = DictionaryArray::try_new(keys, text.clone()).unwrap();
        assert_eq!(extent(&dictionary, MOST), 100 * (8 + 1008));
        let run = RunArray::try_new(&Int32Array::from(vec![1_000_000]), &*text).unwrap();
        assert!(extent(&run, MOST) >= 1_000_000 * 1000);
        assert!(extent(&run, 1 << 20) > 1 << 20);
        let view = StringViewArray::from(vec![long.as_str(); 10]);
        assert_eq!(extent(&view, MOST), 10 * 1008);
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let lists = ListViewArray::new(item, vec![0; 50].into(), vec![1; 50].into(), text, None);
        assert_eq!(extent(&lists, MOST), 50 * (8 + 1008));
    }

    #[test]
    fn rows_without_bytes_count() {
        assert!(extent(&NullArray::new(1 << 40), MOST) > MOST);
        assert_eq!(extent(&BooleanArray::from(vec![true; 64]), MOST), 512);
        assert_eq!(extent(&Int64Array::from(vec![1, 2]), MOST), 16);
    }
}
