//! The kinds of a record's tokens, compared and told apart many at a time.

use super::super::value::Payload;

/// Kinds are compared so many at a time.
pub(super) const CHUNK: usize = 64;
/// A record of more tokens than these chunks have has no shape.
pub(super) const MOST_CHUNKS: usize = 16;

/// The kinds of a payload with at least one [`super::super::scan::END`] behind them; `None`: there are too many.
#[inline(always)]
pub(super) fn chunks_of<'a>(payload: &Payload<'a>) -> Option<&'a [[u8; CHUNK]]> {
    let (chunks, _) = payload.kinds.as_chunks();
    (chunks.len() <= MOST_CHUNKS).then_some(chunks)
}

/// A number by which kinds are told apart at a glance; it isn't 0.
#[allow(clippy::needless_range_loop, reason = "iterators over vectors are no single instructions")]
#[inline(always)]
pub(super) fn digest(kinds: &[[u8; CHUNK]]) -> u64 {
    const LANES: usize = CHUNK / 8;
    /// Any odd numbers.
    const TIMES: [[u64; LANES]; 2] = [
        [0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f, 0x1656_67b1, 0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d],
        [0x2545_f491, 0x4f6c_dd1d, 0xd1b5_4a33, 0xaef1_7503, 0x94d0_49bb, 0xbf58_476d, 0x1ce4_e5b9, 0x1331_11eb],
    ];
    let mut lanes = [0u64; LANES];
    for chunk in kinds {
        let (words, _) = chunk.as_chunks();
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].rotate_left(7) ^ u64::from_le_bytes(words[lane]);
        }
    }
    let mut sum = 0u64;
    for lane in 0..LANES {
        let (low, high) = (lanes[lane] & 0xffff_ffff, lanes[lane] >> 32);
        sum = sum.wrapping_add(low.wrapping_mul(TIMES[0][lane])).wrapping_add(high.wrapping_mul(TIMES[1][lane]));
    }
    // All bits of the sum are to have a say in each bit that something is found by.
    let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).max(1)
}

/// Whether kinds are the same; there are few chunks, and mostly they are.
#[allow(clippy::needless_range_loop, reason = "iterators over vectors are no single instructions")]
#[inline(always)]
pub(super) fn same_kinds(a: &[[u8; CHUNK]], b: &[[u8; CHUNK]]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut differ = [0; CHUNK];
    for at in 0..a.len() {
        for byte in 0..CHUNK {
            differ[byte] |= a[at][byte] ^ b[at][byte];
        }
    }
    differ == [0; CHUNK]
}
