//! Whether bytes begin with certain others, up to 64 of them in one comparison where the processor can.
//!
//! The walk over an object asks this several times a key. It is compiled twice, with [`wide`] and with [`plain`] in it: which of them a
//! processor can run is asked once an object.
//!
//! Safety: the only unsafe code loads a vector register, masked to bytes that are there.

/// So many bytes are compared at once.
pub(super) const WIDEST: usize = 64;

/// Whether `bytes` begin with the first `length` of `text`; at most as many as `text` has.
#[inline(always)]
pub(super) fn plain(bytes: &[u8], text: &[u8; WIDEST], length: usize) -> bool {
    match (bytes.first_chunk(), text.first_chunk()) {
        (Some(bytes), Some(text)) if length <= 16 => {
            let differ = u128::from_le_bytes(*bytes) ^ u128::from_le_bytes(*text);
            length == 0 || differ << (128 - 8 * length) == 0
        }
        _ => bytes.get(..length) == text.get(..length),
    }
}

/// As [`plain`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(super) fn wide(bytes: &[u8], text: &[u8; WIDEST], length: usize) -> bool {
    use std::arch::x86_64::*;
    if bytes.len() < length || length > WIDEST {
        return false;
    }
    if let (Some(text), true) = (text.first_chunk::<32>(), length <= 32) {
        // Half as often across the lines of a cache.
        let mask = _bzhi_u32(!0, length as u32);
        // SAFETY: both have the bytes that the mask leaves, and the loads ask for no alignment.
        let (bytes, text) = unsafe { (_mm256_maskz_loadu_epi8(mask, bytes.as_ptr().cast()), _mm256_loadu_si256(text.as_ptr().cast())) };
        return _mm256_mask_cmpneq_epi8_mask(mask, bytes, text) == 0;
    }
    let mask = _bzhi_u64(!0, length as u32);
    // SAFETY: both have the bytes that the mask leaves, and the loads ask for no alignment.
    let (bytes, text) = unsafe { (_mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()), _mm512_loadu_si512(text.as_ptr().cast())) };
    _mm512_mask_cmpneq_epi8_mask(mask, bytes, text) == 0
}

/// Whether the processor can run [`wide`].
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn is_wide() -> bool {
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
    let bmi = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
    avx512 && bmi && is_x86_feature_detected!("lzcnt") && is_x86_feature_detected!("popcnt")
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn compares_so_many_bytes_and_no_more() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        for _ in 0..if cfg!(miri) { 60 } else { 20_000 } {
            let text: [u8; WIDEST] = std::array::from_fn(|_| random.random_range(b'a'..b'c'));
            // Of exactly so many bytes, so that a sanitizer sees what is read beyond them.
            let mut bytes = text[..random.random_range(0..=WIDEST)].to_vec();
            let length = random.random_range(0..=WIDEST);
            if random.random_bool(0.5) && !bytes.is_empty() {
                let at = random.random_range(0..bytes.len());
                bytes[at] = b'x';
            }
            let expected = bytes.starts_with(&text[..length]);
            assert_eq!(plain(&bytes, &text, length), expected, "{bytes:?} {length}");
            #[cfg(target_arch = "x86_64")]
            if is_wide() {
                // SAFETY: asked for above.
                assert_eq!(unsafe { wide(&bytes, &text, length) }, expected, "{bytes:?} {length}");
            }
        }
    }
}
