//! The byte scanner: one pass over a payload lists its tokens, 64 bytes at a time.
//!
//! A token is a string, a run of the bytes that numbers, `true`, `false` and `null` are made of, or any other single byte outside strings that
//! isn't white space. What follows walks this list instead of the bytes: a value that nobody asked for is so many tokens, and where a
//! token ends is just before the next one begins, but for white space. The pass knows nothing of grammar.
//!
//! What a block of 64 bytes holds are 64-bit masks, so that its string state is a handful of integer operations. The method is that of
//! simdjson's first stage (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019); beside the places of tokens it lists their
//! kinds, so that many tokens can be compared at once.
//!
//! Safety: the only unsafe code loads and stores vector registers from and to arrays of their size (the loads of a block's last part are
//! masked), and calls a function that needs certain instructions after asking the processor for them.

/// The kind of a run of bytes that numbers, `true`, `false` and `null` are made of. Each other token is of the kind of its first byte,
pub(super) const WORD: u8 = b'w';
/// but for bytes that JSON has no use for outside strings.
const OTHER: u8 = b'?';
/// Stands behind the last token; no token is of this kind.
pub(super) const END: u8 = 0;

/// So many kinds can be read from any token on.
pub(super) const AHEAD: usize = 64;

/// A list with room for more tokens than these is not kept for the next payload.
const MOST_KEPT: usize = 1 << 20;

/// The kinds of ASCII bytes; that of white space is 0.
const KINDS: [u8; 128] = {
    let mut kinds = [OTHER; 128];
    let mut byte = 0;
    while byte < 128 {
        match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' => kinds[byte] = 0,
            same @ (b'{' | b'}' | b'[' | b']' | b':' | b',' | b'"') => kinds[byte] = same,
            b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => kinds[byte] = WORD,
            _ => {}
        }
        byte += 1;
    }
    kinds
};

/// The tokens of a payload.
#[derive(Debug, Default)]
pub(in crate::decode) struct Tokens {
    /// What each token is; behind the last one [`END`], [`AHEAD`] times.
    kinds: Vec<u8>,
    /// Where each begins; behind the last one twice the payload's length.
    places: Vec<u32>,
    /// How many there are.
    count: usize,
    /// Some byte is a backslash: strings may have escapes.
    pub(super) backslash: bool,
    /// Some string holds a byte below 0x20, which JSON forbids.
    pub(super) control: bool,
    /// There is more than ASCII and characters of two bytes: whether it is UTF-8 is not known.
    pub(super) foreign: bool,
    /// The payload ends within a string.
    pub(super) open_string: bool,
    /// A backslash stands outside strings.
    pub(super) stray_backslash: bool,
}

impl Tokens {
    /// Lists the tokens of `payload`, which is smaller than 4 GiB, forgetting those of the previous one but keeping their memory.
    pub(super) fn list(&mut self, payload: &[u8]) {
        if self.kinds.len() > MOST_KEPT {
            *self = Self::default();
        }
        self.count = 0;
        let state = list_best(self, payload);
        self.make_room();
        self.kinds[self.count..][..AHEAD].fill(END);
        self.places[self.count..][..2].fill(payload.len() as u32);
        self.backslash = state.backslash != 0;
        self.control = state.control != 0;
        self.foreign = state.foreign != 0 || state.lead != 0;
        self.open_string = state.in_string != 0;
        self.stray_backslash = state.stray != 0;
    }

    /// What the tokens are, and what stands behind them.
    #[inline(always)]
    pub(super) fn kinds(&self) -> &[u8] {
        &self.kinds[..self.count + AHEAD]
    }

    /// Where they begin, and twice the payload's length: one past [`END`] can be looked at, too.
    #[inline(always)]
    pub(super) fn places(&self) -> &[u32] {
        &self.places[..self.count + 2]
    }

    /// Makes room for the tokens of a block, and for what stands behind them.
    #[inline(always)]
    fn make_room(&mut self) {
        if self.kinds.len() < self.count + 2 * AHEAD {
            self.grow();
        }
    }

    /// Where the next tokens' kinds and places go, as many as a block has at most.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn room(&mut self) -> Option<(&mut [u8; AHEAD], &mut [u32; AHEAD])> {
        Some((self.kinds.get_mut(self.count..)?.first_chunk_mut()?, self.places.get_mut(self.count..)?.first_chunk_mut()?))
    }

    #[cold]
    fn grow(&mut self) {
        let room = (2 * self.kinds.len()).max(16 * AHEAD);
        self.kinds.resize(room, END);
        self.places.resize(room, 0);
    }
}

/// What kinds of bytes a block holds, before strings are told from the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Masks {
    quote: u64,
    backslash: u64,
    /// Below 0x20.
    control: u64,
    /// Not ASCII,
    high: u64,
    /// of these the first of two bytes that make a character,
    lead: u64,
    /// and those that aren't the first of one.
    trail: u64,
    white: u64,
    word: u64,
}

/// What one block must know of those before it, and what was seen in any.
#[derive(Debug, Default)]
struct State {
    /// All ones if the next block begins within a string.
    in_string: u64,
    /// 1 if the next block's first byte is escaped.
    escaped: u64,
    /// 1 if the block before ends with a byte of a word.
    word: u64,
    /// 1 if the block before ends with the first of two bytes that make a character.
    lead: u64,
    backslash: u64,
    control: u64,
    foreign: u64,
    stray: u64,
}

impl State {
    /// Where tokens begin in the next block. `running_xor` is [`running_xor`] or does the same.
    #[inline(always)]
    fn step(&mut self, masks: Masks, running_xor: impl Fn(u64) -> u64) -> u64 {
        let quotes = masks.quote & !self.escaped_bytes(masks.backslash);
        // From each opening quote up to just before its closing one.
        let strings = running_xor(quotes) ^ self.in_string;
        self.in_string = ((strings as i64) >> 63) as u64;
        let outside = !(strings | quotes);
        let words = masks.word & outside;
        let word_starts = words & !(words << 1 | self.word);
        self.word = words >> 63;
        // Most blocks have nothing of these, and most that have are among others that do.
        if masks.backslash | masks.control != 0 {
            self.backslash |= masks.backslash;
            self.control |= masks.control & strings;
            self.stray |= masks.backslash & !strings;
        }
        if masks.high | self.lead != 0 {
            self.foreign |= (masks.high ^ (masks.lead | masks.trail)) | (masks.trail ^ (masks.lead << 1 | self.lead));
            self.lead = masks.lead >> 63;
        }
        (outside & !masks.white & !masks.word) | word_starts | (quotes & strings)
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

/// Lists tokens where `masks` tells what a block holds; the last block is filled up with spaces, which mean nothing anywhere.
#[inline(always)]
fn list_with(tokens: &mut Tokens, payload: &[u8], masks: impl Fn(&[u8; 64]) -> Masks) -> State {
    let mut state = State::default();
    let (blocks, rest) = payload.as_chunks::<64>();
    let mut each = |at: usize, block: &[u8; 64]| {
        tokens.make_room();
        let starts = state.step(masks(block), running_xor);
        push_each(tokens, at * 64, block, starts);
    };
    blocks.iter().enumerate().for_each(|(at, block)| each(at, block));
    if !rest.is_empty() {
        let mut block = [b' '; 64];
        block[..rest.len()].copy_from_slice(rest);
        each(blocks.len(), &block);
    }
    state
}

/// Appends the tokens that begin in a block, one by one.
#[inline(always)]
fn push_each(tokens: &mut Tokens, base: usize, block: &[u8; 64], mut starts: u64) {
    while starts != 0 {
        let at = starts.trailing_zeros() as usize;
        starts &= starts - 1;
        tokens.kinds[tokens.count] = KINDS.get(usize::from(block[at])).copied().unwrap_or(OTHER);
        tokens.places[tokens.count] = (base + at) as u32;
        tokens.count += 1;
    }
}

#[cfg(not(target_arch = "x86_64"))]
use list_portable as list_best;

#[cfg(target_arch = "x86_64")]
use x86::list_best;

#[cfg(not(target_arch = "x86_64"))]
fn best() -> &'static str {
    "portable"
}

#[cfg(target_arch = "x86_64")]
use x86::best;

/// The name of the instructions that [`Tokens::list`] uses on this processor.
pub(in crate::decode) fn instructions() -> &'static str {
    best()
}

/// A byte at a time.
fn list_portable(tokens: &mut Tokens, payload: &[u8]) -> State {
    list_with(tokens, payload, portable_masks)
}

fn portable_masks(block: &[u8; 64]) -> Masks {
    let mut masks = Masks::default();
    for (at, &byte) in block.iter().enumerate() {
        let kind = KINDS.get(usize::from(byte)).copied().unwrap_or(OTHER);
        masks.quote |= u64::from(byte == b'"') << at;
        masks.backslash |= u64::from(byte == b'\\') << at;
        masks.control |= u64::from(byte < 0x20) << at;
        masks.high |= u64::from(byte >= 0x80) << at;
        masks.lead |= u64::from(matches!(byte, 0xc2..=0xdf)) << at;
        masks.trail |= u64::from(matches!(byte, 0x80..=0xbf)) << at;
        masks.white |= u64::from(kind == 0) << at;
        masks.word |= u64::from(kind == WORD) << at;
    }
    masks
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{KINDS, Masks, OTHER, State, Tokens, WORD, list_portable, list_with};

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

    /// By each half of a byte what it may be, twice over; it is what both halves say. 1 to 8: of a word, 16 and 32: white.
    const BY_HALF: [[u8; 32]; 2] = {
        let mut tables = [[0; 32]; 2];
        let mut at = 0;
        while at < 32 {
            let half = (at % 16) as u8;
            let signs = if matches!(half, 0xb | 0xd | 0xe) { 1 } else { 0 };
            let digits = if half <= 9 { 2 } else { 0 };
            let letters = if half >= 1 { 4 } else { 0 } | if half <= 0xa { 8 } else { 0 };
            let white = if half == 0 { 16 } else { 0 } | if matches!(half, 9 | 0xa | 0xd) { 32 } else { 0 };
            tables[0][at] = signs | digits | letters | white;
            tables[1][at] = match half {
                0 => 32,
                2 => 1 | 16,
                3 => 2,
                4 | 6 => 4,
                5 | 7 => 8,
                _ => 0,
            };
            at += 1;
        }
        tables
    };

    /// Whether the processor has what [`list_avx512`] needs.
    fn has_avx512() -> bool {
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        avx512 && is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vbmi2") && is_x86_feature_detected!("pclmulqdq")
    }

    pub(super) fn best() -> &'static str {
        match () {
            () if has_avx512() => "avx512",
            () if is_x86_feature_detected!("avx2") => "avx2",
            () => "portable",
        }
    }

    pub(super) fn list_best(tokens: &mut Tokens, payload: &[u8]) -> State {
        if has_avx512() {
            // SAFETY: the processor has what the function needs.
            unsafe { list_avx512(tokens, payload) }
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function needs.
            unsafe { list_avx2(tokens, payload) }
        } else {
            list_portable(tokens, payload)
        }
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
            let mut masks = Masks {
                quote: is(bytes, b'"'),
                high: high_bytes,
                white: _mm512_testn_epi8_mask(classes, all(!RARE)),
                word: is(classes, WORD),
                ..Masks::default()
            };
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
        let (lower, upper) = (load(&BY_HALF[0]), load(&BY_HALF[1]));
        list_with(tokens, payload, |block| {
            let (halves, _) = block.as_chunks::<32>();
            let half = |half: &[u8; 32]| {
                let bytes = load(half);
                let mask = |x| u64::from(_mm256_movemask_epi8(x) as u32);
                let all = |byte: u8| _mm256_set1_epi8(byte as i8);
                let is = |byte: u8| _mm256_cmpeq_epi8(bytes, all(byte));
                let nibble = all(0xf);
                let class = _mm256_and_si256(
                    // A byte that isn't ASCII is none of these: its lower half gives 0.
                    _mm256_shuffle_epi8(lower, _mm256_and_si256(bytes, all(0x8f))),
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
                    white: has(0x30),
                    word: has(0xf),
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
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    /// Byte by byte, as a check on the masks: the tokens, and of what kinds there is any.
    fn plainly(payload: &[u8]) -> (Vec<(u8, u32)>, [bool; 4]) {
        let mut tokens = vec![];
        let (mut string, mut escaped, mut word) = (false, false, false);
        let [mut backslash, mut control, mut stray] = [false; 3];
        for (at, &byte) in payload.iter().enumerate() {
            let is_quote = byte == b'"' && !escaped;
            let opens = is_quote && !string;
            let in_word = !string && !is_quote && (byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
            if opens {
                tokens.push((b'"', at as u32));
            } else if in_word && !word {
                tokens.push((WORD, at as u32));
            } else if !string && !in_word && !b" \t\r\n".contains(&byte) {
                tokens.push((if b"{}[]:,\"".contains(&byte) { byte } else { OTHER }, at as u32));
            }
            let within = string && !is_quote;
            control |= within && byte < 0x20;
            stray |= byte == b'\\' && !within;
            backslash |= byte == b'\\';
            escaped = byte == b'\\' && !escaped;
            string ^= is_quote;
            word = in_word;
        }
        (tokens, [backslash, control, string, stray])
    }

    #[test]
    fn every_variant_lists_what_the_plain_loop_does() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        type List = fn(&mut Tokens, &[u8]) -> State;
        let mut variants: Vec<(&str, List)> = vec![("portable", list_portable), ("best", list_best)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: asked for above.
            variants.push(("avx2", |tokens, payload| unsafe { x86::list_avx2(tokens, payload) }));
        }
        for round in 0..20_000 {
            let length = random.random_range(0..300);
            // Bytes of any kind, bytes that matter, and characters.
            let payload: Vec<u8> = match round % 4 {
                0 => (0..length).map(|_| random.next_u32() as u8).collect(),
                1 => (0..length).map(|_| b"\"\\{}[] a\n1,:-?"[random.random_range(0..14)]).collect(),
                2 => (0..length).map(|_| b"\\\\\\\\\\\\\\\"{z"[random.random_range(0..10)]).collect(),
                _ => (0..length)
                    .map(|_| ['"', 'a', ' ', '\u{80}', 'é', '\u{7ff}', '\u{800}', '🦤'][random.random_range(0..8 - usize::from(round % 8 < 4) * 2)])
                    .collect::<String>()
                    .into(),
            };
            let (listed, seen) = plainly(&payload);
            let small = std::str::from_utf8(&payload).is_ok_and(|text| text.chars().all(|character| character.len_utf8() < 3));
            for (name, list) in &variants {
                let mut tokens = Tokens::default();
                let state = list(&mut tokens, &payload);
                let pairs = tokens.kinds[..tokens.count].iter().copied().zip(tokens.places[..tokens.count].iter().copied());
                assert!(pairs.eq(listed.iter().copied()), "{name}: {payload:?}");
                let flags = [state.backslash != 0, state.control != 0, state.in_string != 0, state.stray != 0];
                assert_eq!(flags, seen, "{name}: {payload:?}");
                assert_eq!(state.foreign == 0 && state.lead == 0, small, "{name}: {payload:?}");
            }
        }
    }

    #[test]
    fn lists_begin_afresh_and_end_plainly() {
        let mut tokens = Tokens::default();
        for payload in [vec![b'['; 5_000_000], b"{\"a\" : 1}".to_vec(), vec![b' '; 1000], vec![], b"\"open".to_vec(), b"[]".to_vec()] {
            tokens.list(&payload);
            let (listed, _) = plainly(&payload);
            assert_eq!((tokens.kinds().len(), tokens.places().len()), (listed.len() + AHEAD, listed.len() + 2));
            assert!(tokens.kinds().iter().zip(&listed).all(|(kind, (plain, _))| kind == plain));
            assert!(tokens.kinds()[listed.len()..].iter().all(|&kind| kind == END));
            assert_eq!(tokens.places()[listed.len()..], [payload.len() as u32; 2]);
            assert_eq!(tokens.open_string, payload == b"\"open");
        }
        assert!(tokens.kinds.len() < MOST_KEPT, "what a large payload needed is given back");
    }
}
