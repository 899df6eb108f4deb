//! With AVX-512, 64 bytes at a time, which also puts the tokens of a block into the list at once; and with AVX2, 32 bytes at a time.

use std::arch::x86_64::*;

use super::{BY_HALF, KINDS, Masks, OTHER, State, Tokens, WHITE, WORD, WORDS, list_with};

/// Of the bytes of a block, each its number.
const POSITIONS: [u8; 64] = {
    let mut positions = [0; 64];
    let mut at = 0;
    while at < 64 {
        positions[at] = at as u8;
        at += 1;
    }
    positions
};

/// The kinds of bytes, and whether one is a backslash or below 0x20: then it has this bit as well.
const CLASSES: [u8; 128] = {
    let mut classes = KINDS;
    let mut byte = 0;
    while byte < 0x20 {
        classes[byte] |= RARE;
        byte += 1;
    }
    classes[b'\\' as usize] |= RARE;
    classes
};
const RARE: u8 = 0x80;

/// Whether the processor has what [`list_avx512`] needs.
pub(super) fn has_avx512() -> bool {
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    let avx512 = avx512 && is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vbmi2");
    avx512 && is_x86_feature_detected!("pclmulqdq") && has_bit_counts()
}

/// Whether the processor has what [`list_avx2`] needs.
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && has_bit_counts()
}

fn has_bit_counts() -> bool {
    let bmi = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
    bmi && is_x86_feature_detected!("lzcnt") && is_x86_feature_detected!("popcnt")
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn list_avx512(tokens: &mut Tokens, payload: &[u8]) -> State {
    let mut state = State::default();
    let load = |bytes: &[u8; 64]| {
        // SAFETY: the array has the 64 bytes that are loaded, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    };
    let (Some(low), Some(high)) = (CLASSES.first_chunk(), CLASSES.last_chunk()) else { return state };
    let (low, high) = (load(low), load(high));
    let within = load(&POSITIONS);
    let all = |byte: u8| _mm512_set1_epi8(byte as i8);
    let is = |bytes, byte: u8| _mm512_cmpeq_epi8_mask(bytes, all(byte));
    let running_xor = |bits: u64| _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1))) as u64;
    for (at, block) in payload.chunks(64).enumerate() {
        let bytes = match block.first_chunk() {
            Some(block) => load(block),
            // SAFETY: only the bytes that the block has are loaded, and the load asks for no alignment.
            None => unsafe { _mm512_mask_loadu_epi8(all(b' '), !0 >> (64 - block.len()), block.as_ptr().cast()) },
        };
        let high_bytes = _mm512_movepi8_mask(bytes);
        let classes = _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(low, bytes, high), high_bytes, all(OTHER));
        let mut masks =
            Masks { quote: is(bytes, b'"'), high: high_bytes, white: _mm512_testn_epi8_mask(classes, all(!RARE)), word: is(classes, WORD), ..Masks::default() };
        if masks.high != 0 {
            masks.lead = _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, all(0xc2)), all(0x1e));
            masks.trail = _mm512_cmplt_epi8_mask(bytes, all(0xc0));
        }
        let rare = _mm512_movepi8_mask(classes);
        if rare != 0 {
            masks.backslash = is(bytes, b'\\');
            masks.control = rare ^ masks.backslash;
        }
        let starts = state.step(masks, running_xor);
        tokens.make_room();
        let number = starts.count_ones() as usize;
        let offsets = _mm512_maskz_compress_epi8(starts, within);
        let kinds = _mm512_permutexvar_epi8(offsets, _mm512_and_si512(classes, all(!RARE)));
        let base = _mm512_set1_epi32((at * 64) as i32);
        if let Some((kinds_room, places_room)) = tokens.room() {
            // SAFETY: there is room for the 64 bytes that are stored, and the store asks for no alignment.
            unsafe { _mm512_storeu_si512(kinds_room.as_mut_ptr().cast(), kinds) };
            let (quarters, _) = places_room.as_chunks_mut::<16>();
            let mut put = |quarter: usize, offsets: __m128i| {
                let room: &mut [u32; 16] = &mut quarters[quarter];
                // SAFETY: there is room for the 16 numbers that are stored, and the store asks for no alignment.
                unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), _mm512_add_epi32(base, _mm512_cvtepu8_epi32(offsets))) };
            };
            put(0, _mm512_castsi512_si128(offsets));
            put(1, _mm512_extracti32x4_epi32::<1>(offsets));
            if number > 32 {
                put(2, _mm512_extracti32x4_epi32::<2>(offsets));
                put(3, _mm512_extracti32x4_epi32::<3>(offsets));
            }
        }
        tokens.count += number;
    }
    state
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn list_avx2(tokens: &mut Tokens, payload: &[u8]) -> State {
    let load = |bytes: &[u8; 32]| {
        // SAFETY: the array has the 32 bytes that are loaded, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    };
    // Each instruction looks bytes up in its own half of a table.
    let twice = |table: [u8; 16]| load(&std::array::from_fn(|at| table[at % 16]));
    let [lower, upper] = BY_HALF.map(twice);
    list_with(tokens, payload, |block| {
        let (halves, _) = block.as_chunks::<32>();
        let half = |half: &[u8; 32]| {
            let bytes = load(half);
            let mask = |x| u64::from(_mm256_movemask_epi8(x) as u32);
            let all = |byte: u8| _mm256_set1_epi8(byte as i8);
            let is = |byte: u8| _mm256_cmpeq_epi8(bytes, all(byte));
            let nibble = all(0xf);
            let class = _mm256_and_si256(
                // A byte that isn't ASCII is none of these: for that the instruction gives 0, for others it looks at the lower half.
                _mm256_shuffle_epi8(lower, bytes),
                _mm256_shuffle_epi8(upper, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble)),
            );
            let has = |bits: u8| !mask(_mm256_cmpeq_epi8(_mm256_and_si256(class, all(bits)), _mm256_setzero_si256())) & 0xffff_ffff;
            let shifted = _mm256_sub_epi8(bytes, all(0xc2));
            Masks {
                quote: mask(is(b'"')),
                backslash: mask(is(b'\\')),
                control: mask(_mm256_cmpeq_epi8(_mm256_min_epu8(bytes, all(0x1f)), bytes)),
                high: mask(bytes),
                lead: mask(_mm256_cmpeq_epi8(_mm256_min_epu8(shifted, all(0x1d)), shifted)),
                trail: mask(_mm256_cmpgt_epi8(all(0xc0), bytes)),
                white: has(WHITE),
                word: has(WORDS),
            }
        };
        let [low, high] = [half(&halves[0]), half(&halves[1])];
        let join = |of: fn(&Masks) -> u64| of(&low) | of(&high) << 32;
        Masks {
            quote: join(|half| half.quote),
            backslash: join(|half| half.backslash),
            control: join(|half| half.control),
            high: join(|half| half.high),
            lead: join(|half| half.lead),
            trail: join(|half| half.trail),
            white: join(|half| half.white),
            word: join(|half| half.word),
        }
    })
}
