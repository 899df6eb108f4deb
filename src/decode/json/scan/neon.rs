//! With the vector instructions that are part of every 64-bit ARM processor: 16 bytes at a time.
//!
//! There are carry-less multiplications here as well, but the six shifts of [`super::running_xor`] cost less: they run beside the vector instructions,
//! which are what the loop waits for, while a product would be one more of those, and the way there and back (so simdjson found as well).

use std::arch::aarch64::*;

use super::{BY_HALF, Masks, State, Tokens, WHITE, WORDS, list_with};

/// A bit for each of eight bytes, twice over.
const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// Whether the processor has what [`list_neon`] needs.
pub(super) fn has_neon() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

#[target_feature(enable = "neon")]
pub(super) fn list_neon(tokens: &mut Tokens, payload: &[u8]) -> State {
    let load = |bytes: &[u8; 16]| {
        // SAFETY: the array has the 16 bytes that are loaded, and the load asks for no alignment.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    };
    let (lower, upper, bits) = (load(&BY_HALF[0]), load(&BY_HALF[1]), load(&BITS));
    list_with(tokens, payload, |block| {
        let (quarters, _) = block.as_chunks::<16>();
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| load(&quarters[at]));
        // Of each byte its bit where all its bits are set; then bytes beside each other are added up until 64 bits are left.
        let mask = |[a, b, c, d]: [uint8x16_t; 4]| {
            let pairs = |a, b| vpaddq_u8(vandq_u8(a, bits), vandq_u8(b, bits));
            let eighths = vpaddq_u8(pairs(a, b), pairs(c, d));
            vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(eighths, eighths)))
        };
        let bytes = [a, b, c, d];
        let is = |byte: u8| mask(bytes.map(|bytes| vceqq_u8(bytes, vdupq_n_u8(byte))));
        let below = |bytes: uint8x16_t, bound: u8| vcltq_u8(bytes, vdupq_n_u8(bound));
        let classes = bytes.map(|bytes| {
            // A byte that isn't ASCII is none of these: its upper half gives 0.
            let lower = vqtbl1q_u8(lower, vandq_u8(bytes, vdupq_n_u8(0xf)));
            vandq_u8(lower, vqtbl1q_u8(upper, vshrq_n_u8::<4>(bytes)))
        });
        let has = |class: u8| mask(classes.map(|classes| vtstq_u8(classes, vdupq_n_u8(class))));
        let mut masks = Masks { quote: is(b'"'), backslash: is(b'\\'), white: has(WHITE), word: has(WORDS), ..Masks::default() };
        // Most blocks have neither the one nor the other.
        if vminvq_u8(vminq_u8(vminq_u8(a, b), vminq_u8(c, d))) < 0x20 {
            masks.control = mask(bytes.map(|bytes| below(bytes, 0x20)));
        }
        if vmaxvq_u8(vmaxq_u8(vmaxq_u8(a, b), vmaxq_u8(c, d))) >= 0x80 {
            masks.high = mask(bytes.map(|bytes| vcgeq_u8(bytes, vdupq_n_u8(0x80))));
            masks.lead = mask(bytes.map(|bytes| below(vsubq_u8(bytes, vdupq_n_u8(0xc2)), 0x1e)));
            masks.trail = mask(bytes.map(|bytes| below(vsubq_u8(bytes, vdupq_n_u8(0x80)), 0x40)));
        }
        masks
    })
}
