//! A payload with its marks, a cursor over it, and what can be asked of one value in it.
//!
//! Two degrees of care: [`Payload::skip`] finds where a value ends and checks structure alone (brackets balance and
//! match, depth is bounded); [`Payload::check`] holds one value to the whole grammar. Neither recurses.

use super::{
    super::number::Number,
    fault::{Judged, malformed},
    scan::Index,
};

/// How deep objects and arrays may nest, the record's own object included.
pub(super) const MAX_DEPTH: usize = 128;

/// One record's payload, valid UTF-8, marked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    /// The payload.
    pub(super) bytes: &'a [u8],
    /// Its marks.
    pub(super) index: &'a Index,
    /// Where it lies in the buffer of all records, for views into that.
    pub(super) base: u32,
}

/// One value of a payload. Its extent is known, its grammar unchecked.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Value<'a> {
    /// What it is part of.
    pub(super) payload: Payload<'a>,
    /// Its first byte.
    pub(super) start: usize,
    /// One past its last byte.
    pub(super) end: usize,
}

/// A JSON string's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// It stands in the payload as it is.
    Plain(&'a [u8]),
    /// It has escapes, to be undone with [`unescape`].
    Escaped(&'a [u8]),
}

/// Bytes that numbers, `true`, `false` and `null` are made of, and that can't be anything else.
const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'+' | b'-' | b'.');
        byte += 1;
    }
    table
};

impl<'a> Payload<'a> {
    /// The byte at a position; NUL, which no grammar wants, past the end.
    #[inline(always)]
    pub(super) fn at(&self, pos: usize) -> u8 {
        self.bytes.get(pos).copied().unwrap_or(0)
    }

    /// The first position at or after `pos` that isn't white space.
    #[inline(always)]
    pub(super) fn blank(&self, mut pos: usize) -> usize {
        if self.at(pos) > b' ' {
            return pos;
        }
        while matches!(self.at(pos), b' ' | b'\t' | b'\n' | b'\r') {
            pos += 1;
        }
        pos
    }

    /// The closing quote of the string whose opening quote is at `open`.
    #[inline(always)]
    pub(super) fn closing_quote(&self, open: usize) -> Judged<usize> {
        match self.index.next_quote(open + 1) {
            Some(close) => Ok(close),
            None => malformed(open, "a string is not closed"),
        }
    }

    /// One past the value that begins at `pos`, which stands `depth` brackets deep. Checks structure alone.
    #[inline(always)]
    pub(super) fn skip(&self, pos: usize, depth: usize) -> Judged<usize> {
        match self.at(pos) {
            b'"' => Ok(self.closing_quote(pos)? + 1),
            b'{' | b'[' => self.skip_brackets(pos, depth),
            first if WORD[first as usize] => {
                let mut end = pos + 1;
                while WORD[self.at(end) as usize] {
                    end += 1;
                }
                Ok(end)
            }
            _ => malformed(pos, "a value is missing"),
        }
    }

    fn skip_brackets(&self, open: usize, outer: usize) -> Judged<usize> {
        // The common case: nothing nests in it. One level more than a path's objects, at most 64, is within the bound.
        if let Some(close) = self.index.next_bracket(open + 1)
            && self.at(close) == self.at(open) + 2
        {
            return Ok(close + 1);
        }
        // The kinds of the open brackets, innermost in the lowest bit: 1 is curly.
        let mut kinds = 0u128;
        let mut depth = 0;
        let mut pos = open;
        loop {
            let bracket = self.at(pos);
            let curly = u128::from(bracket >> 5 & 1);
            if matches!(bracket, b'{' | b'[') {
                depth += 1;
                if outer + depth > MAX_DEPTH {
                    return malformed(pos, "objects and arrays nest more than 128 deep");
                }
                kinds = kinds << 1 | curly;
            } else {
                if kinds & 1 != curly {
                    return malformed(pos, "a bracket closes one of the other kind");
                }
                kinds >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Ok(pos + 1);
                }
            }
            pos = match self.index.next_bracket(pos + 1) {
                Some(next) => next,
                None => return malformed(open, "a bracket is not closed"),
            };
        }
    }

    /// Moves over `"key" :` and the white space around it: the key's content and where the value begins.
    #[inline]
    pub(super) fn key(&self, open: usize) -> Judged<(Text<'a>, usize)> {
        if self.at(open) != b'"' {
            return malformed(open, "a key is missing");
        }
        let close = self.closing_quote(open)?;
        let text = self.text(open, close)?;
        let colon = self.blank(close + 1);
        if self.at(colon) != b':' {
            return malformed(colon, "a colon is missing after a key");
        }
        Ok((text, self.blank(colon + 1)))
    }

    /// The content between two quotes.
    #[inline(always)]
    fn text(&self, open: usize, close: usize) -> Judged<Text<'a>> {
        let inner = &self.bytes[open + 1..close];
        if self.index.backslash || self.index.control { self.careful_text(inner, open) } else { Ok(Text::Plain(inner)) }
    }

    #[inline(never)]
    fn careful_text(&self, inner: &'a [u8], open: usize) -> Judged<Text<'a>> {
        if self.index.control && inner.iter().any(|&byte| byte < 0x20) {
            return malformed(open, "a string holds a control character");
        }
        if !self.index.backslash || memchr::memchr(b'\\', inner).is_none() {
            return Ok(Text::Plain(inner));
        }
        match each_character(inner, |_| {}) {
            Some(()) => Ok(Text::Escaped(inner)),
            None => malformed(open, "a string holds an escape that means nothing"),
        }
    }

    /// Holds the value at `start..end`, an extent that [`Payload::skip`] found, to the whole grammar.
    pub(super) fn check(&self, start: usize, end: usize) -> Judged {
        let mut kinds = 0u128;
        let mut depth = 0;
        let mut pos = start;
        'value: loop {
            match self.at(pos) {
                b'"' => {
                    let close = self.closing_quote(pos)?;
                    self.text(pos, close)?;
                    pos = close + 1;
                }
                open @ (b'{' | b'[') => {
                    let object = open == b'{';
                    let inside = self.blank(pos + 1);
                    if self.at(inside) == open + 2 {
                        pos = inside + 1;
                    } else {
                        kinds = kinds << 1 | u128::from(object);
                        depth += 1;
                        pos = if object { self.key(inside)?.1 } else { inside };
                        continue 'value;
                    }
                }
                _ => {
                    let word_end = self.skip(pos, 0)?;
                    if !is_word(&self.bytes[pos..word_end]) {
                        return malformed(pos, "this is no number, true, false or null");
                    }
                    pos = word_end;
                }
            }
            // A value has ended; so may the brackets around it.
            while depth > 0 {
                pos = self.blank(pos);
                let object = kinds & 1 == 1;
                match self.at(pos) {
                    b',' => {
                        pos = self.blank(pos + 1);
                        if object {
                            pos = self.key(pos)?.1;
                        }
                        continue 'value;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return malformed(pos, "a comma or a closing bracket is missing"),
                }
                kinds >>= 1;
                depth -= 1;
                pos += 1;
            }
            return if pos == end { Ok(()) } else { malformed(pos, "a value has something after it") };
        }
    }
}

impl<'a> Value<'a> {
    /// The value as it stands in the payload.
    #[inline(always)]
    pub(super) fn raw(&self) -> &'a [u8] {
        &self.payload.bytes[self.start..self.end]
    }

    /// Its first byte, which tells its kind.
    #[inline(always)]
    pub(super) fn first(&self) -> u8 {
        self.payload.at(self.start)
    }

    /// Whether it is `null`.
    #[inline(always)]
    pub(super) fn is_null(&self) -> bool {
        self.raw() == b"null"
    }

    /// Whether it is a string.
    #[inline(always)]
    pub(super) fn is_text(&self) -> bool {
        self.first() == b'"'
    }

    /// The content of a string.
    #[inline]
    pub(super) fn text(&self) -> Judged<Text<'a>> {
        self.payload.text(self.start, self.end - 1)
    }

    /// Holds it to the whole grammar.
    pub(super) fn check(&self) -> Judged {
        self.payload.check(self.start, self.end)
    }

    /// The fault of a value that isn't what its column expects: of grammar if it has one, else of type.
    #[cold]
    pub(super) fn misfit<T>(&self, expected: String) -> Judged<T> {
        self.check()?;
        Err(Box::new(super::fault::Fault::Misfit { start: self.start, end: self.end, expected }))
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
