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
//! Masks are made with the best instructions that the processor has (`variant`): AVX-512 or AVX2 (`x86`), NEON (`neon`), or a byte at a time.
//!
//! Safety: the only unsafe code loads and stores vector registers from and to arrays of their size (the loads of a block's last part are
//! masked), and calls a function that needs certain instructions after asking the processor for them.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;
mod variant;
#[cfg(target_arch = "x86_64")]
mod x86;

use self::variant::Variant;

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

/// By each half of a byte what it may be; it is what both halves say. The bits of [`WORDS`]: of a word, those of [`WHITE`]: white.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const BY_HALF: [[u8; 16]; 2] = {
    let mut tables = [[0; 16]; 2];
    let mut half = 0;
    while half < 16 {
        let signs = if matches!(half, 0xb | 0xd | 0xe) { 1 } else { 0 };
        let digits = if half <= 9 { 2 } else { 0 };
        let letters = if half >= 1 { 4 } else { 0 } | if half <= 0xa { 8 } else { 0 };
        let white = if half == 0 { 16 } else { 0 } | if matches!(half, 9 | 0xa | 0xd) { 32 } else { 0 };
        tables[0][half] = signs | digits | letters | white;
        tables[1][half] = match half {
            0 => 32,
            2 => 1 | 16,
            3 => 2,
            4 | 6 => 4,
            5 | 7 => 8,
            _ => 0,
        };
        half += 1;
    }
    tables
};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const WORDS: u8 = 0b1111;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const WHITE: u8 = 0b11_0000;

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
        let state = Variant::best().list(self, payload);
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
    let mut last = [b' '; 64];
    // One loop without closures: a function with certain instructions enabled has them in all that is inlined into it.
    for (at, bytes) in payload.chunks(64).enumerate() {
        let block = match bytes.first_chunk() {
            Some(block) => block,
            None => {
                last[..bytes.len()].copy_from_slice(bytes);
                &last
            }
        };
        tokens.make_room();
        let starts = state.step(masks(block), running_xor);
        push_each(tokens, at * 64, block, starts);
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

/// The name of the instructions that [`Tokens::list`] uses on this processor.
pub(in crate::decode) fn instructions() -> &'static str {
    Variant::best().name
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
