//! Whole records that look like one that was seen before: where their values are is known without a walk.
//!
//! What a walk finds depends on two things only: the kinds of the record's tokens, and the texts of the keys in the objects that it looks into. Both
//! make a record's *shape*. Shapes that come often are kept, each with what the walk found; a record that has one of them is recognised by comparing
//! all its kinds and all those keys, which takes a few vector operations and no branch a key. Whatever is not exactly as it was is walked.
//!
//! The numbers of tokens say where things are, so nothing here depends on how long values are, or on white space other than that between a key and its
//! colon, of which there must be none. What a value is worth is judged after, as ever. Keys with escapes, and objects with keys that have no bit (see [`super::order`]), are left to the walk.
//!
//! A shape is kept once it has come a few times, and where records hardly ever have one, few are looked at: a stream whose records all differ is not
//! held up.
//!
//! Safety: the only unsafe code calls the comparison that is compiled for AVX-512 after asking the processor for it.

mod kinds;
mod pieces;
#[cfg(test)]
mod tests;

use self::{
    kinds::{CHUNK, chunks_of, digest, same_kinds},
    pieces::{KeyPiece, Pieces},
};
use super::{
    path::{Outcome, Paths, Slot},
    scan::END,
    value::Payload,
};

/// Where this many paths are declared, what is kept would be mostly slots.
const MOST_SLOTS: usize = 1024;
/// Longer keys, with their quotes and the colon, have no bit either.
const LONGEST: usize = 64;
/// So many pieces are kept; when there are more, all is forgotten.
const MOST_PIECES: usize = 2048;

/// Shapes whose digests end alike share a set of so many places,
const WAYS: usize = 4;
/// and there are so many sets.
const SETS: usize = 128;
/// So many digests of records that had no shape are remembered.
const SEEN: usize = 1024;
/// Keeping a shape costs as much as some walks: it must have come so often.
const OFTEN: u32 = 4;

/// A record that has a shape makes up for so many that have none.
const WORTH: u32 = 16;
/// After so many more without one,
const PATIENCE: u32 = 4096;
/// only one record of so many is looked at.
const PAUSE: u32 = 16;

/// The shapes that came often.
#[derive(Debug)]
pub(super) struct Shapes {
    /// The digests of those in each set, and 0 where there is none.
    sets: Vec<[u64; WAYS]>,
    /// The shapes, set by set.
    shapes: Vec<Shape>,
    pieces: Pieces,
    /// Digests of records that had no shape, each in the place that it says, and how often it came.
    seen: Vec<(u64, u32)>,
    /// How many more records without a shape are put up with.
    patience: u32,
    /// How many records were passed over since.
    passed_over: u32,
}

/// What records of one shape have in common.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The kinds of all tokens, with [`END`] behind them.
    kinds: Vec<[u8; CHUNK]>,
    /// The keys, piece by piece.
    keys: Vec<KeyPiece>,
    /// What the walk found.
    outcome: Outcome,
    slots: Vec<Slot>,
    /// How many tokens there are.
    count: usize,
    /// How often it came lately.
    uses: u32,
}

impl Default for Shapes {
    fn default() -> Self {
        Self { sets: vec![], shapes: vec![], pieces: Pieces::default(), seen: vec![], patience: PATIENCE, passed_over: 0 }
    }
}

impl Shape {
    /// What the walk found beside the values.
    #[inline(always)]
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Where the values are.
    #[inline(always)]
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// One past the object's last token.
    #[inline(always)]
    pub(super) fn past(&self) -> usize {
        self.count
    }
}

impl Shapes {
    /// The shape of a payload, or its digest; 0 where it can't have one.
    #[inline]
    pub(super) fn find(&mut self, payload: &Payload<'_>) -> Result<&Shape, u64> {
        if self.patience == 0 {
            self.passed_over += 1;
            if self.passed_over < PAUSE {
                return Err(0);
            }
            self.passed_over = 0;
        }
        #[cfg(target_arch = "x86_64")]
        if super::same::is_wide() {
            // SAFETY: the processor has what the function needs.
            return unsafe { self.find_wide(payload) };
        }
        self.find_with(payload)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
    fn find_wide(&mut self, payload: &Payload<'_>) -> Result<&Shape, u64> {
        self.find_with(payload)
    }

    #[inline(always)]
    fn find_with(&mut self, payload: &Payload<'_>) -> Result<&Shape, u64> {
        let Some(kinds) = chunks_of(payload) else { return Err(0) };
        let digest = digest(kinds);
        let set = digest as usize % SETS;
        if let Some(digests) = self.sets.get(set) {
            for (way, &kept) in digests.iter().enumerate() {
                if kept == digest {
                    let place = set * WAYS + way;
                    let shape = &self.shapes[place];
                    if same_kinds(&shape.kinds, kinds) && self.pieces.stand_in(payload, &shape.keys) {
                        let shape = &mut self.shapes[place];
                        shape.uses = shape.uses.saturating_add(1);
                        self.patience = (self.patience + WORTH).min(PATIENCE);
                        return Ok(shape);
                    }
                }
            }
        }
        self.patience = self.patience.saturating_sub(1);
        Err(digest)
    }

    /// Keeps the shape of a payload that is one object, which was just walked, if it is time to. The digest is what [`Shapes::find`] gave.
    #[inline]
    pub(super) fn learn(&mut self, digest: u64, payload: &Payload<'_>, paths: &Paths, slots: &[Slot]) {
        if self.seen.is_empty() {
            self.seen.resize(SEEN, (0, 0));
        }
        let (seen, times) = &mut self.seen[(digest >> 32) as usize % SEEN];
        if *seen != digest {
            (*seen, *times) = (digest, 0);
        }
        *times = times.saturating_add(1);
        // One that is not kept for good, since it is odd or one of many with the same kinds, is tried less and less often.
        if *times >= OFTEN && times.is_power_of_two() {
            self.keep(digest, payload, paths, slots);
        }
    }

    #[cold]
    fn keep(&mut self, digest: u64, payload: &Payload<'_>, paths: &Paths, slots: &[Slot]) {
        let Some(kinds) = chunks_of(payload) else { return };
        let mut tokens = vec![];
        let Some(count) = paths.plain_keys(payload, &mut tokens) else { return };
        let length = |&token: &usize| payload.text_of(token, token + 2).len();
        if payload.kind(count) != END || slots.len() > MOST_SLOTS || tokens.iter().map(length).max() > Some(LONGEST) {
            return;
        }
        if self.pieces.len() > MOST_PIECES || self.sets.is_empty() {
            (self.pieces, self.sets) = (Pieces::default(), vec![[0; WAYS]; SETS]);
            self.shapes.clear();
            self.shapes.resize_with(SETS * WAYS, Shape::default);
        }
        let Some(keys) = self.pieces.of_keys(payload, &tokens) else { return };
        let set = digest as usize % SETS;
        let ways = &mut self.shapes[set * WAYS..][..WAYS];
        // The one that came least lately makes room, if there is none.
        let Some((way, least)) = ways.iter_mut().enumerate().min_by_key(|(_, shape)| shape.uses) else { return };
        self.sets[set][way] = digest;
        *least = Shape { kinds: kinds.to_vec(), keys, outcome: paths.outcome().clone(), slots: slots.to_vec(), count, uses: 1 };
        ways.iter_mut().for_each(|shape| shape.uses = shape.uses.div_ceil(2));
    }
}
