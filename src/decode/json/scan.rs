//! The byte scanner: one pass over a payload marks where its strings and brackets are, 64 bytes at a time.
//!
//! What follows walks these marks instead of the bytes: the end of a string is the next quote mark, the end of an
//! object nobody asked for is found by its bracket marks alone. The pass knows nothing of grammar.
//!
//! The marks of a block are 64-bit masks, so that the string state of a whole block is a handful of integer operations.
//! The method is that of simdjson's first stage (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019),
//! without its list of positions: most marks are never looked at here.
//!
//! Safety: the only unsafe code loads 32 or 64 bytes from a `[u8; 64]` into a vector register, and calls a function that
//! needs AVX2 or AVX-512 after asking the processor for it.

/// Marks of 64 bytes; bit `i` belongs to byte `i`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Word {
    /// Quotes that open or close a string.
    quotes: u64,
    /// `{`, `}`, `[` and `]` outside strings.
    brackets: u64,
}

/// What kinds of bytes one block holds, before strings are told from the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kinds {
    quote: u64,
    backslash: u64,
    bracket: u64,
    control: u64,
    high: u64,
}

/// Where a payload's strings and brackets are.
#[derive(Debug, Default)]
pub(in crate::decode) struct Index {
    words: Vec<Word>,
    /// Some byte is a backslash: strings may have escapes.
    pub(in crate::decode) backslash: bool,
    /// Some string holds a byte below 0x20, which JSON forbids.
    pub(in crate::decode) control: bool,
    /// Some byte is not ASCII.
    pub(in crate::decode) high: bool,
    /// The payload ends within a string.
    pub(in crate::decode) open_string: bool,
    /// A backslash stands outside strings.
    pub(in crate::decode) stray_backslash: bool,
}

impl Index {
    /// Marks `payload`, forgetting the previous one but keeping its memory.
    pub(in crate::decode) fn mark(&mut self, payload: &[u8]) {
        self.words.clear();
        self.words.resize(payload.len().div_ceil(64), Word::default());
        let mut state = State::default();
        mark_best(&mut self.words, payload, &mut state);
        self.backslash = state.backslash != 0;
        self.control = state.control != 0;
        self.high = state.high != 0;
        self.open_string = state.in_string != 0;
        self.stray_backslash = state.stray != 0;
    }

    /// The first string quote at or after `from`.
    pub(in crate::decode) fn next_quote(&self, from: usize) -> Option<usize> {
        next(&self.words, from, |word| word.quotes)
    }

    /// The first bracket outside strings at or after `from`.
    pub(in crate::decode) fn next_bracket(&self, from: usize) -> Option<usize> {
        next(&self.words, from, |word| word.brackets)
    }
}

#[inline(always)]
fn next(words: &[Word], from: usize, mask: impl Fn(&Word) -> u64) -> Option<usize> {
    let mut at = from / 64;
    let mut bits = mask(words.get(at)?) & (!0 << (from % 64));
    while bits == 0 {
        at += 1;
        bits = mask(words.get(at)?);
    }
    Some(at * 64 + bits.trailing_zeros() as usize)
}

/// What one block must know of those before it, and what was seen in any.
#[derive(Debug, Default)]
struct State {
    /// All ones if the next block begins within a string.
    in_string: u64,
    /// 1 if the next block's first byte is escaped.
    escaped: u64,
    backslash: u64,
    control: u64,
    high: u64,
    stray: u64,
}

impl State {
    #[inline(always)]
    fn step(&mut self, kinds: Kinds) -> Word {
        let quotes = kinds.quote & !self.escaped_bytes(kinds.backslash);
        // From each opening quote up to just before its closing one.
        let strings = running_xor(quotes) ^ self.in_string;
        self.in_string = ((strings as i64) >> 63) as u64;
        self.backslash |= kinds.backslash;
        self.control |= kinds.control & strings;
        self.high |= kinds.high;
        self.stray |= kinds.backslash & !strings;
        Word { quotes, brackets: kinds.bracket & !strings }
    }

    /// Bytes that follow an odd run of backslashes.
    #[inline(always)]
    fn escaped_bytes(&mut self, backslash: u64) -> u64 {
        if backslash == 0 {
            return std::mem::take(&mut self.escaped);
        }
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let backslash = backslash & !self.escaped;
        let follows = backslash << 1 | self.escaped;
        let odd_starts = backslash & !EVEN & !follows;
        // The addition carries through each run that starts at an odd place, and so finds its end.
        let (even_runs, overflow) = odd_starts.overflowing_add(backslash);
        self.escaped = u64::from(overflow);
        (EVEN ^ (even_runs << 1)) & follows
    }
}

/// Bit `i` of the result is the parity of bits `0..=i`.
#[inline(always)]
fn running_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ bits << 32
}

/// Runs `kinds` over each block of 64 bytes; the last one is filled up with spaces, which mean nothing anywhere.
#[inline(always)]
fn mark_with(words: &mut [Word], payload: &[u8], state: &mut State, kinds: impl Fn(&[u8; 64]) -> Kinds) {
    let (blocks, rest) = payload.as_chunks::<64>();
    for (word, block) in words.iter_mut().zip(blocks) {
        *word = state.step(kinds(block));
    }
    if let (false, Some(word)) = (rest.is_empty(), words.last_mut()) {
        let mut block = [b' '; 64];
        block[..rest.len()].copy_from_slice(rest);
        *word = state.step(kinds(&block));
    }
}

#[cfg(not(target_arch = "x86_64"))]
use mark_portable as mark_best;

#[cfg(target_arch = "x86_64")]
use x86::mark_best;

#[cfg(any(test, not(target_arch = "x86_64")))]
fn mark_portable(words: &mut [Word], payload: &[u8], state: &mut State) {
    mark_with(words, payload, state, portable_kinds);
}

/// Eight bytes at a time in ordinary registers.
fn portable_kinds(block: &[u8; 64]) -> Kinds {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The top bit of each byte that is zero; exact, as no byte borrows from its neighbour.
    let zero = |x: u64| !(((x & LOW7) + LOW7) | x | LOW7);
    // Gathers the top bits of eight bytes into one byte.
    let gather = |x: u64| (x >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    let equal = |x: u64, byte: u8| zero(x ^ (ONES * u64::from(byte)));
    let mut kinds = Kinds::default();
    for (i, eight) in block.as_chunks::<8>().0.iter().enumerate() {
        let x = u64::from_le_bytes(*eight);
        // Square and curly brackets differ in bit 0x20 alone.
        let curly = x | (ONES * 0x20);
        let at = i * 8;
        kinds.quote |= gather(equal(x, b'"')) << at;
        kinds.backslash |= gather(equal(x, b'\\')) << at;
        kinds.bracket |= gather(equal(curly, b'{') | equal(curly, b'}')) << at;
        kinds.control |= gather(zero(x & (ONES * 0xe0))) << at;
        kinds.high |= gather(x & (ONES * 0x80)) << at;
    }
    kinds
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kinds, State, Word, mark_with, portable_kinds};

    pub(in crate::decode) fn mark_best(words: &mut [Word], payload: &[u8], state: &mut State) {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function needs.
            unsafe { mark_avx512(words, payload, state) }
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function needs.
            unsafe { mark_avx2(words, payload, state) }
        } else {
            mark_with(words, payload, state, portable_kinds);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(in crate::decode) fn mark_avx512(words: &mut [Word], payload: &[u8], state: &mut State) {
        mark_with(words, payload, state, |block| {
            // SAFETY: the block has the 64 bytes that are loaded, and the load asks for no alignment.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let curly = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
            let is = |x, byte: u8| _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8(byte as i8));
            Kinds {
                quote: is(bytes, b'"'),
                backslash: is(bytes, b'\\'),
                bracket: is(curly, b'{') | is(curly, b'}'),
                control: _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(0x20)),
                high: _mm512_movepi8_mask(bytes),
            }
        });
    }

    #[target_feature(enable = "avx2")]
    pub(in crate::decode) fn mark_avx2(words: &mut [Word], payload: &[u8], state: &mut State) {
        mark_with(words, payload, state, |block| {
            let (halves, _) = block.as_chunks::<32>();
            let half = |half: &[u8; 32]| {
                // SAFETY: the half has the 32 bytes that are loaded, and the load asks for no alignment.
                let bytes = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
                let curly = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
                let mask = |x| u64::from(_mm256_movemask_epi8(x) as u32);
                let is = |x, byte: u8| _mm256_cmpeq_epi8(x, _mm256_set1_epi8(byte as i8));
                Kinds {
                    quote: mask(is(bytes, b'"')),
                    backslash: mask(is(bytes, b'\\')),
                    bracket: mask(_mm256_or_si256(is(curly, b'{'), is(curly, b'}'))),
                    control: mask(_mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes)),
                    high: mask(bytes),
                }
            };
            let (low, high) = (half(&halves[0]), half(&halves[1]));
            Kinds {
                quote: low.quote | high.quote << 32,
                backslash: low.backslash | high.backslash << 32,
                bracket: low.bracket | high.bracket << 32,
                control: low.control | high.control << 32,
                high: low.high | high.high << 32,
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    /// The same marks, byte by byte.
    fn plainly(payload: &[u8]) -> (Vec<Word>, [bool; 5]) {
        let mut words = vec![Word::default(); payload.len().div_ceil(64)];
        let (mut string, mut escaped) = (false, false);
        let [mut backslash, mut control, mut high, mut stray] = [false; 4];
        for (i, &byte) in payload.iter().enumerate() {
            let bit = 1 << (i % 64);
            let is_quote = byte == b'"' && !escaped;
            let within = string && !is_quote;
            control |= within && byte < 0x20;
            high |= byte >= 0x80;
            escaped = byte == b'\\' && !escaped;
            backslash |= byte == b'\\';
            stray |= byte == b'\\' && !within;
            if is_quote {
                words[i / 64].quotes |= bit;
                string = !string;
            } else if !within && b"{}[]".contains(&byte) {
                words[i / 64].brackets |= bit;
            }
        }
        (words, [backslash, control, high, string, stray])
    }

    fn flags(state: &State) -> [bool; 5] {
        [state.backslash != 0, state.control != 0, state.high != 0, state.in_string != 0, state.stray != 0]
    }

    #[test]
    fn every_variant_marks_as_the_plain_loop_does() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        type Mark = fn(&mut [Word], &[u8], &mut State);
        let mut variants: Vec<(&str, Mark)> = vec![("portable", mark_portable), ("best", mark_best)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: asked for above.
            variants.push(("avx2", |words, payload, state| unsafe { x86::mark_avx2(words, payload, state) }));
        }
        for round in 0..20_000 {
            let length = random.random_range(0..300);
            // Alternately bytes of any kind and bytes that matter.
            let payload: Vec<u8> = match round % 3 {
                0 => (0..length).map(|_| random.next_u32() as u8).collect(),
                1 => (0..length).map(|_| b"\"\\{}[] a\n"[random.random_range(0..9)]).collect(),
                _ => (0..length).map(|_| b"\\\\\\\\\\\\\\\"{z"[random.random_range(0..10)]).collect(),
            };
            let (words, seen) = plainly(&payload);
            for (name, mark) in &variants {
                let (mut marked, mut state) = (vec![Word::default(); words.len()], State::default());
                mark(&mut marked, &payload, &mut state);
                assert_eq!(marked, words, "{name}: {payload:?}");
                assert_eq!(flags(&state), seen, "{name}: {payload:?}");
            }
        }
    }

    #[test]
    fn finds_marks_across_blocks() {
        let mut payload = vec![b' '; 1000];
        payload[700] = b'[';
        payload[701] = b'"';
        payload[999] = b'"';
        let mut index = Index::default();
        index.mark(&payload);
        assert_eq!(index.next_bracket(0), Some(700));
        assert_eq!(index.next_bracket(701), None);
        assert_eq!(index.next_quote(0), Some(701));
        assert_eq!(index.next_quote(702), Some(999));
        assert_eq!(index.next_quote(1000), None);
        assert_eq!(index.next_quote(100_000), None);
    }
}
