//! The keys of all shapes in pieces of equal size, each once: few of them, close together, and comparing one takes no branch.

use std::collections::HashMap;

use super::super::value::Payload;

/// Keys are compared in pieces of so many bytes.
pub(super) const PIECE: usize = 32;

/// That a piece of a key stands somewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyPiece {
    /// The key's token.
    token: u32,
    /// How far behind its first byte the piece begins.
    behind: u16,
    /// Its number among [`Pieces`].
    piece: u16,
}

/// Pieces of keys with their quotes and colons, each once.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    all: Vec<Piece>,
    by_text: HashMap<[u8; PIECE], u16>,
}

/// Up to so many bytes.
#[derive(Debug)]
struct Piece {
    /// Zeros after the end.
    text: [u8; PIECE],
    /// All ones where there is text.
    mask: [u8; PIECE],
}

impl Pieces {
    /// Whether a payload has these pieces of keys where they are expected. No piece decides: most payloads have them all.
    #[inline(always)]
    pub(super) fn stand_in(&self, payload: &Payload<'_>, keys: &[KeyPiece]) -> bool {
        let mut differ = [0; PIECE];
        for key in keys {
            let place = payload.place(key.token as usize) + usize::from(key.behind);
            let piece = &self.all[usize::from(key.piece)];
            match payload.bytes.get(place..place + PIECE).and_then(<[u8]>::first_chunk) {
                Some(text) => piece.add_difference(text, &mut differ),
                None => piece.add_difference(&filled(payload.bytes.get(place..).unwrap_or_default()), &mut differ),
            }
        }
        differ == [0; PIECE]
    }

    /// The pieces of keys that begin at these tokens, with their quotes and colons; `None`: there is no more room.
    pub(super) fn of_keys(&mut self, payload: &Payload<'_>, tokens: &[usize]) -> Option<Vec<KeyPiece>> {
        let mut keys = vec![];
        for &token in tokens {
            for (number, text) in payload.text_of(token, token + 2).chunks(PIECE).enumerate() {
                keys.push(KeyPiece { token: token as u32, behind: u16::try_from(number * PIECE).ok()?, piece: self.number_of(text)? });
            }
        }
        Some(keys)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of a piece of text without zeros; `None`: there is no number left.
    fn number_of(&mut self, text: &[u8]) -> Option<u16> {
        let filled = filled(text);
        if let Some(&number) = self.by_text.get(&filled) {
            return Some(number);
        }
        let number = u16::try_from(self.all.len()).ok()?;
        self.all.push(Piece { text: filled, mask: std::array::from_fn(|at| if at < text.len() { 0xff } else { 0 }) });
        self.by_text.insert(filled, number);
        Some(number)
    }
}

impl Piece {
    /// Sets bits of `differ` where a text is not this one.
    #[allow(clippy::needless_range_loop, reason = "iterators over vectors are no single instructions")]
    #[inline(always)]
    fn add_difference(&self, text: &[u8; PIECE], differ: &mut [u8; PIECE]) {
        for at in 0..PIECE {
            differ[at] |= (text[at] ^ self.text[at]) & self.mask[at];
        }
    }
}

/// Some bytes with zeros behind them.
#[inline(never)]
fn filled(text: &[u8]) -> [u8; PIECE] {
    std::array::from_fn(|at| text.get(at).copied().unwrap_or_default())
}
