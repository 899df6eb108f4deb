//! Bytes as numbers and back.

/// Types that any bytes are a value of.
///
/// # Safety
///
/// No padding, no invalid values, no addresses.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for u16 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for [u32; 2] {}
// SAFETY: numbers.
unsafe impl Plain for i32 {}
// SAFETY: numbers.
unsafe impl Plain for u64 {}
// SAFETY: numbers.
unsafe impl Plain for i64 {}
// SAFETY: numbers.
unsafe impl Plain for u128 {}
// SAFETY: numbers.
unsafe impl Plain for f64 {}

/// Bytes as numbers; a slot's regions are aligned for all of them. Empty if the bytes are not aligned.
pub(crate) fn numbers<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: any bytes are values of `T`.
    let (before, numbers, _) = unsafe { bytes.align_to() };
    if before.is_empty() { numbers } else { &[] }
}

/// As [`numbers`], to be written.
pub(crate) fn numbers_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: any bytes are values of `T`, and any `T` is bytes.
    let (before, numbers, _) = unsafe { bytes.align_to_mut() };
    if before.is_empty() { numbers } else { &mut [] }
}

/// Numbers as bytes.
pub(crate) fn bytes<T: Plain>(numbers: &[T]) -> &[u8] {
    // SAFETY: a `T` has no padding.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), std::mem::size_of_val(numbers)) }
}

/// Whether a row's bit is set in an Arrow bitmap; all are where there is none.
pub(crate) fn bit(bitmap: Option<&[u8]>, row: usize) -> bool {
    bitmap.is_none_or(|bits| bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1))
}

/// Copies an Arrow bitmap of `rows` bits into whole words, whose further bits are zero.
pub(crate) fn copy_bitmap(bitmap: &[u8], rows: usize, words: &mut [u8]) {
    let len = rows.div_ceil(8).min(bitmap.len());
    words[..len].copy_from_slice(&bitmap[..len]);
    words[len..].fill(0);
    if !rows.is_multiple_of(8) && len > 0 {
        words[rows / 8] &= (1 << (rows % 8)) - 1;
    }
}
