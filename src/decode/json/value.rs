//! A payload with its tokens, and what can be asked of one value in it.
//!
//! Two degrees of care: [`Payload::skip`] finds where a value ends and checks structure alone (brackets balance and
//! match, depth is bounded); [`Payload::check`] holds one value to the whole grammar. Neither recurses.

use super::{
    super::number::Number,
    fault::{Fault, Judged, malformed},
    scan::{END, Tokens, WORD},
};

/// How deep objects and arrays may nest, the record's own object included.
pub(super) const MAX_DEPTH: usize = 128;

/// One record's payload, valid UTF-8, and its tokens. What is called `at` is the number of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    /// The payload.
    pub(super) bytes: &'a [u8],
    /// What its tokens are, and what stands behind them.
    pub(super) kinds: &'a [u8],
    /// Where they begin, and the payload's length.
    pub(super) places: &'a [u32],
    /// Where it lies in the buffer of all records, for views into that.
    pub(super) base: u32,
    /// Whether some string may have escapes,
    backslash: bool,
    /// or a control character.
    control: bool,
}

/// One value of a payload. Its extent is known, its grammar unchecked.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Value<'a> {
    /// What it is part of.
    pub(super) payload: &'a Payload<'a>,
    /// Its first token.
    pub(super) first: usize,
    /// One past its last token.
    pub(super) past: usize,
}

/// A JSON string's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// It stands in the payload as it is.
    Plain(&'a [u8]),
    /// It has escapes, to be undone with [`unescape`].
    Escaped(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// A payload that lies at `base` of the records' buffer.
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8], tokens: &'a Tokens, base: usize) -> Self {
        Self { bytes, kinds: tokens.kinds(), places: tokens.places(), base: base as u32, backslash: tokens.backslash, control: tokens.control }
    }

    /// What a token is; [`END`] behind the last.
    #[inline(always)]
    pub(super) fn kind(&self, at: usize) -> u8 {
        self.kinds[at]
    }

    /// The first byte of a token.
    #[inline(always)]
    pub(super) fn place(&self, at: usize) -> usize {
        self.places[at] as usize
    }

    /// One past the last byte before a token that isn't white space.
    #[inline(always)]
    pub(super) fn end_before(&self, at: usize) -> usize {
        let mut end = self.place(at);
        while end > 0 && self.bytes[end - 1] <= b' ' {
            end -= 1;
        }
        end
    }

    /// What stands there from one token to just before another, without white space at the end.
    #[inline(always)]
    pub(super) fn text_of(&self, first: usize, past: usize) -> &'a [u8] {
        &self.bytes[self.place(first)..self.end_before(past)]
    }

    /// A fault of grammar at a token.
    #[cold]
    pub(super) fn malformed<T>(&self, at: usize, what: &'static str) -> Judged<T> {
        malformed(self.place(at), what)
    }

    /// One past the value that begins at a token, which stands `depth` brackets deep. Checks structure alone.
    #[inline(always)]
    pub(super) fn skip(&self, at: usize, depth: usize) -> Judged<usize> {
        match self.kind(at) {
            b'"' | WORD => Ok(at + 1),
            b'{' | b'[' => self.skip_brackets(at, depth),
            _ => self.malformed(at, "a value is missing"),
        }
    }

    fn skip_brackets(&self, open: usize, outer: usize) -> Judged<usize> {
        // The kinds of the open brackets, innermost in the lowest bit: 1 is curly.
        let mut kinds = 0u128;
        let mut depth = 0;
        for (at, &kind) in self.kinds.iter().enumerate().skip(open) {
            let curly = u128::from(kind >> 5 & 1);
            match kind {
                b'{' | b'[' => {
                    depth += 1;
                    if outer + depth > MAX_DEPTH {
                        return self.malformed(at, "objects and arrays nest more than 128 deep");
                    }
                    kinds = kinds << 1 | curly;
                }
                b'}' | b']' => {
                    if kinds & 1 != curly {
                        return self.malformed(at, "a bracket closes one of the other kind");
                    }
                    kinds >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(at + 1);
                    }
                }
                END => break,
                _ => {}
            }
        }
        self.malformed(open, "a bracket is not closed")
    }

    /// Moves over `"key" :`: the key's content and where the value begins.
    #[inline]
    pub(super) fn key(&self, at: usize) -> Judged<(Text<'a>, usize)> {
        if self.kind(at) != b'"' {
            return self.malformed(at, "a key is missing");
        }
        let text = self.text(at)?;
        if self.kind(at + 1) != b':' {
            return self.malformed(at + 1, "a colon is missing after a key");
        }
        Ok((text, at + 2))
    }

    /// The content of a string.
    #[inline(always)]
    fn text(&self, at: usize) -> Judged<Text<'a>> {
        let open = self.place(at);
        let inner = &self.bytes[open + 1..self.end_before(at + 1) - 1];
        if self.backslash || self.control { self.careful_text(inner, open) } else { Ok(Text::Plain(inner)) }
    }

    #[inline(never)]
    fn careful_text(&self, inner: &'a [u8], open: usize) -> Judged<Text<'a>> {
        if self.control && inner.iter().any(|&byte| byte < 0x20) {
            return malformed(open, "a string holds a control character");
        }
        if !self.backslash || memchr::memchr(b'\\', inner).is_none() {
            return Ok(Text::Plain(inner));
        }
        match each_character(inner, |_| {}) {
            Some(()) => Ok(Text::Escaped(inner)),
            None => malformed(open, "a string holds an escape that means nothing"),
        }
    }

    /// Holds the value that begins at a token, whose structure [`Payload::skip`] has checked, to the whole grammar.
    pub(super) fn check(&self, first: usize, past: usize) -> Judged {
        let mut kinds = 0u128;
        let mut depth = 0;
        let mut at = first;
        'value: loop {
            match self.kind(at) {
                b'"' => {
                    self.text(at)?;
                    at += 1;
                }
                open @ (b'{' | b'[') => {
                    let object = open == b'{';
                    at += 1;
                    if self.kind(at) == open + 2 {
                        at += 1;
                    } else {
                        kinds = kinds << 1 | u128::from(object);
                        depth += 1;
                        if object {
                            at = self.key(at)?.1;
                        }
                        continue 'value;
                    }
                }
                WORD => {
                    if !is_word(self.text_of(at, at + 1)) {
                        return self.malformed(at, "this is no number, true, false or null");
                    }
                    at += 1;
                }
                _ => return self.malformed(at, "a value is missing"),
            }
            // A value has ended; so may the brackets around it.
            while depth > 0 {
                let object = kinds & 1 == 1;
                match self.kind(at) {
                    b',' => {
                        at += 1;
                        if object {
                            at = self.key(at)?.1;
                        }
                        continue 'value;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return self.malformed(at, "a comma or a closing bracket is missing"),
                }
                kinds >>= 1;
                depth -= 1;
                at += 1;
            }
            return if at == past { Ok(()) } else { self.malformed(at, "a value has something after it") };
        }
    }
}

impl<'a> Value<'a> {
    /// Its first byte.
    #[inline(always)]
    pub(super) fn start(&self) -> usize {
        self.payload.place(self.first)
    }

    /// The value as it stands in the payload.
    #[inline(always)]
    pub(super) fn raw(&self) -> &'a [u8] {
        self.payload.text_of(self.first, self.past)
    }

    /// The kind of its first token, which tells its own.
    #[inline(always)]
    pub(super) fn kind(&self) -> u8 {
        self.payload.kind(self.first)
    }

    /// Whether it is `null`.
    #[inline(always)]
    pub(super) fn is_null(&self) -> bool {
        self.kind() == WORD && self.raw() == b"null"
    }

    /// Whether it is a string.
    #[inline(always)]
    pub(super) fn is_text(&self) -> bool {
        self.kind() == b'"'
    }

    /// The content of a string.
    #[inline(always)]
    pub(super) fn text(&self) -> Judged<Text<'a>> {
        self.payload.text(self.first)
    }

    /// Holds it to the whole grammar.
    pub(super) fn check(&self) -> Judged {
        self.payload.check(self.first, self.past)
    }

    /// The fault of a value that isn't what its column expects: of grammar if it has one, else of type.
    #[cold]
    pub(super) fn misfit<T>(&self, expected: String) -> Judged<T> {
        self.check()?;
        let start = self.start();
        Err(Box::new(Fault::Misfit { start, end: start + self.raw().len(), expected }))
    }
}

/// Whether a run of word bytes is a JSON value.
fn is_word(word: &[u8]) -> bool {
    matches!(word, b"true" | b"false" | b"null") || Number::parse(word).is_some()
}

/// Appends what a string's content with escapes stands for. The content has passed [`Payload::text`].
pub(super) fn unescape(inner: &[u8], out: &mut Vec<u8>) {
    let done = each_character(inner, |bytes| out.extend_from_slice(bytes));
    debug_assert!(done.is_some(), "escapes are checked before they are undone");
}

/// Hands on the content piece by piece, escapes undone; `None` at an escape that means nothing (also half a surrogate pair).
fn each_character(inner: &[u8], mut piece: impl FnMut(&[u8])) -> Option<()> {
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        piece(&rest[..at]);
        let (byte, used) = match *rest.get(at + 1)? {
            byte @ (b'"' | b'\\' | b'/') => (byte, 2),
            b'b' => (0x08, 2),
            b'f' => (0x0c, 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'u' => {
                let (character, used) = unicode_escape(&rest[at..])?;
                piece(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[at + used..];
                continue;
            }
            _ => return None,
        };
        piece(&[byte]);
        rest = &rest[at + used..];
    }
    piece(rest);
    Some(())
}

/// `\uXXXX`, or two of them that make a surrogate pair: the character and how many bytes spell it.
fn unicode_escape(rest: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0u32, |sum, &digit| Some(sum << 4 | char::from(digit).to_digit(16)?))
    };
    let first = unit(0)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 6));
    }
    let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second))?;
    Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 12))
}
